"""Configuration sections of pretrained encoders in front of a model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from carat.config.base import Count, Fraction, Positive, Section

ENCODERS = "encoders"
"""Folder of a run with the encoders' files besides the weights, by modality."""


class LoraConfig(Section):
    """Low-rank adapters of the frozen weights of all linear layers (Hu et al. 2022)."""

    rank: Positive = 8
    """Rank of the adapters."""
    alpha: Positive = 16
    """Scale of the adapters, divided by the rank."""
    dropout: Fraction = 0.0
    """Dropout before the adapters."""


class EncoderChoice(Section):
    """The encoder of one modality: the model's own Transformer, or a pretrained one, fine-tuned jointly."""

    kind: Literal["transformer", "pretrained"] = "pretrained"
    """`transformer`: the model's own, for features; `pretrained`: from a folder, for tokens or sound."""
    folder: str = ""
    """Local Hugging Face folder: config.json, model.safetensors and, for text, tokenizer.json."""
    train_layers: Count | None = None
    """Number of last layers to train; 0 freezes the encoder. All of it by default."""
    learning_rate: Annotated[float, Field(gt=0)] = 6e-5
    """Peak learning rate of the last layer; the model's own is training.learning_rate."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each layer to the one below it."""
    frozen_epochs: Count = 0
    """Epochs at the start in which the encoder is frozen."""
    context_dropout: Fraction = 0.1
    """Probability of dropping a training sample's context, so that texts without context can be read too."""
    gradient_checkpointing: bool = False
    """Recompute hidden states in the backward pass: less memory, a third more time."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision in training; auto is bf16 if the device has it natively. Inference is in float32."""
    lora: LoraConfig | None = None
    """Train adapters instead of the encoder's own weights (pip install 'carat-emotion[lora]')."""

    @model_validator(mode="after")
    def _agrees(self) -> EncoderChoice:
        if self.kind == "pretrained" and not self.folder:
            raise ValueError("a pretrained encoder needs a folder")
        if self.kind == "transformer" and self.model_fields_set - {"kind"}:
            raise ValueError("the method's own Transformer is set by the method's keys")
        if self.lora is not None and self.train_layers is not None:
            raise ValueError("lora and train_layers contradict each other: adapters are in all layers")
        return self
