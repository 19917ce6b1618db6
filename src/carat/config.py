"""Experiments: every width, depth, weight and temperature, with the paper's values as defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import reduce
from typing import Annotated, Any, Literal

from pydantic import Field

from carat.errors import ConfigError, did_you_mean
from carat.sections import Section, merge, parse, read_yaml

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class EncoderConfig(Section):
    """One Transformer encoder per modality (post-norm, GELU, learned positions)."""

    layers: dict[str, Positive] = {"text": 6, "visual": 4, "audio": 4}
    """Transformer layers by modality."""
    other_layers: Positive = 4
    """Transformer layers of modalities not named in `layers`."""
    heads: Positive = 8
    """Attention heads; must divide `hidden`."""
    feedforward: Positive = 256
    """Width of the feed-forward part of a layer."""
    dropout: Share = 0.3
    """Dropout on embeddings, attention weights and hidden states."""
    max_length: Positive = 500
    """Longest sequence, in time steps, that has a position embedding."""
    max_lengths: dict[str, Positive] = {}
    """The same for modalities that differ from `max_length`."""
    norm_eps: float = Field(default=1e-5, gt=0)
    """Epsilon of every LayerNorm; 1e-12 in the released code."""
    pooler: bool = False
    """Give each encoder the pooler of the released code, whose output nothing uses."""


class AlignmentConfig(Section):
    """LSTM alignment of long modalities to a fixed number of steps (the paper's unaligned setting)."""

    modalities: list[str] = []
    """Modalities to align, e.g. [visual, audio]; none by default: label attention needs no equal lengths."""
    steps: Positive = 50
    """Time steps after alignment; at most `encoder.max_length`."""


class ContrastConfig(Section):
    """Supervised contrast of the latents, against the batch and a queue."""

    temperature: float = Field(default=0.07, gt=0)
    """Temperature of the similarities."""
    queue: Positive = 8192
    """Rows that the first-in-first-out queue holds."""
    queue_anchors: bool = False
    """Contrast the queue's rows too, not only the batch's, as the released code does."""
    count_lonely: bool = False
    """Count rows without a positive as 0 in the mean, as the released code does; else leave them out."""
    noise: bool = False
    """Start with a queue full of noise that no class matches, as the released code does; else empty."""
    epsilon: Weight = 0.0
    """Added to the number of positives and inside the logarithm; 1e-12 in the released code."""


class ShuffleConfig(Section):
    """Which label features trade places before they are classified jointly once more."""

    samples: bool = True
    """Shuffle over samples, for each modality and label."""
    modalities: bool = True
    """Shuffle over modalities, for each sample and label."""
    joint_gather: bool = False
    """Look both places up at once, as the released code does: some features come twice, some never."""


class LossWeights(Section):
    """Weight of each term in the objective."""

    original: Weight = 0.01
    """Cross-entropy of the original features' logits."""
    alpha: Weight = 0.1
    """Cross-entropy of the first reconstruction's logits."""
    beta: Weight = 1.0
    """Cross-entropy of the second reconstruction's logits."""
    contrast: Weight = 1.0
    """Supervised contrast of the latents."""
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


class CaratConfig(Section):
    """CARAT (Peng et al., AAAI 2024)."""

    name: Literal["carat"] = "carat"
    """Which method to train."""
    hidden: Annotated[int, Field(ge=2)] = 256
    """Width D of the label-specific features; a multiple of `encoder.heads`."""
    latent: Positive = 64
    """Width P of the contrastive latent space."""
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Share of a prototype that stays at each update."""
    label_wise: bool = True
    """One attention for each label; else one that all labels share."""
    levels: Annotated[int, Field(ge=0, le=2)] = 2
    """Levels of reconstruction: 2 is α and β, 1 only α, 0 none; the last one is scored."""
    prototypes: bool = True
    """A prototype stands in for a modality in its own reconstruction; else its own decoded latent does."""
    aggregation: bool = True
    """Classify all labels jointly too, also after the shuffle."""
    decay_input_norm: bool = False
    """Decay the weights of the input LayerNorms, as the released code does."""
    encoder: EncoderConfig = EncoderConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    contrast: ContrastConfig = ContrastConfig()
    shuffle: ShuffleConfig = ShuffleConfig()
    weights: LossWeights = LossWeights()


class DataConfig(Section):
    """What is read from the store, and how it is batched."""

    modalities: list[str] | None = None
    """Modalities to use, in this order; all of the store's by default."""
    batch_size: Positive = 64
    """Samples per batch."""
    bucket: bool = True
    """Train on batches of similar length (seeded, drawn anew each epoch): less padding, same samples."""
    padding: Literal["masked", "visible"] = "masked"
    """Masked; or visible as in the released code: zeros up to the store's longest sequence count as steps."""
    long: Literal["error", "truncate"] = "error"
    """What to do with sequences longer than the encoder's max_length."""
    workers: Count | None = None
    """Loader processes; 0 reads in the training process. By default 2 for a GPU, else 0."""


class TrainingConfig(Section):
    """Optimiser, schedule, stopping and device."""

    epochs: Positive = 20
    """Passes over the training split."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Highest learning rate."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps with linearly growing learning rate; it then falls linearly to 0."""
    idle_first_step: bool = False
    """Take the first step with learning rate 0, as the released code does."""
    weight_decay: Weight = 0.01
    """Decay of weights; not applied to biases and LayerNorms."""
    clip: Weight = 1.0
    """Largest norm of the whole gradient; 0 switches clipping off."""
    clip_tensors: Weight = 0.0
    """Then the largest norm of each parameter's gradient, 1 in the released code; 0 switches it off."""
    accumulate: Positive = 1
    """Batches whose gradients are averaged before a step."""
    early_stopping: Positive | None = None
    """Stop after this many epochs without a better validation micro-F1; never by default."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the forward pass."""
    graph: Literal["eager", "compiled", "cuda-graphs"] = "eager"
    """How a training step runs; the latter two are for GPUs, and fall back to eager where not possible."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Device; auto takes a GPU when there is one."""


class ThresholdConfig(Section):
    """How scores become labels; the threshold is searched on the validation split."""

    kind: Literal["global", "per-label"] = "global"
    """One threshold for all labels (best micro-F1), or one for each (best F1 of the label)."""


class Experiment(Section):
    """Everything a training run depends on besides its data."""

    method: CaratConfig = CaratConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    threshold: ThresholdConfig = ThresholdConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of weights, order of the data, dropout and shuffles."""


OFFICIAL: dict[str, dict[str, Any]] = {
    "visible padding": {"data": {"padding": "visible"}},
    "LayerNorm epsilon 1e-12": {"method": {"encoder": {"norm_eps": 1e-12}}},
    "decay of the input LayerNorms": {"method": {"decay_input_norm": True}},
    "queue rows as anchors": {"method": {"contrast": {"queue_anchors": True}}},
    "lonely rows counted": {"method": {"contrast": {"count_lonely": True}}},
    "queue of noise": {"method": {"contrast": {"noise": True}}},
    "epsilon in the contrast": {"method": {"contrast": {"epsilon": 1e-12}}},
    "shuffle by joint gather": {"method": {"shuffle": {"joint_gather": True}}},
    "clipping tensor by tensor": {"training": {"clip_tensors": 1.0}},
    "idle first step": {"training": {"idle_first_step": True}},
    "unused poolers": {"method": {"encoder": {"pooler": True}}},
}
"""What the authors' released code does differently, one by one; docs/method.md says the effect."""

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "official": reduce(merge, OFFICIAL.values()),
    "small": {
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
        },
        "data": {"batch_size": 32},
        "training": {"epochs": 5, "learning_rate": 2e-3},
    },
}
"""Named starting points.

`paper` is the method as published, `official` repeats the authors' released code, `small` trains in a minute
on a laptop.
"""


def load_experiment(
    file: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Experiment:
    """An experiment from a preset, then a YAML file, then overrides; later ones win, key by key.

    Args:
        file: YAML file with any part of an `Experiment`; may name its own `preset`.
        preset: one of `PRESETS`; the file's, or else `paper`, when None.
        overrides: nested mapping, e.g. ``{"training": {"epochs": 3}}``; may name its own `preset` too.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key or a value out of range.

    >>> load_experiment(overrides={"training": {"epochs": 3}}).training.epochs
    3
    """
    written = merge(read_yaml(file) if file is not None else {}, overrides or {})
    named = written.pop("preset", "paper")
    preset = preset or str(named)
    if preset not in PRESETS:
        hint = did_you_mean(preset, PRESETS) or f"; known: {', '.join(PRESETS)}"
        raise ConfigError(f"unknown preset '{preset}'{hint}")
    return parse(Experiment, merge(PRESETS[preset], written), str(file) if file is not None else "experiment")
