"""Distributed training: rank and world size, local samples and differentiable all-gather."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """The processes of a training, from the view of one of them."""

    rank: int = 0
    """Rank of this process, from 0."""
    size: int = 1
    """Number of processes (world size)."""
    local_rank: int = 0
    """Rank of this process on its node."""
    local_size: int = 1
    """Number of processes on this node."""

    @property
    def is_global_zero(self) -> bool:
        """Whether this process has rank 0, which writes all files."""
        return self.rank == 0

    def local_rows(self, total: int) -> list[int]:
        """Indices of this process's samples in a batch.

        Args:
            total: number of samples in the batch.

        Returns:
            Every `size`-th index, from `rank` on; index 0 if there is none, which `all_gather` ignores.
        """
        return list(range(self.rank, total, self.size)) or [0]


SINGLE_PROCESS = Processes()


def started_by_launcher() -> Processes | None:
    """The processes started by torchrun or by Slurm's srun, None without either.

    Under Slurm, the environment variables of torchrun are set from those of Slurm.
    """
    environment = os.environ
    if "RANK" in environment and "WORLD_SIZE" in environment:
        size = int(environment["WORLD_SIZE"])
        return Processes(
            int(environment["RANK"]),
            size,
            int(environment.get("LOCAL_RANK", 0)),
            int(environment.get("LOCAL_WORLD_SIZE", size)),
        )
    size = int(environment.get("SLURM_NTASKS", 1))
    if size == 1 or "SLURM_PROCID" not in environment or environment.get("SLURM_JOB_NAME") in ("bash", "sh"):
        return None

    from carat.training.lightning_internals import first_node  # importing Lightning takes a second

    processes = Processes(
        int(environment["SLURM_PROCID"]),
        size,
        int(environment.get("SLURM_LOCALID", 0)),
        size // int(environment.get("SLURM_NNODES", 1)),
    )
    address = first_node(environment.get("SLURM_NODELIST", "127.0.0.1"))
    port = str(15000 + int(environment.get("SLURM_JOB_ID", 0)) % 1000)
    for name, default in (("MASTER_ADDR", address), ("MASTER_PORT", port)):
        os.environ.setdefault(name, default)
    os.environ |= {
        "RANK": str(processes.rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(processes.local_rank),
        "LOCAL_WORLD_SIZE": str(processes.local_size),
        "GROUP_RANK": environment.get("SLURM_NODEID", "0"),
    }
    return processes


def all_gather(outputs: Any, total: int, processes: Processes) -> Any:
    """Gather the outputs of all processes for a batch, with gradients.

    Every process must compute the same loss from the result, and gradients of the parameters must be averaged
    over the processes, as in `DistributedDataParallel`. They then equal those of a single process.

    Args:
        outputs: tensors (B, …) of this process's samples, see `Processes.local_rows`, nested in dictionaries,
            tuples and dataclasses; anything else is passed through.
        total: number of samples in the batch.
        processes: rank and number of processes.

    Returns:
        The same structure with tensors (total, …), in the order of the batch.
    """
    if processes.size == 1:
        return outputs
    tensors: list[Tensor] = []

    def collect(x: Tensor) -> Tensor:
        tensors.append(x)
        return x

    _map_tensors(outputs, collect)
    gathered = iter(_AllGather.apply(total, processes, *tensors))  # type: ignore[no-untyped-call]
    return _map_tensors(outputs, lambda x: next(gathered))


def _map_tensors(values: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with a function applied to every tensor, in order."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, dict):
        return {key: _map_tensors(value, function) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(_map_tensors(value, function) for value in values)
    if is_dataclass(values) and not isinstance(values, type):
        changes = {f.name: _map_tensors(getattr(values, f.name), function) for f in fields(values)}
        return replace(values, **changes)
    return values


class _AllGather(torch.autograd.Function):
    """Concatenates tensors of all processes, interleaved by rank, as bytes in a single collective."""

    @staticmethod
    def forward(ctx: Any, total: int, processes: Processes, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.total, ctx.processes = total, processes
        rows = -(-total // processes.size)
        padded = [torch.cat((x, x.new_zeros(rows - len(x), *x.shape[1:]))) for x in tensors]
        local = torch.cat([x.contiguous().view(-1).view(torch.uint8) for x in padded])
        received = [torch.empty_like(local) for _ in range(processes.size)]
        dist.all_gather(received, local)
        sizes = [x.numel() * x.element_size() for x in padded]
        parts = torch.split(torch.stack(received), sizes, dim=1)
        gathered = tuple(
            part.contiguous()
            .view(-1)
            .view(x.dtype)
            .view(processes.size, rows, *x.shape[1:])
            .transpose(0, 1)
            .flatten(0, 1)[:total]
            for part, x in zip(parts, padded, strict=True)
        )
        needs_grad = ctx.needs_input_grad[2:]
        constant = [x for x, needed in zip(gathered, needs_grad, strict=True) if not needed]
        ctx.mark_non_differentiable(*constant)
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rank, size = ctx.processes.rank, ctx.processes.size
        local = [gradient[rank::size] * size if gradient is not None else None for gradient in gradients]
        if rank >= ctx.total:  # the outputs of its sample were ignored
            local = [
                gradient.new_zeros(1, *gradient.shape[1:]) if gradient is not None else None
                for gradient in gradients
            ]
        return None, None, *local
