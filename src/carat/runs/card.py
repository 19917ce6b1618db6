"""The card of a finished run, its weights, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from carat.config.base import Section, explain
from carat.config.encoders import ENCODERS
from carat.config.experiment import Experiment
from carat.data.store.manifest import Tokens, Waveform
from carat.data.store.transform import Transform
from carat.runs.compatibility import rename_weights
from carat.runs.folder import CARD, EXPERIMENT, WEIGHTS, read_experiment
from carat.utils.errors import RunError
from carat.utils.files import replace_file, write_json

SCHEMA = 2
ALTERED = "altered since the training finished; train again with --overwrite"


class ModalityCard(Section):
    """What a run expects of one modality."""

    width: int
    source: str
    transform: Transform | None = None
    """Applied to the raw features."""
    tokens: Tokens | None = None
    """Tokenizer and vocabulary, where an encoder reads token ids."""
    waveform: Waveform | None = None
    """Sampling rate, where an encoder reads audio samples."""
    pad_to: int = 0
    """Steps up to which a sequence is padded with unmasked zeros; see `data.padding`."""


class RunCard(Section):
    """Contents of `run.json`; together with experiment and weights, all that prediction needs."""

    schema_version: int = SCHEMA
    labels: list[str]
    modalities: dict[str, ModalityCard]
    """In the order of the M axis."""
    store: str
    """Name of the training data."""
    fingerprint: str
    """Fingerprint of the store with the training data."""
    epoch: int
    """The epoch with the best validation micro-F1, counted from 1; 0 if the weights were converted."""
    thresholds: dict[str, float]
    """By label, chosen on the validation split in that epoch."""
    validation: dict[str, float | None]
    """Validation metrics of that epoch; None where undefined."""
    notes: list[str] = []
    digests: dict[str, str] = {}
    """SHA-256 of other files of the run; of `run.json` itself, without this entry, under its own name."""


def read_weights(folder: Path, card: RunCard) -> dict[str, Any]:
    """Load the state dictionary of a finished run, with the current names of its weights.

    Raises:
        OSError, SafetensorError: it cannot be read.
    """
    from safetensors.torch import load_file

    weights = load_file(folder / WEIGHTS)
    return rename_weights(weights) if card.schema_version < 2 else weights


def write_weights(out: Path, weights: Mapping[str, Any]) -> None:
    """Write a state dictionary as safetensors."""
    from safetensors.torch import save

    content = {name: x.detach().cpu().contiguous() for name, x in weights.items()}
    replace_file(out / WEIGHTS, save(content))  # `save_file` would make it private to the user


def write_card(out: Path, card: RunCard) -> None:
    """Finish a run: write the card, with checksums of the files that prediction needs."""
    kept = sorted(x.relative_to(out).as_posix() for x in (out / ENCODERS).rglob("*") if x.is_file())
    digests = {name: _digest((out / name).read_bytes()) for name in (EXPERIMENT, WEIGHTS, *kept)}
    content = card.model_copy(update={"digests": digests}).model_dump()
    content["digests"][CARD] = _digest(_canonical(content))
    write_json(out / CARD, content)


def check_files(folder: Path, card: RunCard) -> None:
    """Refuse a run whose files were changed since the training finished; early runs have no checksums.

    Raises:
        RunError: checksum mismatch, or a file cannot be read.
    """
    for name in card.digests:
        if name != CARD:  # see `read_run`
            _check_digest(folder, card, name)


def _check_digest(folder: Path, card: RunCard, name: str) -> None:
    try:
        altered = name in card.digests and _digest((folder / name).read_bytes()) != card.digests[name]
    except OSError as error:
        raise RunError(f"{folder / name}: cannot be read ({error.strerror}); the run is damaged") from error
    if altered:
        raise RunError(f"{folder / name}: {ALTERED}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(content: dict[str, Any]) -> bytes:
    others = {name: value for name, value in content["digests"].items() if name != CARD}
    return json.dumps(content | {"digests": others}, sort_keys=True, ensure_ascii=False).encode()


def read_run(folder: str | os.PathLike[str]) -> tuple[RunCard, Experiment]:
    """Read the card and the experiment of a finished run.

    Raises:
        RunError: no run, an unfinished or damaged one, or one of a newer carat.
    """
    path = Path(folder)
    if not path.is_dir():
        raise RunError(f"{path}: no such run (train one with `carat train`)")
    if not (path / EXPERIMENT).is_file():
        raise RunError(f"{path}: not a carat run, {EXPERIMENT} is missing")
    if not (path / CARD).is_file() or not (path / WEIGHTS).is_file():
        raise RunError(f"{path}: the training did not finish, {CARD} or {WEIGHTS} is missing")
    try:
        content = json.loads((path / CARD).read_text(encoding="utf-8"))
        if content.get("schema_version", 0) > SCHEMA:
            raise RunError(
                f"{path}: run of a newer carat (schema {content['schema_version']}); upgrade carat"
            )
        card = RunCard.model_validate(content)
        if card.digests and _digest(_canonical(content)) != card.digests.get(CARD):
            raise RunError(f"{path / CARD}: {ALTERED}")
    except ValidationError as error:
        raise RunError(f"{path / CARD}: {explain(error, RunCard)}") from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RunError(f"{path / CARD}: cannot be read ({error})") from error
    _check_digest(path, card, EXPERIMENT)
    return card, read_experiment(path)
