# make demo: emotions in a sentence, then a model trained on the built-in benchmark. make test: everything that CI checks.
# make docs: the documentation site, in site/index.html. make format: format and fix.
PYTHON ?= python3
BIN := .venv/bin
export CARAT_SHARED ?= $(abspath ../shared)

.PHONY: demo test test-slow docs format clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "carat needs Python 3.11 or newer; make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/ready
	@$(BIN)/python examples/demo.py

test: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 -m "not slow"

test-slow: .venv/ready
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,ray]'
	$(BIN)/pytest -m slow

docs: .venv/ready
	$(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv demo site
