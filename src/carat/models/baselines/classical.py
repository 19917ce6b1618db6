"""Classical multi-label learning on features averaged over time: br, cc, lp."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
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
from carat.models.base import Geometry, Model, TrainingData
from carat.models.baselines.common import UNLIMITED, BaselineOutputs, mean_over_time, scored
from carat.models.losses.terms import cross_entropy
from carat.models.modality_dropout import modality_mask_of

CERTAIN = 1e-6
"""Probability that is left for what the training split never shows."""
ROUNDING = 1e-5
"""A feature whose deviation is a smaller part of its mean is a constant in float32."""

Array = NDArray[np.float64]


class Pooled(Model):
    """Logistic regressions by scikit-learn, fitted once; only their scoring is PyTorch.

    Features are each modality's mean over its valid steps, standardised by the training samples that have it,
    0 where it is absent, and beside them which modalities are present.

    Args:
        config: penalty and solver.
        geometry: labels and modalities.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, config: PooledConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config, self.widths, self.labels = config, dict(geometry.widths), len(geometry.labels)
        self.max_length = dict.fromkeys(geometry.widths, UNLIMITED)
        total = sum(geometry.widths.values())
        self.size = total + len(geometry.widths)
        """F, features of a sample."""
        self.register_buffer("center", torch.zeros(total))
        self.register_buffer("scale", torch.ones(total))

    def pool(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Features (B, F) of padded sequences."""
        modality_mask = modality_mask_of({m: masks[m] for m in self.widths}).to(self.center.dtype)
        pooled = torch.cat([mean_over_time(features[m], masks[m]) for m in self.widths], dim=1)
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
        there = self._spread(modality_mask)
        number = there.sum(0).clamp(min=1)
        center = (means * there).sum(0) / number
        variance = ((means - center).square() * there).sum(0) / number
        deviation = variance.sqrt()
        scale = torch.where(deviation > ROUNDING * center.abs(), deviation, torch.ones_like(deviation))
        self.center.copy_(center)
        self.scale.copy_(scale)
        standard = torch.cat(((means - center) / scale * there, modality_mask), dim=1)
        self.fit(standard.numpy(), data.labels.numpy().astype(int))

    @abstractmethod
    def fit(self, x: Array, y: NDArray[np.int64]) -> None:
        """Learn from features x (N, F) and labels y (N, L)."""

    def losses(
        self, outputs: Any, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return {"total": cross_entropy(outputs.logits, labels)}

    def regress(self, x: Array, y: NDArray[np.int64]) -> tuple[Array, Array]:
        """Coefficients (F,), or (K, F) for K > 2 classes 0 … K − 1 in y (N,), and as many intercepts."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        if (y == y[0]).all():  # the solver wants two classes
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

    Source: Boutell et al., "Learning multi-label scene classification", 2004. A label is carried by the
    present modality whose features add most to its logit.
    """

    coefficients: Tensor
    intercepts: Tensor

    def __init__(self, config: BinaryRelevanceConfig, geometry: Geometry) -> None:
        super().__init__(config, geometry)
        self.register_buffer("coefficients", torch.zeros(self.labels, self.size))
        self.register_buffer("intercepts", torch.zeros(self.labels))

    def fit(self, x: Array, y: NDArray[np.int64]) -> None:
        for label in range(self.labels):
            found, intercept = self.regress(x, y[:, label])
            self.coefficients[label] = torch.from_numpy(found)
            self.intercepts[label] = float(intercept)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> BaselineOutputs:
        x = self.pool(features, masks)
        logits = x @ self.coefficients.T + self.intercepts
        widths = list(self.widths.values())
        own = torch.split(x, [*widths, len(widths)], 1)
        weights = torch.split(self.coefficients, [*widths, len(widths)], 1)
        parts = torch.stack([part @ w.T for part, w in zip(own[:-1], weights[:-1], strict=True)], dim=1)
        present = modality_mask_of({m: masks[m] for m in self.widths})[..., None]
        attribution = parts.masked_fill(~present, float("-inf")).argmax(1)
        return BaselineOutputs(logits.sigmoid(), attribution, logits)


class ClassifierChain(Pooled):
    """One logistic regression for each label, which also sees the labels decided before it.

    Source: Read et al., "Classifier chains for multi-label classification", 2011. Chosen here: the most
    frequent label first; true labels in training, decisions at .5 in use.
    """

    coefficients: Tensor
    intercepts: Tensor
    order: Tensor

    def __init__(self, config: ClassifierChainConfig, geometry: Geometry) -> None:
        super().__init__(config, geometry)
        self.register_buffer("coefficients", torch.zeros(self.labels, self.size + self.labels))
        self.register_buffer("intercepts", torch.zeros(self.labels))
        self.register_buffer("order", torch.arange(self.labels))

    def fit(self, x: Array, y: NDArray[np.int64]) -> None:
        order = np.argsort(-y.sum(0), kind="stable")
        self.order.copy_(torch.from_numpy(order))
        for place in range(self.labels):
            seen = np.zeros_like(y)
            seen[:, :place] = y[:, order[:place]]  # in the order of the chain
            found, intercept = self.regress(np.hstack((x, seen)), y[:, order[place]])
            self.coefficients[place] = torch.from_numpy(found)
            self.intercepts[place] = float(intercept)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> BaselineOutputs:
        x = self.pool(features, masks)
        weights, chained = torch.split(self.coefficients, [self.size, self.labels], 1)
        own = x @ weights.T + self.intercepts  # (B, L) in the order of the chain
        logits: list[Tensor] = []
        for place in range(self.labels):
            seen = [(logit > 0).to(own.dtype) * w for logit, w in zip(logits, chained[place], strict=False)]
            logits.append(own[:, place] + sum(seen))
        return scored(torch.stack(logits, dim=1)[:, self.order.argsort()])


class LabelPowerset(Pooled):
    """One multinomial regression whose classes are sets of labels; a label's score sums those that hold it.

    Source: Tsoumakas and Katakis, "Multi-label classification: an overview", 2007; only the most frequent
    sets are classes, as in Read et al., "Multi-label classification using ensembles of pruned sets", 2008.
    """

    coefficients: Tensor
    intercepts: Tensor
    sets: Tensor

    def __init__(self, config: LabelPowersetConfig, geometry: Geometry) -> None:
        super().__init__(config, geometry)
        self.number = min(config.sets, 2 ** min(self.labels, 30))
        """K, sets at most."""
        self.register_buffer("coefficients", torch.zeros(self.number, self.size))
        self.register_buffer("intercepts", torch.zeros(self.number))
        self.register_buffer("sets", torch.zeros(self.number, self.labels))

    def fit(self, x: Array, y: NDArray[np.int64]) -> None:
        sets, classes, counts = np.unique(y, axis=0, return_inverse=True, return_counts=True)
        kept = np.argsort(-counts, kind="stable")[: self.number]
        place = np.full(len(sets), -1)
        place[kept] = np.arange(len(kept))
        target = place[classes.ravel()]
        found, intercepts = self.regress(x[target >= 0], target[target >= 0])
        if len(kept) <= 2:  # one logit says it: that of the second
            found, intercepts = np.vstack((0 * found, found)), np.array([0.0, float(intercepts)])
        self.sets.zero_()
        self.sets[: len(kept)] = torch.from_numpy(sets[kept]).float()
        self.coefficients.zero_()
        self.coefficients[: len(kept)] = torch.from_numpy(found[: len(kept)]).float()
        self.intercepts.fill_(float("-inf"))
        self.intercepts[: len(kept)] = torch.from_numpy(intercepts[: len(kept)]).float()

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> BaselineOutputs:
        logits = self.pool(features, masks) @ self.coefficients.T + self.intercepts
        scores = logits.softmax(1) @ self.sets
        return scored(scores.clamp(CERTAIN, 1 - CERTAIN).logit())
