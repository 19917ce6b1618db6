"""CARAT's configuration section; defaults are the paper's values."""

from __future__ import annotations

from functools import reduce
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from carat.config.base import Fraction, Layers, Positive, Section, Weight, merge
from carat.config.methods import MethodConfig, Presets

OFFICIAL: dict[str, dict[str, Any]] = {
    "unmasked padding": {"data": {"padding": "unmasked"}},
    "LayerNorm epsilon 1e-12": {"method": {"encoder": {"norm_eps": 1e-12}}},
    "weight decay of input LayerNorms": {"method": {"decay_input_norm": True}},
    "memory bank rows as anchors": {"method": {"contrast": {"queue_anchors": True}}},
    "anchors without positives averaged": {"method": {"contrast": {"average_over_all": True}}},
    "noise-filled memory bank": {"method": {"contrast": {"noise": True}}},
    "epsilon in the contrastive loss": {"method": {"contrast": {"epsilon": 1e-12}}},
    "shuffle by joint gather": {"method": {"shuffle": {"joint_gather": True}}},
    "per-tensor gradient clipping": {"training": {"clip_tensors": 1.0}},
    "idle first step": {"training": {"idle_first_step": True}},
    "unused poolers": {"method": {"encoder": {"pooler": True}}},
}
"""Overrides for each deviation of the authors' released code from the paper, see docs/concepts/method.md."""

OFFICIAL_TOGETHER: dict[str, Any] = reduce(merge, OFFICIAL.values())
"""Overrides for all deviations combined."""

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
"""Overrides of the preset `small`."""

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
"""Overrides behind a pretrained text encoder of width 384; selected as described in results/mosei_text.md."""

PLUS: dict[str, Any] = {
    "method": {
        "weights": {"contrast": 0.1, "mse_reconstruction": 0.1, "mse_alpha": 0.1},
        "encoder": {"dropout": 0.1},
        "loss": {"kind": "asymmetric", "gamma_neg": 2.0, "margin": 0.0},
    },
    "training": {"ema_decay": 0.98, "modality_dropout": 0.1},
    "threshold": {"kind": "interpolated", "max_micro_f1_drop": 0.005},
}
"""Overrides of carat+ to CARAT; selected as described in docs/concepts/method.md."""


class EncoderConfig(Section):
    """One Transformer encoder per modality (post-norm, GELU, learned positions)."""

    layers: dict[str, Layers] = {"text": 6, "visual": 4, "audio": 4}
    """Transformer layers by modality; 0 suffices behind a pretrained encoder."""
    other_layers: Layers = 4
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
        """Number of Transformer layers of a modality."""
        return self.layers.get(modality, self.other_layers)

    def positions(self, modality: str) -> int:
        """Number of position embeddings of a modality, in time steps."""
        return self.max_lengths.get(modality, self.max_length)


class AlignmentConfig(Section):
    """LSTM alignment of long modalities to a fixed number of steps (the paper's unaligned setting)."""

    modalities: list[str] = []
    """Modalities to align, e.g. [visual, audio]; not required, as label attention accepts any length."""
    steps: Positive = 50
    """Time steps after alignment; at most `encoder.max_length`."""


class ContrastConfig(Section):
    """Supervised contrastive loss of the latents against the batch and a memory bank."""

    temperature: float = Field(default=0.07, gt=0)
    """Temperature of the similarities."""
    queue: Positive = 8192
    """Size of the memory bank (first in, first out), in latents."""
    queue_anchors: bool = False
    """Also use latents of the memory bank as anchors, as in the released code."""
    average_over_all: bool = False
    """Average over all anchors, also those without positives, as in the released code."""
    noise: bool = False
    """Initialize the memory bank with noise of no class, as in the released code; empty by default."""
    epsilon: Weight = 0.0
    """Added to the number of positives and inside the logarithm; 1e-12 in the released code."""


class ShuffleConfig(Section):
    """Shuffle of label-specific features before the second joint classification."""

    samples: bool = True
    """Shuffle across samples, independently for each modality and label."""
    modalities: bool = True
    """Shuffle across modalities, independently for each sample and label."""
    joint_gather: bool = False
    """Gather along both axes at once, as in the released code: some features occur twice, some never."""


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
    """Mean squared error between decoded latents and original features."""
    mse_alpha: Weight = 1.0
    """Mean squared error between first reconstruction and original features."""
    mse_beta: Weight = 0.0
    """Mean squared error between second reconstruction and original features."""
    aggregate: Weight = 1.0
    """Cross-entropy of the aggregated logits of each modality."""
    shuffled: Weight = 0.1
    """Cross-entropy of the aggregated logits of shuffled features."""


class LabelLossConfig(Section):
    """Weighting of positives and negatives in all label losses."""

    kind: Literal["plain", "balanced", "asymmetric"] = "plain"
    """Plain cross-entropy, class-balanced by label frequency, or asymmetric loss."""
    beta: Fraction = 0.999
    """For balanced: weight of rare classes, from 0 (plain) towards 1 (Cui et al. 2019)."""
    gamma_neg: Weight = 4.0
    """For asymmetric: focusing exponent of negatives (Ridnik et al. 2021)."""
    gamma_pos: Weight = 1.0
    """For asymmetric: focusing exponent of positives."""
    margin: Fraction = 0.05
    """For asymmetric: probability margin; negatives with lower scores have no loss."""


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
    hidden: Annotated[Positive, Field(ge=2)] = 256
    """Width D of the label-specific features; a multiple of `encoder.heads`."""
    latent: Positive = 64
    """Width P of the contrastive latent space."""
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Momentum of the prototypes: weight of the previous value in each update."""
    label_wise: bool = True
    """Use a separate attention for each label; otherwise all labels share one."""
    identity_init: bool = False
    """Initialize with uniform label attention, zero positions and, if `hidden` is the encoder's width, an
    identity projection: without layers, features start as the mean of a pretrained encoder's states."""
    levels: Annotated[int, Field(ge=0, le=2)] = 2
    """Levels of reconstruction: 2 for α and β, 1 for α only, 0 for none; the last one gives the scores."""
    score_original: bool = False
    """Include the original features' logits in the average that gives the scores."""
    prototypes: bool = True
    """Reconstruct a modality from the prototype in its place; otherwise from its own decoded latent."""
    aggregation: bool = True
    """Classify all labels jointly, before and after the shuffle."""
    decay_input_norm: bool = False
    """Apply weight decay to the input LayerNorms, as in the released code."""
    encoder: EncoderConfig = EncoderConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    contrast: ContrastConfig = ContrastConfig()
    shuffle: ShuffleConfig = ShuffleConfig()
    weights: LossWeights = LossWeights()
    loss: LabelLossConfig = LabelLossConfig()


class CaratPlusConfig(CaratConfig):
    """CARAT with this project's additions, selected on validation (docs/concepts/method.md, "carat+")."""

    PRESETS: ClassVar[Presets] = {
        "paper": PLUS,
        "small": merge(SMALL, PLUS),
        "text": merge(PLUS, TEXT),
    }

    name: Literal["carat+"] = "carat+"  # type: ignore[assignment]
    """Which method to train."""
