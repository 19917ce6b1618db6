"""What the speed benchmarks have in common: sizes, batches, the yardstick and a training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from carat.config.experiment import TrainingConfig, load_experiment
from carat.data.corpora.labels import MOSEI
from carat.models.base import Model
from carat.models.build import build_model
from carat.training.optimizer import clip_gradients, make_optimizer

WIDTHS = {"text": 300, "visual": 35, "audio": 74}
"""Aligned CMU-MOSEI: GloVe, FACET, COVAREP."""
LABELS = MOSEI
BATCH, STEPS, MEAN_LENGTH = 64, 60, 20


@dataclass
class Sample:
    """A batch on a device."""

    features: dict[str, Tensor]
    masks: dict[str, Tensor]
    labels: Tensor


def mosei_lengths(number: int, steps: int = STEPS, seed: int = 0) -> Tensor:
    """(number,) lengths like CMU-MOSEI's: log-normal, mean a third of `steps`, at most `steps`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.exp(0.65 * torch.randn(number, generator=generator))
    wanted = steps * MEAN_LENGTH / STEPS
    for _ in range(9):  # cutting long ones shortens the mean
        drawn *= wanted / drawn.clamp(1, steps).mean()
    return drawn.round().clamp(1, steps).long()


def make_batch(
    batch: int = BATCH,
    steps: int = STEPS,
    labels: int = len(LABELS),
    lengths: Tensor | None = None,
    device: str = "cpu",
) -> Sample:
    """Random features of that many steps, all valid or of these lengths, the same for every modality."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.full((batch,), steps) if lengths is None else lengths
    mask = torch.arange(steps) < lengths[:, None]
    features = {m: torch.randn(batch, steps, d, generator=generator) for m, d in WIDTHS.items()}
    truth = (torch.rand(batch, labels, generator=generator) < 0.25).float()
    return Sample(
        {m: (x * mask[..., None]).to(device) for m, x in features.items()},
        {m: mask.to(device) for m in WIDTHS},
        truth.to(device),
    )


class BareEncoders(nn.Module):
    """The yardstick: input projections and torch's stock post-norm Transformer layers, nothing else.

    Args:
        layers: by modality.
        hidden, heads, feedforward, dropout: as in CARAT's encoders.
    """

    def __init__(
        self, layers: Mapping[str, int], hidden: int, heads: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        self.project = nn.ModuleDict({m: nn.Linear(d, hidden) for m, d in WIDTHS.items()})
        self.layers = nn.ModuleDict(
            {
                m: nn.TransformerEncoder(
                    nn.TransformerEncoderLayer(hidden, heads, feedforward, dropout, "gelu", batch_first=True),
                    number,
                    enable_nested_tensor=False,
                )
                for m, number in layers.items()
            }
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """The sum of all hidden states."""
        total = sum(self.layers[m](self.project[m](features[m])).sum() for m in self.project)
        assert isinstance(total, Tensor)
        return total


def make_method(
    preset: str = "paper", labels: int = len(LABELS), device: str = "cpu", **changes: Any
) -> Model:
    """CARAT by a preset, for this data."""
    torch.manual_seed(0)
    config = load_experiment(preset=preset, overrides={"method": changes}).method
    names = tuple(f"label {i}" for i in range(labels))
    return build_model(config, WIDTHS, names).to(device)


def make_yardstick(device: str = "cpu") -> BareEncoders:
    """Bare encoders of the paper's sizes."""
    torch.manual_seed(0)
    config = load_experiment().method
    encoder = config.encoder
    bare = BareEncoders(encoder.layers, config.hidden, encoder.heads, encoder.feedforward, encoder.dropout)
    return bare.to(device)


def bare_step(bare: BareEncoders, batch: Sample) -> Callable[[], None]:
    """Forward and backward of the yardstick."""
    bare.train()

    def step() -> None:
        bare.zero_grad(set_to_none=True)
        bare(batch.features).backward()

    return step


def training_step(
    method: Model, batch: Sample, *, bf16: bool = False, config: TrainingConfig | None = None
) -> Callable[[], None]:
    """Everything that one training step does: forward, losses, backward, clipping, optimizer, queue."""
    method.train()
    config = config or TrainingConfig()
    optimizer, schedule = make_optimizer(method, config, 10_000)
    device = batch.labels.device

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            outputs = method(batch.features, batch.masks)
            losses = method.losses(outputs, batch.labels)
        losses["total"].backward()
        clip_gradients(method.parameters(), config.clip, config.clip_tensors)
        optimizer.step()
        schedule.step()
        method.update_after_step(outputs, batch.labels)

    return step
