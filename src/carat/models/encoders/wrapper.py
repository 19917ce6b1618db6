"""A model with pretrained encoders in front, fine-tuned jointly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from carat.config.encoders import ENCODERS
from carat.models.base import Model, Scores, TrainingData
from carat.models.encoders.pretrained import PretrainedEncoder


class EncodedModel(Model):
    """A model that gets hidden states of encoders where the data has tokens or waveforms.

    Args:
        model: built for the widths of the encoders.
        encoders: by modality; features of other modalities reach the model unchanged.
    """

    def __init__(self, model: Model, encoders: Mapping[str, PretrainedEncoder]) -> None:
        super().__init__(model.max_length, model.labels)
        self.model = model
        self.encoders = nn.ModuleDict(encoders)
        self.max_length = {
            m: encoders[m].input_length(steps) if m in encoders else steps
            for m, steps in model.max_length.items()
        }

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Any:
        return self.model(*self.encode(features, masks))

    def encode(
        self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs of the inner model: features (B, T', d) and masks (B, T') by modality."""
        encoded, valid = dict(features), dict(masks)
        for m, encoder in self.encoders.items():
            encoded[m], valid[m] = encoder(features[m], masks[m])
        return encoded, valid

    def losses(
        self,
        outputs: Any,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        further = {} if targets is None else {"targets": targets}
        return self.model.losses(outputs, labels, generator, **further)

    def score(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Scores:
        return self.model.score(*self.encode(features, masks))

    def prepare(self, data: TrainingData) -> None:
        self.model.prepare(TrainingData(data.labels, self._encode_batches(data.batches)))

    @torch.no_grad()
    def _encode_batches(self, batches: Iterable[Any]) -> Iterator[Any]:
        self.encoders.eval()
        try:
            for features, masks, labels in batches:
                yield *self.encode(features, masks), labels
        finally:
            self.encoders.train(self.training)

    def update_after_step(self, outputs: Any, labels: Tensor) -> None:
        self.model.update_after_step(outputs, labels)

    def on_train_epoch_start(self, epoch: int) -> None:
        for encoder in self._pretrained_encoders():
            encoder.set_frozen(epoch < encoder.choice.frozen_epochs)
        self.model.on_train_epoch_start(epoch)

    def learning_rates(self) -> Iterator[tuple[nn.Parameter, float]]:
        for encoder in self._pretrained_encoders():
            yield from encoder.learning_rates()
        yield from self.model.learning_rates()

    @property
    def takes_targets(self) -> bool:
        return self.model.takes_targets

    @property
    def is_trainable(self) -> bool:
        return self.model.is_trainable

    @property
    def num_parameters(self) -> int:
        of_encoders = sum(p.numel() for p in self.encoders.parameters() if p.requires_grad)
        return self.model.num_parameters + of_encoders * self.is_trainable

    def attention(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.model.attention(*self.encode(features, masks))

    def compile_step(self, mode: str) -> None:
        self.model.compile_step(mode)

    def no_decay_parameters(self) -> Iterator[nn.Parameter]:
        of_model = {id(parameter) for parameter in self.model.parameters()}  # the model's own choice applies
        yield from (p for p in super().no_decay_parameters() if id(p) not in of_model)
        yield from self.model.no_decay_parameters()

    def extra_files(self) -> dict[str, Path]:
        return {
            f"{ENCODERS}/{m}/{name}": encoder.folder / name
            for m, encoder in zip(self.encoders, self._pretrained_encoders(), strict=True)
            for name in encoder.files
        }

    def _pretrained_encoders(self) -> list[PretrainedEncoder]:
        return [encoder for encoder in self.encoders.values() if isinstance(encoder, PretrainedEncoder)]
