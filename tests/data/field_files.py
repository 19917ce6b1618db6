"""Writers of small files in the layout of each dataset format."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

COUNTS = {"train": 17, "valid": 5, "test": 7}
WIDTHS = {"text": 300, "visual": 35, "audio": 74}
STEPS = {"text": 50, "visual": 23, "audio": 29}


def lengths(seed: int = 0) -> dict[str, np.ndarray]:
    """Words per sample, (N,) by split."""
    random = np.random.default_rng(seed)
    return {split: random.integers(3, 19, count) for split, count in COUNTS.items()}


def labels(seed: int = 1) -> dict[str, np.ndarray]:
    """Labels (N, 6) by split."""
    random = np.random.default_rng(seed)
    return {split: (random.random((count, 6)) < 0.4).astype(int) for split, count in COUNTS.items()}


def features(split: str, modality: str, steps: int, words: np.ndarray, trailing: bool = True) -> np.ndarray:
    """Features (N, steps, d) float32, padded with zeros; values do not depend on `steps`."""
    random = np.random.default_rng([list(COUNTS).index(split), list(WIDTHS).index(modality)])
    padded = np.zeros((len(words), steps, WIDTHS[modality]), dtype=np.float32)
    for i, n in enumerate(words):
        n = int(min(n, steps))
        values = random.normal(size=(19, WIDTHS[modality]))[:n]
        padded[i, slice(0, n) if trailing else slice(steps - n, steps)] = values
    return padded


def tokens(row: np.ndarray) -> list[int]:
    """A label list of the aligned file."""
    return [2, *(int(label) + 4 for label in np.flatnonzero(row)), 3]


def aligned(file: Path, as_lists: bool = False, legacy: bool = False) -> None:
    """Write `train_valid_test.pt`."""
    words, marked, whole = lengths(), labels(), {}
    for split in COUNTS:
        arrays: dict[str, Any] = {
            f"src-{m}": features(split, m, 60, words[split]) for m in ("visual", "audio", "text")
        }
        if as_lists:
            arrays = {key: x.astype(float).tolist() for key, x in arrays.items()}
        whole[split] = arrays | {"tgt": [tokens(row) for row in marked[split]]}
    torch.save(whole, file, _use_new_zipfile_serialization=not legacy)


def unaligned(file: Path, protocol: int = 2, order: Any = None) -> None:
    """Write `mosei_senti_data_noalign.pkl`, with leading padding in some modalities, as in the original."""
    words, whole = lengths(), {}
    for split, count in COUNTS.items():
        indices = np.arange(count) if order is None else order(count)
        parts = {m: features(split, m, STEPS[m], words[split], trailing=m == "text")[indices] for m in WIDTHS}
        parts["audio"][0, -1, 3] = -np.inf
        ids = [[f"vid{split}{i // 3}", f"{10.0 * (i % 3):.3f}", f"{10.0 * (i % 3) + 7:.3f}"] for i in indices]
        whole[split] = {
            "vision": parts["visual"],
            "audio": parts["audio"],
            "text": parts["text"],
            "id": np.array(ids),
            "labels": np.array([[[sentiment(split, i)]] for i in indices], dtype=np.float32),
        }
    file.write_bytes(pickle.dumps(whole, protocol=protocol))


def sentiment(split: str, i: int) -> float:
    """Sentiment of a sample."""
    return round(-3 + 0.25 * ((7 * i + len(split)) % 25), 2)


def table(file: Path) -> None:
    """Write a label table for the same samples."""
    lines = ["video_id,segment_id,start,end,fold,text,sentiment,happy,sad,anger,surprise,disgust,fear"]
    marked, words = labels(), lengths()
    for split, count in COUNTS.items():
        for i in range(count):
            transcript = " ".join(f"w{k}" for k in range(words[split][i]))
            row = [f"vid{split}{i // 3}", i % 3, 10.0 * (i % 3), 10.0 * (i % 3) + 7.02, split, transcript]
            row += [sentiment(split, i), *(float(x) * 0.667 for x in marked[split][i])]
            lines.append(",".join(map(str, row)))
    file.write_text("\n".join(lines) + "\n")


def label_sequence(file: Path) -> None:
    """Write the same labels as a computational sequence (`CMU_MOSEI_Labels.csd`)."""
    import h5py  # type: ignore[import-untyped]

    marked = labels()
    with h5py.File(file, "w") as opened:
        for split, count in COUNTS.items():
            for video in range((count + 2) // 3):
                rows = range(3 * video, min(3 * video + 3, count))
                ratings = [[sentiment(split, i), *(marked[split][i] * 0.667)] for i in rows]
                group = opened.create_group(f"All Labels/data/vid{split}{video}")
                group["features"] = np.array(ratings, dtype=np.float32)
                group["intervals"] = np.array([[10.0 * (i % 3), 10.0 * (i % 3) + 7.02] for i in rows])


def mmsa(file: Path, with_lengths: bool = True) -> None:
    """Write MMSA's `unaligned_50.pkl`; values after the end of a sequence are not zeros."""
    words, whole = lengths(), {}
    for split, count in COUNTS.items():
        parts = {m: features(split, m, STEPS[m], words[split]) for m in WIDTHS}
        if with_lengths:
            for m in ("visual", "audio"):
                for i, n in enumerate(words[split]):
                    parts[m][i, n:] = 0.5
        entry = {
            "raw_text": np.array([f"hello {i}" for i in range(count)]),
            "vision": parts["visual"],
            "audio": parts["audio"],
            "text": parts["text"],
            "text_bert": np.zeros((count, 3, STEPS["text"]), dtype=np.float32),
            "id": [f"vid{split}{i // 3}$_${i % 3}" for i in range(count)],
            "regression_labels": np.array([sentiment(split, i) for i in range(count)], dtype=np.float32),
        }
        if with_lengths:
            entry |= {"vision_lengths": words[split].tolist(), "audio_lengths": words[split].tolist()}
        whole[split] = entry
    file.write_bytes(pickle.dumps(whole, protocol=4))


DIALOGUES = {"train": ["A_1", "A_2", "A_3"], "valid": ["B_1"], "test": ["C_1", "C_2"]}
UTTERANCES = {"A_1": 3, "A_2": 71, "A_3": 5, "B_1": 2, "C_1": 7, "C_2": 4}
IEMOCAP_WIDTHS = {"text": 100, "audio": 100, "visual": 512}


def dialogue_parts(classes: int, widths: Sequence[int] = (13, 11, 7)) -> tuple[dict[str, Any], ...]:
    """IDs, speakers, labels, features of each width (text, audio, visual) and sentences, each by dialogue."""
    random = np.random.default_rng(3)
    emotions = {d: [(i * 3 + n) % classes for i in range(n)] for d, n in UTTERANCES.items()}
    modalities = [
        {d: [random.normal(size=width).astype(np.float32) for _ in range(n)] for d, n in UTTERANCES.items()}
        for width in widths
    ]
    ids = {d: [f"{d}_{i}" for i in range(n)] for d, n in UTTERANCES.items()}
    speakers = {d: ["M" if i % 2 else "F" for i in range(n)] for d, n in UTTERANCES.items()}
    sentences = {d: [f"line {i} of {d}" for i in range(n)] for d, n in UTTERANCES.items()}
    return ids, speakers, emotions, *modalities, sentences


def m3ed(file: Path, protocol: int = 4) -> None:
    """Write the tuple of M3ED."""
    file.write_bytes(pickle.dumps((*dialogue_parts(7), *DIALOGUES.values()), protocol=protocol))


def iemocap(file: Path) -> None:
    """Write `IEMOCAP_features.pkl`, with no validation dialogues and a set of test dialogues."""
    parts = dialogue_parts(6, tuple(IEMOCAP_WIDTHS.values()))
    train = [*DIALOGUES["train"], *DIALOGUES["valid"]]
    file.write_bytes(pickle.dumps((*parts, train, set(DIALOGUES["test"])), protocol=2))


def one_hot(speakers: dict[str, Any], width: int) -> dict[str, Any]:
    """Speakers as one-hot vectors of lists."""
    return {
        d: [[int(k == i % width) for k in range(width)] for i in range(len(names))]
        for d, names in speakers.items()
    }


def dialogue_layout(name: str) -> tuple[Any, ...]:
    """The parts of a published layout, such as "COSMIC meld"."""
    layout, corpus = name.split()
    train = [*DIALOGUES["train"], *DIALOGUES["valid"]]
    two, three = (train, DIALOGUES["test"]), (DIALOGUES["train"], DIALOGUES["test"], DIALOGUES["valid"])
    classes = 6 if corpus == "iemocap" else 7
    widths = {
        "DialogueRNN iemocap": (100, 100, 512),
        "DialogueRNN meld": (600, 300),
        "MMGCN iemocap": (100, 1582, 342),
        "MMGCN meld": (600, 300, 342),
        "SDT iemocap": (*[1024] * 4, 1582, 342),
        "SDT meld": (*[1024] * 4, 300, 342),
    }.get(name, (1024,) * 4)
    ids, speakers, emotions, *features, sentences = dialogue_parts(classes, widths)
    if corpus in ("meld", "emorynlp"):
        speakers = one_hot(speakers, 9)
    elif corpus == "dailydialog":
        speakers = {d: [str(i % 2) for i in range(len(row))] for d, row in speakers.items()}
    sentiment = {d: [x % 3 for x in row] for d, row in emotions.items()}
    if layout == "COSMIC":
        labels = (emotions, sentiment) if corpus == "meld" else (emotions,)
        return (speakers, *labels, *features, sentences, *three)
    rest = (sentiment,) if corpus == "meld" else ()
    return (ids, speakers, emotions, *features, sentences, *two, *rest)


def mult(file: Path, form: Callable[[np.ndarray], np.ndarray], with_ids: bool = True) -> None:
    """Write a dict in the format of MulT; `form` makes its labels (N, …) from the labels (N, 6)."""
    words, marked = lengths(), labels()
    whole: dict[str, dict[str, Any]] = {}
    for split, count in COUNTS.items():
        whole[split] = {
            key: features(split, m, STEPS[m], words[split])
            for m, key in (("text", "text"), ("visual", "vision"), ("audio", "audio"))
        }
        whole[split]["labels"] = form(marked[split])
        if with_ids:
            whole[split]["id"] = np.array(
                [[f"vid{split}{i // 3}", f"{i}.5", f"{i + 1}.5"] for i in range(count)]
            )
    file.write_bytes(pickle.dumps(whole, protocol=4))


def python_2(value: Any) -> bytes:
    """Pickle in protocol 2 as Python 2 did, with text and array contents as byte strings."""
    out = bytearray(b"\x80\x02")
    _python_2(value, out)
    return bytes(out + b".")


def _string(content: bytes) -> bytes:
    short = len(content) < 256
    return (b"U" + bytes([len(content)]) if short else b"T" + len(content).to_bytes(4, "little")) + content


def _python_2(value: Any, out: bytearray) -> None:
    if isinstance(value, str):
        out += _string(value.encode("latin-1"))
    elif isinstance(value, bool):
        out += b"\x88" if value else b"\x89"
    elif isinstance(value, int):
        out += b"J" + value.to_bytes(4, "little", signed=True)
    elif isinstance(value, dict):
        out += b"}("
        for key, item in value.items():
            _python_2(key, out)
            _python_2(item, out)
        out += b"u"
    elif isinstance(value, (list, tuple)):
        out += b"](" if isinstance(value, list) else b"("
        for item in value:
            _python_2(item, out)
        out += b"e" if isinstance(value, list) else b"t"
    elif isinstance(value, np.ndarray):
        out += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _string(b"b") + b"\x87R"
        out += b"(K\x01("
        for size in value.shape:
            out += b"J" + size.to_bytes(4, "little")
        out += b"t"
        code = value.dtype.str[1:].encode()
        out += b"cnumpy\ndtype\n" + _string(code) + b"K\x00K\x01\x87R(K\x03" + _string(b"<")
        out += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + _string(value.tobytes()) + b"tb"
    else:
        raise TypeError(type(value))
