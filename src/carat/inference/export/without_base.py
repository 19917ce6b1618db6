"""Export of a run without the weights of its pretrained encoders, which their publishers have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from carat.config.experiment import Experiment
from carat.data.store import Store, open_store
from carat.evaluation.metrics import measure_f1
from carat.inference.loading import load
from carat.inference.predictor import Predictor
from carat.models.encoders.wrapper import EncodedModel
from carat.runs.card import BaseEncoder, write_card
from carat.runs.folder import ENVIRONMENT, METRICS, REFERENCE, RUN, WEIGHTS, write_experiment
from carat.runs.weights import recognize_base, subtract, write_weights
from carat.utils.errors import ExportError
from carat.utils.files import replace_file, write_json
from carat.utils.output_folder import check_folder, read_plan, replacing

NAMING = ("command", "origin")
"""Entries of the environment that name folders of this machine; the origin is in the card."""
COPIED = (METRICS, REFERENCE)
"""Files that are taken as they are; a model card is written anew by `carat card`."""


@dataclass(frozen=True)
class SmallRun:
    """Result of `export_without_base`."""

    path: Path
    size: int
    """Bytes of its weights."""
    size_before: int
    bases: dict[str, str]
    """Name of the published encoder by modality."""
    f1: dict[str, dict[str, float]]
    """`micro_f1` and `macro_f1` on the data of the run `before` and `after`; empty without data."""


def export_without_base(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    store: Store | str | os.PathLike[str] | None = None,
    split: str = "valid",
    overwrite: bool = False,
) -> SmallRun:
    """Export a run with a fine-tuned encoder without the published weights, to a fraction of its size.

    Matrices of the encoder are stored as 8-bit differences from the published ones, which changes scores a
    little. Where the run is used, the encoder must be on the machine: by its package, or in `$CARAT_MODELS`.
    Thresholds and calibration stay as they are. The names of folders on this machine are left out.

    Args:
        run: folder created by `carat train`.
        out: folder of the run to create.
        store: store on which F1 before and after is measured.
        split: split of the store.
        overwrite: replace an existing run.

    Returns:
        The folder, its size, and the published encoders.

    Raises:
        ExportError: the run has no pretrained encoder that carat knows, see `carat models list`.
        DataError: the encoder is not on this machine, or the store does not fit the run.
        RunError: there is no run, it is unfinished or corrupt, or the folder of `out` is taken.

    Example:
        carat.export_without_base("text-run", "small-run")
    """
    folder = Path(out)
    check_folder(RUN, folder, overwrite=overwrite)
    predictor = load(run, device="cpu")
    card, model = predictor.card, predictor.model
    bases = {}
    for modality in model.encoders if isinstance(model, EncodedModel) else ():
        if base := recognize_base(card, modality):
            bases[modality] = base
    if not bases:
        raise ExportError(f"{predictor.folder}: has no fine-tuned encoder that `carat models list` shows")
    weights = model.state_dict()
    for modality, base in bases.items():
        weights = subtract(weights, modality, base)
    origin = card.origin and card.origin.model_copy(update={"run": Path(card.origin.run).name})
    opened = None if store is None else open_store(store)
    before = {} if opened is None else _f1(predictor, opened, split)
    with replacing(RUN, folder, overwrite=overwrite) as new:
        environment = read_plan(predictor.folder / ENVIRONMENT)
        write_json(new / ENVIRONMENT, {name: x for name, x in environment.items() if name not in NAMING})
        for name in COPIED:
            if (predictor.folder / name).is_file():
                replace_file(new / name, (predictor.folder / name).read_bytes())
        write_experiment(new, _portable(predictor.experiment, bases))
        for name, file in model.extra_files().items():
            replace_file(new / name, file.read_bytes())
        write_weights(new, weights)
        write_card(new, card.model_copy(update={"bases": bases, "origin": origin}))
    f1 = {} if opened is None else {"before": before, "after": _f1(load(folder, "cpu"), opened, split)}
    return SmallRun(
        folder,
        (folder / WEIGHTS).stat().st_size,
        (predictor.folder / WEIGHTS).stat().st_size,
        {modality: base.model for modality, base in bases.items()},
        f1,
    )


def _portable(experiment: Experiment, bases: Mapping[str, BaseEncoder]) -> Experiment:
    """The experiment without folders of this machine; the card says which run training started from."""
    encoders = {
        m: choice.model_copy(update={"folder": bases[m].model} if m in bases else {})
        for m, choice in experiment.encoders.items()
    }
    update = {"init_from": None, "init_parts": "all", "teacher": None}
    training = experiment.training.model_copy(update=update)
    return experiment.model_copy(update={"encoders": encoders, "training": training})


def _f1(predictor: Predictor, store: Store, split: str) -> dict[str, float]:
    _, scores, labels = predictor.score(store, split, calibrated=False)
    return measure_f1(scores, labels, predictor.card.thresholds)
