"""Each part of the network against a loop over its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from carat.models.carat.aggregation import (
    Aggregation,
    apply_shuffle,
    draw_shuffle,
    gather_jointly,
    permute_within,
)
from carat.models.carat.alignment import Alignment
from carat.models.carat.label_attention import LabelAttention
from carat.models.carat.latent import Latent
from carat.models.carat.memory_bank import EMPTY, NOISE, MemoryBank
from carat.models.carat.prototypes import OwnLatent, Prototypes
from carat.models.carat.reconstruction import Reconstruction
from carat.models.layers.modality_linear import ModalityMLP
from carat.models.layers.packing import pack_batch
from carat.models.layers.transformer import Encoder

B, T, D, P, L, M = 5, 11, 14, 3, 7, 2


def lengths_mask(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def make_encoder(**changes: int) -> Encoder:
    sizes = {"width": 3, "hidden": D, "layers": 2, "heads": 2, "feedforward": 5, "max_length": 17} | changes
    return Encoder(**sizes, dropout=0.3, norm_eps=1e-5)


def encode(encoder: Encoder, x: Tensor, mask: Tensor) -> Tensor:
    packed = pack_batch(mask)
    return packed.restore(encoder(packed.select(x), packed), len(x))


def test_encoder_is_a_post_norm_transformer() -> None:
    encoder = make_encoder().eval()
    x, mask = torch.randn(B, T, 3), lengths_mask(11, 2, 7, 1, 5)
    reference = nn.TransformerEncoderLayer(D, 2, 5, activation="gelu", batch_first=True).eval()
    hidden = encoder.norm(encoder.project(x) + encoder.positions[:T])
    for layer in encoder.layers:
        reference.load_state_dict(
            {
                "self_attn.in_proj_weight": layer.query_key_value.weight,
                "self_attn.in_proj_bias": layer.query_key_value.bias,
                "self_attn.out_proj.weight": layer.out_proj.weight,
                "self_attn.out_proj.bias": layer.out_proj.bias,
                "linear1.weight": layer.linear1.weight,
                "linear1.bias": layer.linear1.bias,
                "linear2.weight": layer.linear2.weight,
                "linear2.bias": layer.linear2.bias,
                "norm1.weight": layer.norm1.weight,
                "norm1.bias": layer.norm1.bias,
                "norm2.weight": layer.norm2.weight,
                "norm2.bias": layer.norm2.bias,
            }
        )
        with torch.enable_grad():  # PyTorch's inference path handles padding differently
            hidden = reference(hidden, src_key_padding_mask=~mask)
    encoded = encode(encoder, x, mask)
    torch.testing.assert_close(encoded[mask], hidden[mask], atol=1e-5, rtol=1e-5)


def test_encoder_ignores_padding() -> None:
    encoder = make_encoder().eval()
    x, mask = torch.randn(2, T, 3), lengths_mask(11, 4)
    noisy = torch.where(mask[..., None], x, 99.0)
    encoded = encode(encoder, x, mask)
    torch.testing.assert_close(encoded[1, :4], encode(encoder, noisy, mask)[1, :4])
    torch.testing.assert_close(encoded[1:, :4], encode(encoder, x[1:, :4], mask[1:, :4]))


def test_encoder_initialization() -> None:
    encoder = make_encoder(hidden=256, layers=1, heads=8, feedforward=256, max_length=500)
    for name, weight in encoder.named_parameters():
        if "norm" in name:
            assert torch.all(weight == (1.0 if name.endswith("weight") else 0.0)), name
        elif name.endswith("bias"):
            assert torch.all(weight == 0), name
        else:
            assert abs(weight.std().item() - 0.02) < 0.002, name


def test_label_attention_by_hand() -> None:
    attention = LabelAttention(D, L)
    h, lengths = torch.randn(B, T, D), (11, 3, 1, 5, 8)
    features, attended = attention(h, lengths_mask(*lengths))
    weight = attention.score.weight.detach()
    assert features.shape == (B, L, D)
    for b, steps in enumerate(lengths):
        for label in range(L):
            scores = [float(weight[label] @ h[b, t]) for t in range(steps)]
            weights = [math.exp(s) / sum(math.exp(x) for x in scores) for s in scores]
            expected = sum(w * h[b, t] for t, w in enumerate(weights))
            torch.testing.assert_close(features[b, label], expected, atol=1e-5, rtol=1e-5)
            assert attended[b, label].tolist() == pytest.approx(weights + [0] * (T - steps), abs=1e-5)


def test_shared_attention_is_equal_for_all_labels() -> None:
    attention = LabelAttention(D, L, label_wise=False)
    features, weights = attention(torch.randn(B, T, D), lengths_mask(11, 3, 1, 5, 8))
    assert attention.score.weight.shape == (1, D)
    assert (features == features[:, :1]).all()
    assert (weights == weights[:, :1]).all()


def test_modality_mlp_is_one_mlp_per_modality() -> None:
    mlp, x = ModalityMLP(M, D, 5, P), torch.randn(B, M, L, D)
    for m in range(M):
        hidden = F.relu(x[:, m] @ mlp.first.weight[m] + mlp.first.bias[m])
        torch.testing.assert_close(mlp(x)[:, m], hidden @ mlp.second.weight[m] + mlp.second.bias[m])
    bound = math.sqrt(6 / (D + 5))
    assert 0.7 * bound < mlp.first.weight.abs().max() <= bound
    assert mlp.first.bias.abs().max() <= 1 / math.sqrt(D)


def test_latent_shapes() -> None:
    latent = Latent(M, D, P)
    encoded = latent.encode(torch.randn(B, M, L, D))
    assert encoded.shape == (B, M, L, P)
    assert latent.decode(encoded).shape == (B, M, L, D)


def reference_stand_in(prototypes: Prototypes, z: Tensor, modality_mask: Tensor) -> Tensor:
    out = torch.zeros_like(z)
    for b in range(len(z)):
        for m in range(M):
            for label in range(L):
                positive, negative = prototypes.means[m, label]
                unit = z[b, m, label] / z[b, m, label].norm()
                similarity = torch.stack((unit @ positive, unit @ negative))
                if not modality_mask[b, m]:
                    weights = torch.tensor([0.5, 0.5])
                elif prototypes.training:
                    weights = similarity.softmax(0)
                else:
                    weights = torch.tensor([1.0, 0.0] if similarity[0] >= similarity[1] else [0.0, 1.0])
                out[b, m, label] = weights[0] * positive + weights[1] * negative
    return out


@pytest.mark.parametrize("training", [True, False])
def test_stand_in_is_a_mixture_of_prototypes(training: bool) -> None:
    prototypes = Prototypes(M, L, P, 0.9).train(training)
    prototypes.means.normal_()
    z = torch.randn(B, M, L, P)
    modality_mask = torch.tensor([[True, False], [True, True], [False, True], [True, True], [False, False]])
    expected = reference_stand_in(prototypes, z, modality_mask)
    torch.testing.assert_close(prototypes.stand_in(z, modality_mask), expected)


@given(batch=st.integers(1, 23), seed=st.integers(0, 1000))
def test_prototypes_are_updated_sample_by_sample(batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    prototypes = Prototypes(M, L, P, 0.9)
    prototypes.means.normal_()
    z, labels = torch.randn(batch, M, L, P), torch.randint(0, 2, (batch, L)).float()
    modality_mask = torch.rand(batch, M) < 0.7
    expected = prototypes.means.clone()
    for b in range(batch):
        for m in range(M):
            for label in range(L):
                if modality_mask[b, m]:
                    row = expected[m, label, 0 if labels[b, label] else 1]
                    row.copy_(0.9 * row + 0.1 * z[b, m, label] / z[b, m, label].norm())
    prototypes.update(z, labels, modality_mask)
    torch.testing.assert_close(prototypes.means, expected, atol=1e-5, rtol=1e-5)


@given(pushes=st.lists(st.lists(st.booleans(), max_size=23), max_size=8))
def test_memory_bank_is_a_ring_buffer_of_valid_rows(pushes: list[list[bool]]) -> None:
    bank, ring, pointer = MemoryBank(7, P), [(EMPTY, [0.0] * P)] * 7, 0
    for valid in pushes:
        rows = torch.randn(len(valid), P)
        classes = torch.where(torch.tensor(valid, dtype=torch.bool), torch.arange(len(valid)), EMPTY)
        bank.push(rows, classes)
        for kind, row in zip(classes.tolist(), rows.tolist(), strict=True):
            if kind != EMPTY:
                ring[pointer] = kind, row
                pointer = (pointer + 1) % 7
        assert bank.pointer == pointer
        assert bank.classes.tolist() == [kind for kind, _ in ring]
        assert bank.rows.tolist() == [row for _, row in ring]


def test_latents_replace_the_noise_in_the_memory_bank() -> None:
    bank = MemoryBank(7, P, noise=True)
    torch.testing.assert_close(bank.rows.norm(dim=0), torch.ones(P))
    assert bank.classes.tolist() == [NOISE] * 7
    bank.push(torch.ones(5, P), torch.arange(5))
    assert bank.classes.tolist() == [0, 1, 2, 3, 4, NOISE, NOISE]


def test_reconstruction_by_hand() -> None:
    reconstruction = Reconstruction(3, D)
    decoded, stand_in = torch.randn(2, B, 3, L, D)
    weight, bias = reconstruction.rebuild.weight, reconstruction.rebuild.bias
    alpha = reconstruction.first(decoded, stand_in)
    beta = reconstruction.second(alpha)
    for target in range(3):
        parts = [stand_in[:, m] if m == target else decoded[:, m] for m in range(3)]
        expected = torch.cat(parts, dim=-1) @ weight[target] + bias[target]
        torch.testing.assert_close(alpha[:, target], expected, atol=1e-5, rtol=1e-5)
        joined = torch.cat([alpha[:, m] for m in range(3)], dim=-1)
        torch.testing.assert_close(
            beta[:, target], joined @ weight[target] + bias[target], atol=1e-5, rtol=1e-5
        )


def test_single_modality_is_reconstructed_from_its_own_latent() -> None:
    reconstruction, (decoded, stand_in) = Reconstruction(1, D), torch.randn(2, B, 1, L, D)
    expected = decoded @ reconstruction.rebuild.weight[0] + reconstruction.rebuild.bias[0]
    torch.testing.assert_close(reconstruction.first(decoded, stand_in), expected, atol=1e-5, rtol=1e-5)


def test_aggregation_keeps_samples_and_modalities_apart() -> None:
    aggregation, beta = Aggregation(D, L), torch.randn(B, M, L, D)
    logits = aggregation(beta)
    assert logits.shape == (B, M, L)
    beta[2, 1] += 1
    changed = (aggregation(beta) != logits).any(-1)
    assert changed.nonzero().tolist() == [[2, 1]]


@given(rows=st.integers(1, 5), size=st.integers(1, 13), seed=st.integers(0, 1000))
def test_valid_and_invalid_positions_are_permuted_separately(rows: int, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(rows, size, generator=generator) < 0.6
    index = permute_within(valid, generator)
    assert (index.sort(-1).values == torch.arange(size)).all()
    assert (valid.gather(1, index) == valid).all()


def test_permutations_are_uniform() -> None:
    valid = torch.tensor([True, False, True, True]).expand(6000, 4)
    index = permute_within(valid, torch.Generator().manual_seed(0))
    patterns, counts = index.unique(dim=0, return_counts=True)
    assert len(patterns) == 6
    assert (counts / 6000 - 1 / 6).abs().max() < 0.02


def test_shuffle_moves_features_with_their_targets() -> None:
    modality_mask = torch.tensor([[True, True], [True, False], [True, True], [False, True], [True, True]])
    tag = torch.arange(B * M * L).reshape(B, M, L)
    samples, modalities = draw_shuffle(modality_mask, L, torch.Generator().manual_seed(1))
    moved = apply_shuffle(tag, samples, modalities)
    features = apply_shuffle(tag[..., None].expand(B, M, L, D), samples, modalities)
    assert (features == moved[..., None]).all()
    for label in range(L):
        assert sorted(moved[..., label].flatten().tolist()) == tag[..., label].flatten().tolist()
    source_mask = modality_mask.flatten()[(moved // L).flatten()].reshape(B, M, L)
    assert (source_mask == modality_mask[..., None]).all()
    assert (moved != tag)[modality_mask].any()


def test_each_axis_of_the_shuffle_is_optional() -> None:
    modality_mask = torch.ones(B, M, dtype=torch.bool)
    tag = torch.arange(B * M * L).reshape(B, M, L)
    for over_samples, over_modalities in ((True, False), (False, True), (False, False)):
        index = draw_shuffle(
            modality_mask,
            L,
            torch.Generator().manual_seed(1),
            over_samples=over_samples,
            over_modalities=over_modalities,
        )
        moved = apply_shuffle(tag, *index)
        assert ((moved // (M * L) != tag // (M * L)).any()) == over_samples
        assert ((moved // L % M != tag // L % M).any()) == over_modalities
        assert (moved % L == tag % L).all()


def test_joint_gather_by_hand() -> None:
    values = torch.randn(B, M, L, D)
    samples, modalities = torch.randint(0, B, (B, M, L)), torch.randint(0, M, (B, M, L))
    gathered = gather_jointly(values, samples, modalities)
    for b in range(B):
        for m in range(M):
            for label in range(L):
                source = int(samples[b, m, label]), int(modalities[b, m, label]), label
                assert (gathered[b, m, label] == values[source]).all()
    assert (gather_jointly(values[..., 0], samples, modalities) == gathered[..., 0]).all()


def test_own_latent_is_zero_for_absent_modalities() -> None:
    latents, modality_mask = torch.randn(B, M, L, P), torch.rand(B, M) < 0.5
    stand_in = OwnLatent().stand_in(latents, modality_mask)
    assert (stand_in[modality_mask] == latents[modality_mask]).all()
    assert not stand_in[~modality_mask].any()


def test_alignment_by_hand() -> None:
    alignment = Alignment(3, 5)
    x, mask = torch.randn(2, T, 3), lengths_mask(11, 4)
    aligned, valid = alignment(x, mask)
    assert aligned.shape == (2, 5, 3)
    assert valid.all()
    weights = alignment.lstm(x[1:, :4])[0].softmax(-1)[0, :, 1:]  # (T, steps) without the blank, class 0
    torch.testing.assert_close(aligned[1], weights.T @ x[1, :4])


def test_identity_init_of_label_attention_is_mean_pooling() -> None:
    attention = LabelAttention(7, 3, identity_init=True)
    hidden, mask = torch.randn(2, 5, 7), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    features, _ = attention(hidden, mask)
    for i, length in enumerate((5, 2)):
        torch.testing.assert_close(features[i], hidden[i, :length].mean(0).expand(3, -1))
    (features * torch.randn(2, 3, 7)).sum().backward()
    assert attention.score.weight.grad is not None
    assert attention.score.weight.grad.abs().min() > 0  # and is trainable from there


@pytest.mark.parametrize("width", [6, 4])
def test_identity_init_of_the_encoder_keeps_its_inputs(width: int) -> None:
    encoder = Encoder(width, 6, 0, 2, 4, 0.0, 5, 1e-12, identity_init=True)
    assert not encoder.positions.any()
    x = F.layer_norm(torch.randn(2, 5, width), (width,))
    encoded = encoder(x, pack_batch(torch.ones(2, 5, dtype=torch.bool)))
    if width == 6:
        torch.testing.assert_close(encoded, x, atol=1e-4, rtol=1e-4)
    else:  # random, since the widths differ
        assert encoder.project.weight.std() > 0.01
        torch.testing.assert_close(encoded, F.layer_norm(encoder.project(x), (6,), eps=1e-12))
