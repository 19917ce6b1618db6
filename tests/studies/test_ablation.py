"""Ablation: variants, measured differences, and resuming."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carat.config.base import merge
from carat.config.carat import OFFICIAL, OFFICIAL_TOGETHER
from carat.config.experiment import Experiment, load_experiment, parse_experiment
from carat.data.loader import make_loader
from carat.data.store import Store
from carat.data.synthetic import make_synthetic
from carat.evaluation.bootstrap import paired_test
from carat.models.build import build_model
from carat.studies import ablation
from carat.studies.ablation import FULL, Ablation, ablate, variants
from carat.studies.jobs import Job, read_scores
from carat.utils.errors import RunError
from tests.conftest import TINY

NAMES = list(variants(Experiment(), ["text", "visual", "audio"]))


def test_variants_cover_components_modalities_and_official_deviations() -> None:
    assert NAMES[0] == FULL
    assert len([name for name in NAMES if name.startswith("no ")]) == 7
    assert "first level only" in NAMES
    assert [name for name in NAMES if name.startswith("only ")] == [
        "only text",
        "only visual",
        "only audio",
        "only text + visual",
        "only text + audio",
        "only visual + audio",
    ]
    assert [name for name in NAMES if name.startswith("official")] == [
        *(f"official: {name}" for name in OFFICIAL),
        "official: all combined",
    ]
    assert "only a + b" not in variants(Experiment(), ["a", "b"])
    official = variants(load_experiment(preset="official"), ["text"])
    assert not [name for name in official if name.startswith("official")]


@pytest.mark.parametrize("name", NAMES[1:])
def test_every_variant_differs_from_the_full_method_and_trains(name: str, store: Store) -> None:
    base = load_experiment(overrides=TINY)
    changes = variants(base, store.modalities)[name]
    experiment = parse_experiment(merge(base.model_dump(), changes), name)
    assert experiment != base
    modalities = experiment.data.modalities or store.modalities
    widths = {m: store.manifest.modalities[m].width for m in modalities}
    method = build_model(experiment.method, widths, store.label_names)
    rows = store.indices("train")
    rows = rows[np.any([store.lengths(m)[rows] > 0 for m in modalities], axis=0)]
    loader = make_loader(store, rows, modalities, batch_size=37, max_length=method.max_length)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    totals = []
    batch = next(iter(loader))
    for _ in range(6):
        outputs = method(batch.features, batch.masks)
        losses = method.losses(outputs, batch.labels, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        totals.append(losses["total"].item())
        method.update_after_step(outputs, batch.labels)
    assert np.isfinite(totals).all()
    bce = losses[{"no reconstruction": "original", "first level only": "alpha"}.get(name, "beta")]
    assert torch.isfinite(bce)
    assert not set(losses) & {
        "no reconstruction": {"alpha", "beta", "mse_alpha", "mse_beta"},
        "first level only": {"beta", "mse_beta"},
        "no contrastive loss": {"contrast"},
        "no aggregation": {"aggregate", "shuffled"},
    }.get(name, set())


def three_variants(experiment: Experiment, modalities: Any) -> dict[str, dict[str, Any]]:
    every = variants(experiment, modalities)
    return {name: every[name] for name in (FULL, "no contrastive loss", "only text")}


@pytest.mark.slow
def test_table_contains_the_measured_differences(
    in_this_process: list[Job],
    logged: list[str],
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ablation, "variants", three_variants)
    overrides = TINY | {"training": TINY["training"] | {"epochs": 1}}  # type: ignore[operator]
    experiment = load_experiment(overrides=overrides)
    rows = ablate(experiment, store.folder, tmp_path / "o", seeds=2)
    assert [row.name for row in rows] == [FULL, "no contrastive loss", "only text"]
    assert len(logged) == 6
    _check_frame(rows)
    text = rows[2]
    assert text.samples == int((store.lengths("text")[store.indices("test")] > 0).sum()) < rows[0].samples
    jobs = {
        name: [
            Job(
                name,
                load_experiment(overrides=overrides | {"seed": seed}),
                store.folder,
                store.manifest.fingerprint,
            )
            for seed in (0, 1)
        ]
        for name in ("full", "only-text")
    }
    alone, full = ([read_scores(job, tmp_path / "o") for job in jobs[name]] for name in ("only-text", "full"))
    shared = alone[0].rows
    theirs = np.stack([x.predicted[[list(x.rows).index(row) for row in shared]] for x in full])
    test = paired_test(
        np.stack([x.predicted for x in alone]),
        theirs,
        np.asarray(store.labels)[shared],
        store.groups[shared],
        "micro_f1",
        over_seeds=True,
    )
    assert (text.difference, text.interval) == (test.difference, test.interval)
    with (tmp_path / "o" / "ablation.csv").open() as opened:
        lines = list(csv.DictReader(opened))
    assert [(x["variant"], x["seed"]) for x in lines[:3]] == [
        ("full", "0"),
        ("full", "1"),
        ("no contrastive loss", "0"),
    ]
    assert float(lines[4]["micro_f1"]) == text.metrics["micro_f1"][0]
    table = (tmp_path / "o" / "ablation.md").read_text()
    assert table.count("\n| ") == 4
    assert f"| only text | {text.samples} |" in table
    assert "only text" in (tmp_path / "o" / "ablation.svg").read_text()
    again = ablate(experiment, store.folder, tmp_path / "o", seeds=2)
    assert again == rows
    assert logged[6:] == ["6 of 6 training runs are already complete"]
    with pytest.raises(RunError, match="holds an ablation with another experiment"):
        ablate(load_experiment(preset="small"), store.folder, tmp_path / "o", seeds=2)


def _check_frame(rows: Ablation) -> None:
    pytest.importorskip("pandas")
    frame = rows.to_frame()
    assert frame["variant"].tolist() == [row.name for row in rows]
    assert frame["samples"].tolist() == [row.samples for row in rows]
    assert frame["micro_f1"].tolist() == [np.mean(row.metrics["micro_f1"]) for row in rows]
    assert frame["macro_f1_std"].tolist() == [np.std(row.metrics["macro_f1"], ddof=1) for row in rows]
    assert frame[["difference", "low", "high"]].to_numpy().tolist() == [
        [row.difference, *row.interval] for row in rows
    ]
    page = rows._repr_html_()
    assert page.count("<tr>") == 4
    assert '<tr><th scope="row">only text</th>' in page
    assert repr(rows) == "Ablation(3 variants, 2 seeds)"


def test_official_preset_combines_all_deviations() -> None:
    official = load_experiment(preset="official")
    assert official != Experiment()
    values: dict[str, Any] = Experiment().model_dump()
    for changes in OFFICIAL.values():
        assert merge(values, changes) != values
        values = merge(values, changes)
    assert parse_experiment(values, "all") == official == load_experiment(overrides=OFFICIAL_TOGETHER)


@pytest.mark.slow
def test_killed_ablation_resumes_to_the_same_table(tmp_path: Path) -> None:
    store = make_synthetic(tmp_path / "store", samples=150)
    command = [sys.executable, "-m", "carat", "ablate", "--data", str(store.folder), "--seeds", "1"]
    command += ["--training.epochs", "1", "--workers", "2"]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "cut")], stderr=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stderr is not None
        for _ in range(5):
            killed.stderr.readline()
        os.kill(killed.pid, signal.SIGKILL)
    again = subprocess.run(
        [*command, "--out", str(tmp_path / "cut")], check=True, capture_output=True, text=True
    )
    assert "training runs are already complete" in again.stderr
    for name in ("ablation.md", "ablation.csv", "ablation.svg"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
