"""How the raw scores of a run are returned: calibrated, and as decisions at a promised risk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.calibration.maps import ScoreMap, map_scores, map_thresholds
from carat.evaluation.conformal import decide, guarantee
from carat.runs.calibration import LabelBounds, RunCalibration
from carat.runs.card import RunCard
from carat.utils.errors import RunError

CALIBRATE = "calibrate it: carat calibrate RUN --data STORE"


@dataclass(frozen=True)
class ScoreOptions:
    """What is made of scores.

    Args:
        calibrated: map scores to probabilities if the run has a calibration.
        risk: promised false-negative rate of decisions, in [0.01, 0.5].
        false_discovery: promised false-discovery rate of decisions, in [0.01, 0.5].
    """

    calibrated: bool = True
    risk: float | None = None
    false_discovery: float | None = None


class ScoreScale:
    """Maps, thresholds and bounds of a run.

    Args:
        folder: the run.
        card: its card.
        options: what is made of its scores.

    Raises:
        RunError: a risk is promised, but the run has no calibration, or the risk is out of range.
    """

    def __init__(self, folder: Path, card: RunCard, options: ScoreOptions | None = None) -> None:
        self.folder, self.card, self.options = folder, card, options or ScoreOptions()
        maps = card.calibration.labels.values() if card.calibration else ()
        self.calibrated = self.options.calibrated and any(x.kind != "none" for x in maps)
        """Whether scores are calibrated."""
        self._absent = self._bounds(self.options.risk, "absent", -np.inf)
        self._present = self._bounds(self.options.false_discovery, "present", np.inf)

    @cached_property
    def maps(self) -> list[ScoreMap]:
        """Map of the scores of each label to those that are returned."""
        if self.calibrated and self.card.calibration:
            labels = self.card.calibration.labels.values()
            return [ScoreMap(x.kind, x.a, x.b, x.c, x.x, x.y) for x in labels]
        return [ScoreMap()] * len(self.card.labels)

    @cached_property
    def raw_thresholds(self) -> dict[str, float]:
        """Thresholds of raw scores by label."""
        return {name: self.card.thresholds[name] for name in self.card.labels}

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """Thresholds of the scores that are returned, by label."""
        return map_thresholds(self.raw_thresholds, self.maps)

    @property
    def decides(self) -> bool:
        """Whether a risk is promised."""
        return self._absent is not None or self._present is not None

    def __call__(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Map raw scores (N, L) to those that are returned: float64 if calibrated, else the same."""
        return map_scores(raw, self.maps) if self.calibrated else raw

    def decide(self, raw: NDArray[Any]) -> NDArray[np.str_]:
        """Call labels present, absent or unsure (N, L), from raw scores (N, L)."""
        thresholds = np.array(list(self.raw_thresholds.values()))
        return decide(raw, thresholds, self._absent, self._present)

    def guarantee(self) -> list[str]:
        """What is promised, under which assumption; nothing if no risk is."""
        if not self.decides:
            return []
        card = self._calibration
        source = f"split {card.split} of store {card.store} ({card.groups} groups, {card.samples} samples)"
        risk, discovery = (self._promised(x) for x in (self.options.risk, self.options.false_discovery))
        return guarantee(risk, discovery, source, card.bounds)

    @property
    def _calibration(self) -> RunCalibration:
        if self.card.calibration is None:
            raise RunError(f"{self.folder}: has no calibration, so that no risk can be promised; {CALIBRATE}")
        return self.card.calibration

    def _promised(self, risk: float | None) -> float | None:
        """The largest risk that has bounds and is not larger than this one."""
        if risk is None:
            return None
        risks = self._calibration.risks
        if not risks[0] <= risk <= risks[-1]:
            raise RunError(f"a risk must be between {risks[0]} and {risks[-1]}, found {risk}")
        return max(x for x in risks if x <= risk + 1e-9)

    def _bounds(self, risk: float | None, side: str, never: float) -> NDArray[np.float64] | None:
        promised = self._promised(risk)
        if promised is None:
            return None
        index = self._calibration.risks.index(promised)
        bounds: Mapping[str, LabelBounds] = self._calibration.bounds
        values = [getattr(bounds[name], side)[index] for name in self.card.labels]
        return np.array([never if x is None else x for x in values], dtype=np.float64)
