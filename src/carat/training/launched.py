"""The processes that torchrun or Slurm started, from their environment variables; does not import PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from carat.utils.errors import ConfigError

MAX_PROCESSES = 1 << 16
SHELLS = ("bash", "sh", "zsh", "fish", "tcsh", "interactive")
"""Names of Slurm jobs that are an interactive shell, from which one process is started."""
SPECIAL_STEPS = 0xFFFFFFF0
"""Smallest number of Slurm's own steps: a batch script, an interactive shell."""
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_NTASKS", "SLURM_PROCID")
"""Variables that Lightning reads whether or not a launcher has set them."""


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
    """The processes started by torchrun or by Slurm's srun, None without either or if there is only one.

    Under Slurm, the environment variables of torchrun are set from those of Slurm.

    Raises:
        ConfigError: a variable is not a number, or the numbers contradict each other.
    """
    environment = os.environ
    if "RANK" in environment and "WORLD_SIZE" in environment:
        size = _number(environment, "WORLD_SIZE", 1, MAX_PROCESSES)
        rank = _number(environment, "RANK", 0, size - 1)
        local_size = _number(environment, "LOCAL_WORLD_SIZE", 1, size, default=size)
        local_rank = _number(environment, "LOCAL_RANK", 0, local_size - 1, default=rank % local_size)
        return Processes(rank, size, local_rank, local_size) if size > 1 else None
    if not _started_by_srun(environment):
        return None
    size = _number(environment, "SLURM_NTASKS", 1, MAX_PROCESSES)
    if size == 1:
        return None
    rank = _number(environment, "SLURM_PROCID", 0, size - 1)
    local_size = size // _number(environment, "SLURM_NNODES", 1, size, default=1)
    local_rank = _number(environment, "SLURM_LOCALID", 0, local_size - 1, default=rank % local_size)

    from carat.training.lightning_internals import first_node  # importing Lightning takes a second

    address = first_node(environment.get("SLURM_NODELIST", "127.0.0.1"))
    port = str(15000 + _number(environment, "SLURM_JOB_ID", 0, 1 << 40, default=0) % 1000)
    for name, default in (("MASTER_ADDR", address), ("MASTER_PORT", port)):
        os.environ.setdefault(name, default)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_size),
        "GROUP_RANK": environment.get("SLURM_NODEID", "0"),
    }
    return Processes(rank, size, local_rank, local_size)


def rendezvous_address() -> tuple[str, int]:
    """Address and port at which the processes find each other.

    Raises:
        ConfigError: the launcher has set none, or none that is valid.
    """
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not address or not (port.isascii() and port.isdecimal() and 0 < int(port[:9]) < 1 << 16):
        raise ConfigError(
            f"RANK and WORLD_SIZE are set, but MASTER_ADDR is '{address}' and MASTER_PORT is '{port}'; start "
            "with torchrun or srun, or unset RANK"
        )
    return address, int(port)


def forget_launcher() -> None:
    """Remove variables of a launcher that has not started this process, since Lightning would follow them."""
    for name in VARIABLES:
        os.environ.pop(name, None)


def _started_by_srun(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process as one of its tasks, not a shell or script from which it is run."""
    if "SLURM_NTASKS" not in environment or "SLURM_PROCID" not in environment:
        return False
    step = environment.get("SLURM_STEP_ID", "")
    in_shell = environment.get("SLURM_JOB_NAME") in SHELLS or "SLURM_PTY_PORT" in environment
    return not in_shell and not (step.isdecimal() and int(step) >= SPECIAL_STEPS)


def _number(
    environment: Mapping[str, str], name: str, smallest: int, largest: int, default: int | None = None
) -> int:
    """Read a whole number from an environment variable.

    Raises:
        ConfigError: it is missing, not a whole number, or out of range.
    """
    text = environment.get(name)
    if text is None and default is not None:
        return default
    valid = text is not None and text.isascii() and text.isdecimal() and len(text) < 20
    if not valid or not smallest <= int(text or "") <= largest:
        raise ConfigError(
            f"environment variable {name} is '{text}', expected a whole number from {smallest} to {largest}; "
            "unset RANK and SLURM_NTASKS to train in one process"
        )
    return int(text or "")
