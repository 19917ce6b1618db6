"""The model of a finished run, with its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError

from carat.config.experiment import Experiment
from carat.models.base import Model
from carat.models.build import build
from carat.runs.card import RunCard, check_files, check_padding, read_run
from carat.runs.folder import WEIGHTS
from carat.runs.weights import read_weights
from carat.utils.errors import RunError


def load_model(folder: Path) -> tuple[RunCard, Experiment, Model]:
    """Read a finished run, and construct its model on the CPU; the random state stays as it is.

    Raises:
        RunError: there is no run, or it is unfinished or corrupt.
    """
    card, experiment = read_run(folder)
    check_files(folder, card)
    with torch.random.fork_rng(devices=[]):
        model = build(experiment.method, experiment.encoders, card.labels, card.modalities, folder)
    check_padding(folder, card, model.max_length)
    try:
        model.load_state_dict(read_weights(folder, card))
    except (SafetensorError, OSError, RuntimeError) as error:
        problem = f"corrupt, or does not match the experiment ({str(error).strip().splitlines()[-1].strip()})"
        raise RunError(f"{folder / WEIGHTS}: {problem}") from error
    return card, experiment, model
