"""The CARAT model: network, losses, and updates of prototypes and memory bank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from carat.config.carat import CaratConfig
from carat.models.base import Model, Scores, TrainingData, check_heads, check_modalities
from carat.models.carat.aggregation import apply_shuffle, draw_shuffle, gather_jointly
from carat.models.carat.memory_bank import MemoryBank
from carat.models.carat.network import CaratNetwork, CaratOutputs
from carat.models.layers.masking import masked_max
from carat.models.losses.contrastive import contrast_rows, supcon_loss
from carat.models.losses.multilabel import LabelLoss
from carat.models.losses.terms import distance, weighted_sum
from carat.utils.errors import ConfigError, did_you_mean

LEVELS = ("original", "alpha", "beta")
"""Names of the feature levels, in the order of the K axis."""


class Carat(Model):
    """CARAT: contrastive feature reconstruction and aggregation, trained by `losses`.

    Graded targets are those of the cross-entropies; contrast and prototypes take the binary labels.
    Unknown labels are left out of every cross-entropy, of the contrast and its memory bank, of the prototypes
    and of the class weights; the shuffle permutes their features among themselves. Their samples still
    train the reconstruction.

    Source: Peng, Chen, Shou and Chen, "Contrastive Feature Reconstruction and Aggregation for Multi-Modal
    Multi-Label Emotion Recognition", AAAI 2024. Where this differs from the paper: docs/concepts/method.md.

    Args:
        widths: features per time step by modality, in the order of the M axis.
        labels: label names, in the order of the L axis.
        config: widths, depths, loss weights and temperatures; the paper's when None.

    Raises:
        ConfigError: the configuration is inconsistent, or names modalities that are not in `widths`.

    >>> model = Carat({"text": 300, "visual": 35, "audio": 74}, ["happy", "sad", "angry"])
    >>> features = {m: torch.randn(2, 5, d) for m, d in (("text", 300), ("visual", 35), ("audio", 74))}
    >>> masks = {m: torch.ones(2, 5, dtype=torch.bool) for m in features}
    >>> outputs = model(features, masks)
    >>> outputs.scores.shape
    torch.Size([2, 3])
    >>> model.losses(outputs, torch.ones(2, 3))["total"].backward()
    """

    weight_axes = {
        "network.label_attention.*": "L D",
        "network.latent.*.weight": "M D P",
        "network.latent.*.bias": "M P",
        "network.prototypes.means": "M L 2 P",
        "network.reconstruction.*.weight": "M M*D D",
        "network.reconstruction.*.bias": "M D",
        "network.classifier": "M L D",
        "network.aggregation.first.weight": "D L*D",
        "network.aggregation.second.weight": "L D",
        "network.aggregation.second.bias": "L",
    }

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: CaratConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or CaratConfig()
        _check(config, widths)
        self.config = config
        self.weights: dict[str, float] = config.weights.model_dump()
        self.max_length = {m: config.encoder.positions(m) for m in widths}
        self.label_loss = LabelLoss(len(labels), **config.loss.model_dump())
        self.network = CaratNetwork(widths, len(labels), config)
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
        self,
        outputs: CaratOutputs,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        shuffle = self.config.shuffle
        samples, modalities = draw_shuffle(
            outputs.modality_mask,
            len(self.labels),
            generator,
            known=~labels.isnan(),
            over_samples=shuffle.samples,
            over_modalities=shuffle.modalities,
        )
        return self.losses_of_shuffle(outputs, labels, samples, modalities, targets)

    def losses_of_shuffle(
        self,
        outputs: CaratOutputs,
        labels: Tensor,
        samples: Tensor,
        modalities: Tensor,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss terms with a given shuffle.

        Args:
            outputs, labels, targets: see `losses`.
            samples, modalities: (B, M, L), source indices of the shuffle.
        """
        config, modality_mask = self.config, outputs.modality_mask
        levels = outputs.features.unbind(1)  # (B, M, L, D) each
        targets = labels if targets is None else targets
        terms = {
            name: self.label_loss(masked_max(logits, modality_mask)[0], targets)
            for name, logits in zip(LEVELS, outputs.logits.unbind(1), strict=False)
        }
        if config.weights.contrast:  # the only expensive term
            terms["contrast"] = self._contrast(outputs, labels)
        terms["mse_reconstruction"] = distance(outputs.decoded, levels[0], modality_mask)
        for name, level in zip(LEVELS[1:], levels[1:], strict=False):
            terms[f"mse_{name}"] = distance(level, levels[0], modality_mask)
        aggregation = self.network.aggregation
        if aggregation is not None and outputs.aggregated is not None:
            permute = gather_jointly if config.shuffle.joint_gather else apply_shuffle
            of_modalities = targets[:, None].expand_as(outputs.aggregated)  # (B, M, L)
            shuffled_targets = permute(of_modalities, samples, modalities)
            shuffled = aggregation(permute(levels[-1], samples, modalities))
            terms["aggregate"] = self.label_loss(outputs.aggregated, of_modalities, modality_mask)
            terms["shuffled"] = self.label_loss(shuffled, shuffled_targets, modality_mask)
        weights = {name: self.weights[name] for name in terms}
        return terms | {"total": weighted_sum(terms, weights)}

    def update_after_step(self, outputs: CaratOutputs, labels: Tensor) -> None:
        """Update the prototypes with the original latents, and enqueue the latents of all levels."""
        self.network.prototypes.update(outputs.latents[:, 0].detach(), labels, outputs.modality_mask)
        self.memory_bank.push(*self._contrast_rows(outputs, labels))

    def compile_step(self, mode: str) -> None:
        super().compile_step(mode)
        compiled = torch.compile(self.losses_of_shuffle, mode=mode)
        self.losses_of_shuffle = compiled  # type: ignore[method-assign]

    def no_decay_parameters(self) -> Iterable[nn.Parameter]:
        input_norms = [norm.weight for norm in self.network.input_norm.values()]
        for parameter in super().no_decay_parameters():
            if not self.config.decay_input_norm or all(parameter is not x for x in input_norms):
                yield parameter

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
                number_of_classes=2 * outputs.modality_mask.shape[1] * len(self.labels),
                queue_anchors=contrast.queue_anchors,
                average_over_all=contrast.average_over_all,
                epsilon=contrast.epsilon,
            )

    def _contrast_rows(self, outputs: CaratOutputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Unit latents (N, P) of all levels and their classes (N,), see `contrast_rows`."""
        return contrast_rows(outputs.latents.to(self.memory_bank.rows.dtype), labels, outputs.modality_mask)


def _check(config: CaratConfig, widths: Mapping[str, int]) -> None:
    """Check that the configuration is consistent, and that its modalities exist."""
    encoder, align = config.encoder, config.alignment
    check_heads(config.hidden, encoder.heads)
    positions = min(map(encoder.positions, align.modalities), default=0)
    if align.modalities and align.steps > positions:
        raise ConfigError(f"method.alignment.steps {align.steps} exceeds encoder.max_length {positions}")
    default = CaratConfig().encoder.layers
    for key, named in (
        ("alignment.modalities", align.modalities),
        ("encoder.layers", encoder.layers),
        ("encoder.max_lengths", encoder.max_lengths),
    ):
        for m in named:
            if m not in widths and (key == "alignment.modalities" or m not in default):
                hint = did_you_mean(m, widths) or f"; available: {', '.join(widths)}"
                raise ConfigError(f"method.{key}: the data has no modality '{m}'{hint}")
    check_modalities(widths)
