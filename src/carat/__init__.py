"""carat: which emotions, several at once, a person shows in speech, face and words.

>>> import carat
>>> carat.load_experiment(preset="small").training.epochs
5
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carat.config.experiment import Experiment, load_experiment
    from carat.data.corpora.importing import import_corpus
    from carat.data.recipes.build import build_store
    from carat.data.store import Store, open_store
    from carat.data.synthetic import make_synthetic
    from carat.evaluation.report import Report
    from carat.inference.evaluate import evaluate
    from carat.inference.explain.explanation import explain
    from carat.inference.export import export
    from carat.inference.prediction import Prediction
    from carat.inference.predictor import Predictor, load
    from carat.inference.writers import to_frame
    from carat.studies.ablation import ablate
    from carat.studies.leaderboard.comparison import compare
    from carat.studies.sweep import sweep
    from carat.training.train import train
    from carat.training.trained_run import TrainedRun
    from carat.utils.errors import CaratError

__version__ = "0.1.0"
__all__ = [
    "CaratError",
    "Experiment",
    "Prediction",
    "Predictor",
    "Report",
    "Store",
    "TrainedRun",
    "__version__",
    "ablate",
    "build_store",
    "compare",
    "evaluate",
    "explain",
    "export",
    "import_corpus",
    "load",
    "load_experiment",
    "make_synthetic",
    "open_store",
    "sweep",
    "to_frame",
    "train",
]

_HOMES = {
    "open_store": "carat.data.store",
    "Store": "carat.data.store",
    "build_store": "carat.data.recipes.build",
    "import_corpus": "carat.data.corpora.importing",
    "make_synthetic": "carat.data.synthetic",
    "Experiment": "carat.config.experiment",
    "load_experiment": "carat.config.experiment",
    "train": "carat.training.train",
    "TrainedRun": "carat.training.trained_run",
    "load": "carat.inference.predictor",
    "Predictor": "carat.inference.predictor",
    "Prediction": "carat.inference.prediction",
    "to_frame": "carat.inference.writers",
    "evaluate": "carat.inference.evaluate",
    "Report": "carat.evaluation.report",
    "compare": "carat.studies.leaderboard.comparison",
    "ablate": "carat.studies.ablation",
    "sweep": "carat.studies.sweep",
    "explain": "carat.inference.explain.explanation",
    "export": "carat.inference.export",
    "CaratError": "carat.utils.errors",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import on first use: `import carat` takes no time."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'carat' has no attribute '{name}'")
