"""Distributed training: rank and world size, local samples and differentiable all-gather."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from carat.training.launched import SINGLE_PROCESS as SINGLE_PROCESS
from carat.training.launched import Processes as Processes
from carat.training.launched import rendezvous_address
from carat.training.launched import started_by_launcher as started_by_launcher
from carat.utils.errors import RunError, first_line
from carat.utils.logging import logger

JOIN_SECONDS, JOIN_SECONDS_OF_NODES = 60, 600
"""Seconds that the processes of one machine, and of several, have to find each other."""


def join_processes(processes: Processes, backend: str) -> None:
    """Join the process group of torchrun or Slurm, within a time limit.

    Args:
        processes: this process, see `started_by_launcher`.
        backend: backend of `torch.distributed`, "gloo" or "nccl".

    Raises:
        ConfigError: see `rendezvous_address`.
        RunError: not all processes have come within the time limit.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun has them
        dist.init_process_group(backend)
        return
    address, port = rendezvous_address()
    seconds = JOIN_SECONDS if processes.local_size == processes.size else JOIN_SECONDS_OF_NODES
    if processes.is_global_zero:
        logger.info(f"waiting up to {seconds} s for {processes.size} processes at {address}:{port}")
    try:
        socket.getaddrinfo(address, port)
        store = TCPStore(
            address,
            port,
            processes.size,
            is_master=processes.is_global_zero,
            timeout=timedelta(seconds=seconds),
        )
        dist.init_process_group(backend, store=store, rank=processes.rank, world_size=processes.size)
    except (RuntimeError, OSError, ValueError) as error:
        raise RunError(
            f"process {processes.rank} of {processes.size} found no others at MASTER_ADDR {address}, "
            f"MASTER_PORT {port} within {seconds} s ({first_line(error)}); start with torchrun or srun, or "
            "unset RANK"
        ) from error


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
