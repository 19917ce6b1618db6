"""Packing of padded batches, attention on packed rows, and dropout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from carat.models.layers.dropout import add_dropped, dropout
from carat.models.layers.packing import GROUP_SIZE, pack_batch
from carat.models.layers.transformer import Encoder, attend

T, D = 13, 6

masks = st.lists(st.lists(st.booleans(), min_size=T, max_size=T), min_size=1, max_size=2 * GROUP_SIZE + 3)
"""Arbitrary masks, including gaps and samples without valid steps."""


@given(rows=masks)
def test_packing_keeps_exactly_the_valid_steps(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows)
    packed_batch = pack_batch(mask)
    x = torch.randn(*mask.shape, D)
    selected = packed_batch.select(x)
    packed = packed_batch.whole.pack(selected) if mask.any() else x.new_zeros(0, D)
    assert len(packed) == mask.sum()
    if not mask.any():
        return
    restored = packed_batch.restore(packed_batch.whole.unpack(packed), len(x))
    steps = restored.shape[1]
    assert (restored == (x * mask[..., None])[:, :steps]).all()
    assert not mask[:, steps:].any()


@given(rows=masks)
def test_groups_partition_the_selected_samples(rows: list[list[bool]]) -> None:
    packed_batch = pack_batch(torch.tensor(rows))
    whole, start, row = packed_batch.whole, 0, 0
    for group in packed_batch.groups:
        size, steps = group.mask.shape
        assert (group.mask == whole.mask[start : start + size, :steps]).all()
        assert not whole.mask[start : start + size, steps:].any()
        assert group.rows == slice(row, row + int(group.mask.sum()))
        assert group.full == bool(group.mask.all())
        start, row = start + size, group.rows.stop
    assert start == len(whole.mask)
    assert sum(group.mask.numel() for group in packed_batch.groups) <= whole.mask.numel()


def test_samples_of_different_length_are_grouped() -> None:
    lengths = torch.tensor([1, 2] * GROUP_SIZE + [13])
    packed_batch = pack_batch(torch.arange(13) < lengths[:, None])
    assert [len(group.mask) for group in packed_batch.groups] == [16, 16, 1]
    assert [group.mask.shape[1] for group in packed_batch.groups] == [13, 2, 1]
    assert len(pack_batch(torch.ones(2 * GROUP_SIZE, 3, dtype=torch.bool)).groups) == 1


def test_gradients_of_packing_and_unpacking() -> None:
    packed_batch = pack_batch(torch.tensor([[True, False, True], [False] * 3, [True] * 3]))
    x = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: (packed_batch.whole.pack(packed_batch.select(x)) * weights).sum(), x
    )
    rows = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda rows: packed_batch.restore(packed_batch.whole.unpack(rows), 3).sin(), rows
    )


def test_packed_encoder_equals_encoding_one_sample_at_a_time() -> None:
    lengths = torch.tensor([3, 13, 1, 2, 5] * 8)
    mask = torch.arange(13) < lengths[:, None]
    mask[1, 4] = False  # a gap
    x = torch.randn(len(lengths), 13, 4)
    encoder = Encoder(4, D, 2, 2, 7, 0.0, 20, 1e-5)
    for training in (True, False):
        encoder.train(training)
        packed_batch = pack_batch(mask)
        assert len(packed_batch.groups) == 3
        encoded = packed_batch.restore(encoder(packed_batch.select(x), packed_batch), len(x))
        for i, steps in enumerate(lengths.tolist()):
            expected = encoder(x[[i], :steps], pack_batch(mask[[i], :steps]))[0]
            torch.testing.assert_close(encoded[i, :steps], expected, atol=1e-5, rtol=1e-5)


def test_attention_with_dropout_equals_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = torch.rand(3, 2, T, T) < 0.5
    monkeypatch.setattr("carat.models.layers.transformer.dropout", lambda x, p: x * keep / (1 - p))
    query, key, value = torch.randn(3, 3, 2, T, D)
    mask = torch.arange(T) < torch.tensor([13, 4, 1])[:, None]
    weights = (torch.einsum("bhqd,bhkd->bhqk", query, key) / D**0.5).masked_fill(
        ~mask[:, None, None], float("-inf")
    )
    expected = (weights.softmax(-1) * keep * 2) @ value
    torch.testing.assert_close(attend(query, key, value, mask, 0.5), expected, atol=1e-5, rtol=1e-5)


def test_chunked_attention_keeps_values_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for long, weights in ((5, 1), (5, 2 * 2 * T**2), (500, 1)):  # one sample per chunk, two, all
        monkeypatch.setattr("carat.models.layers.transformer.LONG_SEQUENCE", long)
        monkeypatch.setattr("carat.models.layers.transformer.MAX_WEIGHTS", weights)
        monkeypatch.setattr("carat.models.layers.transformer.dropout", lambda x, p: x * (1 - p))
        torch.manual_seed(7)
        query, key, value = torch.randn(3, 3, 2, T, D, requires_grad=True).unbind(0)
        mask = torch.arange(T) < torch.tensor([13, 4, 1])[:, None]
        attended = attend(query, key, value, mask, 0.5)
        results.append((attended, *torch.autograd.grad(attended.square().sum(), (query, key, value))))
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])
    assert results[0][1].any()


def test_long_sequences_are_grouped() -> None:
    packed_batch = pack_batch(torch.ones(2 * GROUP_SIZE, 500, dtype=torch.bool))
    assert [len(group.mask) for group in packed_batch.groups] == [GROUP_SIZE, GROUP_SIZE]


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_dropout_zeros_a_fraction_p_and_keeps_the_mean(p: float) -> None:
    dropped = dropout(torch.ones(701, 1012), p)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4)
    zero = dropped == 0
    assert zero.float().mean().item() == pytest.approx(p, abs=0.003)
    assert dropped.mean().item() == pytest.approx(1, abs=0.005)
    by_offset = [zero[:, i::4].float().mean().item() for i in range(4)]  # four elements share an integer
    assert by_offset == pytest.approx([p] * 4, abs=0.004)
    joint = [(zero[:, i::4] & zero[:, j::4]).float().mean().item() for i in range(4) for j in range(i)]
    assert joint == pytest.approx([p**2] * 6, abs=0.005)


def test_dropout_is_reproducible_and_differs_between_calls() -> None:
    x = torch.ones(5, 7)
    draws: list[Tensor] = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws += [dropout(x, 0.4), dropout(x, 0.4)]
    assert (draws[0] == draws[2]).all()
    assert (draws[1] == draws[3]).all()
    assert (draws[0] != draws[1]).any()
    assert (draws[0] != draws[4]).any()


def test_gradient_of_dropout_and_its_sum_with_a_residual() -> None:
    x = torch.randn(3, 5, requires_grad=True)
    assert dropout(x, 0.0) is x
    dropped = dropout(x, 0.5)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert ((gradient == torch.where(dropped == 0, 0.0, 2.0)) | (x == 0)).all()
    torch.manual_seed(1)
    branch = dropout(x, 0.3)
    torch.manual_seed(1)
    torch.testing.assert_close(add_dropped(x * 2, x, 0.3), x * 2 + branch)
    assert (add_dropped(x, x, 0.0) == x + x).all()
