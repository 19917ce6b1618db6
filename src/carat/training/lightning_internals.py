"""All uses of Lightning beyond its stable API; tests check each assumption."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

SILENCED = {
    # Arrays are memory-mapped and loading takes a few percent of a step: no loader processes are needed.
    ".*does not have many workers.*": "lightning.pytorch.trainer.connectors.data_connector",
    # Lightning itself uses a deprecated PyTorch function.
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*": "torch.utils._pytree",
    # `training.accelerator: cpu` was chosen on purpose.
    ".*GPU available but not used.*": "lightning.pytorch.trainer.setup",
    # A frozen pretrained encoder is in eval mode on purpose.
    ".*in eval mode at the start of training.*": "lightning.pytorch.loops.fit_loop",
}
"""Warnings that cannot be avoided by configuration, by message, with the module that issues them."""

LOGGERS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")
"""Lightning's loggers, whose informational messages are hidden; the last two exist once their packages are
imported."""


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's informational messages and the warnings in `SILENCED`."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            for message in SILENCED:
                warnings.filterwarnings("ignore", message)
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def distributed_strategy() -> DDPStrategy:
    """Distributed data parallelism over an existing process group, without synchronization of buffers.

    All processes compute the same buffers from gathered outputs. PyTorch 2.13 renamed the argument.
    """
    parameters = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    arguments: dict[str, Any] = {name: False}
    return DDPStrategy(find_unused_parameters=True, **arguments)


def started_processes() -> ClusterEnvironment:
    """Cluster environment with ranks and addresses from the variables of torchrun, whoever has set them."""
    return TorchElasticEnvironment()


def one_process() -> ClusterEnvironment:
    """Cluster environment of one process, whatever variables of Slurm there are."""
    return LightningEnvironment()


def first_node(nodes: str) -> str:
    """Host name of the first node of a Slurm node list, e.g. `node03` for `node[03-05,9]`."""
    return SLURMEnvironment.resolve_root_node_address(nodes)


def weight_average(decay: float) -> Callback:
    """Exponential moving average of the parameters, which replaces them during validation.

    Checkpoints store the average under `state_dict` and the trained weights under `current_model_state`.

    Args:
        decay: decay of the average per step, in [0, 1).
    """
    return EMAWeightAveraging(decay=decay, use_buffers=False)
