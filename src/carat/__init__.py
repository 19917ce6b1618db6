"""carat: which emotions, several at once, a person shows in speech, face and words.

>>> import carat
>>> carat.register_method.__module__
'carat.config.methods'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carat.config.carat import CaratConfig
    from carat.config.methods import MethodConfig, register_method
    from carat.data.store import open_store
    from carat.inference.predictor import Predictor, load
    from carat.models.base import Model, ModelOutputs, TrainingData
    from carat.models.carat.model import Carat
    from carat.training.train import train
    from carat.utils.errors import CaratError

__version__ = "0.1.0"
__all__ = [
    "Carat",
    "CaratConfig",
    "CaratError",
    "MethodConfig",
    "Model",
    "ModelOutputs",
    "Predictor",
    "TrainingData",
    "__version__",
    "load",
    "open_store",
    "register_method",
    "train",
]

_HOMES = {
    "Carat": "carat.models.carat.model",
    "CaratConfig": "carat.config.carat",
    "MethodConfig": "carat.config.methods",
    "Model": "carat.models.base",
    "ModelOutputs": "carat.models.base",
    "TrainingData": "carat.models.base",
    "register_method": "carat.config.methods",
    "open_store": "carat.data.store",
    "train": "carat.training.train",
    "load": "carat.inference.predictor",
    "Predictor": "carat.inference.predictor",
    "CaratError": "carat.utils.errors",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import on first use: `import carat` takes no time."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'carat' has no attribute '{name}'")
