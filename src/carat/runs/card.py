"""Card of a finished run, its weights, and their checksums."""

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
MODIFIED = "modified after training (SHA-256 mismatch); train again with --overwrite"


class ModalityCard(Section):
    """Input specification of one modality of a run."""

    width: int
    source: str
    transform: Transform | None = None
    """Preprocessing of raw features, fitted on the training split."""
    tokens: Tokens | None = None
    """Tokenizer and vocabulary, where an encoder reads token ids."""
    waveform: Waveform | None = None
    """Sampling rate, where an encoder reads audio samples."""
    pad_to: int = 0
    """Steps up to which a sequence is padded with unmasked zeros; see `data.padding`."""


class RunCard(Section):
    """Contents of `run.json`, which prediction needs besides the experiment and the weights."""

    schema_version: int = SCHEMA
    labels: list[str]
    modalities: dict[str, ModalityCard]
    """In the order of the M axis."""
    store: str
    """Name of the store with the training data."""
    fingerprint: str
    """Fingerprint of the store with the training data."""
    epoch: int
    """Epoch with the best validation micro-F1, counted from 1; 0 for converted weights."""
    thresholds: dict[str, float]
    """Decision thresholds by label, selected on the validation split in that epoch."""
    validation: dict[str, float | None]
    """Validation metrics of that epoch; None where undefined."""
    notes: list[str] = []
    digests: dict[str, str] = {}
    """SHA-256 of the files of the run; `run.json` itself is hashed without its own entry."""


def read_weights(folder: Path, card: RunCard) -> dict[str, Any]:
    """Load the state dictionary of a finished run, with current names.

    Raises:
        OSError, SafetensorError: the weights cannot be read.
    """
    from safetensors.torch import load_file

    weights = load_file(folder / WEIGHTS)
    return rename_weights(weights) if card.schema_version < 2 else weights


def write_weights(out: Path, weights: Mapping[str, Any]) -> None:
    """Write a state dictionary as safetensors."""
    from safetensors.torch import save

    content = {name: x.detach().cpu().contiguous() for name, x in weights.items()}
    replace_file(out / WEIGHTS, save(content))  # `save_file` would restrict permissions to the user


def write_card(out: Path, card: RunCard) -> None:
    """Write the card with the checksums of all files that prediction needs, which completes a run."""
    encoder_files = sorted(x.relative_to(out).as_posix() for x in (out / ENCODERS).rglob("*") if x.is_file())
    digests = {name: _digest((out / name).read_bytes()) for name in (EXPERIMENT, WEIGHTS, *encoder_files)}
    content = card.model_copy(update={"digests": digests}).model_dump()
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


def _check_digest(folder: Path, card: RunCard, name: str) -> None:
    try:
        modified = name in card.digests and _digest((folder / name).read_bytes()) != card.digests[name]
    except OSError as error:
        raise RunError(f"{folder / name}: cannot be read ({error.strerror}); the run is corrupt") from error
    if modified:
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
    if not (path / EXPERIMENT).is_file():
        raise RunError(f"{path}: not a carat run, {EXPERIMENT} is missing")
    if not (path / CARD).is_file() or not (path / WEIGHTS).is_file():
        raise RunError(f"{path}: the training did not finish, {CARD} or {WEIGHTS} is missing")
    try:
        content = json.loads((path / CARD).read_text(encoding="utf-8"))
        if content.get("schema_version", 0) > SCHEMA:
            raise RunError(
                f"{path}: written by a newer version of carat (schema {content['schema_version']}); "
                "upgrade carat"
            )
        card = RunCard.model_validate(content)
        if card.digests and _digest(_canonical(content)) != card.digests.get(CARD):
            raise RunError(f"{path / CARD}: {MODIFIED}")
    except ValidationError as error:
        raise RunError(f"{path / CARD}: {explain(error, RunCard)}") from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RunError(f"{path / CARD}: cannot be read ({error})") from error
    _check_digest(path, card, EXPERIMENT)
    return card, read_experiment(path)
