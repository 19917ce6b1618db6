"""carat: which emotions, several at once, a person shows in speech, face and words.

>>> import carat
>>> sorted(carat.__all__)
['CaratError', 'Predictor', '__version__', 'load', 'open_store', 'train']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from carat.utils.logging import show_progress

if TYPE_CHECKING:
    from carat.data.store import open_store
    from carat.inference.predictor import Predictor, load
    from carat.training.train import train
    from carat.utils.errors import CaratError

    __version__: str

__all__ = ["CaratError", "Predictor", "__version__", "load", "open_store", "train"]

_HOMES = {
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
    if name == "__version__":
        return import_module("carat.utils.version").version()
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'carat' has no attribute '{name}'")


show_progress()
