"""Comparison on several stores: ranks, reports, failures, resuming, and protection of the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import carat
from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter
from carat.studies.leaderboard.comparison import compare
from carat.studies.leaderboard.leaderboards import Leaderboards, rank_methods
from carat.studies.leaderboard.result import Leaderboard
from carat.studies.leaderboard.several_stores import name_stores
from carat.utils.errors import ConfigError, RunError
from carat.utils.locking import lock
from carat.utils.parallel import local
from tests.conftest import serially

SPLITS = ("train", "train", "valid", "test")
METHODS = ["br", "prior", "cc"]
HOSTILE = "a/../b <b>|$x$"


def write_store(folder: Path, name: str, labels: list[str], modality: str, seed: int) -> Store:
    """Write a store of 52 samples whose features show its labels, more or less."""
    rng = np.random.default_rng(seed)
    with StoreWriter(folder, name, labels, {modality: "x"}, ["train", "valid", "test"]) as writer:
        for i in range(52):
            present = rng.random(len(labels)) < 0.5
            noise = rng.normal(size=(3, 5), scale=2.0)
            noise[:, : len(labels)] += present
            writer.append(f"s{i}", SPLITS[i % 4], present.astype(int), {modality: noise})
    return open_store(folder)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    """Five stores with two names, two sets of labels and two modalities."""
    folder = tmp_path_factory.mktemp("stores")
    return [
        write_store(folder / f"s{i}", *kind, seed=i)
        for i, kind in enumerate(
            [("faces", ["joy", "fear"], "face"), (HOSTILE, ["joy", "calm", "sad"], "text")] * 2
            + [("faces", ["joy", "fear"], "face")]
        )
    ]


def run_compare(stores: list[Store], out: Path, **changes: Any) -> Leaderboards:
    boards = compare([x.folder for x in stores], out, **{"methods": METHODS, "seeds": 1} | changes)
    assert isinstance(boards, Leaderboards)
    return boards


@pytest.fixture(scope="module")
def made(
    stores: list[Store], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Leaderboards, list[Any]]:
    """A finished comparison and its training runs; tests must not change it."""
    out, jobs = tmp_path_factory.mktemp("several") / "out", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run_tasks", serially(jobs))
        return out, run_compare(stores, out), jobs


def test_ranks_are_those_of_the_leaderboards(made: tuple[Path, Leaderboards, list[Any]]) -> None:
    _, boards, _ = made
    assert list(boards.by_store) == ["faces", HOSTILE, "faces 2", f"{HOSTILE} 2", "faces 3"]
    assert list(boards.ranks) == list(boards.by_store)
    for store, board in boards.by_store.items():
        scores = {x.method: x.mean("micro_f1") for x in board}
        for method, score in scores.items():
            better = sum(x > score for x in scores.values())
            equal = sum(x == score for x in scores.values())
            assert boards.ranks[store][method] == better + (equal + 1) / 2
            assert boards.values(store, method) == next(x for x in board if x.method == method).values(
                "micro_f1"
            )
    for method, mean in boards.mean_ranks.items():
        assert mean == pytest.approx(np.mean([ranks[method] for ranks in boards.ranks.values()]))
    assert list(boards.mean_ranks.values()) == sorted(boards.mean_ranks.values())
    assert boards.test is not None
    assert boards.test.critical_difference == pytest.approx(2.343 * (3 * 4 / 30) ** 0.5, abs=1e-3)
    assert boards.notes == []


def test_reports(made: tuple[Path, Leaderboards, list[Any]], stores: list[Store]) -> None:
    out, boards, _ = made
    text = (out / "comparison.md").read_text()
    assert text.startswith("# Comparison on 5 stores\n")
    assert "Friedman test over 5 stores and 3 methods" in " ".join(text.split())
    assert "which is rough for 10 stores or fewer" in " ".join(text.split())
    assert "a/../b \\<b>\\|$x$" in text
    content = json.loads((out / "comparison.json").read_text())
    assert [x["method"] for x in content["methods"]] == list(boards.mean_ranks)
    assert content["methods"][0]["values"]["faces 2"] == boards.values("faces 2", boards.methods[0])
    assert [x["fingerprint"] for x in content["stores"]] == [x.manifest.fingerprint for x in stores]
    for x in content["stores"]:
        assert (out / x["folder"] / "leaderboard.html").is_file()
        assert (out / x["folder"]).parent == out / "stores"
    page = (out / "comparison.html").read_text()
    assert "<b>" not in page
    assert page.count(">leaderboard</a>") == 5
    assert "<svg" in page
    assert (out / "mean_ranks.svg").is_file()


def test_frame_and_notebook(made: tuple[Path, Leaderboards, list[Any]]) -> None:
    pytest.importorskip("pandas")
    _, boards, _ = made
    frame = boards.to_frame().set_index(["store", "method"])
    assert len(frame) == 15
    row = frame.loc[("faces 2", "br")]
    assert row["micro_f1"] == pytest.approx(np.mean(boards.values("faces 2", "br")))
    assert row["rank"] == boards.ranks["faces 2"]["br"]
    assert row["mean_rank"] == boards.mean_ranks["br"]
    page = boards._repr_html_()
    assert "<b>" not in page
    assert page.count("<tr>") == 4
    assert repr(boards).startswith("Leaderboards(5 stores, mean ranks: ")


@pytest.mark.slow
def test_each_leaderboard_is_that_of_the_store_alone(
    in_this_process: list[Any],
    made: tuple[Path, Leaderboards, list[Any]],
    stores: list[Store],
    tmp_path: Path,
) -> None:
    out, boards, _ = made
    alone = carat.compare([stores[2]], tmp_path / "alone", methods=METHODS, seeds=1)
    assert isinstance(alone, Leaderboard)
    for name in ("leaderboard.md", "leaderboard.csv"):
        texts = [
            (x / name).read_text().split("## Costs")[0] for x in (tmp_path / "alone", out / "stores/faces-2")
        ]
        assert texts[0] == texts[1]
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {
        path.name for path in (out / "stores/faces-2").iterdir()
    }
    assert [x.values("macro_f1") for x in alone] == [x.values("macro_f1") for x in boards.by_store["faces 2"]]


@pytest.mark.slow
def test_another_metric_and_more_stores_reuse_what_is_trained(
    in_this_process: list[Any], stores: list[Store], tmp_path: Path
) -> None:
    out, two = tmp_path / "out", ["br", "prior"]
    first = run_compare(stores[:1] + stores[2:3], out, methods=two)
    assert "needs at least 3 methods, and 2 can be ranked" in first.conclusion()
    assert first.test is None
    assert first.groups == []
    assert len(in_this_process) == 4
    other = run_compare(stores[:1] + stores[2:3], out, methods=two, metric="macro_f1")
    by_method = {x.method: x for x in first.by_store["faces"]}
    assert other.values("faces", "br") == by_method["br"].values("macro_f1")
    assert len(in_this_process) == 4
    assert "Test macro-F1" in (out / "comparison.md").read_text()
    given = [stores[0], stores[2], stores[4]]
    more = run_compare(given, out, methods=two)
    assert len(in_this_process) == 6
    assert len(more.ranks) == 3
    message = "holds a comparison of several stores with another stores.faces 3 already"
    with pytest.raises(RunError, match=message):
        run_compare(given[:2], out, methods=two)
    with pytest.raises(RunError, match="with another budget already; --overwrite replaces it"):
        run_compare(given, out, methods=two, budget=2)
    with pytest.raises(RunError, match="exists and is not a carat comparison"):
        compare(stores[0], out, methods=two)
    run_compare(given[:2], out, methods=["prior"], overwrite=True)
    assert len(in_this_process) == 8
    assert not (out / "stores" / "faces-3").exists()


@pytest.mark.slow
def test_an_interrupted_comparison_resumes_to_the_same_report(
    in_this_process: list[Any], stores: list[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("comparison.md", "comparison.json", "comparison.html", "mean_ranks.svg")
    given = {"methods": ["br", "prior"], "seeds": 2}
    run_compare(stores[:2], tmp_path / "whole", **given)
    whole = {name: (tmp_path / "whole" / name).read_bytes() for name in names}
    assert len(in_this_process) == 8
    run_tasks = local.run_tasks

    def stopping(*arguments: Any, **options: Any) -> Any:
        for result in run_tasks(*arguments, **options):
            yield result
            if len(in_this_process) == 14:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(local, "run_tasks", stopping)
        with pytest.raises(KeyboardInterrupt, match="rerun the same command to resume"):
            run_compare(stores[:2], tmp_path / "out", **given)
    assert not (tmp_path / "out" / "comparison.md").exists()
    for _ in range(2):
        run_compare(stores[:2], tmp_path / "out", **given)
        assert len(in_this_process) == 16
        assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == whole


@pytest.mark.slow
def test_a_method_that_fails_on_a_store_is_not_ranked(
    in_this_process: list[Any], stores: list[Store], tmp_path: Path
) -> None:
    """Label powerset cannot learn from a store whose samples all have an unknown label."""
    with StoreWriter(
        tmp_path / "s", "gaps", ["joy", "fear"], {"x": "x"}, ["train", "valid", "test"]
    ) as writer:
        for i in range(40):
            labels = [i % 2, None] if i % 8 < 4 else [None, (i + 1) % 2]
            writer.append(f"s{i}", SPLITS[i % 4], labels, {"x": np.full((1, 2), i % 2 + i / 100)})
    gaps = open_store(tmp_path / "s")
    boards = run_compare([gaps, *stores[:2]], tmp_path / "out", methods=["lp", "br", "prior"], seeds=1)
    assert set(boards.mean_ranks) == {"br", "prior"}
    assert len(boards.ranks) == 3
    assert boards.values("gaps", "lp") == []
    assert len(boards.by_store["faces"]) == 3
    assert boards.notes[0].startswith("lp is not ranked: it failed on store gaps: label powerset (lp) needs")
    assert "needs at least 3 methods, and 2 can be ranked" in boards.conclusion()
    text = " ".join((tmp_path / "out" / "comparison.md").read_text().split())
    assert "| lp | | failed | " in text
    assert boards.notes[0] in text
    own = " ".join((tmp_path / "out/stores/gaps/leaderboard.md").read_text().split())
    assert "Left out: lp, label powerset (lp) needs" in own
    assert "| lp |" not in own
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["test"] is None
    assert list(next(x for x in content["methods"] if x["method"] == "lp")["failed"]) == ["gaps"]
    trained = len(in_this_process)
    run_compare([gaps, *stores[:2]], tmp_path / "out", methods=["lp", "br", "prior"], seeds=1)
    assert [x.name for x in in_this_process[trained:]] == ["lp/trial0"]  # tried again


@pytest.mark.slow
def test_a_store_on_which_every_method_fails_is_not_ranked(
    in_this_process: list[Any], stores: list[Store], tmp_path: Path
) -> None:
    settings = {"all": {"data": {"modalities": ["face"]}}}
    boards = run_compare(stores[:3], tmp_path / "out", settings=settings, methods=["br", "prior"])
    assert list(boards.ranks) == ["faces", "faces 2"]
    assert set(boards.mean_ranks) == {"br", "prior"}
    assert boards.notes[0].startswith(f"store {HOSTILE} is not ranked: every method failed, the first one: ")
    assert "<b>" not in boards._repr_html_()
    assert not list((tmp_path / "out").glob("stores/a*/leaderboard.md"))
    with pytest.raises(RunError, match=r"every method failed on every store; store .* is not ranked"):
        run_compare([stores[1], stores[3]], tmp_path / "other", settings=settings, methods=["br", "prior"])


def test_undefined_metrics_and_single_methods_are_not_ranked(
    made: tuple[Path, Leaderboards, list[Any]],
) -> None:
    class Undefined:
        method = "br"

        def mean(self, metric: str) -> float:
            return float("nan")

    given: Any = {**made[1].by_store, "odd": [Undefined()]}
    boards = rank_methods(given, {store: {} for store in given}, "macro_f1")
    assert boards.notes == ["store odd is not ranked: its macro-F1 is undefined"]
    assert len(boards.ranks) == 5
    single: Any = {
        s: Leaderboard(x for x in board if x.method == "br") for s, board in made[1].by_store.items()
    }
    boards = rank_methods(single, {store: {} for store in single}, "micro_f1")
    assert boards.mean_ranks == {"br": 1.0}
    assert "needs at least 3 methods, and 1 can be ranked" in boards.conclusion()


def test_what_is_refused(stores: list[Store], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"holds the same data as .*; give every store once"):
        compare([stores[0], stores[1], stores[0].folder], out)
    with pytest.raises(ConfigError, match=r"cannot be ranked by 'macro_f'; did you mean 'macro_f1'\?"):
        compare(stores, out, metric="macro_f")
    with pytest.raises(ConfigError, match="--metric: ranks methods over several stores, and there is one"):
        compare(stores[0], out, metric="macro_f1")
    with pytest.raises(ConfigError, match="at least one store"):
        compare([], out)
    assert not out.exists()
    out.mkdir()
    with lock(out), pytest.raises(RunError, match="in use"):
        run_compare(stores, out)


def test_names_are_unique_in_any_case(stores: list[Store], tmp_path: Path) -> None:
    other = write_store(tmp_path / "x", "Faces", ["joy"], "face", 9)
    long = write_store(tmp_path / "y", "ü" * 300 + "...", ["joy"], "face", 10)
    named = name_stores([stores[0], other, stores[1], stores[3], long])
    assert [x.name for x in named[:2]] == ["faces", "Faces 2"]
    assert [x.folder for x in named[:4]] == [
        "stores/faces",
        "stores/Faces-2",
        "stores/a-..-b-b-x",
        "stores/a-..-b-b-x-2",
    ]
    assert named[4].folder == "stores/" + "ü" * 60


def test_command_line(run: Any, in_this_process: list[Any], stores: list[Store], tmp_path: Path) -> None:
    folders = [x.folder for x in stores[:2]]
    options = ["--out", tmp_path / "o", "--methods", "br", "prior", "--seeds", "1"]
    code, out, err = run("compare", "--data", *folders, *options, "--metric", "macro_f1")
    assert code == 0, err
    assert out.startswith("# Comparison on 2 stores")
    assert "Mean ranks only, without a test" in out
    assert "store 2 of 2: a/../b" in err
    assert "comparison.html" in err
    assert len(in_this_process) == 4
    assert run("compare", "--data", folders[0], *options, "--metric", "macro_f1")[0] == 2
