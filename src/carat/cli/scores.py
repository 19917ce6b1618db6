"""Options of commands that load a run: precision, calibration and promised risks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from carat.inference.predictor import Predictor

Risk = Annotated[float | None, Parameter(validator=Number(gte=0.01, lte=0.5))]


@Parameter(name="*", group=Group("Scores", sort_key=4))
@dataclass(frozen=True)
class ScoreArguments:
    """What is made of the scores of a run."""

    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the forward pass: bf16 is faster on hardware that supports it; thresholds were chosen in
    float32, so compare metrics with `evaluate`."""
    uncalibrated: Annotated[bool, Parameter(negative=())] = False
    """Scores as the model gives them, instead of calibrated ones. Predicted labels are the same."""
    risk: Risk = None
    """Decide present, absent or unsure for each label, with this false-negative rate at most, e.g. .1: a
    promise for new groups (videos, dialogues) like those of validation."""
    fdr: Risk = None
    """The same with this false-discovery rate at most, alone or with --risk."""

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `carat.load`."""
        return {
            "precision": self.precision,
            "calibrated": not self.uncalibrated,
            "risk": self.risk,
            "false_discovery": self.fdr,
        }

    def load(self, run: Path, vectors: Path | None = None) -> Predictor:
        """Load a run with these options."""
        from carat.inference.loading import load

        return load(run, vectors=vectors, **self.options)
