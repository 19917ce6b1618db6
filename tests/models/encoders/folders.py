"""Small pretrained models in folders as Hugging Face lays them out, and data for them."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import torch

from carat.data.recipes.build import build_store
from carat.data.store import Store

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SAYS = {"happy": ["glad", "fun"], "sad": ["tears", "lost"], "anger": ["hate", "stupid"]}
FILLERS = ["i", "we", "you", "am", "are", "the", "a", "so", "not", "very", "day", "now", "here"]
WORDS = [*SPECIAL, *FILLERS, *(word for words in SAYS.values() for word in words)]
WIDTH = 20
LAYERS = 3


def make_text_encoder(folder: Path) -> Path:
    """A BERT of 3 layers that knows `WORDS`."""
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
    """A wav2vec2 of 2 layers, one state for every 10 samples."""
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
    """Sentences whose words tell their labels; `said` is empty now and then."""
    dice = random.Random(0)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["id", "split", "said", *SAYS])
        writer.writeheader()
        for i in range(samples):
            row: dict[str, object] = {"id": f"s{i}", "split": ("train", "train", "valid", "test")[i % 4]}
            words = dice.choices(FILLERS, k=dice.randint(1, 9))
            for label, telling in SAYS.items():
                row[label] = int(dice.random() < 0.4)
                if row[label]:
                    words.insert(dice.randrange(len(words) + 1), dice.choice(telling))
            writer.writerow(row | {"said": " ".join(words)})
    return file


def write_recipe(recipe: Path, encoder: Path) -> None:
    """A recipe of tokens only, with its table beside it."""
    recipe.parent.mkdir(exist_ok=True)
    write_table(recipe.with_name("table.csv"))
    recipe.write_text(
        f"""
name: said
table: table.csv
id: id
split: split
transcript: said
labels: {{columns: [{", ".join(SAYS)}]}}
modalities:
  text: {{source: tokens, folder: {encoder}, column: said, max_tokens: 13}}
"""
    )


def make_text_store(folder: Path, encoder: Path) -> Store:
    """A store of tokens only."""
    write_recipe(folder / "recipe.yaml", encoder)
    return build_store(folder / "recipe.yaml", folder / "store")
