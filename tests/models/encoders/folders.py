"""Small pretrained models in Hugging Face folders, and text data to fine-tune them on."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import torch

from carat.data.recipes.build import build_store
from carat.data.store import Store

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
KEYWORDS = {"happy": ["glad", "fun"], "sad": ["tears", "lost"], "anger": ["hate", "stupid"]}
FILLERS = ["i", "we", "you", "am", "are", "the", "a", "so", "not", "very", "day", "now", "here"]
WORDS = [*SPECIAL, *FILLERS, *(word for words in KEYWORDS.values() for word in words)]
WIDTH = 20
LAYERS = 3


def make_text_encoder(folder: Path) -> Path:
    """A BERT with 3 layers and the vocabulary `WORDS`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=28,
        max_position_embeddings=37,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(x, WORDS.index(x)) for x in ("[CLS]", "[SEP]")]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def make_speech_encoder(folder: Path, norm: str = "group") -> Path:
    """A wav2vec2 with 2 layers and one hidden state per 10 audio samples."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        conv_dim=(8, 8),
        conv_kernel=(5, 3),
        conv_stride=(5, 2),
        num_feat_extract_layers=2,
        feat_extract_norm=norm,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        vocab_size=7,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=1000, do_normalize=True).save_pretrained(folder)
    return folder


def write_table(file: Path, samples: int = 240) -> Path:
    """Utterances with a keyword for each of their labels; some have only filler words."""
    rng = random.Random(0)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["id", "split", "utterance", *KEYWORDS])
        writer.writeheader()
        for i in range(samples):
            row: dict[str, object] = {"id": f"s{i}", "split": ("train", "train", "valid", "test")[i % 4]}
            words = rng.choices(FILLERS, k=rng.randint(1, 9))
            for label, keywords in KEYWORDS.items():
                row[label] = int(rng.random() < 0.4)
                if row[label]:
                    words.insert(rng.randrange(len(words) + 1), rng.choice(keywords))
            writer.writerow(row | {"utterance": " ".join(words)})
    return file


def write_recipe(recipe: Path, encoder: Path) -> None:
    """Write a recipe with text as its only modality, and its table next to it."""
    recipe.parent.mkdir(exist_ok=True)
    write_table(recipe.with_name("table.csv"))
    recipe.write_text(
        f"""
name: texts
table: table.csv
id: id
split: split
transcript: utterance
labels: {{columns: [{", ".join(KEYWORDS)}]}}
modalities:
  text: {{source: tokens, folder: {encoder}, column: utterance, max_tokens: 13}}
"""
    )


def make_text_store(folder: Path, encoder: Path) -> Store:
    """A store with token ids as its only modality."""
    write_recipe(folder / "recipe.yaml", encoder)
    return build_store(folder / "recipe.yaml", folder / "store")
