from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carat.data.recipes.sources.hidden_states import HuggingFaceSource
from carat.utils.errors import DataError

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights and a vocabulary of a few words."""
    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "so", "sad", "today"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(words)}).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=7,
        max_position_embeddings=11,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_features_do_not_depend_on_padding_and_batching(encoder: Path) -> None:
    texts = ["so sad", "", "today", "so so so sad today"]
    together = HuggingFaceSource(encoder, batch_size=3).read(texts)
    assert together[1] is None
    for text, features in zip(texts, together, strict=True):
        (single,) = HuggingFaceSource(encoder, batch_size=1).read([text])
        if features is None:
            assert single is None
            continue
        assert single is not None
        assert features.shape == (len(text.split()) + 2, 12)
        np.testing.assert_allclose(features, single, atol=1e-6)


def test_long_texts_are_truncated(encoder: Path) -> None:
    (features,) = HuggingFaceSource(encoder).read(["so " * 50])
    assert features is not None
    assert len(features) == 11
    (features,) = HuggingFaceSource(encoder, max_tokens=5).read(["so " * 50])
    assert features is not None
    assert len(features) == 5


def test_only_safetensors_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config.json is missing"):
        HuggingFaceSource(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match=r"model.safetensors is missing"):
        HuggingFaceSource(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be loaded"):
        HuggingFaceSource(tmp_path)
