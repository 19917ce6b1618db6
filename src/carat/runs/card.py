"""Card of a finished run, its weights, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from carat.config.base import Count, Section, explain
from carat.config.encoders import ENCODERS
from carat.config.experiment import Experiment
from carat.data.store.manifest import Tokens, Waveform, Width, check_names, check_specification
from carat.data.store.transform import Transform
from carat.features.description import Description
from carat.runs.calibration import RunCalibration
from carat.runs.folder import CARD, EXPERIMENT, REFERENCE, WEIGHTS, read_experiment
from carat.runs.origin import Origin
from carat.utils.errors import CaratError, RunError
from carat.utils.files import write_json
from carat.utils.reading import hash_file, read_json

SCHEMA = 3
MAX_PADDING = 1 << 20
"""Limit of `ModalityCard.pad_to`."""
Threshold = Annotated[float, Field(ge=0, le=1)]
MODIFIED = "modified after training (SHA-256 mismatch); train again with --overwrite"


class ModalityCard(Section):
    """Input specification of one modality of a run."""

    width: Width
    source: str
    transform: Transform | None = None
    """Preprocessing of raw features, fitted on the training split."""
    tokens: Tokens | None = None
    """Tokenizer and vocabulary, where an encoder reads token ids."""
    waveform: Waveform | None = None
    """Sampling rate, where an encoder reads audio samples."""
    extraction: Description | None = None
    """How features were extracted from media files, if they were; for texts, how speech was recognized."""
    alignment: Description | None = None
    """How the words got their times over which features were averaged, if they were."""
    pad_to: int = Field(0, ge=0, le=MAX_PADDING)
    """Steps up to which a sequence is padded with unmasked zeros; see `data.padding`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_specification(self.width, self.transform, self.tokens, self.waveform)
        return self


class BaseEncoder(Section):
    """A published encoder whose weights a run does not hold."""

    model: str
    """Its name, see `carat models list`."""
    sha256: str
    """SHA-256 of its weights."""


class RunCard(Section):
    """Contents of `run.json`, which prediction needs besides the experiment and the weights."""

    schema_version: int = SCHEMA
    labels: list[str]
    """Label names, in the order of the L axis."""
    modality_order: list[str] = []
    """Modality names, in the order of the M axis; `write_card` sets it. Early versions have none."""
    modalities: dict[str, ModalityCard]
    """In the order of the M axis."""
    store: str
    """Name of the store with the training data."""
    fingerprint: str
    """Fingerprint of the store with the training data."""
    epoch: Count
    """Epoch with the best validation micro-F1, counted from 1; 0 for converted weights."""
    thresholds: dict[str, Threshold]
    """Decision thresholds by label, in the order of the labels, selected on the validation split in that
    epoch."""
    validation: dict[str, float | None]
    """Validation metrics of that epoch; None where undefined."""
    notes: list[str] = []
    origin: Origin | None = None
    """The run whose weights training started from."""
    bases: dict[str, BaseEncoder] = {}
    """Encoders, by modality, whose weights are taken from their own files; see `carat.runs.weights`."""
    calibration: RunCalibration | None = None
    """How scores become probabilities and decisions; None for runs of early versions."""
    digests: dict[str, str] = {}
    """SHA-256 of the files of the run; `run.json` itself is hashed without its own entry."""

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: list[str]) -> list[str]:
        check_names("label", labels)
        return labels

    @field_validator("modalities")
    @classmethod
    def _order_modalities(
        cls, modalities: dict[str, ModalityCard], info: ValidationInfo
    ) -> dict[str, ModalityCard]:
        check_names("modality", list(modalities))
        order = info.data.get("modality_order") or list(modalities)
        return _in_order(modalities, order, "the order of the modalities")

    @field_validator("thresholds")
    @classmethod
    def _order_thresholds(cls, thresholds: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        return _in_order(thresholds, info.data.get("labels", list(thresholds)), "the labels")

    @field_validator("calibration")
    @classmethod
    def _order_calibration(
        cls, calibration: RunCalibration | None, info: ValidationInfo
    ) -> RunCalibration | None:
        if calibration is None:
            return None
        return calibration.in_order(info.data.get("labels", list(calibration.labels)))

    @field_validator("digests")
    @classmethod
    def _check_files(cls, digests: dict[str, str]) -> dict[str, str]:
        for name in digests:
            path = PurePosixPath(name)
            if name not in (CARD, EXPERIMENT, WEIGHTS, REFERENCE) and (
                path.parts[:1] != (ENCODERS,) or ".." in path.parts
            ):
                raise ValueError(f"'{name}' is no file of a run")
        return digests


def _in_order(values: dict[str, Any], order: list[str], expected: str) -> dict[str, Any]:
    """Bring a mapping into an order of its keys, as the order of keys in JSON has no meaning.

    Raises:
        ValueError: other keys.
    """
    if sorted(values) != sorted(order):
        raise ValueError(f"keys {', '.join(values) or 'none'}, expected {expected}: {', '.join(order)}")
    return {name: values[name] for name in order}


def write_card(out: Path, card: RunCard) -> None:
    """Write the card with the checksums of all files that prediction needs, which completes a run."""
    encoder_files = sorted(x.relative_to(out).as_posix() for x in (out / ENCODERS).rglob("*") if x.is_file())
    files = [EXPERIMENT, WEIGHTS, *([REFERENCE] if (out / REFERENCE).is_file() else []), *encoder_files]
    digests = {name: _digest((out / name).read_bytes()) for name in files}
    update = {"digests": digests, "modality_order": list(card.modalities)}
    content = card.model_copy(update=update).model_dump()
    for optional in ("origin", "bases", "calibration"):
        if not content[optional]:
            del content[optional]
    content["digests"][CARD] = _digest(_canonical(content))
    write_json(out / CARD, content)


def check_files(folder: Path, card: RunCard) -> None:
    """Verify the checksums of a run; runs of early versions have none.

    Raises:
        RunError: checksum mismatch, or a file cannot be read.
    """
    for name in card.digests:
        if name != CARD:  # see `read_run`
            _check_digest(folder, card, name)


def check_padding(folder: Path, card: RunCard, max_length: Mapping[str, int]) -> None:
    """Check that sequences are not padded beyond what the model of a run reads.

    Args:
        folder: the run.
        card: its card.
        max_length: time steps that the model reads, by modality.

    Raises:
        RunError: they are.
    """
    for m, info in card.modalities.items():
        if info.pad_to > max_length[m]:
            raise RunError(
                f"{folder / CARD}: modalities.{m}.pad_to is {info.pad_to}, but the model reads at most "
                f"{max_length[m]} steps"
            )


def _check_digest(folder: Path, card: RunCard, name: str) -> None:
    if name not in card.digests:
        return
    if hash_file(folder / name, RunError) != card.digests[name]:
        raise RunError(f"{folder / name}: {MODIFIED}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(content: dict[str, Any]) -> bytes:
    others = {name: value for name, value in content["digests"].items() if name != CARD}
    return json.dumps(content | {"digests": others}, sort_keys=True, ensure_ascii=False).encode()


def read_run(folder: str | os.PathLike[str]) -> tuple[RunCard, Experiment]:
    """Read the card and the experiment of a finished run.

    Raises:
        RunError: the run does not exist, is unfinished or corrupt, or was written by a newer version.
    """
    path = Path(folder)
    if not path.is_dir():
        raise RunError(f"{path}: no such run; train one with `carat train`")
    if not os.path.lexists(path / EXPERIMENT):
        raise RunError(f"{path}: not a carat run, {EXPERIMENT} is missing")
    if not os.path.lexists(path / CARD) or not os.path.lexists(path / WEIGHTS):
        raise RunError(f"{path}: the training did not finish, {CARD} or {WEIGHTS} is missing")
    content = read_json(path / CARD, RunError)
    if not isinstance(content, dict):
        raise RunError(f"{path / CARD}: expected a JSON object")
    version = content.get("schema_version", 0)
    if isinstance(version, int) and version > SCHEMA:
        raise RunError(f"{path}: written by a newer version of carat (schema {version}); upgrade carat")
    try:
        card = RunCard.model_validate(content)
    except ValidationError as error:
        raise RunError(f"{path / CARD}: {explain(error, RunCard)}") from error
    if card.digests and _digest(_canonical(content)) != card.digests.get(CARD):
        raise RunError(f"{path / CARD}: {MODIFIED}")
    _check_digest(path, card, EXPERIMENT)
    experiment = read_experiment(path)
    if not card.modality_order and not _has_written_order(content, experiment):
        raise RunError(
            f"{path / CARD}: another program changed the order of its keys, and with it that of the "
            "modalities; restore the file"
        )
    return card, experiment


def has_current_origin(card: RunCard) -> bool:
    """Whether the run that a training started from still has the weights that it had; True if it is gone."""
    if card.origin is None:
        return True
    try:
        digests = read_run(card.origin.run)[0].digests
    except (CaratError, OSError):
        return True
    return digests.get(WEIGHTS, card.origin.weights) == card.origin.weights


def _has_written_order(content: dict[str, Any], experiment: Experiment) -> bool:
    """Whether keys are in the order of writing; where `modality_order` is missing, it tells the M axis."""
    written = [key for key in RunCard.model_fields if key in content]
    modalities = list(content["modalities"])
    return (
        list(content) == written
        and list(content["thresholds"]) == content["labels"]
        and modalities == (experiment.data.modalities or modalities)
    )
