"""One training in several processes: who has which samples, and how all see every output."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """This process among those of a training."""

    rank: int = 0
    """Which one it is, from 0."""
    size: int = 1
    """How many there are."""
    local_rank: int = 0
    """Which one it is on its machine."""
    local_size: int = 1
    """How many there are on its machine."""

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def share(self, total: int) -> list[int]:
        """Which of so many samples are this process's; the first one, to be left out later, if none is."""
        return list(range(self.rank, total, self.size)) or [0]


ALONE = Processes()


def started_by_launcher() -> Processes | None:
    """This process as torchrun or Slurm's srun says it; None if neither started it.

    What PyTorch expects of torchrun is set for Slurm too.
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
    from carat.training.lightning_internals import first_node  # Lightning takes a second

    found = Processes(
        int(environment["SLURM_PROCID"]),
        size,
        int(environment.get("SLURM_LOCALID", 0)),
        size // int(environment.get("SLURM_NNODES", 1)),
    )
    first = first_node(environment.get("SLURM_NODELIST", "127.0.0.1"))
    usual = {"MASTER_ADDR": first, "MASTER_PORT": str(15000 + int(environment.get("SLURM_JOB_ID", 0)) % 1000)}
    os.environ |= usual | {name: environment[name] for name in usual if name in environment}
    os.environ |= {
        "RANK": str(found.rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(found.local_rank),
        "LOCAL_WORLD_SIZE": str(found.local_size),
        "GROUP_RANK": environment.get("SLURM_NODEID", "0"),
    }
    return found


def gather(outputs: Any, total: int, processes: Processes) -> Any:
    """What all processes computed of a batch, in the batch's order; gradients go back to where they belong.

    Every process must go on to compute the same loss from it, and gradients of the weights must then be
    averaged over the processes, as `DistributedDataParallel` does: they are those of one process.

    Args:
        outputs: tensors (B, …) of this process's share (see `Processes.share`), in dictionaries and
            dataclasses; what is no tensor stays.
        total: samples of the batch.
        processes: which process this is.

    Returns:
        The same with tensors (total, …).
    """
    if processes.size == 1:
        return outputs
    found: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        found.append(x)
        return x

    _each(outputs, note)
    gathered = iter(_Gathered.apply(total, processes, *found))  # type: ignore[no-untyped-call]
    return _each(outputs, lambda x: next(gathered))


def _each(values: Any, change: Any) -> Any:
    """The same structure with every tensor changed, in order."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, dict):
        return {key: _each(value, change) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(_each(value, change) for value in values)
    if is_dataclass(values) and not isinstance(values, type):
        return replace(values, **{f.name: _each(getattr(values, f.name), change) for f in fields(values)})
    return values


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, total: int, processes: Processes, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.total, ctx.processes = total, processes
        rows = -(-total // processes.size)
        padded = [torch.cat((x, x.new_zeros(rows - len(x), *x.shape[1:]))) for x in tensors]
        packed = torch.cat([x.contiguous().view(-1).view(torch.uint8) for x in padded])
        everyone = [torch.empty_like(packed) for _ in range(processes.size)]
        dist.all_gather(everyone, packed)
        sizes = [x.numel() * x.element_size() for x in padded]
        parts = torch.split(torch.stack(everyone), sizes, dim=1)
        gathered = tuple(
            part.contiguous()
            .view(-1)
            .view(x.dtype)
            .view(processes.size, rows, *x.shape[1:])
            .transpose(0, 1)
            .flatten(0, 1)[:total]
            for part, x in zip(parts, padded, strict=True)
        )
        asked = ctx.needs_input_grad[2:]
        ctx.mark_non_differentiable(*(x for x, ask in zip(gathered, asked, strict=True) if not ask))
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rank, size = ctx.processes.rank, ctx.processes.size
        own = [gradient[rank::size] * size if gradient is not None else None for gradient in gradients]
        if rank >= ctx.total:  # its sample was left out
            own = [
                gradient.new_zeros(1, *gradient.shape[1:]) if gradient is not None else None
                for gradient in gradients
            ]
        return None, None, *own
