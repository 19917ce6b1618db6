"""The rivals' part of an experiment: one section each, with what was published as defaults."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from carat.carat_config import CaratConfig, CaratPlusConfig
from carat.sections import Positive, Section, Share

Starts = dict[str, dict[str, Any]]
"""What a preset says of a method, as part of an experiment."""

SMALL_ENCODER: dict[str, Any] = {"layers": 1, "heads": 4, "feedforward": 64, "dropout": 0.1}
"""For a laptop."""


class SequenceEncoderConfig(Section):
    """A Transformer encoder, the same for every modality (post-norm, GELU, learned positions)."""

    layers: Positive = 4
    """Transformer layers."""
    heads: Positive = 8
    """Attention heads; must divide `hidden`."""
    feedforward: Positive = 256
    """Width of the feed-forward part of a layer."""
    dropout: Share = 0.3
    """Dropout on embeddings, attention weights and hidden states."""
    max_length: Positive = 500
    """Longest sequence, in time steps, that has a position embedding."""


class PriorConfig(Section):
    """Training label frequencies, whatever the sample: the floor under every other method."""

    STARTS: ClassVar[Starts] = {"paper": {}, "small": {}}

    name: Literal["prior"] = "prior"
    """Which method to train."""


class PooledConfig(Section):
    """Logistic regression on features averaged over time."""

    STARTS: ClassVar[Starts] = {"paper": {}, "small": {}}

    strength: float = Field(default=1.0, gt=0)
    """Inverse strength of the L2 penalty, scikit-learn's C."""
    iterations: Positive = 300
    """Steps of the solver at most."""


class BinaryRelevanceConfig(PooledConfig):
    """Binary relevance: one logistic regression for each label (Boutell et al. 2004)."""

    name: Literal["br"] = "br"
    """Which method to train."""


class ClassifierChainConfig(PooledConfig):
    """Classifier chain: each label's regression sees the labels before it (Read et al. 2011)."""

    name: Literal["cc"] = "cc"
    """Which method to train."""


class LabelPowersetConfig(PooledConfig):
    """Label powerset: one multinomial regression over sets of labels (Tsoumakas and Katakis 2007)."""

    name: Literal["lp"] = "lp"
    """Which method to train."""
    sets: Positive = 64
    """Sets of labels that are told apart, the most frequent ones; samples with others are not learnt from."""


class EarlyFusionConfig(Section):
    """One Transformer over the modalities' sequences, laid on one time axis and joined step by step."""

    STARTS: ClassVar[Starts] = {
        "paper": {},
        "small": {"method": {"hidden": 64, "steps": 30, "encoder": SMALL_ENCODER}},
    }

    name: Literal["early-fusion"] = "early-fusion"
    """Which method to train."""
    hidden: Positive = 256
    """Width of the Transformer."""
    steps: Positive = 60
    """Steps of the common time axis; at most `encoder.max_length`."""
    encoder: SequenceEncoderConfig = SequenceEncoderConfig()


class LateFusionConfig(Section):
    """One Transformer and one classifier for each modality; their logits are averaged."""

    STARTS: ClassVar[Starts] = {"paper": {}, "small": {"method": {"hidden": 64, "encoder": SMALL_ENCODER}}}

    name: Literal["late-fusion"] = "late-fusion"
    """Which method to train."""
    hidden: Positive = 256
    """Width of the Transformers."""
    encoder: SequenceEncoderConfig = SequenceEncoderConfig()


MethodConfig = (
    CaratConfig
    | CaratPlusConfig
    | PriorConfig
    | BinaryRelevanceConfig
    | ClassifierChainConfig
    | LabelPowersetConfig
    | EarlyFusionConfig
    | LateFusionConfig
)
"""The section of any method."""

METHOD_SECTIONS: dict[str, type[MethodConfig]] = {
    "carat": CaratConfig,
    "carat+": CaratPlusConfig,
    "prior": PriorConfig,
    "br": BinaryRelevanceConfig,
    "cc": ClassifierChainConfig,
    "lp": LabelPowersetConfig,
    "early-fusion": EarlyFusionConfig,
    "late-fusion": LateFusionConfig,
}
"""By the name that an experiment gives in `method.name`."""
