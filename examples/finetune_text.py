"""Fine-tune a text encoder with a linear layer, then predict on sentences.

    python examples/finetune_text.py [ENCODER]

ENCODER is a local Hugging Face folder (config.json, model.safetensors, tokenizer.json), e.g. MiniLM. Without
it the script makes a tiny random BERT, which is enough to see the workflow. Needs the extra `text`.
"""

from __future__ import annotations

import csv
import random
import sys
import tempfile
from pathlib import Path

import carat

EMOTIONS = {"happy": ["glad", "fun"], "sad": ["tears", "lost"], "anger": ["hate", "stupid"]}
FILLERS = ["i", "we", "you", "am", "are", "the", "a", "so", "not", "very", "day", "now", "here"]

RECIPE = """
name: sentences
table: sentences.csv
id: id
split: split
transcript: text              # keep the text itself
labels: {{columns: [happy, sad, anger]}}
modalities:
  text: {{source: tokens, folder: {encoder}, column: text, max_tokens: 32}}
"""


def write_table(file: Path, sentences: int = 320) -> None:
    """Write sentences whose words reveal their labels."""
    dice = random.Random(0)
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["id", "split", "text", *EMOTIONS])
        for i in range(sentences):
            labels = {emotion: int(dice.random() < 0.4) for emotion in EMOTIONS}
            words = dice.choices(FILLERS, k=dice.randint(1, 9))
            words += [dice.choice(EMOTIONS[emotion]) for emotion, present in labels.items() if present]
            dice.shuffle(words)
            split = ("train", "train", "valid", "test")[i % 4]
            writer.writerow([f"s{i}", split, " ".join(words), *labels.values()])


def make_tiny_encoder(folder: Path) -> Path:
    """Write a random BERT of two layers that knows the words above."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = [*special, *FILLERS, *(word for revealing in EMOTIONS.values() for word in revealing)]
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(x, words.index(x)) for x in ("[CLS]", "[SEP]")]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def main(folder: Path, encoder: Path | None) -> None:
    """Run the example in a folder."""
    tiny = encoder is None
    encoder = make_tiny_encoder(folder / "encoder") if encoder is None else encoder.resolve()
    write_table(folder / "sentences.csv")
    (folder / "recipe.yaml").write_text(RECIPE.format(encoder=encoder))
    store = carat.build_store(folder / "recipe.yaml", folder / "store")

    # A random encoder needs a higher learning rate and more epochs than a pretrained one.
    rate, epochs = (5e-3, 6) if tiny else (6e-5, 2)
    experiment = {
        "preset": "text",
        "method": "linear",  # with text alone as good as CARAT
        "encoders": {"text": {"folder": str(encoder), "learning_rate": rate}},
        "training": {"epochs": epochs},
    }
    run = carat.train(experiment, store, folder / "run")
    print(f"test micro-F1 {carat.load(run.folder).evaluate(store, 'test').metrics.micro_f1:.3f}")

    for prediction in carat.load(run.folder).predict_text(["so glad", "you are stupid and lost"], words=2):
        print(prediction.text, "→", {label: prediction.words[label] for label in prediction.labels})


if __name__ == "__main__":
    main(Path(tempfile.mkdtemp(prefix="carat-")), Path(sys.argv[1]) if len(sys.argv) > 1 else None)
