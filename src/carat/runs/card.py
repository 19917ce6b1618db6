"""What a run folder holds, written once and read by everything that uses a trained method."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from carat.config.base import Section, explain, first_difference, read_yaml
from carat.config.encoders import ENCODERS
from carat.config.experiment import Experiment, parse_experiment
from carat.config.renamed import rename_keys
from carat.data.store.manifest import ModalityInfo, Tokens, Waveform
from carat.data.store.transform import Transform
from carat.runs.compatibility import rename_weights
from carat.utils.errors import ConfigError, DataError, RunError
from carat.utils.locking import LOCK

SCHEMA = 2
CARD = "run.json"
EXPERIMENT = "experiment.yaml"
ENVIRONMENT = "environment.json"
WEIGHTS = "weights.safetensors"
METRICS = "metrics.csv"
CURVES = "curves.svg"
CHECKPOINTS = "checkpoints"
LOGS = "logs"
NAMES = {CARD, EXPERIMENT, ENVIRONMENT, WEIGHTS, METRICS, CURVES, CHECKPOINTS, LOGS, ENCODERS}
"""Everything that a run folder may hold."""
UNFINISHED = ".unfinished"
ALTERED = "altered since the training finished; train again with --overwrite"


class ModalityCard(Section):
    """What a run expects of one modality."""

    width: int
    source: str
    transform: Transform | None = None
    """What was done to the raw features."""
    tokens: Tokens | None = None
    """What ids of tokens mean, where an encoder reads them."""
    waveform: Waveform | None = None
    """What samples of sound mean, where an encoder hears them."""
    pad_to: int = 0
    """Steps up to which zeros after a sequence count as steps; see `data.padding`."""


class RunCard(Section):
    """Contents of `run.json`: with the experiment and the weights, all that prediction needs."""

    schema_version: int = SCHEMA
    labels: list[str]
    modalities: dict[str, ModalityCard]
    """In the order of the M axis."""
    store: str
    """Name of the store that was trained on."""
    fingerprint: str
    """Fingerprint of that store."""
    epoch: int
    """The epoch that was kept, counted from 1: best validation micro-F1; 0 where none was trained."""
    thresholds: dict[str, float]
    """By label, found on the validation split in that epoch."""
    validation: dict[str, float | None]
    """Validation metrics of that epoch; None where undefined."""
    notes: list[str] = []
    digests: dict[str, str] = {}
    """SHA-256 of other files of the run; of `run.json` itself, without this entry, under its own name."""


def prepare_folder(out: Path, overwrite: bool) -> None:
    """Make sure that a run may be written to `out`; nothing is written yet.

    Raises:
        RunError: the folder is not empty and not ours to replace.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    begun = {LOCK, ENVIRONMENT, _unfinished(ENVIRONMENT), _unfinished(EXPERIMENT)}
    if out.is_dir() and {path.name for path in out.iterdir()} <= begun:
        return  # a run that was ended before it could begin
    if not (out / EXPERIMENT).is_file() or not (out / ENVIRONMENT).is_file():
        raise RunError(f"{out}: exists and is not a carat run; choose another folder")
    own = {LOCK} | NAMES | {_unfinished(name) for name in NAMES}
    foreign = sorted(path.name for path in out.iterdir() if path.name not in own)
    if foreign:
        raise RunError(f"{out}: holds '{foreign[0]}', which is not of a carat run; choose another folder")
    if not overwrite:
        kind = "a run" if (out / CARD).is_file() else "an unfinished run"
        raise RunError(f"{out}: holds {kind} already; --overwrite replaces it")


def clear_folder(out: Path) -> None:
    """Remove what a run folder holds, but for the lock; what says that it is a run goes last."""
    last = [EXPERIMENT, ENVIRONMENT, LOCK]
    for path in sorted(out.iterdir(), key=lambda path: path.name in last):
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_begun(out: Path, experiment: Experiment, fingerprint: str) -> bool:
    """Whether a folder holds an unfinished run of this experiment on the store with this fingerprint."""
    if (out / CARD).is_file() or not (out / EXPERIMENT).is_file():
        return False
    try:
        return not what_differs(out, experiment, fingerprint)
    except RunError:
        return False


def what_differs(out: Path, experiment: Experiment, fingerprint: str) -> str:
    """What a run, finished or not, has otherwise than this experiment on this store; nothing if all is equal.

    Raises:
        RunError: its experiment or its environment cannot be read.
    """
    try:
        found = read_experiment(out)
        on = json.loads((out / ENVIRONMENT).read_text(encoding="utf-8")).get("fingerprint")
    except (ConfigError, OSError, ValueError, AttributeError) as error:
        raise RunError(f"{out}: what it holds cannot be read ({error}); --overwrite starts anew") from error
    other = first_difference(found.model_dump(), experiment.model_dump())
    if other:
        return f"another {other}"
    return "" if on == fingerprint else "another store"


def _unfinished(name: str) -> str:
    return f".{name}{UNFINISHED}"


def replace_file(file: Path, *parts: bytes | memoryview) -> None:
    """Write a file so that it is either whole or as it was, even if the machine loses power."""
    temporary = file.with_name(_unfinished(file.name))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as opened:
            for part in parts:
                opened.write(part)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # room for what else is to be kept
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error


def write_atomically(file: Path, text: str) -> None:
    """Write a text file so that it is either whole or as it was."""
    replace_file(file, text.encode())


def write_experiment(out: Path, experiment: Experiment) -> None:
    """The resolved experiment as YAML, which `carat train` reads again."""
    text = yaml.safe_dump(experiment.model_dump(), sort_keys=False, allow_unicode=True)
    write_atomically(out / EXPERIMENT, text)


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run, under the current names of its keys.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    values, _ = rename_keys(read_yaml(folder / EXPERIMENT))
    return parse_experiment(values, str(folder / EXPERIMENT))


def read_weights(folder: Path, card: RunCard) -> dict[str, Any]:
    """The state dictionary of a finished run, under the current names of its weights.

    Raises:
        OSError, SafetensorError: it cannot be read.
    """
    from safetensors.torch import load_file

    weights = load_file(folder / WEIGHTS)
    return rename_weights(weights) if card.schema_version < 2 else weights


def write_weights(out: Path, weights: Mapping[str, Any]) -> None:
    """A state dictionary as safetensors."""
    from safetensors.torch import save

    content = {name: x.detach().cpu().contiguous() for name, x in weights.items()}
    replace_file(out / WEIGHTS, save(content))  # `save_file` would make it private to the user


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """A mapping as indented JSON."""
    write_atomically(file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_card(out: Path, card: RunCard) -> None:
    """Finish a run: the card, with digests of what the run cannot be used without."""
    kept = sorted(x.relative_to(out).as_posix() for x in (out / ENCODERS).rglob("*") if x.is_file())
    digests = {name: _digest((out / name).read_bytes()) for name in (EXPERIMENT, WEIGHTS, *kept)}
    content = card.model_copy(update={"digests": digests}).model_dump()
    content["digests"][CARD] = _digest(_canonical(content))
    write_json(out / CARD, content)


def check_digest(folder: Path, card: RunCard, name: str) -> None:
    """Refuse a file that is not what was written; runs of an early carat have no digests.

    Raises:
        RunError: names the file.
    """
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
    """The card and the experiment of a finished run.

    Raises:
        RunError: no run, an unfinished one, or one of a newer carat.
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
        newer = content.get("schema_version", 0) > SCHEMA
        if newer:
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
    check_digest(path, card, EXPERIMENT)
    return card, read_experiment(path)


def check_fit(
    run: str, card: RunCard, store: str, labels: list[str] | None, modalities: Mapping[str, ModalityInfo]
) -> None:
    """Refuse data that a run cannot read.

    Args:
        run: name of the run, for the error.
        card: what the run expects.
        store: name of the data, for the error.
        labels: label names of the data, None if it has none.
        modalities: what the data says of them.

    Raises:
        DataError: other labels, another width or tokenizer, or none of the run's modalities.
    """
    if labels is not None and labels != card.labels:
        raise DataError(
            f"{store}: labels {', '.join(labels)}, but the run {run} was trained on {', '.join(card.labels)}"
        )
    for m in card.modalities.keys() & modalities.keys():
        found, expected = modalities[m], card.modalities[m]
        kinds = [
            (x.tokens and (x.tokens.tokenizer, x.tokens.context), x.waveform and x.waveform.rate)
            for x in (found, expected)
        ]
        if kinds[0] != kinds[1]:
            _check_context(run, store, m, found.tokens, expected.tokens)
            raise DataError(
                f"{store}: {m} holds {_content(found)}, but the run {run} was trained on {_content(expected)}"
            )
        if found.width != expected.width:
            raise DataError(
                f"{store}: {m} has width {found.width}, but the run {run} was trained on {expected.width}"
            )
    if not card.modalities.keys() & modalities.keys():
        raise DataError(
            f"{store}: none of the run's modalities ({', '.join(card.modalities)}) is in the data"
        )


def _check_context(run: str, store: str, m: str, found: Tokens | None, expected: Tokens | None) -> None:
    """Refuse tokens of the same tokenizer that are read in another context."""
    if found and expected and found.tokenizer == expected.tokenizer:
        read, learned = (
            f"{x.context} tokens of context on either side" if x.context else "no context"
            for x in (found, expected)
        )
        raise DataError(
            f"{store}: {m} is read with {read}, but the run {run} was trained with {learned}; build a store "
            f"whose recipe says context: {expected.context}"
        )


def _content(described: ModalityInfo | ModalityCard) -> str:
    if described.tokens is not None:
        return f"tokens by the tokenizer {described.tokens.tokenizer[:12]}"
    if described.waveform is not None:
        return f"sound at {described.waveform.rate} samples per second"
    return "features"


def describe_environment() -> dict[str, Any]:
    """Versions, machine, command and commit, so that a result can be traced."""
    packages = ("carat", "torch", "lightning", "numpy", "scikit-learn")
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "command": sys.argv,
        "commit": commit(),
    }


def commit() -> str | None:
    """Commit of the checkout that carat runs from, with `+changes` if it was modified; None elsewhere."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
