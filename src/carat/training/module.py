"""One method under Lightning: steps, validation with threshold search, optimiser."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from carat.config import TrainingConfig
from carat.data.batches import Batch
from carat.errors import RunError
from carat.evaluation.metrics import compute_metrics
from carat.evaluation.thresholds import apply_thresholds, search_thresholds
from carat.hiding import hide_modalities
from carat.methods import Method
from carat.training.optimiser import clip_gradients, make_optimiser

MONITOR = "valid/micro_f1"
"""What chooses the epoch."""

SUMMARY = (
    "micro_f1",
    "macro_f1",
    "weighted_f1",
    "accuracy",
    "accuracy_empty_1",
    "precision",
    "recall",
    "hamming_loss",
    "lrap",
)
"""Validation metrics that are logged in every epoch."""


class MethodModule(L.LightningModule):
    """Trains any `Method`; knows the contract and nothing else of it.

    Args:
        method: what is trained.
        config: optimiser and schedule.
        labels: label names.
        threshold_kind: "global" or "per-label".
        steps: optimiser steps of the whole training.
        seed: of the shuffles.
    """

    def __init__(
        self,
        method: Method,
        config: TrainingConfig,
        labels: list[str],
        threshold_kind: str,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.method, self.config, self.labels = method, config, labels
        self.threshold_kind, self.steps, self.seed = threshold_kind, steps, seed
        self.history: list[dict[str, float]] = []
        """Training terms and validation metrics of every epoch so far."""
        self.thresholds: list[list[float]] = []
        """Thresholds (L,) of every epoch so far."""
        self._scores: list[Tensor] = []
        self._truth: list[Tensor] = []
        self._generator: torch.Generator | None = None
        self._last: tuple[Any, Tensor] | None = None

    def on_fit_start(self) -> None:
        self._generator = torch.Generator(self.device).manual_seed(self.seed)

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        if self.config.graph == "cuda-graphs" and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        masks = batch.masks
        if self.config.modality_dropout:
            masks = hide_modalities(masks, self.config.modality_dropout, self._generator)
        outputs = self.method(batch.features, masks)
        losses = self.method.losses(outputs, batch.labels, self._generator)
        terms = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict(terms, on_step=False, on_epoch=True, batch_size=len(batch.labels))
        self.log("loss", losses["total"].detach(), prog_bar=True, logger=False, batch_size=len(batch.labels))
        self._last = outputs, batch.labels
        return losses["total"] if self.method.by_gradient else None

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        assert self._last is not None
        self.method.update_after_step(*self._last)
        self._last = None

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device, non_blocking=True)  # Lightning would wait for anything that is not a tensor

    def validation_step(self, batch: Batch, index: int) -> None:
        with torch.autocast(self.device.type, enabled=False):  # thresholds are used in float32
            self._scores.append(self.method.score(batch.features, batch.masks).scores)
        self._truth.append(batch.labels)

    def on_validation_epoch_end(self) -> None:
        scores = torch.cat(self._scores).cpu().numpy()
        truth = torch.cat(self._truth).cpu().numpy()
        self._scores.clear()
        self._truth.clear()
        if not np.isfinite(scores).all():
            raise RunError(
                f"training diverged in epoch {self.current_epoch + 1}: scores are not finite; "
                f"lower training.learning_rate"
            )
        thresholds = search_thresholds(scores, truth, self.threshold_kind)
        metrics = compute_metrics(scores, apply_thresholds(scores, thresholds), truth, self.labels)
        self.thresholds.append(thresholds.tolist())
        summary = {f"valid/{name}": float(getattr(metrics, name)) for name in SUMMARY}
        self.log_dict(summary, batch_size=len(truth))
        self.log("micro_f1", summary[MONITOR], prog_bar=True, logger=False, batch_size=len(truth))

    def on_train_epoch_end(self) -> None:
        logged = {
            name: float(value)
            for name, value in self.trainer.callback_metrics.items()
            if name.startswith(("train/", "valid/"))
        }
        self.history.append({"epoch": float(self.current_epoch + 1)} | logged)

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        clip_gradients(self.method.parameters(), self.config.clip, self.config.clip_tensors)

    def configure_optimizers(self) -> Any:
        if not self.method.by_gradient:
            return None
        optimiser, schedule = make_optimiser(self.method, self.config, self.steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
