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
from carat.models.losses.known import split_targets
from carat.models.losses.terms import cross_entropy
from carat.utils.errors import DataError

MIN_PROBABILITY = 1e-6
"""Probability of labels that never occur in the training split."""
MIN_DEVIATION = 1e-5
"""Features with a smaller ratio of standard deviation to mean are constant up to float32 rounding."""

Array = NDArray[np.float64]


class Pooled(Model):
    """Logistic regressions fitted by scikit-learn and scored by PyTorch.

    Features are the mean of each modality over its valid steps, standardized over the training samples that
    have it and 0 if absent, concatenated with the modality mask.

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
        """F, number of features per sample."""
        self.register_buffer("center", torch.zeros(total))
        self.register_buffer("scale", torch.ones(total))

    def pool(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Compute features (B, F) of padded sequences."""
        modality_mask = modality_mask_of(masks, self.widths).to(self.center.dtype)
        pooled = torch.cat([masked_mean(features[m], masks[m], dim=1) for m in self.widths], dim=1)
        return torch.cat(
            ((pooled - self.center) / self.scale * self._spread(modality_mask), modality_mask), dim=1
        )

    def _spread(self, modality_mask: Tensor) -> Tensor:
        """Repeat a modality mask (B, M) for the features of each modality (B, F − M)."""
        parts = [modality_mask[:, [i]].expand(-1, d) for i, d in enumerate(self.widths.values())]
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
        scale = torch.where(deviation > MIN_DEVIATION * center.abs(), deviation, torch.ones_like(deviation))
        self.center.copy_(center)
        self.scale.copy_(scale)
        standard = torch.cat(((means - center) / scale * present, modality_mask), dim=1)
        labels, known = split_targets(data.labels)
        self.fit(standard.numpy(), labels.numpy().astype(int), known.numpy())

    @abstractmethod
    def fit(self, x: Array, y: NDArray[np.int64], known: NDArray[np.bool_]) -> None:
        """Fit features x (N, F) and labels y (N, L), 0 where they are not known (N, L)."""

    def losses(
        self,
        outputs: Any,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        return {"total": cross_entropy(outputs.logits, labels if targets is None else targets)}

    def regress(self, x: Array, y: NDArray[np.int64]) -> tuple[Array, Array]:
        """Fit a logistic regression to features x (N, F) and classes y (N,) from 0 to K − 1.

        Returns:
            Coefficients (F,) and a scalar intercept; (K, F) and (K,) for K > 2 classes.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        if (y == y[0]).all():  # the solver needs two classes
            rate = float(np.clip(y[0], MIN_PROBABILITY, 1 - MIN_PROBABILITY))
            return np.zeros(x.shape[1]), np.log(rate / (1 - rate))
        model = LogisticRegression(C=self.config.strength, max_iter=self.config.iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `iterations` is a deliberate limit
            model.fit(x, y)
        if len(model.classes_) == 2:
            return model.coef_[0], model.intercept_[0]
        return model.coef_, model.intercept_


class BinaryRelevance(Pooled):
    """Binary relevance: one logistic regression per label.

    Source: Boutell et al., "Learning multi-label scene classification", 2004. A label is attributed to the
    present modality whose features contribute most to its logit. Each label is fitted to the samples in
    which it is known.
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

    def fit(self, x: Array, y: NDArray[np.int64], known: NDArray[np.bool_]) -> None:
        for label in range(len(self.labels)):
            rows = known[:, label]
            coefficients, intercept = self.regress(x[rows], y[rows, label])
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
    """Classifier chain: one logistic regression per label, which also takes the preceding labels.

    Source: Read et al., "Classifier chains for multi-label classification", 2011. Design
    choices: labels in order of decreasing frequency; true labels in training, predictions at a threshold of
    0.5 at inference. Each label is fitted to the samples in which it is known; for those, unknown preceding
    labels are predicted as at inference.
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

    def fit(self, x: Array, y: NDArray[np.int64], known: NDArray[np.bool_]) -> None:
        order = np.argsort(-y.sum(0), kind="stable")
        self.order.copy_(torch.from_numpy(order))
        earlier = np.zeros_like(y)  # in the order of the chain
        for position, label in enumerate(order):
            inputs: Array = np.hstack((x, earlier))
            rows = known[:, label]
            coefficients, intercept = self.regress(inputs[rows], y[rows, label])
            self.coefficients[position] = torch.from_numpy(coefficients)
            self.intercepts[position] = float(intercept)
            earlier[:, position] = np.where(rows, y[:, label], inputs @ coefficients + intercept > 0)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ModelOutputs:
        x = self.pool(features, masks)
        weights, chained = torch.split(self.coefficients, [self.size, len(self.labels)], 1)
        own = x @ weights.T + self.intercepts  # (B, L) in the order of the chain
        logits: list[Tensor] = []
        for position in range(len(self.labels)):
            earlier = [(x > 0).to(own.dtype) * w for x, w in zip(logits, chained[position], strict=False)]
            logits.append(own[:, position] + sum(earlier))
        return ModelOutputs.from_logits(torch.stack(logits, dim=1)[:, self.order.argsort()])


class LabelPowerset(Pooled):
    """Label powerset: a multinomial regression over sets of labels; scores are marginal probabilities.

    Source: Tsoumakas and Katakis, "Multi-label classification: an overview", 2007; only the most frequent
    sets are classes, as in Read et al., "Multi-label classification using ensembles of pruned sets", 2008.
    A sample with an unknown label has no set, so only those with all labels known are fitted.
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
        """K, maximum number of label sets."""
        self.register_buffer("coefficients", torch.zeros(self.number, self.size))
        self.register_buffer("intercepts", torch.zeros(self.number))
        self.register_buffer("sets", torch.zeros(self.number, len(self.labels)))

    def fit(self, x: Array, y: NDArray[np.int64], known: NDArray[np.bool_]) -> None:
        complete = known.all(1)
        if not complete.any():
            raise DataError(
                "label powerset (lp) needs training samples with all labels known, and there are none; use "
                "binary relevance (br) or a classifier chain (cc)"
            )
        x, y = x[complete], y[complete]
        sets, classes, counts = np.unique(y, axis=0, return_inverse=True, return_counts=True)
        kept = np.argsort(-counts, kind="stable")[: self.number]
        class_of_set = np.full(len(sets), -1)
        class_of_set[kept] = np.arange(len(kept))
        target = class_of_set[classes.ravel()]
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
        return ModelOutputs.from_logits(scores.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY).logit())
