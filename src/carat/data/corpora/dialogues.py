"""Dialogue pickles in the DialogueRNN order: M3ED, and IEMOCAP or MELD features."""

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
LONGEST = 60
"""Utterances of a dialogue that are kept."""
VALID_SHARE = 0.1
"""Of the training dialogues, where a file has no validation dialogues."""


@dataclass(frozen=True)
class Dialogues:
    """The parts of a pickle, by dialogue id."""

    labels: Mapping[str, Any]
    features: Mapping[str, Mapping[str, Any]]
    """By modality, then by dialogue."""
    sentences: Mapping[str, Any]
    splits: Mapping[str, Sequence[str]]


def open_m3ed(file: Path, level: Level = "dialogue", as_released: bool = False) -> Corpus:
    """M3ED: text, audio and visual at places 3, 4 and 5, labels at 2, the split's dialogues at 7, 8 and 9.

    Args:
        file: the tuple pickle.
        level: a sample is a dialogue, its labels the set of its emotions; or an utterance.
        as_released: take place 4 for visual and 5 for audio, as the published reader does.

    Raises:
        DataError: says which part is wrong.
    """
    parts = _parts(file)
    if len(parts) < 10:
        raise DataError(f"{file}: expected a tuple of 10 parts, found {len(parts)}")
    places = {"text": 3, "visual": 4, "audio": 5} if as_released else {"text": 3, "visual": 5, "audio": 4}
    dialogues = Dialogues(
        labels=_by_dialogue(file, parts, 2),
        features={m: _by_dialogue(file, parts, place) for m, place in places.items()},
        sentences=_by_dialogue(file, parts, 6) if isinstance(parts[6], Mapping) else {},
        splits={
            split: _names(file, parts, place) for split, place in (("train", 7), ("valid", 8), ("test", 9))
        },
    )
    notes = ["audio and visual swapped, as in the published reader"] if as_released else []
    return _foreign(file, "m3ed", M3ED, dialogues, level, notes)


def open_erc(file: Path, level: Level = "dialogue") -> Corpus:
    """IEMOCAP or MELD features: parts are told by what they hold, the data set by the number of emotions.

    The features come as text, audio, visual; of several text encodings the first is taken. Where there are no
    validation dialogues, every tenth training dialogue becomes one.

    Args:
        file: the tuple pickle.
        level: a sample is a dialogue or an utterance.

    Raises:
        DataError: says which part is missing.
    """
    parts = _parts(file)
    kinds = [_kind(part) for part in parts]
    numbered = [i for i, kind in enumerate(kinds) if kind == "numbers"]
    vectors = [i for i, kind in enumerate(kinds) if kind == "vectors"]
    texts = [i for i, kind in enumerate(kinds) if kind == "texts"]
    listed = [i for i, kind in enumerate(kinds) if kind == "names"]
    if len(parts) >= 10 and kinds[2] == "numbers" and kinds[7:10] == ["names"] * 3:
        raise DataError(f"{file}: has the order of M3ED's parts; import it as m3ed")
    if not numbered or not vectors or len(listed) < 2:
        raise DataError(
            f"{file}: expected labels, features and two lists of dialogues, found {len(numbered)}, "
            f"{len(vectors)} and {len(listed)} of them"
        )
    chosen = {"text": vectors[0]}
    if len(vectors) > 2:
        chosen |= {"visual": vectors[-1], "audio": vectors[-2]}
    elif len(vectors) == 2:
        chosen["audio"] = vectors[1]
    labels = _by_dialogue(file, parts, numbered[0])
    largest = max(
        (int(x.max()) for name in labels if len(x := _numbers(file, labels, name, None)) and x.max() < 99),
        default=-1,
    )
    names, called = (MELD, "meld") if largest == len(MELD) - 1 else (IEMOCAP, "iemocap")
    splits, notes = _splits([_names(file, parts, i) for i in listed])
    notes.append(f"taken as {called}: emotions {', '.join(names)}, modalities {', '.join(chosen)}")
    dialogues = Dialogues(
        labels=labels,
        features={m: _by_dialogue(file, parts, place) for m, place in chosen.items()},
        sentences=_by_dialogue(file, parts, texts[-1]) if texts and texts[-1] > vectors[0] else {},
        splits=splits,
    )
    return _foreign(file, called, names, dialogues, level, notes)


def _splits(lists: Sequence[Sequence[str]]) -> tuple[dict[str, Sequence[str]], list[str]]:
    """Two lists are train and test, three train, test and valid (in the field's order)."""
    if len(lists) > 2:
        return {"train": lists[0], "valid": lists[2], "test": lists[1]}, []
    train, test = sorted(lists[0]), lists[1]
    step = min(round(1 / VALID_SHARE), len(train))
    valid = train[step - 1 :: step]
    rest = [name for i, name in enumerate(train) if i % step != step - 1]
    note = f"the file has no validation dialogues: {len(valid)} of training, one in {step}, became some"
    return {"train": rest, "valid": valid, "test": test}, [note]


def _foreign(
    file: Path, name: str, names: Sequence[str], dialogues: Dialogues, level: Level, notes: Sequence[str]
) -> Corpus:
    source = f"{name}:{hash_file(file).sha256[:12]}"
    count = 0
    seen: dict[str, str] = {}
    for split, ids in dialogues.splits.items():
        for id in ids:
            if id in seen:
                raise DataError(f"{file}: dialogue '{id[:60]}' is in {seen[id]} and in {split}")
            seen[id] = split
            count += len(_numbers(file, dialogues.labels, id, names)) if level == "utterance" else 1
    samples = (
        _dialogues(file, names, dialogues) if level == "dialogue" else _utterances(file, names, dialogues)
    )
    return Corpus(
        name=f"{name}-{level}s",
        labels=names,
        sources=dict.fromkeys(dialogues.features, source),
        samples=samples,
        count=count,
        notes=notes,
    )


def _dialogues(file: Path, names: Sequence[str], dialogues: Dialogues) -> Iterator[CorpusSample]:
    for split, ids in dialogues.splits.items():
        for id in ids:
            numbers = _numbers(file, dialogues.labels, id, names)
            labels = np.zeros(len(names), dtype=np.uint8)
            labels[numbers] = 1
            features = {m: x[:LONGEST] for m, x in _features(file, dialogues, id, len(numbers)).items()}
            said = " ".join(_sentences(file, dialogues, id)[:LONGEST])
            yield CorpusSample(id, split, labels, features, group=id, transcript=said)


def _utterances(file: Path, names: Sequence[str], dialogues: Dialogues) -> Iterator[CorpusSample]:
    for split, ids in dialogues.splits.items():
        for id in ids:
            numbers = _numbers(file, dialogues.labels, id, names)
            features = _features(file, dialogues, id, len(numbers))
            said = _sentences(file, dialogues, id)
            for i, number in enumerate(numbers.tolist()):
                labels = np.zeros(len(names), dtype=np.uint8)
                labels[number] = 1
                yield CorpusSample(
                    f"{id}/{i}",
                    split,
                    labels,
                    {m: x[i : i + 1] for m, x in features.items()},
                    group=id,
                    transcript=said[i] if i < len(said) else "",
                )


def _parts(file: Path) -> Sequence[Any]:
    found = read_pickle(file)
    if not isinstance(found, (tuple, list)):
        raise DataError(f"{file}: expected a tuple of parts, found {type(found).__name__}")
    return found


def _by_dialogue(file: Path, parts: Sequence[Any], place: int) -> dict[str, Any]:
    part = parts[place]
    if not isinstance(part, Mapping) or not part:
        raise DataError(f"{file}, part {place}: expected a mapping by dialogue, found {type(part).__name__}")
    return {text(key, f"{file}, part {place}"): value for key, value in part.items()}


def _names(file: Path, parts: Sequence[Any], place: int) -> list[str]:
    part = parts[place]
    if isinstance(part, np.ndarray):
        part = part.reshape(-1).tolist()
    if not isinstance(part, (list, tuple, set, frozenset)) or not part:
        raise DataError(f"{file}, part {place}: expected a list of dialogues, found {type(part).__name__}")
    named = [text(x, f"{file}, part {place}") for x in part]
    return sorted(named) if isinstance(part, (set, frozenset)) else named


def _kind(part: Any) -> str:
    """What a part holds, by its first dialogue."""
    if isinstance(part, (set, frozenset, list, tuple)) or (isinstance(part, np.ndarray) and part.ndim == 1):
        return "names" if len(part) else ""
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


def _numbers(
    file: Path, labels: Mapping[str, Any], id: str, names: Sequence[str] | None
) -> NDArray[np.int64]:
    """Emotions of a dialogue's utterances, as places among the names."""
    what = f"{file}, labels of '{id[:60]}'"
    if id not in labels:
        raise DataError(f"{what}: missing, though a split names the dialogue")
    values = labels[id]
    if names and isinstance(values, (list, tuple)) and values and isinstance(values[0], (str, bytes)):
        known = {name: i for i, name in enumerate(names)}
        said = [text(x, what).lower() for x in values]
        unknown = next((x for x in said if x not in known), None)
        if unknown is not None:
            raise DataError(f"{what}: '{unknown[:40]}' is none of {', '.join(names)}")
        return np.array([known[x] for x in said], dtype=np.int64)
    found = to_array(values, what)
    numeric = found.ndim == 1 and found.dtype.kind in "iuf"
    if not numeric or not (np.abs(found) < 1000).all() or (found != found.round()).any():
        raise DataError(f"{what}: expected one number per utterance, found {found.dtype} {found.shape}")
    numbers = found.astype(np.int64)
    if names and len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(names)):
        raise DataError(f"{what}: numbers {numbers.min()} to {numbers.max()}, expected 0 to {len(names) - 1}")
    return numbers


def _features(file: Path, dialogues: Dialogues, id: str, utterances: int) -> dict[str, NDArray[Any]]:
    """(utterances, d) by modality."""
    found = {}
    for m, by_dialogue in dialogues.features.items():
        if id not in by_dialogue:
            continue
        what = f"{file}, {m} of '{id[:60]}'"
        value = by_dialogue[id]
        if length(value, what) != utterances:
            raise DataError(f"{what}: {length(value, what)} utterances, but {utterances} labels")
        rows = [to_array(item(value, i), what).reshape(-1) for i in range(utterances)]
        if len({len(row) for row in rows}) > 1:
            raise DataError(f"{what}: utterances of different width")
        if rows:
            found[m] = np.stack(rows)
    return found


def _sentences(file: Path, dialogues: Dialogues, id: str) -> list[str]:
    value = dialogues.sentences.get(id, [])
    return (
        [text(x, f"{file}, sentences of '{id[:60]}'") for x in value]
        if isinstance(value, (list, tuple))
        else []
    )
