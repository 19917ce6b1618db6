"""Commands and code of the documentation and the examples run; the site builds and loads nothing external.

The blocks of a page are executed from top to bottom in a folder of its own: a block with a title is written
to that file, `sh` blocks run their `carat` and `python` lines, `python` blocks run as they are. Samples,
epochs and trials are reduced. The fast test of a page ends before its first command that takes minutes, the
slow one does all.
"""

from __future__ import annotations

import csv
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import carat
from carat.config.experiment import load_experiment
from carat.config.methods import METHODS
from carat.data.store import open_store
from carat.data.synthetic import make_synthetic
from carat.features.models import is_missing
from carat.inference.loading import load
from carat.runs.official_weights import QUEUE_CLASSES, QUEUE_POINTER, weight_mappings
from carat.training.train import train
from tests.code_blocks import ROOT, Block, blocks, name_of
from tests.data import field_files
from tests.features.fakes import use_fakes, write_clips
from tests.models.encoders.folders import make_text_encoder, write_table

DOCS = ROOT / "docs"
PAGES = [
    DOCS / "start.md",
    *sorted((DOCS / "tutorials").glob("*.md")),
    *sorted((DOCS / "how-to").glob("*.md")),
    DOCS / "reference" / "api" / "index.md",
]
LONG = {"ablate", "compare", "sweep", "explain", "export", "--devices"}
"""Words of commands that take minutes."""
EPOCHS, SAMPLES, TRIALS = "1", "160", "3"

Run = Callable[..., tuple[int, str, str]]


def steps(page: Path) -> list[Block | str]:
    """What is done for a page, in order: files and code as blocks, commands as they are."""
    found: list[Block | str] = []
    for block in blocks(page):
        if block.title or block.language == "python":
            found.append(block)
        elif block.language == "sh":
            found += [x for x in block.commands() if x.startswith(("carat ", "python "))]
    return found


def is_long(step: Block | str) -> bool:
    """Whether a step is a command that takes minutes."""
    return isinstance(step, str) and bool(LONG & set(step.split()))


def fast_steps(page: Path) -> list[Block | str]:
    """The steps before the first long one."""
    return list(takewhile(lambda step: not is_long(step), steps(page)))


def does_something(found: list[Block | str]) -> bool:
    """Whether there are commands or code among the steps."""
    return any(isinstance(step, str) or not step.title for step in found)


def parameters(pages: Iterable[Path]) -> list[Any]:
    """Pages as parameters of a test."""
    return [
        pytest.param(page, id=name_of(page), marks=pytest.mark.slow if page.name in LONG_PAGES else [])
        for page in pages
    ]


LONG_PAGES = (
    *("own_features.md", "add_a_method.md", "own_text.md", "reproduce.md"),
    *("calibration.md", "ensembles.md", "pretraining.md", "rare_labels.md"),
)
"""Pages that take more than ten seconds."""
FAST = [page for page in PAGES if does_something(fast_steps(page))]
SLOW = [page for page in PAGES if any(map(is_long, steps(page)))]


def shortened(words: list[str]) -> list[str]:
    """A command line with fewer samples, epochs and trials."""
    reduced = {
        "synth": {"--samples": SAMPLES},
        "train": {"--training.epochs": EPOCHS},
        "compare": {"--training.epochs": EPOCHS},
        "ablate": {"--training.epochs": EPOCHS, "--seeds": "1"},
        "sweep": {"--training.epochs": EPOCHS, "--trials": TRIALS},
    }
    for option, value in next((reduced[word] for word in words if word in reduced), {}).items():
        if option in words and "--resume" in words:  # extends a run that was shortened
            words[words.index(option) + 1] = str(int(value) + 1)
        elif option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    return words


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `demo-store` and `demo-run`."""
    folder = tmp_path_factory.mktemp("demo")
    store = make_synthetic(folder / "demo-store", samples=int(SAMPLES))
    train(load_experiment(preset="small", overrides={"training": {"epochs": 1}}), store, folder / "demo-run")
    return folder


@pytest.fixture
def execute(
    demo: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Path, list[Block | str]], None]]:
    """Executes steps of a page in a folder that has what its reader has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CARAT_TEXT_ENCODER", str(make_text_encoder(tmp_path / "encoder")))
    write_table(tmp_path / "texts.csv")
    write_calls(tmp_path / "calls.csv")
    (tmp_path / "lines.txt").write_text("so glad\nsuch tears\n")
    field_files.aligned(tmp_path / "train_valid_test.pt")

    def execute_all(page: Path, todo: list[Block | str]) -> None:
        if page.name == "clips.md":
            write_clips(tmp_path)
            use_fakes(monkeypatch, tmp_path)
        address = servers.enter_context(serve_here(demo)) if page.name == "serve.md" else ""
        if "carat data synth demo-store" not in todo:
            for name in ("demo-store", "demo-run"):
                shutil.copytree(demo / name, tmp_path / name)
        names: dict[str, Any] = {"carat": carat, "store": open_store(demo / "demo-store")}
        for step in todo:
            if isinstance(step, str):
                execute_command(run, step)
            elif step.title:
                Path(step.title).write_text(step.text)
                if step.title == "pyproject.toml":
                    install(tmp_path, step.text)
            else:
                code = re.sub(r'"epochs": \d+', f'"epochs": {EPOCHS}', step.text)
                code = code.replace("http://127.0.0.1:8000", address)
                exec(compile(code, name_of(page), "exec"), names)

    with ExitStack() as servers:
        yield execute_all
    sys.modules.pop("gated", None)  # the method that a tutorial registers
    METHODS.pop("gated", None)


@contextmanager
def serve_here(folder: Path) -> Iterator[str]:
    """Serve `demo-run` in a thread; yields the address."""
    for package in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        pytest.importorskip(package)
    import uvicorn

    from carat.serve.server import create_app
    from carat.serve.settings import Settings

    (folder / "workspace").mkdir(exist_ok=True)
    app = create_app({"demo-run": str(folder / "demo-run")}, Settings(), folder / "workspace")
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()  # connections wait until the server is up
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def execute_command(run: Run, command: str) -> None:
    """Run a line of a shell block, shortened."""
    words = shlex.split(os.path.expandvars(command), comments=True)
    if words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
        return
    if "ray" in words and find_spec("ray") is None:
        return
    if "english-text" in words and is_missing("all-minilm-l6-v2"):
        return
    if words[1] == "convert":
        write_released_weights(Path("official-run"), Path(words[2]))
    code, _, err = run(*shortened(words[1:]))
    allowed = (0, 1) if words[1:3] == ["data", "check"] else (0,)  # 1: something was found
    assert code in allowed, f"{command}: {err}"


def write_calls(file: Path) -> None:
    """Dialogues of three turns, the sentences of `write_table`."""
    write_table(file.with_name("utterances.csv"), samples=360)
    with file.with_name("utterances.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["id", "call", "turn", "fold", "utterance", "happy", "sad", "anger"])
        writer.writeheader()
        for i, row in enumerate(rows):
            fold = ("train", "train", "valid", "test")[i // 3 % 4]
            columns = ("id", "utterance", "happy", "sad", "anger")
            place = {"call": f"c{i // 3}", "turn": i % 3, "fold": fold}
            writer.writerow(place | {name: row[name] for name in columns})


def write_released_weights(official: Path, file: Path) -> None:
    """The weights of a run of preset `official`, under the names of the released code."""
    model: Any = load(official).model
    own = model.state_dict()
    state = {x.released: x.view(own).contiguous() for x in weight_mappings(model)}
    size = model.config.contrast.queue
    state |= {QUEUE_CLASSES: torch.randn(size, 1), QUEUE_POINTER: torch.tensor([0])}
    torch.save(state, file)


def install(folder: Path, project: str) -> None:
    """What `pip install .` leaves of a package's entry points."""
    import tomllib

    described = tomllib.loads(project)["project"]
    metadata = folder / f"{described['name'].replace('-', '_')}-{described['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: 0.1.0\n")
    lines = [
        line
        for group, points in described["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.usefixtures("in_this_process")  # without worker processes
@pytest.mark.parametrize("page", parameters(FAST))
def test_page_runs(page: Path, execute: Callable[[Path, list[Block | str]], None]) -> None:
    execute(page, fast_steps(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", parameters(SLOW))
def test_page_runs_with_its_long_commands(
    page: Path, execute: Callable[[Path, list[Block | str]], None]
) -> None:
    execute(page, steps(page))


def test_every_tutorial_and_how_to_is_run() -> None:
    without_commands = {DOCS / "how-to" / "speed.md"}
    assert {*FAST, *SLOW} == set(PAGES) - without_commands


EXAMPLES = {
    "own_table.py": "test micro-F1 0.",
    "finetune_text.py": "so glad → {'happy'",
    "compare_methods.py": "best on the test split: br",
    "explain_run.py": "contributions.svg",
}
"""Something that each prints."""


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow if x == "explain_run.py" else []) for x in EXAMPLES]
)
def test_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [] if name == "finetune_text.py" else [str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert EXAMPLES[name] in capsys.readouterr().out


def test_examples_are_listed() -> None:
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").iterdir():
        assert path.name in (*("README.md", "__pycache__"),) or f"`{path.name}" in listed, path.name


def test_figures_are_as_their_scripts_draw_them() -> None:
    architecture = runpy.run_path(str(DOCS / "figures" / "architecture.py"))
    assert (DOCS / "figures" / "architecture.svg").read_text(encoding="utf-8") == architecture["draw"]()
    for figure in (DOCS / "figures").glob("*.svg"):
        assert figure.stat().st_size < 200_000
        ElementTree.parse(figure)


@pytest.mark.slow
def test_an_explained_prediction_is_drawn(tmp_path: Path) -> None:
    store = make_synthetic(tmp_path / "store")
    train(load_experiment(preset="small"), store, tmp_path / "run")
    script = runpy.run_path(str(DOCS / "figures" / "explained_prediction.py"))
    script["draw"](tmp_path / "run", tmp_path / "store", tmp_path / "figure.svg")
    ElementTree.parse(tmp_path / "figure.svg")


def test_the_api_reference_has_every_public_name() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference" / "api").glob("*.md"))
    documented = re.findall(r"^::: carat\.(\w+)$", text, flags=re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(carat.__all__) - {"__version__"} <= set(documented)


def test_the_api_reference_has_public_names_only() -> None:
    for page in (DOCS / "reference" / "api").glob("*.md"):
        for name in re.findall(r"^::: carat\.(\S+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            assert name in carat.__all__, f"{name_of(page)}: {name}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a broken link, anchor or reference fails."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        if find_spec(package) is None:
            pytest.skip(f"the site needs {package}: pip install 'carat-emotion[docs]'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


RESOURCE = re.compile(
    r"<(?:script|img|iframe|source|link(?![^>]*rel=\"?(?:canonical|next|prev)))\b[^>]*?"
    r"(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)"
)


def test_the_site_builds_and_loads_nothing_from_outside(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not RESOURCE.findall(html), page
        assert 'class="mermaid"' not in html  # the theme would fetch a script for it
        assert 'data-md-component="source"' not in html  # and numbers of the repository
    for sheet in site.rglob("*.css"):
        assert not re.search(
            r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")
        ), sheet


def test_the_site_has_commands_results_and_changelog(site: Path) -> None:
    expected = {
        "reference/cli.html": "--training.epochs",
        "reference/api/training.html": "Raises",
        "results/mosei_text.html": "208 minutes",
        "results/ablation_synthetic/ablation.html": "ablation.svg",
        "changelog.html": "carat-emotion",
        "contributing.html": "make test",
    }
    for page, text in expected.items():
        assert text in (site / page).read_text(encoding="utf-8"), page


def test_links_that_leave_the_docs_are_rewritten() -> None:
    rewrite = runpy.run_path(str(DOCS / "hooks.py"))["rewrite_links"] if find_spec("mkdocs") else None
    if rewrite is None:
        pytest.skip("needs mkdocs")
    page = "docs/how-to/export.md", "how-to/export.md"
    assert rewrite("[a](../concepts/method.md#x)", *page) == "[a](../concepts/method.md#x)"
    assert rewrite("[a](../../results/mosei_text.md)", *page) == "[a](../results/mosei_text.md)"
    assert rewrite("[a](../../recipes/r.yaml)", *page).endswith("/carat/blob/main/recipes/r.yaml)")
    assert rewrite("[a](#here) [b](https://x.org/y)", *page) == "[a](#here) [b](https://x.org/y)"
    assert rewrite("```\n[a](../../x.md)\n```", *page) == "```\n[a](../../x.md)\n```"
    remarks = "results/leaderboard.md", "results/leaderboard.md"
    assert rewrite("[a](../docs/concepts/method.md)", *remarks) == "[a](../concepts/method.md)"
