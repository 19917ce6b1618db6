"""MulT: attention against its definition, and absent modalities."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from carat.config.baselines import MultConfig
from carat.models.baselines.mult import Layer, Transformer, sinusoids
from carat.utils.errors import ConfigError
from tests.models.baselines.test_baselines import SUBSETS, small
from tests.models.carat.test_model import WIDTHS, batch


def test_layer_is_multi_head_attention_from_target_to_source() -> None:
    layer = Layer(8, heads=2, dropout=0.0)
    target, source = torch.randn(3, 5, 8), torch.randn(3, 7, 8)
    mask = torch.arange(7) < torch.tensor([7, 1, 4])[:, None]
    slow = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        slow.in_proj_weight.copy_(torch.cat((layer.query.weight, layer.key_value.weight)))
        slow.in_proj_bias.copy_(torch.cat((layer.query.bias, layer.key_value.bias)))
        slow.out_proj.weight.copy_(layer.out_proj.weight)
        slow.out_proj.bias.copy_(layer.out_proj.bias)
    looked_at = layer.norm1(source)
    attended, _ = slow(layer.norm1(target), looked_at, looked_at, key_padding_mask=~mask)
    between = target + attended
    expected = between + layer.linear2(layer.linear1(layer.feedforward_norm(between)).relu())
    torch.testing.assert_close(layer(target, source, mask), expected)


def test_single_step_equals_that_of_the_full_sequence() -> None:
    transformer = Transformer(8, MultConfig(layers=3, heads=2)).eval()
    x, mask, step = torch.randn(4, 6, 8), torch.rand(4, 6) < 0.7, torch.tensor([0, 3, 5, 2])
    mask[torch.arange(4), step] = True
    whole = x
    for layer in transformer.layers:
        whole = layer(whole, whole, mask)
    expected = transformer.norm(whole)[torch.arange(4), step]
    torch.testing.assert_close(transformer.read(x, mask, step), expected)


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
def test_every_present_modality_affects_the_scores(present: tuple[str, ...]) -> None:
    """Including a single modality without sources, and several layers."""
    method = small("mult", layers=2).eval()
    features, masks, _ = batch(absent=False)
    masks = {m: mask & (m in present) for m, mask in masks.items()}
    scores = method.score(features, masks).scores
    for m in WIDTHS:
        changed = method.score(features | {m: features[m].flip(-1)}, masks).scores
        assert ((changed - scores).abs().amax(1) > 1e-5).all() == (m in present)


def test_word_embeddings_have_their_own_kernel() -> None:
    method = small("mult")
    kernels = {m: layer.kernel_size for m, layer in method.convolutions.items()}
    assert kernels == {"text": (1,), "visual": (3,), "audio": (3,)}


def test_positions_of_any_width_are_sines_and_cosines() -> None:
    positions = sinusoids(torch.arange(9), 5)
    assert positions.shape == (9, 5)
    torch.testing.assert_close(positions[7, 1], torch.tensor(7 * 10000 ** (-2 / 5)).sin())
    torch.testing.assert_close(positions[7, 4], torch.tensor(7 * 10000 ** (-2 / 5)).cos())


def test_width_must_be_a_multiple_of_the_heads() -> None:
    with pytest.raises(ConfigError, match=r"method.hidden 30 is not a multiple of method.heads 4"):
        small("mult", hidden=30)
