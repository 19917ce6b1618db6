"""Origin of a run whose training started from the weights of another run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from carat.config.base import Count, Section
from carat.config.experiment import InitParts

NAMES = 5
"""Parts of a model that `Origin.summary` names."""


class Origin(Section):
    """The run that a training started from, and what was taken of it."""

    run: str
    """Folder of that run, as in `training.init_from`; it is not needed any more."""
    method: str
    """Its method."""
    store: str
    """Name of the store that it was trained on."""
    fingerprint: str
    """Fingerprint of that store."""
    weights: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of its weights."""
    parts: InitParts
    """Requested parts, `training.init_parts`."""
    encoders: list[str]
    """Modalities whose pretrained encoders were taken."""
    labels: list[str]
    """Labels of which weights were taken."""
    tensors: Count
    """Number of tensors that were taken at least in part."""
    total: Count
    """Number of tensors of the model, without memory banks."""
    initial: list[str]
    """Parts of the model that kept their initial values."""
    other_features: list[str] = []
    """Modalities whose features were extracted in another way than those of that run."""

    def summary(self, labels: list[str]) -> list[str]:
        """Describe in one or two lines what was taken and what was not; a third one warns of other features.

        Args:
            labels: labels of the run that started from this one.
        """
        parts = "" if self.parts == "all" else f", {self.parts} only"
        taken = [f"{self.tensors} of {self.total} tensors{parts}"]
        if self.encoders:
            taken.append(f"the pretrained encoder of {', '.join(self.encoders)}")
        if self.labels:
            taken.append(f"labels {', '.join(self.labels)}")
        lines = [f"started from {self.run} (weights {self.weights[:12]}): {'; '.join(taken)}"]
        new = [label for label in labels if label not in self.labels]
        more = len(self.initial) - NAMES
        names = ", ".join(self.initial[:NAMES]) + (f" and {more} more" if more > 0 else "")
        left = [f"labels {', '.join(new)}"] * bool(new) + [names] * bool(names)
        lines += [f"initial values: {'; '.join(left)}"] * bool(left)
        if self.other_features:
            lines.append(
                f"{', '.join(self.other_features)}: features were extracted in another way than those of "
                f"{self.run}, so that its weights may not suit them"
            )
        return lines
