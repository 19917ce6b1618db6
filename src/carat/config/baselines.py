"""Configuration sections of the baselines; defaults are the published values."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from carat.config.base import Fraction, Layers, Positive, Section, Weight
from carat.config.methods import MethodConfig, Presets

SMALL_ENCODER: dict[str, Any] = {"layers": 1, "heads": 4, "feedforward": 64, "dropout": 0.1}
"""Encoder of the preset `small`."""


class SequenceEncoderConfig(Section):
    """A Transformer encoder, the same for every modality (post-norm, GELU, learned positions)."""

    layers: Layers = 4
    """Transformer layers; 0 suffices behind a pretrained encoder."""
    heads: Positive = 8
    """Attention heads; must divide `hidden`."""
    feedforward: Positive = 256
    """Width of the feed-forward part of a layer."""
    dropout: Fraction = 0.3
    """Dropout on embeddings, attention weights and hidden states."""
    max_length: Positive = 500
    """Longest sequence, in time steps, that has a position embedding."""


class PriorConfig(MethodConfig):
    """Training label frequencies for every sample: a lower bound for the other methods."""

    name: Literal["prior"] = "prior"
    """Which method to train."""


class PooledConfig(MethodConfig):
    """Logistic regression on features averaged over time."""

    strength: float = Field(default=1.0, gt=0)
    """Inverse strength of the L2 penalty, scikit-learn's C."""
    iterations: Positive = 300
    """Maximum number of solver iterations."""


class BinaryRelevanceConfig(PooledConfig):
    """Binary relevance: one logistic regression per label (Boutell et al. 2004)."""

    name: Literal["br"] = "br"
    """Which method to train."""


class ClassifierChainConfig(PooledConfig):
    """Classifier chain: each label's regression also takes the preceding labels (Read et al. 2011)."""

    name: Literal["cc"] = "cc"
    """Which method to train."""


class LabelPowersetConfig(PooledConfig):
    """Label powerset: one multinomial regression over sets of labels (Tsoumakas and Katakis 2007)."""

    name: Literal["lp"] = "lp"
    """Which method to train."""
    sets: Positive = 64
    """Number of label sets, the most frequent ones; training samples with other sets are ignored."""


class LinearConfig(MethodConfig):
    """One linear layer per modality on features averaged over time; logits are averaged."""

    PRESETS: ClassVar[Presets] = {
        "paper": {"training": {"learning_rate": 1e-3}},
        "small": {"training": {"learning_rate": 1e-2}},
        "text": {},
    }

    name: Literal["linear"] = "linear"
    """Which method to train."""
    dropout: Fraction = 0.0
    """Dropout of the averaged features."""


class EarlyFusionConfig(MethodConfig):
    """One Transformer over the modalities' sequences, resampled to one time axis and concatenated."""

    PRESETS: ClassVar[Presets] = {
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


class LateFusionConfig(MethodConfig):
    """One Transformer and one classifier per modality; logits are averaged."""

    PRESETS: ClassVar[Presets] = {"paper": {}, "small": {"method": {"hidden": 64, "encoder": SMALL_ENCODER}}}

    name: Literal["late-fusion"] = "late-fusion"
    """Which method to train."""
    hidden: Positive = 256
    """Width of the Transformers."""
    encoder: SequenceEncoderConfig = SequenceEncoderConfig()


class MultConfig(MethodConfig):
    """MulT: cross-modal Transformers between all modalities (Tsai et al. 2019)."""

    PRESETS: ClassVar[Presets] = {
        "paper": {
            "data": {"batch_size": 16},
            "training": {
                "epochs": 20,
                "learning_rate": 1e-3,
                "warmup": 0.0,
                "weight_decay": 0.0,
                "clip": 1.0,
            },
        },
        "small": {"method": {"hidden": 24, "layers": 1, "heads": 4, "word_dropout": 0.1}},
    }

    name: Literal["mult"] = "mult"
    """Which method to train."""
    hidden: Positive = 40
    """Width of the sequences after the temporal convolution."""
    layers: Annotated[Layers, Field(gt=0)] = 4
    """Layers of each cross-modal and of each self-attention Transformer."""
    heads: Positive = 8
    """Attention heads; must divide `hidden`."""
    kernel: Positive = 3
    """Kernel size of the temporal convolution."""
    words: str = "text"
    """Modality of word embeddings, which has its own kernel size and dropout; may be absent from the data."""
    word_kernel: Positive = 1
    """Kernel size of the convolution of word embeddings; published values are 1 and 3."""
    word_dropout: Fraction = 0.3
    """Dropout of the word embeddings."""
    dropout: Fraction = 0.1
    """Dropout on attention weights and hidden states."""
    output_dropout: Fraction = 0.1
    """Dropout before the classifier."""


class MisaFusionConfig(Section):
    """The Transformer layer that fuses shared and private vectors."""

    heads: Positive = 2
    """Attention heads; must divide `latent`."""
    feedforward: Positive = 2048
    """Width of the feed-forward part."""
    dropout: Fraction = 0.1
    """Dropout on attention weights and hidden states."""


class MisaWeightsConfig(Section):
    """Weights of the loss terms besides the cross-entropy."""

    similarity: Weight = 0.7
    """α: central moment discrepancy between shared vectors."""
    difference: Weight = 0.3
    """β: soft orthogonality of shared and private vectors."""
    reconstruction: Weight = 0.7
    """γ: reconstruction from shared and private vectors."""


class MisaConfig(MethodConfig):
    """MISA: modality-invariant and modality-specific representations (Hazarika et al. 2020)."""

    PRESETS: ClassVar[Presets] = {
        "paper": {
            "data": {"batch_size": 16},
            "training": {"learning_rate": 1e-4, "weight_decay": 0.0, "clip": 1.0, "early_stopping": 6},
        },
        "small": {
            "method": {"hidden": 64, "latent": 64, "encoder": SMALL_ENCODER, "fusion": {"feedforward": 64}},
            "training": {"epochs": 6, "learning_rate": 1.5e-3},
        },
    }

    name: Literal["misa"] = "misa"
    """Which method to train."""
    hidden: Positive = 256
    """Width of the Transformers that encode the sequences."""
    latent: Positive = 128
    """Width of projected, shared and private vectors."""
    moments: Annotated[int, Field(gt=0, le=100)] = 5
    """Number of moments in the similarity loss, including the mean."""
    dropout: Fraction = 0.1
    """Dropout before the classifier."""
    encoder: SequenceEncoderConfig = SequenceEncoderConfig()
    fusion: MisaFusionConfig = MisaFusionConfig()
    weights: MisaWeightsConfig = MisaWeightsConfig()


class TailorWeights(Section):
    """Weights of the loss terms besides the labels' cross-entropy."""

    refined: Weight = 0.5
    """Cross-entropy of labels predicted from the common representations alone."""
    private: Weight = 0.01
    """Cross-entropy of the modality discriminator on private representations."""
    common: Weight = 0.01
    """Cross-entropy of the modality discriminator on common representations (adversarial)."""
    orthogonality: Weight = 5e-6
    """Orthogonality of common and private representations."""


class TailorConfig(MethodConfig):
    """TAILOR: common and private representations, hierarchical fusion, label decoder (Zhang et al. 2022)."""

    PRESETS: ClassVar[Presets] = {
        "paper": {"training": {"epochs": 30, "learning_rate": 5e-5}},
        "small": {
            "method": {
                "hidden": 64,
                "steps": 30,
                "cross_layers": 1,
                "encoder": SMALL_ENCODER | {"heads": 2},
            },
            "training": {"learning_rate": 1e-3},
        },
    }

    name: Literal["tailor"] = "tailor"
    """Which method to train."""
    hidden: Positive = 256
    """Width of all Transformers and representations."""
    order: list[str] = ["audio", "visual", "text"]
    """Order of fusion; other modalities follow in the order of the data."""
    steps: Positive = 60
    """Steps of the time axis on which common representations are summed; at most `encoder.max_length`."""
    cross_layers: Annotated[Layers, Field(gt=0)] = 3
    """Layers of each cross-modal Transformer."""
    decoder_layers: Annotated[Layers, Field(gt=0)] = 1
    """Layers of the label decoder."""
    common_dropout: Fraction = 0.3
    """Dropout of the generator of common representations."""
    private_dropout: Fraction = 0.1
    """Dropout of the generators of private representations and of the discriminator."""
    encoder: SequenceEncoderConfig = SequenceEncoderConfig()
    weights: TailorWeights = TailorWeights()


class AmpWeights(Section):
    """Weights of the adversarial losses besides the label loss; 0 disables a loss."""

    masked: Weight = 0.1
    """Label loss with time steps masked by the adversary."""
    perturbed: Weight = 1.0
    """Label loss with adversarially perturbed parameters of the fusion."""


class AmpConfig(MethodConfig):
    """AMP: adversarial masking of time steps and adversarial perturbation of parameters (Ge et al. 2023)."""

    PRESETS: ClassVar[Presets] = {
        "paper": {"data": {"batch_size": 128}, "training": {"epochs": 10, "learning_rate": 5e-5}},
        "small": {
            "method": {"hidden": 48, "fusion_layers": 1, "encoder": SMALL_ENCODER | {"heads": 2}},
            "training": {"epochs": 4},
        },
    }

    name: Literal["amp"] = "amp"
    """Which method to train."""
    hidden: Positive = 512
    """Width of all Transformers."""
    fusion_layers: Annotated[Layers, Field(gt=0)] = 3
    """Layers of the Transformer over the concatenated sequences."""
    decoder_layers: Annotated[Layers, Field(gt=0)] = 1
    """Layers of the label decoder."""
    mask_ratio: Fraction = 0.4
    """Fraction of a sequence's time steps that the adversary masks."""
    temperature: float = Field(default=0.1, gt=0)
    """Temperature of the soft masks; lower values are closer to hard masks."""
    radius: Weight = 0.05
    """Norm of the perturbation relative to that of each parameter."""
    gamma_neg: Weight = 2.0
    """Focusing exponent of negatives in the asymmetric loss."""
    gamma_pos: Weight = 1.0
    """Focusing exponent of positives in the asymmetric loss."""
    margin: Fraction = 0.05
    """Probability margin of the asymmetric loss: negatives with lower scores have no loss."""
    encoder: SequenceEncoderConfig = SequenceEncoderConfig(layers=3, feedforward=1024, dropout=0.1)
    weights: AmpWeights = AmpWeights()


class LdduWeights(Section):
    """Weights of the loss terms, from the authors' script except for the divergence."""

    labels: Weight = 1.0
    """Cross-entropy of the fused label logits."""
    modalities: Weight = 0.3
    """Cross-entropy of each modality's label logits."""
    contrast: Weight = 1.0
    """Supervised contrastive loss of the latents."""
    divergence: Weight = 0.01
    """Kullback-Leibler divergence from the standard normal, per dimension; 0 in the authors' script."""
    calibration: Weight = 0.3
    """Divergence between the rankings by uncertainty and by error of the modalities."""


class LdduConfig(MethodConfig):
    """LDDU: latent emotion distributions with uncertainty-aware fusion (Huang et al. 2025)."""

    PRESETS: ClassVar[Presets] = {
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
    """Width of the latent Gaussians."""
    encoder: SequenceEncoderConfig = SequenceEncoderConfig(layers=3)
    temperature: float = Field(default=0.07, gt=0)
    """Temperature of the contrastive loss."""
    queue: Positive = 8192
    """Size of the memory bank of the contrastive loss, in latents."""
    weights: LdduWeights = LdduWeights()
