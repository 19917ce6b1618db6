"""One method under Lightning: steps, validation with threshold search, optimizer."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from carat.config.experiment import ThresholdConfig, TrainingConfig
from carat.data.batch import Batch
from carat.evaluation.metrics import compute_metrics
from carat.evaluation.thresholds import apply_thresholds, search_thresholds
from carat.models.base import Model
from carat.models.modality_dropout import drop_modalities
from carat.training.distributed import SINGLE_PROCESS, Processes, all_gather
from carat.training.optimizer import clip_gradients, make_optimizer
from carat.utils.errors import RunError

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

IN_EVERY_PROCESS: dict[str, Any] = {"sync_dist": True, "reduce_fx": "max"}
"""Logging of values that are equal in all processes: the maximum is exact, unlike the mean."""


class TrainingModule(L.LightningModule):
    """Trains any `Model` through its public contract.

    Random numbers of a step are a function of the seed, the step and, for dropout in the forward pass, the
    process, so that checkpoints need no random state.

    Args:
        model: model to train.
        config: optimizer and schedule.
        labels: L label names.
        threshold: kind of threshold that is searched on validation.
        steps: number of optimizer steps of the whole training.
        seed: random seed.
        processes: processes of a distributed training.
        has_unknown: whether some labels are unknown.
        teacher: identifies the weights of the teacher, if there is one.
    """

    def __init__(
        self,
        model: Model,
        config: TrainingConfig,
        labels: list[str],
        threshold: ThresholdConfig,
        steps: int,
        seed: int,
        processes: Processes = SINGLE_PROCESS,
        has_unknown: bool = False,
        teacher: str = "",
    ) -> None:
        super().__init__()
        self.model, self.config, self.labels = model, config, labels
        self.threshold, self.steps, self.seed, self.processes = threshold, steps, seed, processes
        self.has_unknown, self.teacher = has_unknown, teacher
        self.history: list[dict[str, float]] = []
        """Loss terms and validation metrics of every epoch so far."""
        self.thresholds: list[list[float]] = []
        """Thresholds (L,) of every epoch so far."""
        self.best_epoch = 0
        """Index of the best epoch so far, from 0."""
        self.best: dict[str, Tensor] = {}
        """State dictionary of the best epoch."""
        self.batches_seen = 0
        """Number of batches over all epochs."""
        self.batches_of_epoch = 0
        """Number of batches of the current epoch."""
        self.seconds = 0.0
        """Seconds spent before the last resume."""
        self._began = time.monotonic()
        self._sums: dict[str, Tensor] = {}
        self._samples = 0
        self._metrics: dict[str, float] = {}
        self._scores: list[Tensor] = []
        self._truth: list[Tensor] = []
        self._last: tuple[Any, Tensor] | None = None
        self.automatic_optimization = model.is_trainable

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        if self.config.graph == "cuda-graphs" and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        total, masks = batch.total or len(batch.labels), batch.masks
        common = torch.Generator(self.device).manual_seed(self._seed_of_step(0))
        if p := self.config.modality_dropout:
            uniform = torch.rand(total, len(masks), device=self.device, generator=common)
            masks = drop_modalities(masks, uniform[self.processes.local_rows(total)], p)
        torch.manual_seed(self._seed_of_step(1 + self.processes.rank))
        self.model.on_train_epoch_start(self.current_epoch)
        outputs = self.model(batch.features, masks)
        outputs, labels, targets = all_gather((outputs, batch.labels, batch.targets), total, self.processes)
        if self.processes.size > 1:
            torch.manual_seed(self._seed_of_step(0))
        further = {} if targets is None else {"targets": targets}
        losses = self.model.losses(outputs, labels, common, **further)
        self._add(losses, total)
        self.log("loss", losses["total"].detach(), prog_bar=True, logger=False, batch_size=total)
        self._last = outputs, labels
        return losses["total"] if self.model.is_trainable else None

    def _seed_of_step(self, stream: int) -> int:
        sequence = np.random.SeedSequence((self.seed, self.batches_seen, stream))
        return int(sequence.generate_state(1, np.uint64)[0])

    def _add(self, losses: dict[str, Tensor], samples: int) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().double() * samples
        self._samples += samples

    def end_step(self) -> None:
        """Update non-gradient state after an optimizer step."""
        assert self._last is not None
        self.model.update_after_step(*self._last)
        self._last = None
        self.batches_seen += 1
        self.batches_of_epoch += 1

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device, non_blocking=True)  # Lightning would wait for anything that is not a tensor

    def validation_step(self, batch: Batch, index: int) -> None:
        with torch.autocast(self.device.type, enabled=False):  # thresholds are used in float32
            scores = self.model.score(batch.features, batch.masks).scores
        found = all_gather((scores, batch.labels), batch.total or len(scores), self.processes)
        self._scores.append(found[0])
        self._truth.append(found[1])

    def end_validation(self) -> None:
        """Search thresholds, and keep the weights if the epoch is the best one so far."""
        scores = torch.cat(self._scores).cpu().numpy()
        truth = torch.cat(self._truth).cpu().numpy()
        self._scores.clear()
        self._truth.clear()
        if not np.isfinite(scores).all():
            reason = "lower training.learning_rate"
            if self.has_unknown:
                reason += ", unless the losses of this method do not handle unknown labels, which are NaN"
            raise RunError(
                f"training diverged in epoch {self.current_epoch + 1}: scores are not finite; {reason}"
            )
        result: list[Any] = [self._validate(scores, truth) if self.processes.is_global_zero else None]
        if self.processes.size > 1:
            dist.broadcast_object_list(result)
        thresholds, self._metrics = result[0]
        self.thresholds.append(thresholds)
        if not self.history or _or_minus_inf(self._metrics) > _or_minus_inf(self.history[self.best_epoch]):
            self.best_epoch = len(self.history)
            self.best = {name: x.detach().cpu().clone() for name, x in self.model.state_dict().items()}
        self.log_dict(self._metrics, batch_size=len(truth), **IN_EVERY_PROCESS)
        self.log(
            "micro_f1",
            self._metrics[MONITOR],
            prog_bar=True,
            logger=False,
            batch_size=len(truth),
            **IN_EVERY_PROCESS,
        )

    def _validate(self, scores: Any, truth: Any) -> tuple[list[float], dict[str, float]]:
        """Thresholds and metrics of the validation scores (N, L)."""
        thresholds = search_thresholds(scores, truth, self.threshold.kind, self.threshold.max_micro_f1_drop)
        metrics = compute_metrics(scores, apply_thresholds(scores, thresholds), truth, self.labels)
        return thresholds.tolist(), {f"valid/{name}": float(getattr(metrics, name)) for name in SUMMARY}

    def end_epoch(self) -> None:
        """Append the epoch to the history, after its validation."""
        terms = {f"train/{name}": float(value) / self._samples for name, value in self._sums.items()}
        self.log_dict(terms, batch_size=self._samples, **IN_EVERY_PROCESS)
        self.history.append({"epoch": float(self.current_epoch + 1)} | self._metrics | terms)
        self._sums, self._samples, self.batches_of_epoch = {}, 0, 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["progress"] = {
            "history": self.history,
            "thresholds": self.thresholds,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "batches_seen": self.batches_seen,
            "batches_of_epoch": self.batches_of_epoch,
            "sums": self._sums,
            "samples": self._samples,
            "seconds": self.spent(),
            "teacher": self.teacher,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint["progress"]
        if progress.get("teacher", "") != self.teacher:
            raise RunError(
                "training.teacher has other weights than when this training began; use --overwrite"
            )
        self.history, self.thresholds = progress["history"], progress["thresholds"]
        self.best, self.best_epoch = progress["best"], progress["best_epoch"]
        self.seconds = progress["seconds"]
        self.batches_seen, self.batches_of_epoch = progress["batches_seen"], progress["batches_of_epoch"]
        self._sums = {name: value.to(self.device) for name, value in progress["sums"].items()}
        self._samples = progress["samples"]

    def spent(self) -> float:
        """Seconds of training, including those before a resume."""
        return self.seconds + time.monotonic() - self._began

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        clip_gradients(self.model.parameters(), self.config.clip, self.config.clip_tensors)

    def on_train_start(self) -> None:
        """Set learning rates by this training's schedule; that of the checkpoint may have been shorter."""
        schedule: Any = self.lr_schedulers()
        if schedule is not None:
            factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
            for group, rate, factor in zip(
                schedule.optimizer.param_groups, schedule.base_lrs, factors, strict=True
            ):
                group["lr"] = rate * factor

    def configure_optimizers(self) -> Any:
        if not self.model.is_trainable:
            return []
        optimizer, schedule = make_optimizer(self.model, self.config, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _or_minus_inf(metrics: dict[str, float]) -> float:
    value = metrics[MONITOR]
    return value if math.isfinite(value) else -math.inf


class Ends(Callback):
    """Calls the module's own hooks at the end of steps, validations and epochs, before other callbacks.

    The weight average must see the update of a step, and its weights are in place until validation ends. At
    the end of an epoch other callbacks see the complete history.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.end_step()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.end_validation()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.end_epoch()
