"""Reader of dicts of splits with labels, as used by MulT: `iemocap_data.pkl`, `mosei_emo`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import Corpus, CorpusSample
from carat.data.corpora.dialogue_layouts import parse_label_names
from carat.data.corpora.labels import IEMOCAP_4, LABEL_SETS, MOSEI
from carat.data.corpora.splits import open_splits
from carat.data.pickled.reading import identifier, length, sequence, text, to_array
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

FEATURES = {"text": "text", "visual": "vision", "audio": "audio"}
LABELS = "labels"
MAX_INTENSITY = 3
"""Range of CMU-MOSEI: sentiment from -3 to 3, emotions from 0 to 3."""


@dataclass(frozen=True)
class SplitLabels:
    """Labels of all splits, by their names."""

    names: Sequence[str]
    intensities: dict[str, NDArray[np.float32]]
    """(N, L) by split; a label is present where its intensity is positive."""
    note: str


def open_mult(file: Path, label_names: str | Sequence[str] | None = None) -> Corpus:
    """Open the dataset. A sample's ID is its split and index; its group is its video, if the file has IDs.

    Args:
        file: a dict of train, valid and test, each with `vision`, `audio`, `text`, `labels` and optionally
            `id`. Labels are (N, 4, 2), pairs for absent and present, of IEMOCAP in the order of MulT; (N, 7),
            sentiment and the six intensities of MOSEI; or any (N, L) or (N, L, 2) with label names. An axis
            of length 1 may come before or after L.
        label_names: names of the labels, see `parse_label_names`.

    Raises:
        ConfigError: invalid label names.
        DataError: the file cannot be read, or its labels have no names or another form.
    """
    names = None if label_names is None else parse_label_names(label_names)
    splits = open_splits(file, [*FEATURES.values(), LABELS], ["id"])
    labels = _read_labels(file, splits, names)
    is_binary = all(np.isin(x, (0, 1)).all() for x in labels.intensities.values())
    has_ids = all("id" in part for part in splits.values())

    def samples() -> Iterator[CorpusSample]:
        for split, part in splits.items():
            for i, row in enumerate(labels.intensities[split]):
                features = {
                    m: sequence(part[key][i], f"{file}, {split}, {key}, sample {i}")
                    for m, key in FEATURES.items()
                }
                yield CorpusSample(
                    f"{split}/{i:05d}",
                    split,
                    (row > 0).astype(np.uint8),
                    features,
                    group=_video(part["id"][i], f"{file}, {split}, id, sample {i}") if has_ids else "",
                    intensities=None if is_binary else row,
                )

    notes = [labels.note]
    if not has_ids:
        notes.append("the file has no IDs: samples count as independent, so intervals are too narrow")
    known = next((corpus for corpus, known in LABEL_SETS.items() if known == tuple(labels.names)), "mult")
    return Corpus(
        name=f"{known}-mult" if known != "mult" else known,
        labels=labels.names,
        sources=dict.fromkeys(FEATURES, f"mult:{hash_file(file).sha256[:12]}"),
        samples=samples(),
        count=sum(map(len, labels.intensities.values())),
        notes=notes,
    )


def has_emotions(part: Mapping[Any, Any]) -> bool:
    """Whether the labels of a split are several per sample, not only a sentiment."""
    labels = {text(key, LABELS): value for key, value in part.items()}.get(LABELS)
    return isinstance(labels, np.ndarray) and labels.ndim > 1 and labels.size > len(labels)


def _read_labels(file: Path, splits: dict[str, dict[str, Any]], names: Sequence[str] | None) -> SplitLabels:
    """Read the labels of all samples.

    Raises:
        DataError: unnamed labels, or invalid values.
    """
    arrays = {split: _read_numbers(part[LABELS], f"{file}, {split}") for split, part in splits.items()}
    shapes = {x.shape[1:] for x in arrays.values()}
    if len(shapes) > 1:
        raise DataError(f"{file}: the splits have labels of different shape, {_list(shapes)}")
    shape = shapes.pop()
    pairs = len(shape) >= 2 and shape[-1] == 2 and shape != (1, 2)
    axes = [n for n in (shape[:-1] if pairs else shape) if n != 1]
    what = f"{file}: labels (N{''.join(f', {n}' for n in shape)})"
    if len(axes) != 1:
        raise DataError(
            f"{what} are not one axis of emotions; if they are sentiment, give the emotions with "
            "mosei-unaligned --labels"
        )
    if pairs:
        arrays = {split: _present(x, f"{file}, {split}") for split, x in arrays.items()}
    arrays = {split: x.reshape(len(x), axes[0]) for split, x in arrays.items()}
    names, source, arrays = _name_labels(what, arrays, pairs, names)
    if any((x < 0).any() for x in arrays.values()):
        raise DataError(f"{what} have negative values, expected intensities, or 0 and 1")
    return SplitLabels(
        names,
        {split: x.astype(np.float32) for split, x in arrays.items()},
        f"{what.removeprefix(f'{file}: ')} taken as {', '.join(names)} ({source})",
    )


def _read_numbers(labels: Any, what: str) -> NDArray[Any]:
    """Read the labels of a split, (N, …)."""
    rows = [to_array(labels[i], f"{what}, {LABELS}, sample {i}") for i in range(length(labels, what))]
    shapes = {row.shape for row in rows}
    if len(shapes) != 1 or any(row.dtype.kind not in "biuf" for row in rows):
        raise DataError(f"{what}, {LABELS}: expected numbers of one shape per sample, found {_list(shapes)}")
    numbers = np.stack(rows).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError(f"{what}, {LABELS}: inf or NaN")
    return numbers


def _name_labels(
    what: str, arrays: dict[str, NDArray[Any]], pairs: bool, names: Sequence[str] | None
) -> tuple[Sequence[str], str, dict[str, NDArray[Any]]]:
    """Return label names, where they come from, and the labels (N, L) by split."""
    count = next(iter(arrays.values())).shape[1]
    if names is not None:
        if len(names) != count:
            raise DataError(f"{what}, but --label-names has {len(names)} names")
        return names, "as named", arrays
    if pairs and count == len(IEMOCAP_4):
        return IEMOCAP_4, "IEMOCAP in the order of MulT", arrays
    if not pairs and count == 1 + len(MOSEI):
        values = np.concatenate(list(arrays.values()))
        if np.abs(values[:, 0]).max() > MAX_INTENSITY or values[:, 1:].max() > MAX_INTENSITY:
            raise DataError(f"{what} are not sentiment and six intensities; name them with --label-names")
        emotions = {split: x[:, 1:] for split, x in arrays.items()}
        return MOSEI, "MOSEI in the order of the SDK, after the sentiment", emotions
    raise DataError(
        f"{what} do not say which label is which: name them in their order with --label-names A,B,… or a "
        "known set, such as mosei (happy, sad, anger, …) or mosei-by-name (anger, disgust, fear, …)"
    )


def _present(pairs: NDArray[Any], what: str) -> NDArray[Any]:
    """Convert pairs (…, 2), one-hot vectors of absent and present, to 0 and 1."""
    if not np.isin(pairs, (0, 1)).all() or not (pairs.sum(-1) == 1).all():
        raise DataError(f"{what}, {LABELS}: expected pairs for absent and present, one of which is 1")
    return pairs[..., 1]


def _video(value: Any, what: str) -> str:
    """Return the video of an ID, which is text, or video, start and end."""
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.size > 1):
        value = value.reshape(-1)[0] if isinstance(value, np.ndarray) else value[0] if value else ""
    video = text(value, what)
    return identifier(video.rpartition("$_$")[0] or video.partition("[")[0] or video, what)


def _list(shapes: set[tuple[int, ...]]) -> str:
    return ", ".join(map(str, sorted(shapes)))[:100] or "no samples"
