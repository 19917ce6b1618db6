"""Readers of dialogue pickles: M3ED, and features of IEMOCAP, MELD, EmoryNLP and DailyDialog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import Corpus, CorpusSample
from carat.data.corpora.dialogue_layouts import M3ED as M3ED_LAYOUT
from carat.data.corpora.dialogue_layouts import (
    check_features,
    check_last_label,
    map_parts,
    parse_label_names,
    parse_parts,
    recognize,
)
from carat.data.corpora.dialogue_parts import Part, read_parts, rows_of
from carat.data.corpora.labels import LABEL_SETS, M3ED
from carat.data.pickled.reading import flatten_runs, identifier, length, text, to_array
from carat.data.store.manifest import hash_file
from carat.utils.errors import ConfigError, DataError, printable

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
    features: Mapping[str, Sequence[Mapping[str, Any]]]
    """Features of the utterances by modality and dialogue; those of several parts are averaged."""
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
    parts = read_parts(file)
    if len(parts) < 10:
        raise DataError(f"{file}: expected a tuple of 10 parts, found {len(parts)}")
    positions = {"text": 3, "visual": 4, "audio": 5} if as_released else {"text": 3, "visual": 5, "audio": 4}
    for m, position in positions.items():
        _get_mapping(file, parts[position])
        check_features(file, m, [parts[position]])
    check_last_label(file, M3ED_LAYOUT, parts)
    dialogues = Dialogues(
        labels=_get_mapping(file, parts[2]),
        features={m: [parts[position].value] for m, position in positions.items()},
        sentences=parts[6].value if parts[6].kind == "texts" else {},
        splits={split: _get_ids(file, parts[i]) for split, i in (("train", 7), ("valid", 8), ("test", 9))},
    )
    notes = ["audio and visual swapped, as in the published reader"] if as_released else []
    source = f"m3ed:{hash_file(file).sha256[:12]}"
    return _make_corpus(file, "m3ed", M3ED, dialogues, level, dict.fromkeys(positions, source), notes)


def open_erc(
    file: Path,
    level: Level = "dialogue",
    parts: str | Mapping[str, Any] | None = None,
    label_names: str | Sequence[str] | None = None,
) -> Corpus:
    """Open the features of dialogues in one of the published layouts, or with a mapping of the parts.

    A layout is recognized by number, kinds, widths and ranges of the parts together, see `LAYOUTS`; what was
    recognized is noted. If the file has no validation split, every tenth training dialogue is used for
    validation.

    Args:
        file: pickle file.
        level: whether a sample is a dialogue, labeled with all its emotions, or an utterance.
        parts: positions by role for another layout, see `parse_parts`.
        label_names: names of the labels by number, see `parse_label_names`; required with `parts` if labels
            are numbers.

    Raises:
        ConfigError: invalid mapping or label names.
        DataError: the file cannot be read, the layout is unknown, or a part is missing or invalid.
    """
    given = None if parts is None else parse_parts(parts)
    given_names = None if label_names is None else parse_label_names(label_names)
    if given is None and given_names is not None:
        raise ConfigError("label names are for a mapping of the parts; add --parts")
    described = read_parts(file)
    digest = hash_file(file).sha256[:12]
    if given is None:
        layout = recognize(file, described)
        corpus, roles = layout.corpus, layout.roles
        names: Sequence[str] = LABEL_SETS[corpus]
        sources = dict.fromkeys(roles.features, f"{corpus}:{digest}")
        reason = f"layout of {layout.name}, {len(described)} parts, labels 0 to {len(names) - 1}"
    else:
        roles = map_parts(file, described, given)
        names = _check_label_names(file, described[roles.labels], given_names)
        corpus = next((corpus for corpus, known in LABEL_SETS.items() if known == names), "erc")
        sources = {m: f"erc:{digest}:part-{roles.features[m][0]}" for m in roles.features}
        reason = "parts as given"
    for m, positions in roles.features.items():
        if len(positions) > 1:
            sources[m] = f"{corpus}:{digest}:mean-of-parts-{'-'.join(map(str, positions))}"
    dialogues = Dialogues(
        labels=described[roles.labels].value,
        features={m: [described[i].value for i in roles.features[m]] for m in roles.features},
        sentences={} if roles.sentences is None else described[roles.sentences].value,
        splits={split: _get_ids(file, described[i]) for split, i in roles.splits.items()},
    )
    splits, notes = _assign_splits(dialogues.splits)
    notes.append(
        f"recognized as {corpus}: emotions {', '.join(names)}; {reason}; {roles.describe(described)}"
    )
    return _make_corpus(file, corpus, names, replace(dialogues, splits=splits), level, sources, notes)


def _check_label_names(file: Path, part: Part, names: Sequence[str] | None) -> Sequence[str]:
    """Return the label names of a mapping.

    Raises:
        DataError: labels are numbers without names, or there are fewer names than labels.
    """
    if part.kind == "texts":
        used = {text(x, f"{file}, part {part.position}").lower() for x in chain(*part.value.values())}
        return sorted(used) if names is None else names
    if names is None:
        raise DataError(
            f"{file}: labels are numbers from {part.low:g} to {part.high:g}: name them in this order with "
            f"--label-names A,B,… or a known set ({', '.join(LABEL_SETS)})"
        )
    if part.low < 0 or part.high >= len(names):
        raise DataError(
            f"{file}: labels are numbers from {part.low:g} to {part.high:g}, but --label-names has "
            f"{len(names)} names, from 0 to {len(names) - 1}"
        )
    return names


def _assign_splits(splits: Mapping[str, Sequence[str]]) -> tuple[Mapping[str, Sequence[str]], list[str]]:
    """Take validation dialogues from the training split if there are none; also return notes."""
    if "valid" in splits:
        return {split: splits[split] for split in ("train", "valid", "test")}, []
    train = sorted(splits["train"])
    step = min(round(1 / VALID_FRACTION), len(train))
    valid = train[step - 1 :: step]
    remaining = [id for i, id in enumerate(train) if i % step != step - 1]
    note = (
        f"the file has no validation split: {len(valid)} training dialogues, one in {step}, are used for "
        "validation"
    )
    return {"train": remaining, "valid": valid, "test": splits["test"]}, [note]


def _make_corpus(
    file: Path,
    name: str,
    names: Sequence[str],
    dialogues: Dialogues,
    level: Level,
    sources: Mapping[str, str],
    notes: Sequence[str],
) -> Corpus:
    count = 0
    split_of: dict[str, str] = {}
    for split, ids in dialogues.splits.items():
        for id in ids:
            if id in split_of:
                where = f"in two splits, {split_of[id]} and" if split_of[id] != split else "twice in"
                raise DataError(f"{file}: dialogue '{printable(id[:60])}' is {where} {split}")
            split_of[id] = split
            count += len(_emotions(file, dialogues.labels, id, names)) if level == "utterance" else 1
    if unlisted := [id for id in dialogues.labels if id not in split_of]:
        example = printable(unlisted[0][:60])
        notes = [*notes, f"{len(unlisted)} dialogues in no split left out, e.g. '{example}'"]
    read_samples = _read_dialogues if level == "dialogue" else _read_utterances
    return Corpus(
        name=f"{name}-{level}s",
        labels=names,
        sources=sources,
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


def _get_mapping(file: Path, part: Part) -> Mapping[str, Any]:
    """Return a part that is a mapping from dialogue ID, whatever it holds."""
    what = f"{file}, part {part.position}"
    if not isinstance(part.value, Mapping) or not part.value:
        raise DataError(f"{what}: expected a mapping by dialogue, found {part.container}")
    return {text(id, what): flatten_runs(value, what) for id, value in part.value.items()}


def _get_ids(file: Path, part: Part) -> list[str]:
    """Return a part that is a list or set of dialogue IDs."""
    what = f"{file}, part {part.position}"
    if part.kind != "IDs":
        raise DataError(f"{what}: expected a list of dialogues, found {part.container}")
    return [identifier(id, what) for id in part.value]


def _emotions(file: Path, labels: Mapping[str, Any], id: str, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the emotion of each utterance of a dialogue, as an index into the names."""
    what = f"{file}, labels of '{printable(id[:60])}'"
    if id not in labels:
        raise DataError(f"{what}: missing, but the dialogue is in a split")
    values = labels[id]
    if isinstance(values, (list, tuple)) and values and isinstance(values[0], (str, bytes)):
        index = {name.lower(): i for i, name in enumerate(names)}
        emotions = [text(x, what).lower() for x in values]
        unknown = next((x for x in emotions if x not in index), None)
        if unknown is not None:
            raise DataError(
                f"{what}: unknown emotion '{printable(unknown[:40])}', expected one of {', '.join(names)}"
            )
        return np.array([index[x] for x in emotions], dtype=np.int64)
    array = to_array(values, what)
    is_numeric = array.ndim == 1 and array.dtype.kind in "iuf"
    if not is_numeric or not (np.abs(array) < 1000).all() or (array != array.round()).any():
        raise DataError(f"{what}: expected one integer per utterance, found {array.dtype} {array.shape}")
    numbers = array.astype(np.int64)
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(names)):
        raise DataError(
            f"{what}: emotions from {numbers.min()} to {numbers.max()}, expected 0 to {len(names) - 1}"
        )
    return numbers


def _read_features(file: Path, dialogues: Dialogues, id: str, utterances: int) -> dict[str, NDArray[Any]]:
    """Return the features of a dialogue's utterances, (T, d) by modality."""
    features = {}
    for m, layers in dialogues.features.items():
        what = f"{file}, {m} of '{printable(id[:60])}'"
        read = [_read_rows(layer[id], utterances, what) for layer in layers if id in layer]
        if len(read) not in (0, len(layers)) or len({x.shape for x in read}) > 1:
            raise DataError(f"{what}: missing from, or of another width in, some of {len(layers)} parts")
        if read and utterances:
            features[m] = read[0] if len(read) == 1 else np.mean(read, axis=0, dtype=np.float64).astype("f4")
    return features


def _read_rows(value: Any, utterances: int, what: str) -> NDArray[Any]:
    """Return the vectors (T, d) of a dialogue's utterances."""
    if length(value, what) != utterances:
        raise DataError(f"{what}: {length(value, what)} utterances, but {utterances} labels")
    rows = rows_of(value, what)
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"{what}: utterances have features of different width")
    return np.stack(rows) if rows else np.zeros((0, 0))


def _sentences(file: Path, dialogues: Dialogues, id: str) -> list[str]:
    """Return the transcripts of a dialogue's utterances; empty if there are none."""
    sentences = dialogues.sentences.get(id, [])
    if not isinstance(sentences, (list, tuple)):
        return []
    return [text(x, f"{file}, sentences of '{printable(id[:60])}'") for x in sentences]
