"""Ensembles: runs whose scores are averaged become one run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from carat.config.ensemble import EnsembleConfig, Member
from carat.config.experiment import Experiment
from carat.data.store import Store, open_store
from carat.data.summary import check_measurable
from carat.evaluation.metrics import compute_metrics
from carat.evaluation.thresholds import apply_thresholds, search_thresholds
from carat.inference.calibrate import calibrate_run
from carat.inference.loading import load
from carat.inference.predictor import Predictor
from carat.models.ensemble import Ensemble
from carat.runs.card import ModalityCard, RunCard, write_card
from carat.runs.environment import describe_environment
from carat.runs.folder import (
    CARD,
    ENVIRONMENT,
    EXPERIMENT,
    REFERENCE,
    RUN,
    WEIGHTS,
    write_experiment,
)
from carat.runs.weights import write_weights
from carat.utils.errors import ConfigError, DataError
from carat.utils.files import replace_file, write_json
from carat.utils.output_folder import check_folder, replacing


def ensemble(
    runs: Sequence[str | os.PathLike[str]],
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    device: str | None = None,
) -> Predictor:
    """Average the scores of trained runs, as one run with thresholds of its own.

    The runs have the same labels, and the same features where they share modalities; they may be of different
    methods. A sample is scored by the members that it has a modality of. Thresholds are searched on the
    validation split, as the first run did, and scores are calibrated there.

    Args:
        runs: at least two runs.
        store: store with the split `valid`.
        out: folder of the run to create, which holds the weights of all members.
        overwrite: replace an existing run.
        device: device for scoring, see `carat.load`.

    Returns:
        Predictor of the new run.

    Raises:
        ConfigError: fewer than two runs, or one of them is an ensemble.
        DataError: the runs differ in labels or features, or do not fit the store.
        RunError: there is no run, or it is unfinished or corrupt, or the folder is taken.

    Example:
        carat.ensemble(["demo-run", "second-run"], "demo-store", "both-runs")
    """
    if len(runs) < 2:
        raise ConfigError(f"an ensemble has at least two runs, found {len(runs)}")
    folder, store = Path(out), open_store(store)
    check_folder(RUN, folder, overwrite=overwrite)
    members = [load(run, device) for run in runs]
    first = members[0]
    modalities = _common_modalities(members)
    for member in members:
        member.check_labels(store)
        if isinstance(member.experiment.method, EnsembleConfig):
            raise ConfigError(f"{member.folder}: is an ensemble; name its members instead")
    check_measurable(store, "valid")
    experiment = Experiment(
        method=EnsembleConfig(
            name="ensemble",
            members=[
                Member(
                    method=x.experiment.method,
                    modalities=list(x.widths),
                    encoders={m: e for m, e in x.experiment.encoders.items() if m in x.widths},
                )
                for x in members
            ],
        ),
        data=first.experiment.data.model_copy(update={"modalities": list(modalities)}),
        threshold=first.experiment.threshold,
    )
    model = Ensemble([x.model for x in members], [list(x.widths) for x in members], list(modalities))
    card = RunCard(
        labels=first.labels,
        modalities=modalities,
        store=store.manifest.name,
        fingerprint=store.manifest.fingerprint,
        epoch=0,
        thresholds=dict.fromkeys(first.labels, 0.5),
        validation={},
        notes=_notes(members, store),
    )
    with replacing(RUN, folder, overwrite=overwrite) as new:
        write_json(new / ENVIRONMENT, describe_environment() | {"fingerprint": store.manifest.fingerprint})
        write_experiment(new, experiment)
        for name, file in model.extra_files().items():
            replace_file(new / name, file.read_bytes())
        write_weights(new, model.state_dict())
        card = _with_thresholds(Predictor(new, card, experiment, model), store)
        write_card(new, card)
    calibrate_run(folder, store, device=device)
    return load(folder, device)


def _common_modalities(members: Sequence[Predictor]) -> dict[str, ModalityCard]:
    """The modalities of all members, in order of appearance.

    Raises:
        DataError: labels differ, or what a modality consists of, or the files of its encoder.
    """
    modalities: dict[str, ModalityCard] = {}
    origin: dict[str, Predictor] = {}
    files: dict[str, str] = {}
    for member in members:
        if member.labels != members[0].labels:
            raise DataError(
                f"{member.folder}: labels {', '.join(member.labels)}, but those of {members[0].folder} are "
                f"{', '.join(members[0].labels)}"
            )
        for m, info in member.card.modalities.items():
            other = modalities.setdefault(m, info)
            origin.setdefault(m, member)
            for key in ModalityCard.model_fields.keys() - {"extraction", "alignment"}:
                if getattr(info, key) != getattr(other, key):
                    raise DataError(
                        f"{member.folder}: {m} differs in {key} from that of {origin[m].folder}; members of "
                        "an ensemble read the same features"
                    )
        for name, digest in member.card.digests.items():
            if (
                name not in (CARD, EXPERIMENT, WEIGHTS, REFERENCE)
                and files.setdefault(name, digest) != digest
            ):
                raise DataError(f"{member.folder / name}: differs from that of another member")
    return modalities


def _notes(members: Sequence[Predictor], store: Store) -> list[str]:
    notes = [
        f"mean of the scores of {', '.join(str(x.folder) for x in members)} (weights "
        f"{', '.join(x.card.digests.get(WEIGHTS, 'unknown')[:16] for x in members)})"
    ]
    others = [x for x in members if x.card.fingerprint != store.manifest.fingerprint]
    return notes + [
        f"{x.folder} was trained on another store than thresholds were searched on" for x in others
    ]


def _with_thresholds(predictor: Predictor, store: Store) -> RunCard:
    """The card with thresholds and metrics of the validation split."""
    _, scores, labels = predictor.score(store, "valid")
    choice = predictor.experiment.threshold
    thresholds = search_thresholds(scores, labels, choice.kind, choice.max_micro_f1_drop)
    metrics = compute_metrics(scores, apply_thresholds(scores, thresholds), labels, predictor.labels)
    found = {name: x for name, x in vars(metrics).items() if isinstance(x, float)}
    return predictor.card.model_copy(
        update={
            "thresholds": dict(zip(predictor.labels, thresholds.tolist(), strict=True)),
            "validation": {name: x if x == x else None for name, x in found.items()},
        }
    )
