"""The run folder: names of its files, how it is claimed, and whether it holds a given experiment."""

from __future__ import annotations

from pathlib import Path

import yaml

from carat.config.base import read_yaml
from carat.config.encoders import ENCODERS
from carat.config.experiment import Experiment, parse_experiment
from carat.config.renamed import rename_keys
from carat.utils.errors import ConfigError, RunError
from carat.utils.files import write_atomically
from carat.utils.output_folder import FolderKind, first_difference, has_key, read_plan

CARD = "run.json"
EXPERIMENT = "experiment.yaml"
ENVIRONMENT = "environment.json"
WEIGHTS = "weights.safetensors"
METRICS = "metrics.csv"
CURVES = "curves.svg"
RELIABILITY = "reliability.svg"
REFERENCE = "reference.safetensors"
MODEL_CARD, MODEL_CARD_JSON = "model_card.md", "model_card.json"
CHECKPOINTS = "checkpoints"
LOGS = "logs"

RUN = FolderKind(
    name="run",
    markers=(ENVIRONMENT, EXPERIMENT),
    patterns=(
        *(CARD, WEIGHTS, METRICS, CURVES, RELIABILITY, REFERENCE, MODEL_CARD, MODEL_CARD_JSON),
        f"{CHECKPOINTS}/step-{'[0-9]' * 9}.ckpt",
        *(f"{LOGS}/hparams.yaml", f"{LOGS}/events.out.tfevents.*"),
        f"{ENCODERS}/*/*.json",
    ),
    finished=CARD,
    recognizes=lambda folder: has_key(folder / ENVIRONMENT, "packages"),
    shares_folder=True,
)
"""The folder of one training; it is begun with its environment, then its experiment."""


def write_experiment(folder: Path, experiment: Experiment) -> None:
    """Write the resolved experiment as YAML, which `carat train` reads."""
    text = yaml.safe_dump(experiment.model_dump(), sort_keys=False, allow_unicode=True)
    write_atomically(folder / EXPERIMENT, text)


def read_experiment(folder: Path) -> Experiment:
    """Read the experiment of a run, written with current or earlier names of its keys.

    Raises:
        ConfigError: it cannot be read or is invalid.
    """
    values, _ = rename_keys(read_yaml(folder / EXPERIMENT))
    return parse_experiment(values, str(folder / EXPERIMENT))


def what_differs(folder: Path, experiment: Experiment, fingerprint: str) -> str:
    """What distinguishes a run, finished or not, from a training of `experiment` on a store.

    Args:
        folder: the run.
        experiment: to compare with.
        fingerprint: of the store to compare with.

    Returns:
        The dotted key of the first value that differs, or "store"; empty if both are the same.

    Raises:
        RunError: the run's experiment or environment cannot be read.
    """
    try:
        trained = read_experiment(folder)
        trained_on = read_plan(folder / ENVIRONMENT).get("fingerprint")
    except ConfigError as error:
        raise RunError(f"{folder}: cannot be read ({error}); --overwrite starts anew") from error
    different = first_difference(trained.model_dump(), experiment.model_dump())
    return different or ("" if trained_on == fingerprint else "store")


def is_extension(folder: Path, experiment: Experiment, fingerprint: str) -> bool:
    """Whether a finished run differs from a training of `experiment` in a smaller number of epochs alone.

    Raises:
        RunError: the run's experiment or environment cannot be read.
    """
    if RUN.state(folder) != "finished":
        return False
    try:
        epochs = read_experiment(folder).training.epochs
    except ConfigError as error:
        raise RunError(f"{folder}: cannot be read ({error}); --overwrite starts anew") from error
    shortened = experiment.training.model_copy(update={"epochs": epochs})
    same = not what_differs(folder, experiment.model_copy(update={"training": shortened}), fingerprint)
    return same and epochs < experiment.training.epochs


def is_begun(folder: Path, experiment: Experiment, fingerprint: str) -> bool:
    """Whether a folder holds an unfinished run of `experiment` on the store with this fingerprint."""
    if RUN.state(folder) != "begun":
        return False
    try:
        return not what_differs(folder, experiment, fingerprint)
    except RunError:
        return False
