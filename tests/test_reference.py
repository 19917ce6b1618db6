"""The fast objective and updates equal the equations, in value and gradient."""

from __future__ import annotations

from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from carat.config.experiment import CaratConfig
from carat.models.carat.aggregation import draw_shuffle
from carat.models.carat.memory_bank import EMPTY
from carat.models.carat.model import Carat
from tests.reference import Memory, Reference

NAMES = ("text", "visual", "audio")
QUEUE = 43


def compare(
    batch: int,
    modalities: int,
    labels: int,
    hidden: int,
    latent: int,
    seed: int,
    dtype: torch.dtype,
    tol: float,
    unknown: float = 0.0,
    graded: bool = False,
) -> None:
    """Two steps, so that the second meets moved prototypes and a filled queue; the reference in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    def same(fast: Tensor, plain: Tensor, what: str) -> None:
        scale = plain.detach().abs().max().clamp(min=1e-3) if plain.numel() else 1
        error = ((fast.double() - plain) / scale).detach().abs()
        assert fast.shape == plain.shape
        assert (error <= tol).all(), f"{what}: relative error {error.max()}"

    config = CaratConfig.model_validate(
        {"hidden": hidden, "latent": latent, "encoder": {"heads": 1}, "contrast": {"queue": QUEUE}}
    )
    torch.manual_seed(seed)
    names = [f"l{i}" for i in range(labels)]
    method = Carat(dict.fromkeys(NAMES[:modalities], 2), names, config).to(dtype).train()
    means = method.network.prototypes.means
    means.copy_(draw(*means.shape))
    keys = list(product(range(modalities), range(labels), (True, False)))
    memory = Memory(
        {(m, label, sign): means[m, label, int(not sign)].double().clone() for m, label, sign in keys}
    )
    parts = ("latent", "reconstruction", "classifier", "aggregation")
    fast = {name: p for name, p in method.network.named_parameters() if name.split(".")[0] in parts}
    plain = {name: p.detach().double().requires_grad_() for name, p in fast.items()}
    for _ in range(2):
        u = draw(batch, modalities, labels, hidden).requires_grad_()
        exact = u.detach().double().requires_grad_()
        modality_mask = torch.rand(batch, modalities, generator=generator) < 0.7
        modality_mask[:, 0] |= ~modality_mask.any(1)
        truth = torch.randint(0, 2, (batch, labels), generator=generator).double()
        known = torch.rand(batch, labels, generator=generator) >= unknown
        truth = torch.where(known, truth, torch.nan)
        targets = (truth + draw(batch, labels).double().sigmoid()) / 2 if graded else truth
        index = draw_shuffle(modality_mask, labels, generator, known=known)
        outputs = method.network.fuse(u, modality_mask)
        found = method.losses_of_shuffle(
            outputs, truth.to(dtype), *index, targets.to(dtype) if graded else None
        )
        reference = Reference(plain, exact, modality_mask, truth, targets)
        reference.forward(memory)
        expected = reference.losses(memory, *index)
        same(outputs.scores, reference.scores(), "scores")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            same(found[name], value, name)
        ours = torch.autograd.grad(found["total"], [u, *fast.values()])
        theirs = torch.autograd.grad(
            expected["total"], [exact, *plain.values()], allow_unused=True, materialize_grads=True
        )
        for name, gradient, value in zip(["u", *plain], ours, theirs, strict=True):
            same(gradient, value, f"gradient of {name}")
        method.update_after_step(outputs, truth.to(dtype))
        reference.update(memory, QUEUE)
        for m, label, sign in keys:
            same(means[m, label, int(not sign)], memory.prototypes[m, label, sign], "prototype")
        filled = method.memory_bank.classes != EMPTY
        rows, classes = method.memory_bank.rows[filled], method.memory_bank.classes[filled]
        oldest = -int(method.memory_bank.pointer) if len(rows) == QUEUE else 0
        stored = [row for _, row in memory.queue] or [rows.new_zeros(latent).double()]
        same(rows.roll(oldest, dims=0), torch.stack(stored)[: len(memory.queue)], "queue")
        assert classes.roll(oldest).tolist() == [kind for kind, _ in memory.queue]


SIZES = {
    "batch": st.sampled_from([1, 2, 3, 5]),
    "modalities": st.sampled_from([1, 2, 3]),
    "labels": st.sampled_from([1, 2, 3]),
    "hidden": st.sampled_from([2, 5, 7, 11]),
    "latent": st.sampled_from([2, 3, 5]),
    "seed": st.integers(0, 999),
}


@settings(max_examples=15)
@given(**SIZES)
def test_double_precision(**sizes: int) -> None:
    compare(**sizes, dtype=torch.float64, tol=1e-10)


@settings(max_examples=7)
@given(**SIZES)
def test_single_precision(**sizes: int) -> None:
    compare(**sizes, dtype=torch.float32, tol=1e-5)


@settings(max_examples=15)
@given(**SIZES, unknown=st.sampled_from([0.3, 0.8, 1.0]))
def test_unknown_labels(unknown: float, **sizes: int) -> None:
    compare(**sizes, dtype=torch.float64, tol=1e-10, unknown=unknown)


@settings(max_examples=15)
@given(**SIZES, unknown=st.sampled_from([0.0, 0.3]))
def test_graded_labels(unknown: float, **sizes: int) -> None:
    compare(**sizes, dtype=torch.float64, tol=1e-10, unknown=unknown, graded=True)
