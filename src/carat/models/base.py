"""The contract of every model: scores, losses and what training calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from carat.models.layers.masking import masked_max, masked_mean
from carat.utils.errors import ConfigError

UNLIMITED = 1 << 20
"""`Model.max_length` of a modality whose positions have no embedding."""

Sequences = Mapping[str, Tensor]
"""One tensor per modality, (B, T_m, …)."""


class Outputs(Protocol):
    """What `forward` of every model returns; a model may add to it."""

    scores: Tensor
    """(B, L), in [0, 1]."""
    attribution: Tensor
    """(B, L), index of the modality with the strongest evidence for each label; −1 where unknown."""


@dataclass(frozen=True)
class Scores:
    """What `Model.score` returns."""

    scores: Tensor
    """(B, L), in [0, 1]."""
    attribution: Tensor
    """(B, L), as in `Outputs`."""


@dataclass
class ModelOutputs:
    """Outputs of a model that needs nothing but logits; derive from it to add what your losses need."""

    scores: Tensor
    """(B, L), in [0, 1]."""
    attribution: Tensor
    """(B, L), as in `Outputs`."""
    logits: Tensor
    """(B, L), of the scores."""

    @classmethod
    def from_logits(cls, logits: Tensor, **others: Any) -> Self:
        """Outputs without attribution.

        Args:
            logits: (B, L).
            others: fields of a derived class.
        """
        unknown = torch.full(logits.shape, -1, device=logits.device)
        return cls(logits.sigmoid(), unknown, logits, **others)

    @classmethod
    def from_modality_logits(cls, logits: Tensor, modality_mask: Tensor, **others: Any) -> Self:
        """Mean over the present modalities; a label is attributed to the modality with the largest logit.

        Args:
            logits: (B, M, L), of each modality.
            modality_mask: (B, M), present = True.
            others: fields of a derived class.
        """
        mean = masked_mean(logits, modality_mask, dim=1)
        return cls(mean.sigmoid(), masked_max(logits, modality_mask)[1], mean, **others)


@dataclass(frozen=True)
class TrainingData:
    """The training split, for `Model.prepare`."""

    labels: Tensor
    """(N, L) float32, 0 or 1."""
    batches: Iterable[tuple[Sequences, Sequences, Tensor]]
    """Features (B, T_m, d_m), masks (B, T_m) and labels (B, L); every sample once, ordered as `labels`."""


class Model(nn.Module, ABC):
    """A multi-label classifier of multimodal sequences, with its losses.

    A subclass defines `forward` and `losses`; everything else has a default. It is constructed as
    ``Model(widths, labels, config=None)``, where None stands for its configuration's default values.

    Args:
        widths: features per time step by modality, in the order of the M axis.
        labels: label names, in the order of the L axis.
    """

    max_length: Mapping[str, int]
    """Longest sequence by modality, in time steps; `UNLIMITED` unless a subclass sets it."""

    def __init__(self, widths: Mapping[str, int], labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.max_length = dict.fromkeys(widths, UNLIMITED)

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Any:
        """Score a batch; changes no state.

        Args:
            features: (B, T_m, d_m) by modality; padding may hold anything.
            masks: (B, T_m) bool by modality, valid = True; a sample may lack modalities, but not all.

        Returns:
            `Outputs`, such as `ModelOutputs`.
        """

    @abstractmethod
    def losses(
        self, outputs: Any, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Loss terms.

        Args:
            outputs: of `forward`.
            labels: (B, L) float32, 0 or 1.
            generator: source of randomness.

        Returns:
            Scalars by name; `total` is minimized, the others are logged.
        """

    def score(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Scores:
        """Scores and attribution as of `forward`, without what only the losses need."""
        outputs: Outputs = self(features, masks)
        return Scores(outputs.scores, outputs.attribution)

    def prepare(self, data: TrainingData) -> None:
        """Fit statistics on the training split (class balance, closed-form models).

        Called once before training.
        """

    def update_after_step(self, outputs: Any, labels: Tensor) -> None:
        """Update non-gradient state (prototypes, memory bank) after each optimizer step."""

    def on_train_epoch_start(self, epoch: int) -> None:
        """Epoch-dependent schedule; epochs count from 0. Calling it again within an epoch has no effect."""

    def learning_rates(self) -> Iterable[tuple[nn.Parameter, float]]:
        """Parameters whose peak learning rate differs from the experiment's, with that rate."""
        return ()

    def extra_files(self) -> dict[str, Path]:
        """Files that a run needs besides the weights: their current paths by their paths within the run."""
        return {}

    @property
    def is_trainable(self) -> bool:
        """Whether the model has trainable parameters; if not, `prepare` fits it."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters; of buffers, which `prepare` fits, if there are none."""
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return trainable or sum(x.numel() for x in self.buffers())

    def attention(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Attention of each label over time, (B, L, T_m) by modality; zeros where absent, {} without any."""
        return {}

    def compile_step(self, mode: str) -> None:
        """Compile what a training step computes, in place; `mode` is `torch.compile`'s."""
        self.compile(mode=mode)

    def no_decay_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters without weight decay: biases and LayerNorms."""
        for part in self.modules():
            for name, parameter in part.named_parameters(recurse=False):
                if isinstance(part, nn.LayerNorm) or name.startswith("bias"):
                    yield parameter


def check_modalities(widths: Mapping[str, int]) -> None:
    """Refuse names that `torch.nn.ModuleDict` reserves.

    Raises:
        ConfigError: names the modality.
    """
    for m in widths:
        if hasattr(nn.ModuleDict, m):
            raise ConfigError(f"modality '{m}': the name is taken by PyTorch, build the store with another")


def check_heads(width: int, heads: int, of: str = "hidden", by: str = "encoder.heads") -> None:
    """Refuse a width that is not a multiple of the number of heads.

    Raises:
        ConfigError: names both keys, which are relative to `method`.
    """
    if width % heads:
        raise ConfigError(f"method.{of} {width} is not a multiple of {by} {heads}")
