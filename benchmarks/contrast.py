"""The contrast alone against its plain matrix version: time, memory, and very many rows.

    python -m benchmarks.contrast

3,456 anchors are a batch of the paper (64 samples, 3 levels, 3 modalities, 6 labels), 11,648 rows the batch
and its queue. Each number is for value and gradient. Memory is what a process of its own holds at most, above
what it held before the call.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import cyclopts
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import alternate, finish, in_own_process, machine, peak_gb, seconds, table
from carat.models.losses.contrastive import supcon_loss

ANCHORS, QUEUE, LATENT, CLASSES, TEMPERATURE = 3456, 8192, 64, 36, 0.07
MANY = 100_000


def plain(latents: Tensor, classes: Tensor, queue: Tensor, queue_classes: Tensor) -> Tensor:
    """The definition with whole matrices, as one would write it first."""
    keys = torch.cat((latents, queue))
    own = torch.eye(len(latents), len(keys), dtype=torch.bool)
    positive = (classes[:, None] == torch.cat((classes, queue_classes))) & ~own
    similar = (latents @ keys.T / TEMPERATURE).masked_fill(own, float("-inf"))
    logs = (similar - similar.logsumexp(1, keepdim=True)).masked_fill(own, 0)
    number = positive.sum(1)
    losses = -(logs * positive).sum(1) / number.clamp(min=1)
    return losses[number > 0].mean()


def tiled(latents: Tensor, classes: Tensor, queue: Tensor, queue_classes: Tensor) -> Tensor:
    """Ours."""
    return supcon_loss(
        latents, classes, queue, queue_classes, temperature=TEMPERATURE, number_of_classes=CLASSES
    )


def official(latents: Tensor, classes: Tensor, queue: Tensor, queue_classes: Tensor) -> Tensor:
    """Ours, with the queue's rows as anchors too."""
    return supcon_loss(
        latents,
        classes,
        queue,
        queue_classes,
        temperature=TEMPERATURE,
        number_of_classes=CLASSES,
        queue_anchors=True,
        average_over_all=True,
        epsilon=1e-12,
    )


VERSIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "plain": plain,
    "tiled": tiled,
    "official": official,
}


def rows(anchors: int, queue: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents that need a gradient, their classes, and those of a queue."""
    torch.manual_seed(0)
    latents, stored = (F.normalize(torch.randn(n, LATENT), dim=-1) for n in (anchors, queue))
    classes, stored_classes = (torch.randint(0, CLASSES, (n,)) for n in (anchors, queue))
    return latents.requires_grad_(), classes, stored, stored_classes


def gradient(version: str, given: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Value, then gradient, of which the latter is returned."""
    (found,) = torch.autograd.grad(VERSIONS[version](*given), given[0])
    return found


def main(*, rounds: int = 9, peak_of: str | None = None, anchors: int = ANCHORS, queue: int = QUEUE) -> None:
    """Time the contrast.

    Parameters
    ----------
    rounds
        Rounds, in each of which every version is timed once; medians are printed.
    peak_of
        Only call this version once and print time and memory.
    anchors, queue
        Rows of the batch and of the queue.
    """
    if peak_of is not None:
        given = rows(anchors, queue)
        before = peak_gb()
        spent = seconds(lambda: gradient(peak_of, given))
        print(json.dumps({"seconds": spent, "gb": peak_gb() - before, "process_gb": peak_gb()}))
        return
    sizes = ["--anchors", str(anchors), "--queue", str(queue)]
    alone = ["--peak-of", "tiled", "--anchors", str(MANY), "--queue", "0"]
    many = in_own_process("benchmarks.contrast", *alone)
    memory = {
        name: in_own_process("benchmarks.contrast", "--peak-of", name, *sizes)["gb"] for name in VERSIONS
    }
    given = rows(anchors, queue)
    apart = (gradient("tiled", given) - gradient("plain", given)).abs().max().item()
    times = alternate({name: lambda name=name: gradient(name, given) for name in VERSIONS}, rounds)
    lines = [[name, times[name], times[name] / times["plain"], memory[name]] for name in VERSIONS]
    lines.append([f"tiled, {MANY:,} anchors × {MANY:,} rows", many["seconds"], "", many["gb"]])
    text = (
        f"{anchors:,} anchors × {anchors + queue:,} rows, {machine()['threads']} threads; gradients of "
        f"plain and tiled differ by {apart:.1e} at most\n\n"
        + table(["version", "seconds", "ratio to plain", "GB"], lines)
    )
    finish(
        text,
        {f"{name}_s": value for name, value in times.items()}
        | {
            "ratio": times["tiled"] / times["plain"],
            "memory_ratio": memory["tiled"] / memory["plain"],
            "many_rows_s": many["seconds"],
            "many_rows_gb": many["process_gb"],
            "gradients_apart": apart,
        },
    )


if __name__ == "__main__":
    cyclopts.run(main)
