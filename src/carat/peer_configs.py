"""The rivals' part of an experiment: one section each, with what was published as defaults."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from carat.carat_config import CaratConfig, CaratPlusConfig
from carat.sections import Positive, Section, Share, Weight

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


class LdduWeights(Section):
    """Weight of each term in LDDU's objective; but for the divergence, those of the authors' script."""

    labels: Weight = 1.0
    """Cross-entropy of the fused label logits."""
    modalities: Weight = 0.3
    """Cross-entropy of every modality's own label logits."""
    contrast: Weight = 1.0
    """Supervised contrast of the latents."""
    divergence: Weight = 0.01
    """Kullback-Leibler divergence from the standard normal, per dimension; 0 in the authors' script."""
    calibration: Weight = 0.3
    """How far the uncertainty is from ranking as the error does."""


class LdduConfig(Section):
    """LDDU (Huang et al., ACL Findings 2025); values of the authors' training script."""

    STARTS: ClassVar[Starts] = {
        "paper": {"training": {"epochs": 30, "learning_rate": 2e-4}},
        "small": {
            "method": {
                "hidden": 64,
                "latent": 32,
                "queue": 512,
                "weights": {"contrast": 0.1},
                "encoder": SMALL_ENCODER,
            },
            "training": {"learning_rate": 1e-3},
        },
    }

    name: Literal["lddu"] = "lddu"
    """Which method to train."""
    hidden: Positive = 256
    """Width of the Transformers and label features."""
    latent: Positive = 128
    """Width of the space in which labels are Gaussians."""
    encoder: SequenceEncoderConfig = SequenceEncoderConfig(layers=3)
    temperature: float = Field(default=0.07, gt=0)
    """Temperature of the contrast."""
    queue: Positive = 8192
    """Latents of past batches that the contrast compares with."""
    weights: LdduWeights = LdduWeights()


MethodConfig = (
    CaratConfig
    | CaratPlusConfig
    | PriorConfig
    | BinaryRelevanceConfig
    | ClassifierChainConfig
    | LabelPowersetConfig
    | EarlyFusionConfig
    | LateFusionConfig
    | LdduConfig
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
    "lddu": LdduConfig,
}
"""By the name that an experiment gives in `method.name`."""
