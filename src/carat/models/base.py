"""Base class of all models, their outputs, and the training hooks."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from carat.models.layers.masking import masked_max, masked_mean
from carat.utils.errors import ConfigError

UNLIMITED = 1 << 20
"""`Model.max_length` of a modality without position embeddings."""

FORBIDDEN = frozenset(".[]{}/\\")
"""Characters that names of modalities do not have: separators of configuration keys, state and paths."""

Sequences = Mapping[str, Tensor]
"""Tensors (B, T_m, …) by modality."""


class Outputs(Protocol):
    """Protocol of the outputs of `Model.forward`, which may have more fields."""

    scores: Tensor
    """(B, L), probabilities in [0, 1]."""
    attribution: Tensor
    """(B, L), index of the modality with the strongest evidence for each label; −1 if unknown."""


@dataclass(frozen=True)
class Scores:
    """Outputs of `Model.score`."""

    scores: Tensor
    """(B, L), in [0, 1]."""
    attribution: Tensor
    """(B, L), as in `Outputs`."""


@dataclass
class ModelOutputs:
    """Outputs of a model whose loss needs only logits; subclass it to add further fields."""

    scores: Tensor
    """(B, L), in [0, 1]."""
    attribution: Tensor
    """(B, L), as in `Outputs`."""
    logits: Tensor
    """(B, L), logits of the scores."""

    @classmethod
    def from_logits(cls, logits: Tensor, **others: Any) -> Self:
        """Create outputs without attribution.

        Args:
            logits: (B, L).
            others: fields of a subclass.
        """
        unknown = torch.full(logits.shape, -1, device=logits.device)
        return cls(logits.sigmoid(), unknown, logits, **others)

    @classmethod
    def from_modality_logits(cls, logits: Tensor, modality_mask: Tensor, **others: Any) -> Self:
        """Average logits over the present modalities; the largest logit determines the attribution.

        Args:
            logits: (B, M, L), logits of each modality.
            modality_mask: (B, M), present = True.
            others: fields of a subclass.
        """
        mean = masked_mean(logits, modality_mask, dim=1)
        return cls(mean.sigmoid(), masked_max(logits, modality_mask)[1], mean, **others)


@dataclass(frozen=True)
class TrainingData:
    """The training split, for `Model.prepare`."""

    labels: Tensor
    """(N, L) float32, binary labels, NaN where unknown."""
    batches: Iterable[tuple[Sequences, Sequences, Tensor]]
    """Features (B, T_m, d_m), masks (B, T_m) and labels (B, L) of every sample, in the order of `labels`."""


class Model(nn.Module, ABC):
    """A multi-label classifier of multimodal sequences, with its losses.

    Subclasses implement `forward` and `losses`; all other methods have defaults. Models are constructed as
    ``Model(widths, labels, config=None)``, where None means the default configuration.

    Args:
        widths: features per time step by modality, in the order of the M axis.
        labels: label names, in the order of the L axis.
    """

    max_length: Mapping[str, int]
    """Longest sequence by modality, in time steps; `UNLIMITED` unless a subclass sets it."""

    weight_axes: ClassVar[Mapping[str, str] | None] = None
    """Axes of the tensors that have an L or M axis, by pattern of their names in the state dictionary, for
    `training.init_from`: "L D" is (L, D), and "M L*D" is (M, L·D). Other letters are any other axis, numbers
    its size; along T the first elements fit any number. None: first axes with as many elements as there are
    labels or modalities are L or M."""

    ordered_weights: ClassVar[Sequence[str]] = ()
    """Patterns of names of tensors that fit the same modalities in the same order only."""

    def __init__(self, widths: Mapping[str, int], labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.max_length = dict.fromkeys(widths, UNLIMITED)

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Any:
        """Score a batch, without changing state.

        Args:
            features: (B, T_m, d_m) by modality; padding may have any values.
            masks: (B, T_m) bool by modality, valid = True; a sample may lack modalities, but not all.

        Returns:
            `Outputs`, such as `ModelOutputs`.
        """

    @abstractmethod
    def losses(
        self, outputs: Any, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Compute the loss terms.

        For graded labels, a method has one more parameter, ``targets: Tensor | None = None``: (B, L) float32
        in [0, 1], NaN where unknown, which the cross-entropies compare scores with instead of the binary
        labels. A method without it trains on binary labels only.

        Args:
            outputs: outputs of `forward`.
            labels: (B, L) float32, binary labels, NaN where unknown. The losses must leave unknown labels
                out, as those of `carat.models.losses` do; a loss of NaN stops the training.
            generator: random number generator; None uses the global one.

        Returns:
            Scalars by name; `total` is minimized, the others are logged.
        """

    def score(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Scores:
        """Compute only the scores and attribution of `forward`, see there."""
        outputs: Outputs = self(features, masks)
        return Scores(outputs.scores, outputs.attribution)

    def prepare(self, data: TrainingData) -> None:
        """Fit statistics on the training split (class balance, closed-form models).

        Called once before training.
        """

    def update_after_step(self, outputs: Any, labels: Tensor) -> None:
        """Update non-gradient state (prototypes, memory bank) after each optimizer step.

        Args:
            outputs, labels: see `losses`.
        """

    def on_train_epoch_start(self, epoch: int) -> None:
        """Epoch-dependent schedule; epochs count from 0. Calling it again within an epoch has no effect."""

    def learning_rates(self) -> Iterable[tuple[nn.Parameter, float]]:
        """Return parameters with a peak learning rate other than the experiment's, and that learning rate."""
        return ()

    def extra_files(self) -> dict[str, Path]:
        """Return files that a run needs besides the weights: source paths by their paths within the run."""
        return {}

    @property
    def takes_targets(self) -> bool:
        """Whether `losses` takes targets other than the binary labels, and training uses it."""
        return self.is_trainable and "targets" in inspect.signature(self.losses).parameters

    @property
    def is_trainable(self) -> bool:
        """Whether the model has trainable parameters; if not, `prepare` fits it."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters; for models fitted by `prepare`, number of elements of buffers."""
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return trainable or sum(x.numel() for x in self.buffers())

    def attention(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the attention of each label over time.

        Args:
            features, masks: see `forward`.

        Returns:
            (B, L, T_m) by modality, zeros for absent modalities; {} for models without attention.
        """
        return {}

    def compile_step(self, mode: str) -> None:
        """Compile the training step in place; `mode` is that of `torch.compile`."""
        self.compile(mode=mode)

    def no_decay_parameters(self) -> Iterable[nn.Parameter]:
        """Return parameters without weight decay: biases and LayerNorms."""
        for part in self.modules():
            for name, parameter in part.named_parameters(recurse=False):
                if isinstance(part, nn.LayerNorm) or name.startswith("bias"):
                    yield parameter


def check_modalities(widths: Mapping[str, Any]) -> None:
    """Check that modalities have names that a model can use for its parts.

    Raises:
        ConfigError: see `check_modality_names`, or a name is reserved by `torch.nn.ModuleDict`.
    """
    check_modality_names(widths)
    for m in widths:
        if hasattr(nn.ModuleDict, m):
            raise ConfigError(
                f"modality '{m}': the name is reserved by PyTorch; build the store with another name"
            )


def check_modality_names(names: Iterable[str]) -> None:
    """Check that modalities can be named in configurations and in state dictionaries.

    Raises:
        ConfigError: a name is empty, or has dots, brackets, slashes or control characters.
    """
    for m in names:
        if not m.isprintable() or not m.strip() or not FORBIDDEN.isdisjoint(m):
            raise ConfigError(
                f"modality {m!r}: names of modalities have no dots, brackets or slashes; build the store "
                "with another name"
            )


def check_heads(width: int, heads: int, of: str = "hidden", by: str = "encoder.heads") -> None:
    """Check that a width is divisible by the number of attention heads.

    Args:
        width: width of the attention layer.
        heads: number of attention heads.
        of: key of the width, relative to `method`, for messages.
        by: key of the heads, for messages.

    Raises:
        ConfigError: the width is not divisible.
    """
    if width % heads:
        raise ConfigError(f"method.{of} {width} is not a multiple of {by} {heads}")
