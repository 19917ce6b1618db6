# make demo: train and evaluate on the built-in benchmark. make test: everything that CI checks.
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
	@rm -rf demo
	$(BIN)/carat data synth demo/store
	$(BIN)/carat train --preset small --data demo/store --out demo/run
	$(BIN)/carat evaluate demo/run --data demo/store
	$(BIN)/carat predict demo/run --data demo/store --split test --out demo/scores.csv
	@echo "training curves: demo/run/curves.svg"

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
