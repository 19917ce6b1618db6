"""`carat calibrate`, `carat threshold` and `carat card`: what belongs to a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from carat.cli.app import app
from carat.utils.logging import logger


@app.command
def calibrate(
    run: Path,
    /,
    *,
    data: Path,
    split: str = "valid",
    kind: Literal["auto", "none", "temperature", "platt", "isotonic", "beta"] = "auto",
) -> None:
    """Calibrate a finished run: learn on validation how scores become probabilities and decisions.

    Training does this at its end; runs of earlier versions and converted ones need it, and so does a run on
    other data. Predicted labels do not change. The table compares raw scores with cross-validated calibrated
    ones; diagrams are in reliability.svg of the run.

    **Examples**

        carat calibrate demo-run --data demo-store

        carat calibrate demo-run --data demo-store --split valid --kind platt

    Parameters
    ----------
    run
        Folder created by `carat train` or `carat convert`; its run.json is rewritten.
    data
        Folder of a store with the labels of the run.
    split
        Split that was not trained on. The promise of --risk is exact if it did not choose epoch and
        thresholds either.
    kind
        Map of the scores of each label: auto is the one with the smallest cross-validated log loss.
    """
    from carat.inference.calibrate import calibrate_run

    done = calibrate_run(run, data, split, kind=kind)
    done.report.table().show()
    for name, label in done.calibration.labels.items():
        if label.note:
            logger.warning(f"note: '{name}' has map {label.kind}: {label.note}")
    logger.info(f"calibration → {run / 'run.json'}")
    logger.info(f"reliability diagrams → {done.figure}")


@app.command
def threshold(
    run: Path,
    /,
    *,
    data: Path,
    split: str = "valid",
    kind: Literal["global", "per-label", "interpolated"] | None = None,
    max_micro_f1_drop: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1))] = None,
    balance_corpora: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Search the thresholds of a finished run anew, e.g. on labeled samples of your own kind.

    **Examples**

        carat threshold demo-run --data demo-store

        carat threshold demo-run --data demo-store --kind interpolated --max-micro-f1-drop .02

    Parameters
    ----------
    run
        Folder created by `carat train`; its run.json is rewritten.
    data
        Folder of a store with the labels of the run.
    split
        Split that was not trained on, and that is not the one to report.
    kind
        One threshold for all labels, one for each, or between both; by default the rule of training.
    max_micro_f1_drop
        For interpolated: relative drop of micro-F1 in exchange for macro-F1.
    balance_corpora
        Let every corpus of the store count alike, however many samples it has.
    """
    from carat.inference.tune_thresholds import tune_thresholds
    from carat.utils.tables import Table

    done = tune_thresholds(
        run,
        data,
        split,
        kind=kind,
        max_micro_f1_drop=max_micro_f1_drop,
        balance_corpora=balance_corpora,
    )
    rows = [[name, done.before[name], done.after[name]] for name in done.after]
    rows += [
        [f"{name.replace('_f1', '-F1')}, {split}", x, done.f1["after"][name]]
        for name, x in done.f1["before"].items()
    ]
    Table(["threshold", "before", "after"], rows, digits=3).show()
    logger.info(f"thresholds → {run / 'run.json'}")


@app.command
def card(run: Path, /, *, data: Path | None = None, split: str = "test", license: str | None = None) -> None:
    """Write the model card of a run: model_card.md, in the Hugging Face Hub's layout, and model_card.json.

    Training writes one with the metrics of validation. With --data, the metrics are those of a split.

    **Examples**

        carat card demo-run --data demo-store

        carat card demo-run --license mit

    Parameters
    ----------
    run
        Folder created by `carat train`.
    data
        Folder of a store to evaluate the run on; by default the metrics of the card are kept.
    split
        Split of the store.
    license
        License of the weights, by its name on the Hugging Face Hub, e.g. apache-2.0; by default that of the
        earlier card, unknown at first.
    """
    from carat.inference.model_card import make_model_card
    from carat.runs.folder import MODEL_CARD

    make_model_card(run, data, split, license=license)
    logger.info(f"model card → {run / MODEL_CARD}")
