"""How the scores of a run become probabilities: the part of its card that calibration writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from carat.config.base import MAX_FLOAT, Count, Section
from carat.data.store.manifest import Manifest

Probability = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0, le=MAX_FLOAT)]
MAX_POINTS = 100_000
"""Limit of the points of an isotonic map."""


class LabelCalibration(Section):
    """The map of one label, see `carat.evaluation.calibration.maps.ScoreMap`, and on what it was chosen."""

    kind: Literal["none", "temperature", "platt", "isotonic", "beta"]
    a: Factor = 1.0
    b: Factor = 1.0
    c: Annotated[float, Field(ge=-MAX_FLOAT, le=MAX_FLOAT)] = 0.0
    x: Annotated[list[Probability], Field(max_length=MAX_POINTS)] = []
    y: Annotated[list[Probability], Field(max_length=MAX_POINTS)] = []
    positives: Count
    known: Count
    """Samples in which the label is known."""
    log_loss: dict[str, float] = {}
    """Cross-validated log loss by kind of map that was tried."""
    note: str = ""
    """Why fewer kinds were tried."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "isotonic" and not (
            len(self.x) == len(self.y) > 0 and self.x == sorted(self.x) and self.y == sorted(self.y)
        ):
            raise ValueError("an isotonic map needs increasing points x and as many y")
        if self.kind not in ("none", "isotonic") and self.a + self.b <= 0:
            raise ValueError("the map does not increase: a + b is 0")
        return self


class LabelBounds(Section):
    """Bounds of the scores of one label by risk, see `carat.evaluation.conformal.Bounds`."""

    groups: Count
    positive_groups: Count
    absent: list[Probability | None]
    present: list[Probability | None]


class RunCalibration(Section):
    """Calibration of a run, and the data that it was learnt on."""

    store: str
    """Name of the store."""
    fingerprint: str
    """Fingerprint of the store."""
    split: str
    samples: Count
    groups: Count
    labels: dict[str, LabelCalibration]
    """By label, in the order of the labels of the run."""
    risks: list[Probability]
    """Risks for which there are bounds, rising."""
    bounds: dict[str, LabelBounds]
    """By label, in the order of the labels of the run; they are bounds of raw scores."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.risks != sorted(self.risks) or not self.risks:
            raise ValueError("risks must rise")
        for name, x in self.bounds.items():
            if not len(x.absent) == len(x.present) == len(self.risks):
                raise ValueError(f"bounds of '{name}': expected one per risk")
        return self

    @classmethod
    def of_split(
        cls,
        store: Manifest,
        split: str,
        groups: NDArray[Any],
        labels: Mapping[str, Any],
        risks: Sequence[float],
        bounds: Mapping[str, Any],
    ) -> Self:
        """Describe what was learnt on a split.

        Args:
            store: manifest of the store.
            split: split of the store.
            groups: (N,) groups of the scored samples.
            labels: map by label, with the fields of `LabelCalibration`.
            risks: risks for which there are bounds, rising.
            bounds: bounds by label, with the fields of `LabelBounds`.
        """
        return cls.model_validate(
            {
                "store": store.name,
                "fingerprint": store.fingerprint,
                "split": split,
                "samples": len(groups),
                "groups": len(np.unique(groups)),
                "labels": labels,
                "risks": risks,
                "bounds": bounds,
            }
        )

    def in_order(self, labels: list[str]) -> Self:
        """Bring labels into an order.

        Raises:
            ValueError: other labels.
        """
        for found in (self.labels, self.bounds):
            if sorted(found) != sorted(labels):
                raise ValueError(f"labels {', '.join(found) or 'none'}, expected {', '.join(labels)}")
        update = {
            "labels": {x: self.labels[x] for x in labels},
            "bounds": {x: self.bounds[x] for x in labels},
        }
        return self.model_copy(update=update)
