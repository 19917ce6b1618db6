"""Multimodal, multi-label emotion recognition from text, audio and video.

>>> import carat
>>> carat.load_experiment(preset="small").training.epochs
5
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from carat.utils.logging import show_progress

if TYPE_CHECKING:
    from carat.config.carat import CaratConfig
    from carat.config.experiment import Experiment, load_experiment
    from carat.config.methods import MethodConfig, register_method
    from carat.data.corpora.importing import import_corpus
    from carat.data.merge.merging import merge_stores
    from carat.data.recipes.build import build_store
    from carat.data.store import Store, open_store
    from carat.data.synthetic import make_synthetic
    from carat.evaluation.report import Report
    from carat.features.clip import Clip, read_clip
    from carat.inference.calibrate import calibrate_run
    from carat.inference.clips.timeline import Timeline
    from carat.inference.ensemble import ensemble
    from carat.inference.evaluate import evaluate
    from carat.inference.explain.explanation import explain
    from carat.inference.export import export
    from carat.inference.export.without_base import export_without_base
    from carat.inference.loading import load
    from carat.inference.model_card import make_model_card
    from carat.inference.monitor import monitor
    from carat.inference.prediction import Prediction
    from carat.inference.predictor import Predictor
    from carat.inference.tune_thresholds import tune_thresholds
    from carat.inference.writers import to_frame
    from carat.models.base import Model, ModelOutputs, TrainingData
    from carat.models.carat.model import Carat
    from carat.runs.hub import push
    from carat.runs.listing import ListedRun, list_runs
    from carat.serve.client import Client
    from carat.studies.ablation import ablate
    from carat.studies.leaderboard.comparison import compare
    from carat.studies.sweep import sweep
    from carat.training.train import train
    from carat.training.trained_run import TrainedRun
    from carat.utils.errors import CaratError

    __version__: str

__all__ = [
    "Carat",
    "CaratConfig",
    "CaratError",
    "Client",
    "Clip",
    "Experiment",
    "ListedRun",
    "MethodConfig",
    "Model",
    "ModelOutputs",
    "Prediction",
    "Predictor",
    "Report",
    "Store",
    "Timeline",
    "TrainedRun",
    "TrainingData",
    "__version__",
    "ablate",
    "build_store",
    "calibrate_run",
    "compare",
    "ensemble",
    "evaluate",
    "explain",
    "export",
    "export_without_base",
    "import_corpus",
    "list_runs",
    "load",
    "load_experiment",
    "make_model_card",
    "make_synthetic",
    "merge_stores",
    "monitor",
    "open_store",
    "push",
    "read_clip",
    "register_method",
    "sweep",
    "to_frame",
    "train",
    "tune_thresholds",
]

_HOMES = {
    "Carat": "carat.models.carat.model",
    "CaratConfig": "carat.config.carat",
    "CaratError": "carat.utils.errors",
    "Client": "carat.serve.client",
    "Clip": "carat.features.clip",
    "Experiment": "carat.config.experiment",
    "ListedRun": "carat.runs.listing",
    "MethodConfig": "carat.config.methods",
    "Model": "carat.models.base",
    "ModelOutputs": "carat.models.base",
    "Prediction": "carat.inference.prediction",
    "Predictor": "carat.inference.predictor",
    "Report": "carat.evaluation.report",
    "Store": "carat.data.store",
    "Timeline": "carat.inference.clips.timeline",
    "TrainedRun": "carat.training.trained_run",
    "TrainingData": "carat.models.base",
    "ablate": "carat.studies.ablation",
    "build_store": "carat.data.recipes.build",
    "calibrate_run": "carat.inference.calibrate",
    "compare": "carat.studies.leaderboard.comparison",
    "ensemble": "carat.inference.ensemble",
    "evaluate": "carat.inference.evaluate",
    "explain": "carat.inference.explain.explanation",
    "export": "carat.inference.export",
    "export_without_base": "carat.inference.export.without_base",
    "import_corpus": "carat.data.corpora.importing",
    "list_runs": "carat.runs.listing",
    "load": "carat.inference.loading",
    "load_experiment": "carat.config.experiment",
    "make_model_card": "carat.inference.model_card",
    "make_synthetic": "carat.data.synthetic",
    "merge_stores": "carat.data.merge.merging",
    "monitor": "carat.inference.monitor",
    "open_store": "carat.data.store",
    "push": "carat.runs.hub",
    "read_clip": "carat.features.clip",
    "register_method": "carat.config.methods",
    "sweep": "carat.studies.sweep",
    "to_frame": "carat.inference.writers",
    "train": "carat.training.train",
    "tune_thresholds": "carat.inference.tune_thresholds",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import on first use: `import carat` takes no time."""
    if name == "__version__":
        return import_module("carat.utils.version").version()
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'carat' has no attribute '{name}'")


show_progress()
