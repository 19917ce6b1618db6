"""Training from the weights of another run (`training.init_from`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError

from carat.config.base import explain
from carat.config.experiment import Experiment
from carat.models.base import Model
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.models.encoders.wrapper import EncodedModel
from carat.models.transfer import ModelState, shorten_names, transfer_weights
from carat.runs.card import ModalityCard, RunCard, check_files, read_run
from carat.runs.folder import CHECKPOINTS, ENVIRONMENT, WEIGHTS
from carat.runs.hub import parse_name
from carat.runs.locating import locate
from carat.runs.origin import Origin
from carat.runs.weights import read_weights
from carat.training.checkpoints import find_checkpoint
from carat.utils.errors import CaratError, ConfigError, RunError
from carat.utils.output_folder import State, read_plan
from carat.utils.reading import hash_file

KEY = "training.init_from"
ORIGIN = "origin"
"""Key of `environment.json`, from which an interrupted training takes its origin."""


@dataclass(frozen=True)
class InitialRun:
    """A finished run to start from."""

    folder: Path
    card: RunCard
    experiment: Experiment


def continued_run(experiment: Experiment, out: Path, state: State) -> Path | None:
    """The run folder itself, if it has the weights to continue from; the initial run is not read then.

    Args:
        experiment: experiment to train.
        out: folder of the run to create or resume.
        state: its state.

    Returns:
        None if training starts from the beginning.

    Raises:
        ConfigError: the initial run is in the folder to write.
    """
    if experiment.training.init_from is None:
        return None
    initial, own = Path(experiment.training.init_from).resolve(), out.resolve()
    if parse_name(experiment.training.init_from) is None and (own == initial or own in initial.parents):
        raise ConfigError(f"{KEY}: {initial} is in the folder of the run to write; choose another --out")
    has_weights = state == "finished" or (
        state == "begun" and find_checkpoint(out / CHECKPOINTS)[0] is not None
    )
    return out if has_weights else None


def read_initial_run(experiment: Experiment) -> InitialRun | None:
    """Read and verify the run `training.init_from`; None if it is not set.

    Raises:
        CaratError: there is no such run, or it is unfinished or corrupt.
    """
    if experiment.training.init_from is None:
        return None
    try:
        folder = locate(experiment.training.init_from)
        card, trained = read_run(folder)
        check_files(folder, card)
    except (CaratError, OSError) as error:
        kind = type(error) if isinstance(error, CaratError) else RunError
        raise kind(f"{KEY}: {error}") from error
    return InitialRun(folder, card, trained)


def initialize(
    model: Model, experiment: Experiment, modalities: Mapping[str, Any], initial: InitialRun
) -> Origin:
    """Copy what fits of the weights of a run into a new model, see `transfer_weights`.

    Args:
        model: model to change in place.
        experiment: its experiment.
        modalities: metadata of its modalities, in the order of the M axis.
        initial: the run.

    Returns:
        The record of what was taken, for the card.

    Raises:
        RunError: the weights cannot be read, or do not fit files of an encoder of the run.
        ConfigError: nothing fits.
    """
    folder, card = initial.folder, initial.card
    try:
        state = read_weights(folder, card)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{KEY}: {folder / WEIGHTS}: corrupt ({error})") from error
    source = ModelState(
        initial.experiment.method, initial.experiment.encoders, card.labels, card.modalities, state
    )
    parts = experiment.training.init_parts
    taken = transfer_weights(model, experiment.method, modalities, source, parts)
    if not taken.copied:
        raise ConfigError(f"{KEY}: {folder} ({_describe(initial)}) has {_nothing(experiment)}")
    for m, encoder in model.encoders.items() if isinstance(model, EncodedModel) else ():
        if isinstance(encoder, PretrainedEncoder) and not encoder.choice.folder and m not in taken.encoders:
            raise RunError(f"{KEY}: the encoder of {m} in {folder} does not fit; set encoders.{m}.folder")
    return Origin(
        run=str(folder),
        method=initial.experiment.method.name,
        store=card.store,
        fingerprint=card.fingerprint,
        weights=card.digests.get(WEIGHTS) or hash_file(folder / WEIGHTS, RunError),
        parts=parts,
        encoders=taken.encoders,
        labels=taken.labels,
        tensors=len(taken.copied),
        total=len(taken.copied) + len(taken.initial),
        initial=shorten_names(taken.initial, taken.copied),
        other_features=[m for m, info in modalities.items() if _is_other(info, card.modalities.get(m))],
    )


def _is_other(info: Any, known: ModalityCard | None) -> bool:
    """Whether features were extracted by other models or settings than those of a run."""
    if known is None or info.extraction is None or known.extraction is None or info.tokens is not None:
        return False
    own, others = info.extraction, known.extraction
    return bool((own.settings, own.models) != (others.settings, others.models))


def _describe(initial: InitialRun) -> str:
    """Method, modalities and labels of a run, for messages."""
    card = initial.card
    return f"{initial.experiment.method.name}, {', '.join(card.modalities)}, labels {', '.join(card.labels)}"


def _nothing(experiment: Experiment) -> str:
    """What a run does not have, for messages."""
    parts = experiment.training.init_parts
    if parts == "encoder":
        return (
            "no pretrained encoder that fits the data and encoders of this experiment (init_parts: encoder)"
        )
    return f"no weights that fit {experiment.method.name} on this data (init_parts: {parts})"


def read_origin(out: Path) -> Origin | None:
    """Read the origin of a training that has begun, from its environment; None if it has none.

    Raises:
        RunError: the environment cannot be read.
    """
    recorded = read_plan(out / ENVIRONMENT).get(ORIGIN)
    try:
        return None if recorded is None else Origin.model_validate(recorded)
    except ValidationError as error:
        raise RunError(f"{out / ENVIRONMENT}: {ORIGIN}: {explain(error, Origin)}") from error
