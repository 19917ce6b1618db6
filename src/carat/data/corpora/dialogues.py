"""Readers of dialogue pickles in the layout of DialogueRNN: M3ED, and features of IEMOCAP or MELD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import Corpus, CorpusSample
from carat.data.corpora.labels import IEMOCAP, M3ED, MELD
from carat.data.pickled.reading import item, length, read_pickle, text, to_array
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

Level = Literal["dialogue", "utterance"]
MAX_UTTERANCES = 60
"""Utterances to which dialogues are truncated."""
VALID_FRACTION = 0.1
"""Fraction of the training dialogues used for validation if a file has no validation split."""


@dataclass(frozen=True)
class Dialogues:
    """The content of a pickle."""

    labels: Mapping[str, Any]
    """Emotions of the utterances by dialogue."""
    features: Mapping[str, Mapping[str, Any]]
    """Features of the utterances by modality and dialogue."""
    sentences: Mapping[str, Any]
    """Transcripts of the utterances by dialogue."""
    splits: Mapping[str, Sequence[str]]
    """Dialogue IDs by split."""


def open_m3ed(file: Path, level: Level = "dialogue", as_released: bool = False) -> Corpus:
    """Open M3ED, a tuple of 10 parts.

    Part 2 has the labels, 3 text, 4 audio and 5 visual features, 6 sentences, and 7, 8 and 9 the dialogue IDs
    of train, valid and test.

    Args:
        file: pickle file.
        level: whether a sample is a dialogue, labeled with all its emotions, or an utterance.
        as_released: read visual features from part 4 and audio from part 5, as the published reader does.

    Raises:
        DataError: the file cannot be read, or a part is missing or invalid.
    """
    parts = _read_parts(file)
    if len(parts) < 10:
        raise DataError(f"{file}: expected a tuple of 10 parts, found {len(parts)}")
    indices = {"text": 3, "visual": 4, "audio": 5} if as_released else {"text": 3, "visual": 5, "audio": 4}
    dialogues = Dialogues(
        labels=_get_mapping(file, parts, 2),
        features={m: _get_mapping(file, parts, i) for m, i in indices.items()},
        sentences=_get_mapping(file, parts, 6) if isinstance(parts[6], Mapping) else {},
        splits={split: _get_ids(file, parts, i) for split, i in (("train", 7), ("valid", 8), ("test", 9))},
    )
    notes = ["audio and visual swapped, as in the published reader"] if as_released else []
    return _make_corpus(file, "m3ed", M3ED, dialogues, level, notes)


def open_erc(file: Path, level: Level = "dialogue") -> Corpus:
    """Open the features of IEMOCAP or MELD, a tuple whose parts are recognized by their content.

    The dataset is recognized by the number of emotions. Features are expected in the order text, audio,
    visual; of several text encodings, the first is used. If the file has no validation split, every tenth
    training dialogue is used for validation.

    Args:
        file: pickle file.
        level: whether a sample is a dialogue, labeled with all its emotions, or an utterance.

    Raises:
        DataError: the file cannot be read, or a part is missing or invalid.
    """
    parts = _read_parts(file)
    kinds = [_kind(part) for part in parts]
    emotion_parts = [i for i, kind in enumerate(kinds) if kind == "numbers"]
    feature_parts = [i for i, kind in enumerate(kinds) if kind == "vectors"]
    text_parts = [i for i, kind in enumerate(kinds) if kind == "texts"]
    split_parts = [i for i, kind in enumerate(kinds) if kind == "ids"]
    if len(parts) >= 10 and kinds[2] == "numbers" and kinds[7:10] == ["ids"] * 3:
        raise DataError(f"{file}: the parts are in the order of M3ED; import it as m3ed")
    if not emotion_parts or not feature_parts or len(split_parts) < 2:
        raise DataError(
            f"{file}: expected labels, features and at least two lists of dialogue IDs, found "
            f"{len(emotion_parts)}, {len(feature_parts)} and {len(split_parts)}"
        )
    modality_parts = {"text": feature_parts[0]}
    if len(feature_parts) > 2:
        modality_parts |= {"visual": feature_parts[-1], "audio": feature_parts[-2]}
    elif len(feature_parts) == 2:
        modality_parts["audio"] = feature_parts[1]
    labels = _get_mapping(file, parts, emotion_parts[0])
    largest = max(
        (int(x.max()) for id in labels if len(x := _emotions(file, labels, id, None)) and x.max() < 99),
        default=-1,
    )
    names, corpus_name = (MELD, "meld") if largest == len(MELD) - 1 else (IEMOCAP, "iemocap")
    splits, notes = _assign_splits([_get_ids(file, parts, i) for i in split_parts])
    notes.append(
        f"recognized as {corpus_name}: emotions {', '.join(names)}, modalities {', '.join(modality_parts)}"
    )
    has_sentences = text_parts and text_parts[-1] > feature_parts[0]
    dialogues = Dialogues(
        labels=labels,
        features={m: _get_mapping(file, parts, i) for m, i in modality_parts.items()},
        sentences=_get_mapping(file, parts, text_parts[-1]) if has_sentences else {},
        splits=splits,
    )
    return _make_corpus(file, corpus_name, names, dialogues, level, notes)


def _assign_splits(lists: Sequence[Sequence[str]]) -> tuple[dict[str, Sequence[str]], list[str]]:
    """Assign lists of dialogue IDs to splits: train and test, or by convention train, test and valid."""
    if len(lists) > 2:
        return {"train": lists[0], "valid": lists[2], "test": lists[1]}, []
    train, test = sorted(lists[0]), lists[1]
    step = min(round(1 / VALID_FRACTION), len(train))
    valid = train[step - 1 :: step]
    remaining = [id for i, id in enumerate(train) if i % step != step - 1]
    note = (
        f"the file has no validation split: {len(valid)} training dialogues, one in {step}, are used for "
        "validation"
    )
    return {"train": remaining, "valid": valid, "test": test}, [note]


def _make_corpus(
    file: Path, name: str, names: Sequence[str], dialogues: Dialogues, level: Level, notes: Sequence[str]
) -> Corpus:
    source = f"{name}:{hash_file(file).sha256[:12]}"
    count = 0
    split_of: dict[str, str] = {}
    for split, ids in dialogues.splits.items():
        for id in ids:
            if id in split_of:
                raise DataError(f"{file}: dialogue '{id[:60]}' is in two splits, {split_of[id]} and {split}")
            split_of[id] = split
            count += len(_emotions(file, dialogues.labels, id, names)) if level == "utterance" else 1
    read_samples = _read_dialogues if level == "dialogue" else _read_utterances
    return Corpus(
        name=f"{name}-{level}s",
        labels=names,
        sources=dict.fromkeys(dialogues.features, source),
        samples=read_samples(file, names, dialogues),
        count=count,
        notes=notes,
    )


def _read_dialogues(file: Path, names: Sequence[str], dialogues: Dialogues) -> Iterator[CorpusSample]:
    for split, ids in dialogues.splits.items():
        for id in ids:
            emotions = _emotions(file, dialogues.labels, id, names)
            labels = np.zeros(len(names), dtype=np.uint8)
            labels[emotions] = 1
            features = _read_features(file, dialogues, id, len(emotions))
            features = {m: x[:MAX_UTTERANCES] for m, x in features.items()}
            transcript = " ".join(_sentences(file, dialogues, id)[:MAX_UTTERANCES])
            yield CorpusSample(id, split, labels, features, group=id, transcript=transcript)


def _read_utterances(file: Path, names: Sequence[str], dialogues: Dialogues) -> Iterator[CorpusSample]:
    for split, ids in dialogues.splits.items():
        for id in ids:
            emotions = _emotions(file, dialogues.labels, id, names)
            features = _read_features(file, dialogues, id, len(emotions))
            sentences = _sentences(file, dialogues, id)
            for i, emotion in enumerate(emotions.tolist()):
                labels = np.zeros(len(names), dtype=np.uint8)
                labels[emotion] = 1
                yield CorpusSample(
                    f"{id}/{i}",
                    split,
                    labels,
                    {m: x[i : i + 1] for m, x in features.items()},
                    group=id,
                    transcript=sentences[i] if i < len(sentences) else "",
                )


def _read_parts(file: Path) -> Sequence[Any]:
    parts = read_pickle(file)
    if not isinstance(parts, (tuple, list)):
        raise DataError(f"{file}: expected a tuple of parts, found {type(parts).__name__}")
    return parts


def _get_mapping(file: Path, parts: Sequence[Any], index: int) -> dict[str, Any]:
    """Return a part that is a mapping from dialogue ID."""
    part = parts[index]
    if not isinstance(part, Mapping) or not part:
        raise DataError(f"{file}, part {index}: expected a mapping by dialogue, found {type(part).__name__}")
    return {text(key, f"{file}, part {index}"): value for key, value in part.items()}


def _get_ids(file: Path, parts: Sequence[Any], index: int) -> list[str]:
    """Return a part that is a list or set of dialogue IDs."""
    part = parts[index]
    if isinstance(part, np.ndarray):
        part = part.reshape(-1).tolist()
    if not isinstance(part, (list, tuple, set, frozenset)) or not part:
        raise DataError(f"{file}, part {index}: expected a list of dialogues, found {type(part).__name__}")
    ids = [text(x, f"{file}, part {index}") for x in part]
    return sorted(ids) if isinstance(part, (set, frozenset)) else ids


def _kind(part: Any) -> str:
    """Classify a part by its first value: "ids", "vectors", "numbers" or "texts"; empty if none of them."""
    if isinstance(part, (set, frozenset, list, tuple)) or (isinstance(part, np.ndarray) and part.ndim == 1):
        return "ids" if len(part) else ""
    if not isinstance(part, Mapping) or not part:
        return ""
    value = next(iter(part.values()))
    if isinstance(value, np.ndarray):
        return "vectors" if value.ndim == 2 else "numbers" if value.dtype.kind in "iu" else ""
    if not isinstance(value, (list, tuple)) or not value:
        return ""
    if isinstance(value[0], (str, bytes)):
        return "texts"
    if isinstance(value[0], (int, np.integer)):
        return "numbers"
    return "vectors"


def _emotions(
    file: Path, labels: Mapping[str, Any], id: str, names: Sequence[str] | None
) -> NDArray[np.int64]:
    """Return the emotion of each utterance of a dialogue, as an index into the names."""
    what = f"{file}, labels of '{id[:60]}'"
    if id not in labels:
        raise DataError(f"{what}: missing, but the dialogue is in a split")
    values = labels[id]
    if names and isinstance(values, (list, tuple)) and values and isinstance(values[0], (str, bytes)):
        index = {name: i for i, name in enumerate(names)}
        emotions = [text(x, what).lower() for x in values]
        unknown = next((x for x in emotions if x not in index), None)
        if unknown is not None:
            raise DataError(f"{what}: unknown emotion '{unknown[:40]}', expected one of {', '.join(names)}")
        return np.array([index[x] for x in emotions], dtype=np.int64)
    array = to_array(values, what)
    is_numeric = array.ndim == 1 and array.dtype.kind in "iuf"
    if not is_numeric or not (np.abs(array) < 1000).all() or (array != array.round()).any():
        raise DataError(f"{what}: expected one integer per utterance, found {array.dtype} {array.shape}")
    numbers = array.astype(np.int64)
    if names and len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(names)):
        raise DataError(
            f"{what}: emotions from {numbers.min()} to {numbers.max()}, expected 0 to {len(names) - 1}"
        )
    return numbers


def _read_features(file: Path, dialogues: Dialogues, id: str, utterances: int) -> dict[str, NDArray[Any]]:
    """Return the features of a dialogue's utterances, (T, d) by modality."""
    features = {}
    for m, by_dialogue in dialogues.features.items():
        if id not in by_dialogue:
            continue
        what = f"{file}, {m} of '{id[:60]}'"
        value = by_dialogue[id]
        if length(value, what) != utterances:
            raise DataError(f"{what}: {length(value, what)} utterances, but {utterances} labels")
        rows = [to_array(item(value, i), what).reshape(-1) for i in range(utterances)]
        if len({len(row) for row in rows}) > 1:
            raise DataError(f"{what}: utterances have features of different width")
        if rows:
            features[m] = np.stack(rows)
    return features


def _sentences(file: Path, dialogues: Dialogues, id: str) -> list[str]:
    """Return the transcripts of a dialogue's utterances; empty if there are none."""
    sentences = dialogues.sentences.get(id, [])
    if not isinstance(sentences, (list, tuple)):
        return []
    return [text(x, f"{file}, sentences of '{id[:60]}'") for x in sentences]
