"""Loading a finished run for inference."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from carat.inference.predictor import Precision, Predictor
from carat.inference.scale import ScoreOptions, ScoreScale
from carat.runs.locating import locate
from carat.runs.model import load_model


def load(
    run: str | os.PathLike[str],
    device: str | None = None,
    precision: Precision = "float32",
    *,
    vectors: str | os.PathLike[str] | None = None,
    calibrated: bool = True,
    risk: float | None = None,
    false_discovery: float | None = None,
) -> Predictor:
    """Load a finished run for inference; the training store is not needed.

    Args:
        run: folder created by `carat train`, a `TrainedRun`, or a run on the Hugging Face Hub,
            "hf://owner/name@revision", which is downloaded into `$CARAT_CACHE`.
        device: PyTorch device, e.g. "cpu" or "cuda:1"; defaults to a GPU if one is available.
        precision: "float32", in which thresholds were chosen, or "bf16", which is faster on hardware that
            supports it and changes scores by about 0.01.
        vectors: file of the word vectors that the run was trained on, for `predict_text`.
        calibrated: return calibrated scores if the run has a calibration; False for those of the model.
        risk: promised false-negative rate, in [0.01, 0.5]: predictions get `decisions`, and labels are called
            absent only as far as this allows.
        false_discovery: promised false-discovery rate, in [0.01, 0.5]: labels are called present only as far
            as this allows.

    Returns:
        Predictor with the model on the device.

    Raises:
        RunError: there is no run, it is unfinished or corrupt, or a risk is promised and it has no
            calibration; or see `carat.runs.hub.download`.

    Example:
        carat.load("demo-run", device="cpu").labels
    """
    folder = locate(run)
    card, experiment, model = load_model(folder)
    scale = ScoreScale(folder, card, ScoreOptions(calibrated, risk, false_discovery))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    file = None if vectors is None else Path(vectors)
    return Predictor(folder, card, experiment, model.to(device), precision, file, scale)
