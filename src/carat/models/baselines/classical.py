"""Classical multi-label classifiers on features averaged over time: br, cc, lp."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carat.config.baselines import (
    BinaryRelevanceConfig,
    ClassifierChainConfig,
    LabelPowersetConfig,
    PooledConfig,
)
from carat.models.base import Model, ModelOutputs, TrainingData
from carat.models.layers.masking import masked_max, masked_mean, modality_mask_of
from carat.models.losses.terms import cross_entropy

CERTAIN = 1e-6
"""Probability of what never occurs in the training split."""
ROUNDING = 1e-5
"""A feature with a smaller ratio of deviation to mean is constant in float32."""

Array = NDArray[np.float64]


class Pooled(Model):
    """Logistic regressions fitted by scikit-learn and scored by PyTorch.

    Features are each modality's mean over its valid steps, standardized by the training samples that have it
    and 0 where it is absent, and the modality mask.

    Args:
        widths, labels: see `Model`.
        config: penalty and solver.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, widths: Mapping[str, int], labels: Sequence[str], config: PooledConfig) -> None:
        super().__init__(widths, labels)
        self.config, self.widths = config, dict(widths)
        total = sum(widths.values())
        self.size = total + len(widths)
        """F, features of a sample."""
        self.register_buffer("center", torch.zeros(total))
        self.register_buffer("scale", torch.ones(total))

    def pool(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Features (B, F) of padded sequences."""
        modality_mask = modality_mask_of(masks, self.widths).to(self.center.dtype)
        pooled = torch.cat([masked_mean(features[m], masks[m], dim=1) for m in self.widths], dim=1)
        return torch.cat(
            ((pooled - self.center) / self.scale * self._spread(modality_mask), modality_mask), dim=1
        )

    def _spread(self, modality_mask: Tensor) -> Tensor:
        """(B, M) → the same for each feature of the modalities (B, F − M)."""
        parts = [modality_mask[:, [place]].expand(-1, d) for place, d in enumerate(self.widths.values())]
        return torch.cat(parts, dim=1)

    def prepare(self, data: TrainingData) -> None:
        self.center.zero_()
        self.scale.fill_(1)
        pooled = torch.cat([self.pool(features, masks) for features, masks, _ in data.batches]).double()
        means, modality_mask = pooled[:, : -len(self.widths)], pooled[:, -len(self.widths) :]
        present = self._spread(modality_mask)
        number = present.sum(0).clamp(min=1)
        center = (means * present).sum(0) / number
        variance = ((means - center).square() * present).sum(0) / number
        deviation = variance.sqrt()
        scale = torch.where(deviation > ROUNDING * center.abs(), deviation, torch.ones_like(deviation))
        self.center.copy_(center)
        self.scale.copy_(scale)
        standard = torch.cat(((means - center) / scale * present, modality_mask), dim=1)
        self.fit(standard.numpy(), data.labels.numpy().astype(int))

    @abstractmethod
    def fit(self, x: Array, y: NDArray[np.int64]) -> None:
        """Fit features x (N, F) and labels y (N, L)."""

    def losses(
        self, outputs: Any, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return {"total": cross_entropy(outputs.logits, labels)}

    def regress(self, x: Array, y: NDArray[np.int64]) -> tuple[Array, Array]:
        """Coefficients (F,), or (K, F) for K > 2 classes 0 … K − 1 in y (N,), and as many intercepts."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        if (y == y[0]).all():  # the solver needs two classes
            rate = float(np.clip(y[0], CERTAIN, 1 - CERTAIN))
            return np.zeros(x.shape[1]), np.log(rate / (1 - rate))
        model = LogisticRegression(C=self.config.strength, max_iter=self.config.iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `iterations` is what was asked for
            model.fit(x, y)
        if len(model.classes_) == 2:
            return model.coef_[0], model.intercept_[0]
        return model.coef_, model.intercept_


class BinaryRelevance(Pooled):
    """One logistic regression for each label.

    Source: Boutell et al., "Learning multi-label scene classification", 2004. A label is attributed to the
    present modality whose features add most to its logit.
    """

    coefficients: Tensor
    intercepts: Tensor

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: BinaryRelevanceConfig | None = None
    ) -> None:
        config = config or BinaryRelevanceConfig()
        super().__init__(widths, labels, config)
        self.register_buffer("coefficients", torch.zeros(len(self.labels), self.size))
        self.register_buffer("intercepts", torch.zeros(len(self.labels)))

    def fit(self, x: Array, y: NDArray[np.int64]) -> None:
        for label in range(len(self.labels)):
            coefficients, intercept = self.regress(x, y[:, label])
            self.coefficients[label] = torch.from_numpy(coefficients)
            self.intercepts[label] = float(intercept)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ModelOutputs:
        x = self.pool(features, masks)
        logits = x @ self.coefficients.T + self.intercepts
        widths = list(self.widths.values())
        own = torch.split(x, [*widths, len(widths)], 1)
        weights = torch.split(self.coefficients, [*widths, len(widths)], 1)
        parts = torch.stack([part @ w.T for part, w in zip(own[:-1], weights[:-1], strict=True)], dim=1)
        _, attribution = masked_max(parts, modality_mask_of(masks, self.widths))
        return ModelOutputs(logits.sigmoid(), attribution, logits)


class ClassifierChain(Pooled):
    """One logistic regression for each label, which also reads the labels decided before it.

    Source: Read et al., "Classifier chains for multi-label classification", 2011. Chosen here: the most
    frequent label first; true labels in training, decisions at .5 in use.
    """

    coefficients: Tensor
    intercepts: Tensor
    order: Tensor

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: ClassifierChainConfig | None = None
    ) -> None:
        config = config or ClassifierChainConfig()
        super().__init__(widths, labels, config)
        self.register_buffer("coefficients", torch.zeros(len(self.labels), self.size + len(self.labels)))
        self.register_buffer("intercepts", torch.zeros(len(self.labels)))
        self.register_buffer("order", torch.arange(len(self.labels)))

    def fit(self, x: Array, y: NDArray[np.int64]) -> None:
        order = np.argsort(-y.sum(0), kind="stable")
        self.order.copy_(torch.from_numpy(order))
        for place in range(len(self.labels)):
            earlier = np.zeros_like(y)
            earlier[:, :place] = y[:, order[:place]]  # in the order of the chain
            coefficients, intercept = self.regress(np.hstack((x, earlier)), y[:, order[place]])
            self.coefficients[place] = torch.from_numpy(coefficients)
            self.intercepts[place] = float(intercept)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ModelOutputs:
        x = self.pool(features, masks)
        weights, chained = torch.split(self.coefficients, [self.size, len(self.labels)], 1)
        own = x @ weights.T + self.intercepts  # (B, L) in the order of the chain
        logits: list[Tensor] = []
        for place in range(len(self.labels)):
            earlier = [(x > 0).to(own.dtype) * w for x, w in zip(logits, chained[place], strict=False)]
            logits.append(own[:, place] + sum(earlier))
        return ModelOutputs.from_logits(torch.stack(logits, dim=1)[:, self.order.argsort()])


class LabelPowerset(Pooled):
    """One multinomial regression whose classes are sets of labels; a label's score sums those that hold it.

    Source: Tsoumakas and Katakis, "Multi-label classification: an overview", 2007; only the most frequent
    sets are classes, as in Read et al., "Multi-label classification using ensembles of pruned sets", 2008.
    """

    coefficients: Tensor
    intercepts: Tensor
    sets: Tensor

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: LabelPowersetConfig | None = None
    ) -> None:
        config = config or LabelPowersetConfig()
        super().__init__(widths, labels, config)
        self.number = min(config.sets, 2 ** min(len(self.labels), 30))
        """K, sets at most."""
        self.register_buffer("coefficients", torch.zeros(self.number, self.size))
        self.register_buffer("intercepts", torch.zeros(self.number))
        self.register_buffer("sets", torch.zeros(self.number, len(self.labels)))

    def fit(self, x: Array, y: NDArray[np.int64]) -> None:
        sets, classes, counts = np.unique(y, axis=0, return_inverse=True, return_counts=True)
        kept = np.argsort(-counts, kind="stable")[: self.number]
        place = np.full(len(sets), -1)
        place[kept] = np.arange(len(kept))
        target = place[classes.ravel()]
        fitted, intercepts = self.regress(x[target >= 0], target[target >= 0])
        if len(kept) <= 2:  # a single logit, of the second set
            fitted, intercepts = np.vstack((0 * fitted, fitted)), np.array([0.0, float(intercepts)])
        self.sets.zero_()
        self.sets[: len(kept)] = torch.from_numpy(sets[kept]).float()
        self.coefficients.zero_()
        self.coefficients[: len(kept)] = torch.from_numpy(fitted[: len(kept)]).float()
        self.intercepts.fill_(float("-inf"))
        self.intercepts[: len(kept)] = torch.from_numpy(intercepts[: len(kept)]).float()

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ModelOutputs:
        logits = self.pool(features, masks) @ self.coefficients.T + self.intercepts
        scores = logits.softmax(1) @ self.sets
        return ModelOutputs.from_logits(scores.clamp(CERTAIN, 1 - CERTAIN).logit())
