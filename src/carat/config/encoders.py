"""Configuration section of pretrained encoders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from carat.config.base import MAX_FLOAT, Count, Fraction, Positive, Section

ENCODERS = "encoders"
"""Folder within a run that holds the configuration and tokenizer of its encoders, by modality."""


class LoraConfig(Section):
    """Low-rank adapters (LoRA) of all linear layers, whose own weights are frozen (Hu et al. 2022)."""

    rank: Annotated[int, Field(gt=0, le=1024)] = 8
    """Rank of the adapters."""
    alpha: Positive = 16
    """Scale of the adapters before division by the rank."""
    dropout: Fraction = 0.0
    """Dropout probability of the adapters' inputs."""


class EncoderChoice(Section):
    """Encoder of one modality: the method's own Transformer, or a pretrained model, fine-tuned jointly."""

    kind: Literal["transformer", "pretrained"] = "pretrained"
    """transformer: the method's own, for features; pretrained: from a folder, for tokens or waveforms."""
    folder: str = ""
    """Local Hugging Face folder: config.json, model.safetensors and, for text, tokenizer.json. By default the
    encoder is that of the run `training.init_from`."""
    train_layers: Count | None = None
    """Number of layers to train, from the last one; 0 freezes the encoder. All parameters by default."""
    learning_rate: Annotated[float, Field(gt=0, le=MAX_FLOAT)] = 6e-5
    """Peak learning rate of the last layer; the method itself uses training.learning_rate."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Layer-wise decay: factor of the learning rate from each layer to the one below."""
    frozen_epochs: Count = 0
    """Number of initial epochs in which the encoder is frozen."""
    context_dropout: Fraction = 0.1
    """Probability of dropping a sample's context in training, for texts without context at inference."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision in training; auto is bf16 where the device supports it natively. Inference is in float32."""
    lora: LoraConfig | None = None
    """Train LoRA adapters instead of the encoder's own weights (pip install 'carat-emotion[lora]')."""

    @model_validator(mode="after")
    def _agrees(self) -> EncoderChoice:
        if self.kind == "transformer" and self.model_fields_set - {"kind"}:
            raise ValueError("kind transformer takes no other keys; configure it in the method section")
        if self.lora is not None and self.train_layers is not None:
            raise ValueError("lora and train_layers are mutually exclusive: adapters are in all layers")
        return self
