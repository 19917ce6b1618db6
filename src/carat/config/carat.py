"""CARAT's configuration section; defaults are the paper's values."""

from __future__ import annotations

from functools import reduce
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from carat.config.base import Count, Fraction, Positive, Section, Weight, merge
from carat.config.methods import MethodConfig, Presets

OFFICIAL: dict[str, dict[str, Any]] = {
    "unmasked padding": {"data": {"padding": "unmasked"}},
    "LayerNorm epsilon 1e-12": {"method": {"encoder": {"norm_eps": 1e-12}}},
    "decay of the input LayerNorms": {"method": {"decay_input_norm": True}},
    "queue rows as anchors": {"method": {"contrast": {"queue_anchors": True}}},
    "lonely rows counted": {"method": {"contrast": {"average_over_all": True}}},
    "queue of noise": {"method": {"contrast": {"noise": True}}},
    "epsilon in the contrast": {"method": {"contrast": {"epsilon": 1e-12}}},
    "shuffle by joint gather": {"method": {"shuffle": {"joint_gather": True}}},
    "clipping tensor by tensor": {"training": {"clip_tensors": 1.0}},
    "idle first step": {"training": {"idle_first_step": True}},
    "unused poolers": {"method": {"encoder": {"pooler": True}}},
}
"""Deviations of the authors' released code from the paper, with their effects in docs/concepts/method.md."""

OFFICIAL_TOGETHER: dict[str, Any] = reduce(merge, OFFICIAL.values())
"""All deviations together."""

SMALL: dict[str, Any] = {
    "method": {
        "hidden": 64,
        "latent": 32,
        "encoder": {
            "layers": {"text": 1, "visual": 1, "audio": 1},
            "other_layers": 1,
            "heads": 4,
            "feedforward": 64,
            "dropout": 0.1,
        },
        "contrast": {"queue": 512},
    }
}
"""Small sizes for a laptop."""

TEXT: dict[str, Any] = {
    "method": {
        "hidden": 384,
        "identity_init": True,
        "score_original": True,
        "encoder": {
            "layers": {"text": 0, "visual": 1, "audio": 1},
            "other_layers": 1,
            "heads": 4,
            "feedforward": 128,
            "dropout": 0.1,
        },
        "contrast": {"queue": 1024},
        "weights": {
            "original": 1.0,
            "alpha": 0.1,
            "beta": 0.5,
            "contrast": 0.01,
            "mse_reconstruction": 0.05,
            "mse_alpha": 0.05,
            "aggregate": 0.5,
            "shuffled": 0.05,
        },
    },
    "training": {"ema_decay": 0.98},
}
"""Behind a pretrained text encoder of width 384; chosen as results/mosei_text.md describes."""

PLUS: dict[str, Any] = {
    "method": {
        "weights": {"contrast": 0.1, "mse_reconstruction": 0.1, "mse_alpha": 0.1},
        "encoder": {"dropout": 0.1},
        "loss": {"kind": "asymmetric", "gamma_neg": 2.0, "margin": 0.0},
    },
    "training": {"ema_decay": 0.98, "modality_dropout": 0.1},
    "threshold": {"kind": "interpolated", "max_micro_f1_drop": 0.005},
}
"""Changes of carat+ to CARAT; chosen as docs/concepts/method.md describes."""


class EncoderConfig(Section):
    """One Transformer encoder per modality (post-norm, GELU, learned positions)."""

    layers: dict[str, Count] = {"text": 6, "visual": 4, "audio": 4}
    """Transformer layers by modality; 0 behind a pretrained encoder with enough layers of its own."""
    other_layers: Count = 4
    """Transformer layers of modalities not named in `layers`."""
    heads: Positive = 8
    """Attention heads; must divide `hidden`."""
    feedforward: Positive = 256
    """Width of the feed-forward part of a layer."""
    dropout: Fraction = 0.3
    """Dropout on embeddings, attention weights and hidden states."""
    max_length: Positive = 500
    """Longest sequence, in time steps, that has a position embedding."""
    max_lengths: dict[str, Positive] = {}
    """Overrides of `max_length` by modality."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Epsilon of every LayerNorm; 1e-12 in the released code."""
    pooler: bool = False
    """Add the released code's pooler to each encoder; its output is not used."""

    def num_layers(self, modality: str) -> int:
        """Transformer layers of a modality."""
        return self.layers.get(modality, self.other_layers)

    def positions(self, modality: str) -> int:
        """Longest sequence of a modality, in time steps."""
        return self.max_lengths.get(modality, self.max_length)


class AlignmentConfig(Section):
    """LSTM alignment of long modalities to a fixed number of steps (the paper's unaligned setting)."""

    modalities: list[str] = []
    """Modalities to align, e.g. [visual, audio]; none by default: label attention takes unequal lengths."""
    steps: Positive = 50
    """Time steps after alignment; at most `encoder.max_length`."""


class ContrastConfig(Section):
    """Supervised contrastive loss of the latents against the batch and a memory bank."""

    temperature: float = Field(default=0.07, gt=0)
    """Temperature of the similarities."""
    queue: Positive = 8192
    """Size of the first-in-first-out memory bank, in latents."""
    queue_anchors: bool = False
    """Use latents of the memory bank as anchors too, as the released code does."""
    average_over_all: bool = False
    """Count anchors without a positive as 0 in the mean, as the released code does; else leave them out."""
    noise: bool = False
    """Start with a memory bank of noise that matches no class, as the released code does; else empty."""
    epsilon: Weight = 0.0
    """Added to the number of positives and inside the logarithm; 1e-12 in the released code."""


class ShuffleConfig(Section):
    """Shuffle of label features before their second joint classification."""

    samples: bool = True
    """Shuffle over samples, for each modality and label."""
    modalities: bool = True
    """Shuffle over modalities, for each sample and label."""
    joint_gather: bool = False
    """Gather over both axes at once, as the released code does: some features occur twice, some never."""


class LossWeights(Section):
    """Weight of each loss term."""

    original: Weight = 0.01
    """Cross-entropy of the original features' logits."""
    alpha: Weight = 0.1
    """Cross-entropy of the first reconstruction's logits."""
    beta: Weight = 1.0
    """Cross-entropy of the second reconstruction's logits."""
    contrast: Weight = 1.0
    """Supervised contrastive loss of the latents."""
    mse_reconstruction: Weight = 1.0
    """Distance of decoded latents from the original features."""
    mse_alpha: Weight = 1.0
    """Distance of the first reconstruction from the original features."""
    mse_beta: Weight = 0.0
    """Distance of the second reconstruction from the original features."""
    aggregate: Weight = 1.0
    """Cross-entropy of the aggregated logits, each modality."""
    shuffled: Weight = 0.1
    """Cross-entropy of the aggregated logits of shuffled features."""


class LabelLossConfig(Section):
    """Weighting of positives and negatives in every cross-entropy of the labels."""

    kind: Literal["plain", "balanced", "asymmetric"] = "plain"
    """Plain, balanced by label frequency, or asymmetric: easy negatives count less."""
    beta: Fraction = 0.999
    """Of balanced: the larger, the more a rare class counts; 0 is plain (Cui et al. 2019)."""
    gamma_neg: Weight = 4.0
    """Of asymmetric: focusing exponent of negatives (Ridnik et al. 2021)."""
    gamma_pos: Weight = 1.0
    """Of asymmetric: focusing exponent of positives."""
    margin: Fraction = 0.05
    """Of asymmetric: scores of negatives below it have no loss."""


class CaratConfig(MethodConfig):
    """CARAT (Peng et al., AAAI 2024)."""

    PRESETS: ClassVar[Presets] = {
        "paper": {},
        "official": OFFICIAL_TOGETHER,
        "small": SMALL,
        "text": TEXT,
    }

    name: Literal["carat"] = "carat"
    """Which method to train."""
    hidden: Annotated[int, Field(ge=2)] = 256
    """Width D of the label-specific features; a multiple of `encoder.heads`."""
    latent: Positive = 64
    """Width P of the contrastive latent space."""
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Momentum of the prototypes: weight of the old prototype at each update."""
    label_wise: bool = True
    """One attention for each label; else a single one, shared by all labels."""
    identity_init: bool = False
    """Start with uniform label attention, positions at 0 and, if `hidden` is the encoder's width, an identity
    projection: without layers, original features start as the mean of a pretrained encoder's states."""
    levels: Annotated[int, Field(ge=0, le=2)] = 2
    """Levels of reconstruction: 2 for α and β, 1 for α only, 0 for none; the last one is scored."""
    score_original: bool = False
    """Average the original features' logits into the score, with the weight of the others."""
    prototypes: bool = True
    """Reconstruct a modality with a prototype in its place; else with its own decoded latent."""
    aggregation: bool = True
    """Classify all labels jointly, before and after the shuffle."""
    decay_input_norm: bool = False
    """Apply weight decay to the input LayerNorms, as the released code does."""
    encoder: EncoderConfig = EncoderConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    contrast: ContrastConfig = ContrastConfig()
    shuffle: ShuffleConfig = ShuffleConfig()
    weights: LossWeights = LossWeights()
    loss: LabelLossConfig = LabelLossConfig()


class CaratPlusConfig(CaratConfig):
    """CARAT with this project's additions, chosen on validation (docs/concepts/method.md, "carat+")."""

    PRESETS: ClassVar[Presets] = {
        "paper": PLUS,
        "small": merge(SMALL, PLUS),
        "text": merge(PLUS, TEXT),
    }

    name: Literal["carat+"] = "carat+"  # type: ignore[assignment]
    """Which method to train."""
