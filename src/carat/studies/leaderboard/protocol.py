"""Protocol of a comparison: what all of its methods and stores have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carat.config.experiment import Experiment
from carat.config.methods import method_names


@dataclass(frozen=True)
class Protocol:
    """How methods are compared; see `carat.compare`."""

    presets: Mapping[str, Experiment]
    """Experiment of each method before tuning."""
    preset: str
    settings: Mapping[str, Any]
    seeds: int
    """Number of seeds."""
    budget: int

    @property
    def plan(self) -> dict[str, Any]:
        """What must stay the same for a comparison to be resumed, besides the data."""
        return {"preset": self.preset, "settings": dict(self.settings), "budget": self.budget}

    @property
    def tuning(self) -> str:
        """Describe the tuning, as part of a sentence."""
        if self.budget > 1:
            return (
                f"each method was tuned with {self.budget} trials on validation (learning rate and dropout, "
                "or the L2 penalty of a logistic regression)"
            )
        return "no hyperparameters were tuned: every method uses its preset"

    def command(self, methods: Sequence[str], stores: str = "STORE", more: str = "") -> str:
        """Command that repeats the comparison.

        Args:
            methods: names of the compared methods.
            stores: arguments of `--data`.
            more: further options.
        """
        settings = " --settings SETTINGS.yaml" if self.settings else ""
        every = set(methods) == set(method_names())
        return (
            f"carat compare --data {stores} --out DIR --methods {'all' if every else ' '.join(methods)} "
            f"--preset {self.preset} --seeds {self.seeds} --budget {self.budget}{settings}{more}"
        )
