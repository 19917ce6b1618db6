"""Configuration section of ensembles."""

from __future__ import annotations

from carat.config.encoders import EncoderChoice
from carat.config.experiment import MethodChoice
from carat.config.methods import MethodConfig


class Member(MethodChoice):
    """A trained run within an ensemble."""

    modalities: list[str]
    """Its modalities, in the order of its M axis."""
    encoders: dict[str, EncoderChoice] = {}
    """Its pretrained encoders by modality."""


class EnsembleConfig(MethodConfig):
    """Mean of the scores of trained runs, made by `carat ensemble`."""

    members: list[Member] = []
    """The runs."""
