"""An encoder that learns along, against plain fine-tuning and against the encoder alone.

    python -m benchmarks.text --encoder FOLDER --data STORE [--context STORE]

The yardstick of training is what everybody writes first: random batches of 32 texts, padded to the longest,
transformers' model with AdamW in float32, mean over tokens, one linear layer. A second one adds what carat
does: batches of similar length and bf16. Ours is the whole training step of CARAT behind the encoder.
The stores are built from recipes/mosei_reduced_text.yaml and mosei_reduced_context.yaml; in context, plain
fine-tuning reads the same tokens and takes the mean over the text's own.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
import torch
from torch import nn
from transformers import AutoModel

from benchmarks.measure import finish, in_own_process, machine, peak_gb, seconds, table
from carat.config.base import merge
from carat.config.experiment import load_experiment
from carat.data.batch import Batch
from carat.data.loader import make_loader, usable_rows
from carat.data.store import Store, open_store
from carat.data.tokenizer import OWN
from carat.inference.loading import load
from carat.models.build import build
from carat.models.encoders.pretrained import has_bf16
from carat.training.optimizer import clip_gradients, make_optimizer
from carat.training.train import train

SIZE = 32
RATE = 6e-5
SHORT = "I am so relieved, but I miss him"


def settings(encoder: Path, modalities: list[str], context: bool = False) -> dict[str, Any]:
    """CARAT behind the encoder, as results/mosei_text.md has it, learning from the beginning."""
    from benchmarks.mosei_text import BEHIND, IN_CONTEXT

    changes = {
        "encoders": {"text": {"folder": str(encoder), "frozen_epochs": 0}},
        "data": {"batch_size": SIZE, "modalities": modalities, "truncation": True},
    }
    reads = {"encoders": {"text": {"learning_rate": RATE}}}
    return merge(merge(reads, IN_CONTEXT if context else BEHIND), changes)


def endless(store: Store, modalities: list[str], bucket: bool) -> Iterator[Batch]:
    """Training batches of a store, drawn anew again and again."""
    rows = usable_rows(store, "train", modalities)
    longest = {m: int(store.lengths(m).max()) for m in modalities}
    loader: Any = make_loader(
        store, rows, modalities, batch_size=SIZE, max_length=longest, shuffle=True, bucket=bucket
    )
    for epoch in range(10**6):
        loader.sampler.set_epoch(epoch)
        yield from loader


def plain(encoder: Path, store: Store, fast: bool) -> Callable[[], float]:
    """A step of plain fine-tuning, which answers with its loss.

    `fast` has batches of similar length, and bf16 where that is native.
    """
    torch.manual_seed(0)
    model = AutoModel.from_pretrained(encoder, use_safetensors=True, dtype=torch.float32).train()
    head = nn.Linear(model.config.hidden_size, len(store.label_names))
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    batches = endless(store, ["text"], bucket=fast)
    bf16 = fast and has_bf16(torch.device("cpu"))

    def step() -> float:
        batch = next(batches)
        steps, mask = batch.features["text"], batch.masks["text"]
        given: dict[str, Any] = {"input_ids": steps[..., 0], "attention_mask": mask.long()}
        if steps.shape[-1] > 1:  # in context
            given["token_type_ids"] = steps[..., 1]
            mask = mask & (steps[..., 1] == OWN)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            states = model(**given).last_hidden_state.float()
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        loss = nn.functional.binary_cross_entropy_with_logits(head(mean), batch.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def ours(encoder: Path, store: Store, modalities: list[str]) -> Callable[[], float]:
    """A step of CARAT behind the encoder, everything but logging; answers with the scored level's loss."""
    context = in_context(store)
    experiment = load_experiment(overrides=settings(encoder, modalities, context))
    torch.manual_seed(0)
    described = {m: store.manifest.modalities[m] for m in modalities}
    method = build(experiment.method, experiment.encoders, store.label_names, described)
    optimizer, schedule = make_optimizer(method, experiment.training, 600)
    batches, generator = endless(store, modalities, bucket=True), torch.Generator().manual_seed(0)

    def step() -> float:
        batch = next(batches)
        outputs = method(batch.features, batch.masks)
        losses = method.losses(outputs, batch.labels, generator)
        losses["total"].backward()
        clip_gradients(method.parameters(), 1.0, 0.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        method.update_after_step(outputs, batch.labels)
        return losses["original" if context else "beta"].item()

    return step


def in_context(store: Store) -> bool:
    """Whether its texts are read with what is said around them."""
    tokens = store.manifest.modalities["text"].tokens
    return tokens is not None and tokens.context > 0


def steps(encoder: Path, stores: list[Store]) -> dict[str, Callable[[], Callable[[], float]]]:
    """What makes every step that is timed, by the key of its ratio."""
    made: dict[str, Callable[[], Callable[[], float]]] = {}
    for store in stores:
        end = "_context" if in_context(store) else ""
        made |= {
            f"plain{end}": partial(plain, encoder, store, fast=False),
            f"plain_fast{end}": partial(plain, encoder, store, fast=True),
            f"carat_text{end}": partial(ours, encoder, store, ["text"]),
            f"carat_all{end}": partial(ours, encoder, store, store.modalities),
        }
    return made


def scoring(encoder: Path, store: Store, number: int, rounds: int) -> dict[str, float]:
    """Short sentences per second of the encoder alone and of a run, and seconds of a cold command."""
    dice = random.Random(0)
    vocabulary = SHORT.replace(",", "").split()
    texts = [" ".join(dice.choices(vocabulary, k=dice.randint(4, 12))) for _ in range(number)]
    found: dict[str, list[float]] = {"encoder": [], "carat": [], "carat_words": [], "cold": []}
    with tempfile.TemporaryDirectory() as folder:
        changes = settings(encoder, ["text"]) | {"training": {"epochs": 1, "accelerator": "cpu"}}
        small = _part_of(store, Path(folder) / "store")
        run = train(changes, small, Path(folder) / "run").folder
        predictor = load(run)
        model = AutoModel.from_pretrained(encoder, use_safetensors=True, dtype=torch.float32).eval()
        ids = sorted((x[:, 0].tolist() for x in predictor.reader.read(texts)), key=len)
        command = [sys.executable, "-m", "carat", "predict", str(run), "--text", SHORT]
        for _ in range(rounds):
            found["encoder"].append(number / seconds(lambda: _encode(model, ids)))
            found["carat"].append(number / seconds(lambda: predictor.predict_text(texts)))
            few = texts[: number // 8]
            found["carat_words"].append(
                len(few) / seconds(lambda few=few: predictor.predict_text(few, words=3))
            )
            found["cold"].append(seconds(lambda: subprocess.run(command, capture_output=True, check=True)))
    return {name: float(np.median(values)) for name, values in found.items()}


@torch.inference_mode()
def _encode(model: Any, ids: list[list[int]]) -> None:
    for start in range(0, len(ids), SIZE):
        some = ids[start : start + SIZE]
        padded = nn.utils.rnn.pad_sequence([torch.tensor(x) for x in some], batch_first=True)
        mask = torch.arange(padded.shape[1]) < torch.tensor([len(x) for x in some])[:, None]
        model(input_ids=padded, attention_mask=mask.long())


def _part_of(store: Store, folder: Path, samples: int = 300) -> Store:
    """The first samples of every split."""
    from carat.data.store.writer import StoreWriter

    info = store.manifest.modalities["text"]
    assert info.tokens is not None
    with StoreWriter(
        folder,
        "part",
        store.label_names,
        {"text": info.source},
        list(store.manifest.splits),
        encoder_inputs={"text": info.tokens},
    ) as writer:
        for split in store.manifest.splits:
            for row in store.indices(split)[:samples].tolist():
                sample = store[row]
                writer.append(sample.id, split, sample.labels, {"text": sample.features["text"]})
    return open_store(folder)


def main(
    *,
    encoder: Path,
    data: Path,
    context: Path | None = None,
    rounds: int = 60,
    texts: int = 800,
    peak_of: str | None = None,
) -> None:
    """Time training steps and scoring.

    Parameters
    ----------
    encoder
        Local Hugging Face folder.
    data
        Store built from recipes/mosei_reduced_text.yaml.
    context
        Store built from recipes/mosei_reduced_context.yaml, to time what reads in context beside it.
    rounds
        Rounds, in each of which every step is taken once, on the next batch of its own; means are printed,
        since lengths differ from batch to batch.
    texts
        Short sentences that are scored.
    peak_of
        Only take a few steps of this key and print the process's peak memory.
    """
    stores = [open_store(folder) for folder in (data, context) if folder is not None]
    store = stores[0]
    if peak_of is not None:
        call = steps(encoder, stores)[peak_of]()
        for _ in range(12):
            call()
        print(f'{{"peak_gb": {peak_gb()}}}')
        return
    calls = {name: make() for name, make in steps(encoder, stores).items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round in range(rounds + 3):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if round >= 3:
                times[name].append(time.perf_counter() - started)
    given = ["--encoder", str(encoder), "--data", str(data)]
    given += [] if context is None else ["--context", str(context)]
    peaks = {
        name: in_own_process("benchmarks.text", *given, "--peak-of", name)["peak_gb"]
        for name in calls
        if name.startswith("carat")
    }
    mean = {name: float(np.mean(values)) for name, values in times.items()}
    batches = -(-len(usable_rows(store, "train", ["text"])) // SIZE)
    rows: list[list[object]] = [
        [name, x, x * batches, x / mean["plain"], x / mean["plain_fast"], peaks.get(name, "")]
        for name, x in mean.items()
    ]
    speed = scoring(encoder, store, texts, 5)
    header = ["step", "seconds", "s per epoch", "ratio to plain", "ratio to plain_fast", "peak GB"]
    text = (
        f"Fine-tuning on {batches} batches of {SIZE}, {machine()['threads']} threads\n\n"
        + table(header, rows)
        + f"\n\nScoring {texts} sentences of 4 to 12 words, float32, sentences per second: encoder alone "
        f"{speed['encoder']:.0f}, a CARAT run {speed['carat']:.0f}, with the words that carried each label "
        f"{speed['carat_words']:.0f}. `carat predict RUN --text` from a cold start, words included: "
        f"{speed['cold']:.2f} s."
    )
    ratios = {f"{name}_ratio": x / mean["plain"] for name, x in mean.items()}
    finish(text, {f"{name}_s": x for name, x in mean.items()} | ratios | peaks | speed)


if __name__ == "__main__":
    cyclopts.run(main)
