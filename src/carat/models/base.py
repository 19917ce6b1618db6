"""The contract that every method fulfils, CARAT's fulfilment of it, and the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from carat.config.carat import CaratConfig
from carat.models.carat.aggregation import apply_shuffle, draw_shuffle, gather_jointly
from carat.models.carat.memory_bank import MemoryBank
from carat.models.carat.network import CaratNetwork, CaratOutputs, max_over_present
from carat.models.losses.contrastive import contrast_rows, supcon_loss
from carat.models.losses.multilabel import LabelLoss
from carat.models.losses.terms import distance, weighted_sum
from carat.utils.errors import ConfigError, did_you_mean

LEVELS = ("original", "alpha", "beta")
"""Terms of the feature levels, in the order of the K axis."""


@dataclass(frozen=True)
class Geometry:
    """What a method must know of the data it will see."""

    labels: tuple[str, ...]
    """Label names, in the order of the L axis."""
    widths: Mapping[str, int]
    """Features per time step by modality, in the order of the M axis."""


class Outputs(Protocol):
    """What every forward pass offers; a method may add to it."""

    scores: Tensor
    """(B, L), in [0, 1]."""
    attribution: Tensor
    """(B, L), index of the modality that carried each label; −1 from a method that does not say."""


@dataclass(frozen=True)
class Scores:
    """What use of a trained method needs of a forward pass."""

    scores: Tensor
    """(B, L), in [0, 1]."""
    attribution: Tensor
    """(B, L), index of the modality that carried each label; −1 from a method that does not say."""


Sequences = Mapping[str, Tensor]
"""One tensor per modality, (B, T_m, …)."""


@dataclass(frozen=True)
class TrainingData:
    """The training split, as a method may see it before the first step."""

    labels: Tensor
    """(N, L) float32, 0 or 1."""
    batches: Iterable[tuple[Sequences, Sequences, Tensor]]
    """Features (B, T_m, d_m), masks (B, T_m) and labels (B, L), every sample once, in that order."""


class Model(nn.Module, ABC):
    """A trainable recogniser of several emotions at once: module, objective and what changes after a step."""

    max_length: Mapping[str, int]
    """Longest sequence, in time steps, that the method can read, by modality."""

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Any:
        """Score a batch: features (B, T_m, d_m) and masks (B, T_m), valid = True, by modality → `Outputs`.

        Changes no state.
        """

    @abstractmethod
    def losses(
        self, outputs: Any, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The terms of the objective for labels (B, L), and under `total` what is to be minimised."""

    def score(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Scores:
        """Scores and carriers of `forward`, without what only the objective needs."""
        outputs: Outputs = self(features, masks)
        return Scores(outputs.scores, outputs.attribution)

    def prepare(self, data: TrainingData) -> None:
        """Learn what one look at the training split tells; called once, before the first step."""

    def update_after_step(self, outputs: Any, labels: Tensor) -> None:
        """Change what is learnt without gradient; called after the backward pass, before the next batch."""

    def on_train_epoch_start(self, epoch: int) -> None:
        """Do what changes from epoch to epoch, counted from 0; called before every step."""

    def learning_rates(self) -> Iterable[tuple[nn.Parameter, float]]:
        """Parameters whose highest learning rate is not the experiment's, and theirs."""
        return ()

    def extra_files(self) -> dict[str, Path]:
        """Files that a run needs beside the weights: where they are now, by their place in the run."""
        return {}

    @property
    def is_trainable(self) -> bool:
        """Whether there is anything to train step by step; otherwise `prepare` has learnt everything."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @property
    def num_parameters(self) -> int:
        """How many numbers are learnt: trainable parameters, or what `prepare` fills if there are none."""
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return trainable or sum(x.numel() for x in self.buffers())

    def attention(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where each label looks: (B, L, T_m) by modality, zeros where absent; nothing if labels do not."""
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


class Carat(Model):
    """CARAT: network, objective, prototypes and queue.

    Args:
        config: widths, depths, weights and temperatures.
        geometry: labels and modalities.

    Raises:
        ConfigError: the configuration contradicts itself or names modalities that the data lacks.
    """

    def __init__(self, config: CaratConfig, geometry: Geometry) -> None:
        super().__init__()
        _check(config, geometry)
        encoder = config.encoder
        self.config = config
        self.weights: dict[str, float] = config.weights.model_dump()
        self.label_loss = LabelLoss(len(geometry.labels), **config.loss.model_dump())
        self.max_length = {m: encoder.max_lengths.get(m, encoder.max_length) for m in geometry.widths}
        self.number_of_labels = len(geometry.labels)
        self.layers = {m: encoder.layers.get(m, encoder.other_layers) for m in geometry.widths}
        self.network = CaratNetwork(
            geometry.widths,
            len(geometry.labels),
            hidden=config.hidden,
            latent=config.latent,
            layers=self.layers,
            heads=encoder.heads,
            feedforward=encoder.feedforward,
            dropout=encoder.dropout,
            max_length=self.max_length,
            norm_eps=encoder.norm_eps,
            momentum=config.momentum,
            pooler=encoder.pooler,
            align=frozenset(config.alignment.modalities),
            steps=config.alignment.steps,
            label_wise=config.label_wise,
            identity_init=config.identity_init,
            score_original=config.score_original,
            levels=config.levels,
            prototypes=config.prototypes,
            aggregation=config.aggregation,
        )
        self.memory_bank = MemoryBank(config.contrast.queue, config.latent, config.contrast.noise)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> CaratOutputs:
        outputs: CaratOutputs = self.network(features, masks)
        return outputs

    def score(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Scores:
        return Scores(*self.network.score(features, masks))

    def prepare(self, data: TrainingData) -> None:
        self.label_loss.balance(data.labels)

    def attention(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self.network.attend(m, features[m], masks[m])[1] for m in self.network.encoder}

    def losses(
        self, outputs: CaratOutputs, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        shuffle = self.config.shuffle
        samples, modalities = draw_shuffle(
            outputs.modality_mask,
            self.number_of_labels,
            generator,
            over_samples=shuffle.samples,
            over_modalities=shuffle.modalities,
        )
        return self.losses_of_shuffle(outputs, labels, samples, modalities)

    def losses_of_shuffle(
        self, outputs: CaratOutputs, labels: Tensor, samples: Tensor, modalities: Tensor
    ) -> dict[str, Tensor]:
        """As `losses`, with the shuffle given: sample and modality index (B, M, L)."""
        modality_mask = outputs.modality_mask
        levels = outputs.features.unbind(1)  # (B, M, L, D) each
        terms = {
            name: self.label_loss(max_over_present(logits, modality_mask)[0], labels)
            for name, logits in zip(LEVELS, outputs.logits.unbind(1), strict=False)
        }
        if self.config.weights.contrast:  # the one term that costs something
            terms["contrast"] = self._contrast(outputs, labels)
        terms["mse_reconstruction"] = distance(outputs.decoded, levels[0], modality_mask)
        for name, level in zip(LEVELS[1:], levels[1:], strict=False):
            terms[f"mse_{name}"] = distance(level, levels[0], modality_mask)
        aggregation = self.network.aggregation
        if aggregation is not None and outputs.aggregated is not None:
            move = gather_jointly if self.config.shuffle.joint_gather else apply_shuffle
            targets = labels[:, None].expand_as(outputs.aggregated)  # (B, M, L)
            moved = move(targets, samples, modalities)
            shuffled = aggregation(move(levels[-1], samples, modalities))
            terms["aggregate"] = self.label_loss(outputs.aggregated, targets, modality_mask)
            terms["shuffled"] = self.label_loss(shuffled, moved, modality_mask)
        weights = {name: self.weights[name] for name in terms}
        return terms | {"total": weighted_sum(terms, weights)}

    def update_after_step(self, outputs: CaratOutputs, labels: Tensor) -> None:
        """Move the prototypes towards the batch's original latents and enqueue the latents of all levels."""
        self.network.prototypes.update(outputs.latents[:, 0].detach(), labels, outputs.modality_mask)
        self.memory_bank.push(*self._contrast_rows(outputs, labels))

    def _contrast(self, outputs: CaratOutputs, labels: Tensor) -> Tensor:
        contrast = self.config.contrast
        rows, classes = self._contrast_rows(outputs, labels)
        with torch.autocast(rows.device.type, enabled=False):  # sums over thousands of rows need float32
            return supcon_loss(
                rows,
                classes,
                self.memory_bank.rows,
                self.memory_bank.classes,
                temperature=contrast.temperature,
                number_of_classes=2 * outputs.modality_mask.shape[1] * self.number_of_labels,
                queue_anchors=contrast.queue_anchors,
                average_over_all=contrast.average_over_all,
                epsilon=contrast.epsilon,
            )

    def compile_step(self, mode: str) -> None:
        super().compile_step(mode)
        compiled = torch.compile(self.losses_of_shuffle, mode=mode)
        self.losses_of_shuffle = compiled  # type: ignore[method-assign]

    def no_decay_parameters(self) -> Iterable[nn.Parameter]:
        decaying = [norm.weight for norm in self.network.input_norm.values()]
        for parameter in super().no_decay_parameters():
            if not self.config.decay_input_norm or all(parameter is not x for x in decaying):
                yield parameter

    def _contrast_rows(self, outputs: CaratOutputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Unit latents (N, P) of all levels and their classes (N,), see `contrast_rows`."""
        return contrast_rows(outputs.latents.to(self.memory_bank.rows.dtype), labels, outputs.modality_mask)


def _check(config: CaratConfig, geometry: Geometry) -> None:
    """Refuse what would fail later or be read by nothing."""
    encoder, align = config.encoder, config.alignment
    check_heads(config.hidden, encoder.heads)
    positions = min((encoder.max_lengths.get(m, encoder.max_length) for m in align.modalities), default=0)
    if align.modalities and align.steps > positions:
        raise ConfigError(f"method.alignment.steps {align.steps} is more than encoder.max_length {positions}")
    usual = CaratConfig().encoder.layers
    for key, named in (
        ("alignment.modalities", align.modalities),
        ("encoder.layers", encoder.layers),
        ("encoder.max_lengths", encoder.max_lengths),
    ):
        for m in named:
            if m not in geometry.widths and (key == "alignment.modalities" or m not in usual):
                hint = did_you_mean(m, geometry.widths) or f"; it has: {', '.join(geometry.widths)}"
                raise ConfigError(f"method.{key}: the data has no modality '{m}'{hint}")
    check_modalities(geometry.widths)


def check_modalities(widths: Mapping[str, int]) -> None:
    """Refuse names that PyTorch keeps for itself.

    Raises:
        ConfigError: names the modality.
    """
    for m in widths:
        if hasattr(nn.ModuleDict, m):
            raise ConfigError(f"modality '{m}': the name is taken by PyTorch, build the store with another")


def check_heads(width: int, heads: int, of: str = "hidden", by: str = "encoder.heads") -> None:
    """Refuse a width that heads do not divide.

    Raises:
        ConfigError: names both, by their keys below `method`.
    """
    if width % heads:
        raise ConfigError(f"method.{of} {width} is not a multiple of {by} {heads}")


METHODS = {
    "carat": "carat.models.base:Carat",
    "carat+": "carat.models.base:Carat",
    "prior": "carat.models.baselines.prior:Prior",
    "br": "carat.models.baselines.classical:BinaryRelevance",
    "cc": "carat.models.baselines.classical:ClassifierChain",
    "lp": "carat.models.baselines.classical:LabelPowerset",
    "linear": "carat.models.baselines.linear:Linear",
    "early-fusion": "carat.models.baselines.early_fusion:EarlyFusion",
    "late-fusion": "carat.models.baselines.late_fusion:LateFusion",
    "mult": "carat.models.baselines.mult:Mult",
    "misa": "carat.models.baselines.misa:Misa",
    "tailor": "carat.models.baselines.tailor:Tailor",
    "amp": "carat.models.baselines.amp:Amp",
    "lddu": "carat.models.baselines.lddu:Lddu",
}
"""Where every method is, by the name that an experiment gives in `method.name`; imported when it is built."""


def build_method(config: Any, geometry: Geometry) -> Model:
    """The method that a configuration names, for data of this geometry.

    Raises:
        ConfigError: unknown method, or the method refuses the configuration.
    """
    if config.name not in METHODS:
        raise ConfigError(f"unknown method '{config.name}'{did_you_mean(config.name, METHODS)}")
    module, _, name = METHODS[config.name].partition(":")
    builder: Callable[[Any, Geometry], Model] = getattr(import_module(module), name)
    return builder(config, geometry)
