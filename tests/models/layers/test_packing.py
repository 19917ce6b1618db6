"""Packing and unpacking of valid steps, and dropout of packed rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from carat.models.layers.dropout import add_dropped, dropout
from carat.models.layers.packing import GROUP, pack_batch
from carat.models.layers.transformer import Encoder, attend

T, D = 13, 6

masks = st.lists(st.lists(st.booleans(), min_size=T, max_size=T), min_size=1, max_size=2 * GROUP + 3)
"""Any masks: holes and empty rows too."""


@given(rows=masks)
def test_packing_keeps_the_valid_steps_and_nothing_else(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows)
    layout = pack_batch(mask)
    x = torch.randn(*mask.shape, D)
    selected = layout.select(x)
    packed = layout.whole.pack(selected) if mask.any() else x.new_zeros(0, D)
    assert len(packed) == mask.sum()
    if not mask.any():
        return
    restored = layout.restore(layout.whole.unpack(packed), len(x))
    steps = restored.shape[1]
    assert (restored == (x * mask[..., None])[:, :steps]).all()
    assert not mask[:, steps:].any()


@given(rows=masks)
def test_groups_are_the_whole_in_parts(rows: list[list[bool]]) -> None:
    layout = pack_batch(torch.tensor(rows))
    whole, seen, row = layout.whole, 0, 0
    for group in layout.groups:
        size, steps = group.mask.shape
        assert (group.mask == whole.mask[seen : seen + size, :steps]).all()
        assert not whole.mask[seen : seen + size, steps:].any()
        assert group.rows == slice(row, row + int(group.mask.sum()))
        assert group.full == bool(group.mask.all())
        seen, row = seen + size, group.rows.stop
    assert seen == len(whole.mask)
    assert sum(group.mask.numel() for group in layout.groups) <= whole.mask.numel()


def test_different_lengths_are_computed_in_groups() -> None:
    lengths = torch.tensor([1, 2] * GROUP + [13])
    layout = pack_batch(torch.arange(13) < lengths[:, None])
    assert [len(group.mask) for group in layout.groups] == [16, 16, 1]
    assert [group.mask.shape[1] for group in layout.groups] == [13, 2, 1]
    assert len(pack_batch(torch.ones(2 * GROUP, 3, dtype=torch.bool)).groups) == 1


def test_gradient_of_packing() -> None:
    layout = pack_batch(torch.tensor([[True, False, True], [False] * 3, [True] * 3]))
    x = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: (layout.whole.pack(layout.select(x)) * weights).sum(), x)
    rows = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: layout.restore(layout.whole.unpack(rows), 3).sin(), rows)


def test_packed_encoder_equals_one_sample_at_a_time() -> None:
    lengths = torch.tensor([3, 13, 1, 2, 5] * 8)
    mask = torch.arange(13) < lengths[:, None]
    mask[1, 4] = False  # a hole
    x = torch.randn(len(lengths), 13, 4)
    encoder = Encoder(4, D, 2, 2, 7, 0.0, 20, 1e-5)
    for training in (True, False):
        encoder.train(training)
        layout = pack_batch(mask)
        assert len(layout.groups) == 3
        together = layout.restore(encoder(layout.select(x), layout), len(x))
        for i, steps in enumerate(lengths.tolist()):
            own = pack_batch(mask[[i], :steps])
            alone = encoder(x[[i], :steps], own)[0]
            torch.testing.assert_close(together[i, :steps], alone, atol=1e-5, rtol=1e-5)


def test_attention_with_dropped_weights_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = torch.rand(3, 2, T, T) < 0.5
    monkeypatch.setattr("carat.models.layers.transformer.dropout", lambda x, share: x * kept / (1 - share))
    query, key, value = torch.randn(3, 3, 2, T, D)
    mask = torch.arange(T) < torch.tensor([13, 4, 1])[:, None]
    weights = (torch.einsum("bhqd,bhkd->bhqk", query, key) / D**0.5).masked_fill(
        ~mask[:, None, None], float("-inf")
    )
    expected = (weights.softmax(-1) * kept * 2) @ value
    torch.testing.assert_close(attend(query, key, value, mask, 0.5), expected, atol=1e-5, rtol=1e-5)


def test_long_attention_computed_twice_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for long, held in ((5, 1), (5, 2 * 2 * T**2), (500, 1)):  # one sample at a time, two, all
        monkeypatch.setattr("carat.models.layers.transformer.LONG", long)
        monkeypatch.setattr("carat.models.layers.transformer.HELD", held)
        monkeypatch.setattr("carat.models.layers.transformer.dropout", lambda x, share: x * (1 - share))
        torch.manual_seed(7)
        query, key, value = torch.randn(3, 3, 2, T, D, requires_grad=True).unbind(0)
        mask = torch.arange(T) < torch.tensor([13, 4, 1])[:, None]
        attended = attend(query, key, value, mask, 0.5)
        found.append((attended, *torch.autograd.grad(attended.square().sum(), (query, key, value))))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])
    assert found[0][1].any()


def test_long_sequences_attend_in_groups() -> None:
    layout = pack_batch(torch.ones(2 * GROUP, 500, dtype=torch.bool))
    assert [len(group.mask) for group in layout.groups] == [GROUP, GROUP]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share: float) -> None:
    x = torch.ones(701, 1012)
    found = dropout(x, share)
    assert found.unique().tolist() == pytest.approx([0, 1 / (1 - share)], rel=1e-4)
    zero = found == 0
    assert zero.float().mean().item() == pytest.approx(share, abs=0.003)
    assert found.mean().item() == pytest.approx(1, abs=0.005)
    by_place = [zero[:, i::4].float().mean().item() for i in range(4)]  # four share a random integer
    assert by_place == pytest.approx([share] * 4, abs=0.004)
    joint = [(zero[:, i::4] & zero[:, j::4]).float().mean().item() for i in range(4) for j in range(i)]
    assert joint == pytest.approx([share**2] * 6, abs=0.005)


def test_dropout_follows_the_seed_and_differs_between_calls() -> None:
    x = torch.ones(5, 7)
    draws: list[Tensor] = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws += [dropout(x, 0.4), dropout(x, 0.4)]
    assert (draws[0] == draws[2]).all()
    assert (draws[1] == draws[3]).all()
    assert (draws[0] != draws[1]).any()
    assert (draws[0] != draws[4]).any()


def test_dropout_of_nothing_and_its_gradient() -> None:
    x = torch.randn(3, 5, requires_grad=True)
    assert dropout(x, 0.0) is x
    found = dropout(x, 0.5)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert ((gradient == torch.where(found == 0, 0.0, 2.0)) | (x == 0)).all()
    torch.manual_seed(1)
    branch = dropout(x, 0.3)
    torch.manual_seed(1)
    torch.testing.assert_close(add_dropped(x * 2, x, 0.3), x * 2 + branch)
    assert (add_dropped(x, x, 0.0) == x + x).all()
