"""Leaderboard: results, files, tuning, missing modalities, and resuming."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import carat
from carat.config.experiment import load_experiment
from carat.config.methods import METHODS as REGISTERED
from carat.data.store import Store
from carat.data.synthetic import make_synthetic
from carat.evaluation.bootstrap import holm, paired_test
from carat.evaluation.metrics import compute_metrics
from carat.evaluation.thresholds import apply_thresholds, search_thresholds
from carat.runs.card import read_run
from carat.studies.leaderboard.comparison import choose_methods, compare, experiments_of
from carat.studies.leaderboard.evaluation import BASE, MethodResult
from carat.studies.leaderboard.missing_modalities import DROP_PROBABILITIES, conditions, subsets
from carat.studies.leaderboard.result import Leaderboard
from carat.studies.leaderboard.tuning import LEARNING_RATE_FACTOR, open_study, search_space
from carat.utils.errors import ConfigError, RunError
from carat.utils.parallel import local
from tests.conftest import TINY, serially

SETTINGS: dict[str, Any] = {
    "all": {"data": TINY["data"], "training": TINY["training"] | {"epochs": 1}},  # type: ignore[operator]
    "carat": {"method": TINY["method"]},
}
METHODS = ["br", "prior", "carat"]


def run_compare(store: Store, out: Path, **changes: Any) -> list[MethodResult]:
    given: dict[str, Any] = {"methods": METHODS, "settings": SETTINGS, "seeds": 2, "budget": 2} | changes
    return compare(store.folder, out, **given)


@pytest.fixture(scope="module")
def made(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[MethodResult]]:
    """A finished comparison; tests must not change it."""
    out = tmp_path_factory.mktemp("compare") / "board"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run_tasks", serially([]))
        return out, run_compare(store, out)


def test_results_equal_those_of_the_runs(made: tuple[Path, list[MethodResult]], store: Store) -> None:
    out, results = made
    assert sorted(x.method for x in results) == sorted(METHODS)
    scores = [x.mean("micro_f1") for x in results]
    assert scores == sorted(scores, reverse=True)
    truth, predicted = np.asarray(store.labels), {}
    for result in results:
        number = max(range(2), key=lambda k: _validation(out, result.method, k))
        assert result.seeds == [0, 1]
        predictions = []
        for i, seed in enumerate(result.seeds):
            folder = out / "runs" / result.method / f"trial{number}" / f"seed{seed}"
            predictor = carat.load(folder, calibrated=False)
            report = predictor.evaluate(store)
            assert result.values("micro_f1")[i] == report.metrics.micro_f1
            assert result.values("rarest_f1")[i] == report.metrics.labels[result.rarest].f1
            rows, scored, _ = predictor.score(store, "test")
            predictions.append(apply_thresholds(scored, np.array(list(report.thresholds.values()))))
            valid, valid_scores, _ = predictor.score(store, "valid")
            thresholds = search_thresholds(valid_scores, truth[valid], "per-label")
            again = compute_metrics(scored, scored > thresholds, truth[rows], store.label_names)
            assert result.values("macro_f1", per_label=True)[i] == again.macro_f1
        predicted[result.method] = np.stack(predictions)
    rows = carat.load(out / "runs/prior/trial0/seed0").score(store, "test")[0]
    others = [x for x in results if x.method != BASE]
    tests = [
        paired_test(
            predicted[x.method], predicted[BASE], truth[rows], store.groups[rows], "macro_f1", over_seeds=True
        )
        for x in others
    ]
    for result, test, p in zip(others, tests, holm([test.p for test in tests]), strict=True):
        paired = result.against["macro_f1"]
        assert (paired.difference, paired.interval) == (test.difference, test.interval)
        assert paired.p == p
    assert next(x for x in results if x.method == BASE).against == {}


def _validation(out: Path, method: str, trial: int) -> float:
    folder = out / "runs" / method / f"trial{trial}" / "seed0"
    if not folder.exists():
        return -1.0
    return read_run(folder)[0].validation["micro_f1"] or 0.0


def test_the_rarest_label_is_the_one_with_fewest_training_positives(
    made: tuple[Path, list[MethodResult]], store: Store
) -> None:
    counts = np.asarray(store.labels)[store.indices("train")].sum(0)
    assert made[1][0].rarest == store.label_names[int(counts.argmin())]


def test_the_leaderboard_as_a_frame(made: tuple[Path, list[MethodResult]]) -> None:
    pytest.importorskip("pandas")
    board = made[1]
    assert isinstance(board, Leaderboard)
    frame = board.to_frame().set_index("method")
    assert frame.index.tolist() == [x.method for x in board]
    for result in board:
        row = frame.loc[result.method]
        assert row["micro_f1"] == result.mean("micro_f1")
        assert row["micro_f1_std"] == np.std(result.values("micro_f1"), ddof=1)
        assert (row["micro_f1_low"], row["micro_f1_high"]) == result.interval["micro_f1"]
        assert row["rarest_f1"] == result.mean("rarest_f1")
        assert row["peak_gb"] == result.peak_gb
        assert row["seeds"] == 2
        paired = result.against.get("macro_f1")
        assert np.isnan(row["macro_f1_minus_carat"]) == (paired is None) == (result.method == BASE)
        if paired:
            assert row["macro_f1_minus_carat_p"] == paired.p
            assert row["macro_f1_minus_carat_low"] == paired.interval[0]
    page = board._repr_html_()
    assert page.count("<tr>") == 1 + len(board)
    assert "minus CARAT" in page
    assert repr(board).startswith(f"Leaderboard({board[0].method} {board[0].mean('micro_f1'):.3f}, ")
    assert Leaderboard()._repr_html_() == "<p>no methods</p>"
    assert Leaderboard().to_frame().empty


def test_files_contain_every_method_and_seed(made: tuple[Path, list[MethodResult]]) -> None:
    out, results = made
    text = (out / "leaderboard.md").read_text()
    for result in results:
        assert text.count(f"| {result.method} |") == 5
    with (out / "leaderboard.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["method"], row["seed"]) for row in rows] == [(x.method, s) for x in results for s in "01"]
    for result in results:
        own = [float(row["micro_f1"]) for row in rows if row["method"] == result.method]
        assert own == result.values("micro_f1")
        low, high = (
            float(next(r for r in rows if r["method"] == result.method)[k]) for k in ("precision", "recall")
        )
        cell = f"{low:.3f} / {high:.3f}" if len(set(result.values("recall"))) == 1 else " / "
        assert cell.replace("0.", ".") in text
    assert "seconds" not in text.split("## Costs")[0]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.methods: list[str] = []
        self.intervals = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data")]
        if tag == "th" and given.get("data-value"):
            self.methods.append(str(given["data-value"]))
        self.intervals += tag == "svg" and given.get("class") == "interval"


def test_page_is_sorted_and_self_contained(made: tuple[Path, list[MethodResult]]) -> None:
    out, results = made
    text = (out / "leaderboard.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.methods == [x.method for x in results]
    assert page.intervals == len(results)
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == []
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", text)


def test_complete_comparison_is_not_repeated(
    in_this_process: list[Any], made: tuple[Path, list[MethodResult]], store: Store
) -> None:
    out, _ = made
    before = {
        name: (out / name).read_bytes() for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.html")
    }
    run_compare(store, out)
    assert in_this_process == []
    assert {name: (out / name).read_bytes() for name in before} == before


def test_different_settings_are_refused(made: tuple[Path, list[MethodResult]], store: Store) -> None:
    out, _ = made
    with pytest.raises(RunError, match="holds a comparison with another budget already"):
        run_compare(store, out, budget=3)
    with pytest.raises(RunError, match=r"holds a comparison with another settings\.all already"):
        run_compare(store, out, settings={})


def test_unknown_methods_and_settings_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'brr'; did you mean 'br'\?"):
        run_compare(store, tmp_path / "o", methods=["brr"])
    with pytest.raises(ConfigError, match=r"settings: unknown method 'brr'"):
        run_compare(store, tmp_path / "o", settings={"brr": {}})
    with pytest.raises(ConfigError, match=r"did you mean 'training.epochs'\?"):
        run_compare(store, tmp_path / "o", settings={"all": {"training": {"epoch": 1}}})
    assert not (tmp_path / "o").exists()


def test_settings_of_a_method_take_precedence_over_all() -> None:
    assert choose_methods(["all"]) == list(REGISTERED)
    assert choose_methods(["late-fusion", "br"]) == ["br", "late-fusion"]
    settings = {"all": {"training": {"epochs": 3}}, "br": {"training": {"epochs": 4}}}
    experiments = experiments_of(["br", "cc"], "small", settings)
    assert (experiments["br"].training.epochs, experiments["cc"].training.epochs) == (4, 3)


@pytest.mark.parametrize("name", REGISTERED)
def test_search_space_contains_the_preset(name: str) -> None:
    start = load_experiment(preset="small", overrides={"method": name})
    space = search_space(start)
    assert bool(space) == (name != "prior")
    values: Any = start.model_dump()
    for key, bounds in space.items():
        value = values
        for part in key.split("."):
            value = value[part]
        assert bounds.low <= value <= bounds.high, key


def test_trials_do_not_depend_on_interruptions(tmp_path: Path) -> None:
    start = load_experiment(preset="small")
    whole = open_study("carat", start, 4, tmp_path / "a")
    open_study("carat", start, 1, tmp_path / "b").tell(0, 0.5)
    (tmp_path / "b.lock").touch()  # left by a killed process
    open_study("carat", start, 3, tmp_path / "b").tell(2, None)
    parts = open_study("carat", start, 4, tmp_path / "b")
    assert parts.trials == whole.trials
    parts.tell(1, 0.4)
    assert parts.best == 0
    parts.tell(3, 0.6)
    assert parts.best == 3
    assert whole.best == 0  # no results yet
    assert whole.trials[0] == {}
    assert whole.experiments()[0] == start
    assert len({trial["training.learning_rate"] for trial in whole.trials[1:]}) == 3
    for trial, experiment in zip(whole.trials[1:], whole.experiments()[1:], strict=True):
        rate = experiment.training.learning_rate
        assert rate == trial["training.learning_rate"]
        assert 1 / LEARNING_RATE_FACTOR <= rate / start.training.learning_rate <= LEARNING_RATE_FACTOR
    assert (
        len(open_study("prior", load_experiment(overrides={"method": "prior"}), 4, tmp_path / "a").trials)
        == 1
    )


def test_conditions_drop_modalities(store: Store) -> None:
    modalities = store.modalities
    modality_mask = np.stack([store.lengths(m) > 0 for m in modalities], axis=1)
    masks = conditions(store, modalities)
    assert len(masks) == 6 + len(DROP_PROBABILITIES)
    assert not any(set(subset) == set(modalities) for subset in subsets(modalities))
    for subset in subsets(modalities):
        mask = masks[f"only {' + '.join(subset)}"]
        assert (mask == [m in subset for m in modalities]).all()
    kept = []
    for p in DROP_PROBABILITIES:
        mask = masks[f"{p:.0%} away"]
        assert not (mask & ~modality_mask).any()
        assert mask.any(1).all()
        kept.append(mask.sum())
    assert kept == sorted(kept, reverse=True)
    assert (masks["90% away"].sum(1) == 1).mean() > 0.6
    assert list(conditions(store, ["text"])) == []


def test_masked_modalities_do_not_affect_scores(trained: Any, store: Store) -> None:
    predictor = carat.load(trained.folder)
    only = np.tile([True, False, False], (len(store), 1))
    rows, scores, _ = predictor.score(store, "test", only)
    assert (store.lengths("text")[rows] > 0).all()
    assert len(rows) == (store.lengths("text")[store.indices("test")] > 0).sum()
    for row, score in list(zip(rows, scores, strict=True))[:5]:
        alone = predictor.predict({"text": store.features("text", int(row))})
        np.testing.assert_allclose(list(alone.scores.values()), score, atol=1e-5)
    everything = np.ones((len(store), 3), dtype=bool)
    np.testing.assert_allclose(
        predictor.score(store, "test", everything)[1], predictor.score(store, "test")[1], atol=1e-6
    )
    nothing, none, _ = predictor.score(store, "test", ~everything)
    assert nothing.shape == (0,)
    assert none.shape == (0, 6)


def test_command_line(run: Any, in_this_process: list[Any], store: Store, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("carat:\n  method: {hidden: 16, latent: 6, encoder: {heads: 2}}\n")
    code, out, err = run(
        *("compare", "--data", store.folder, "--out", tmp_path / "o", "--methods", "br", "prior"),
        *("--seeds", "1", "--settings", file, "--training.accelerator", "cpu"),
    )
    assert code == 0, err
    assert [job.display_name for job in in_this_process] == ["prior/trial0, seed 0", "br/trial0, seed 0"]
    assert out.startswith("# Leaderboard on ")
    assert "leaderboard.html" in err
    assert run("compare", "--data", store.folder, "--out", tmp_path / "o", "--methods", "nil")[0] == 2


@pytest.mark.slow
def test_killed_comparison_resumes_to_the_same_table(tmp_path: Path) -> None:
    store = make_synthetic(tmp_path / "store", samples=300)

    def command(out: str) -> list[str]:
        return [
            *(
                sys.executable,
                "-m",
                "carat",
                "compare",
                "--data",
                str(store.folder),
                "--out",
                str(tmp_path / out),
            ),
            *("--methods", "carat", "br", "late-fusion", "--seeds", "2", "--budget", "2", "--workers", "2"),
            *("--training.epochs", "2", "--training.accelerator", "cpu"),
        ]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command("whole"), check=True, capture_output=True, env=environment)
    for seconds in (12, 20):
        with subprocess.Popen(
            command("killed"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
        ) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
    subprocess.run(command("killed"), check=True, capture_output=True, env=environment)
    for name in ("leaderboard.csv", "leaderboard.md"):
        texts = [(tmp_path / out / name).read_text().split("## Costs")[0] for out in ("whole", "killed")]
        assert texts[0] == texts[1]
