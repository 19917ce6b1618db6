"""What reads a modality of tokens or sound before the method does, as part of an experiment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from carat.config.base import Count, Fraction, Positive, Section

ENCODERS = "encoders"
"""Where a run keeps what it needs of encoders beside the weights, by modality."""


class LoraConfig(Section):
    """Low-rank adapters beside the frozen weights of all linear layers (Hu et al. 2022)."""

    rank: Positive = 8
    """Rank of the adapters."""
    alpha: Positive = 16
    """Their scale, divided by the rank."""
    dropout: Fraction = 0.0
    """Dropout before the adapters."""


class EncoderChoice(Section):
    """What reads one modality: the method's own Transformer, or a pretrained encoder that learns along."""

    kind: Literal["transformer", "pretrained"] = "pretrained"
    """Transformer is the method's own, for features; pretrained needs a folder, for tokens or sound."""
    folder: str = ""
    """Local Hugging Face folder: config.json, model.safetensors and, for text, tokenizer.json."""
    train_layers: Count | None = None
    """Train only so many layers, the last ones; 0 freezes the encoder. All of it by default."""
    learning_rate: Annotated[float, Field(gt=0)] = 6e-5
    """Highest learning rate of the last layer; the method's own is training.learning_rate."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each layer to the one below it."""
    frozen_epochs: Count = 0
    """Epochs in which only the method learns."""
    context_dropout: Fraction = 0.1
    """Share of samples that are read without context while it learns, so that lone texts can be read too."""
    gradient_checkpointing: bool = False
    """Compute hidden states again in the backward pass: less memory, a third more time."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Arithmetic in training; auto takes bf16 where the device computes it natively. Use is in float32."""
    lora: LoraConfig | None = None
    """Train adapters instead of the encoder's own weights (pip install 'carat[lora]')."""

    @model_validator(mode="after")
    def _agrees(self) -> EncoderChoice:
        if self.kind == "pretrained" and not self.folder:
            raise ValueError("a pretrained encoder needs a folder")
        if self.kind == "transformer" and self.model_fields_set - {"kind"}:
            raise ValueError("the method's own Transformer is set by the method's keys")
        if self.lora is not None and self.train_layers is not None:
            raise ValueError("lora and train_layers contradict each other: adapters are in all layers")
        return self
