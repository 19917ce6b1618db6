"""Checks of the arrays of a store when it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carat.data.store.layout import (
    CORPORA,
    GRADES,
    GROUPS,
    IDS,
    INTENSITIES,
    KNOWN,
    LABELS,
    SPLIT,
    TEXT,
    TRANSCRIPT_OFFSETS,
    TRANSCRIPTS,
    feature_file,
    offset_file,
)
from carat.utils.errors import DataError

if TYPE_CHECKING:
    from carat.data.store.store import Store


def expected_arrays(store: Store) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Data type and shape by file."""
    manifest, samples = store.manifest, sum(store.manifest.splits.values())
    labels = (samples, len(store.label_names))
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        LABELS: ("uint8", labels),
        SPLIT: ("int8", (samples,)),
        IDS: (TEXT, (samples,)),
        GROUPS: (TEXT, (samples,)),
    }
    if KNOWN in manifest.files:
        expected[KNOWN] = ("bool", labels)
    if CORPORA in manifest.files:
        expected[CORPORA] = (TEXT, (samples,))
    if GRADES in manifest.files:
        expected[GRADES] = ("float32", labels)
    if INTENSITIES in manifest.files:
        expected[INTENSITIES] = ("float32", labels)
    if TRANSCRIPTS in manifest.files:
        expected[TRANSCRIPTS] = ("uint8", (store.array(TRANSCRIPTS).size,))
        expected[TRANSCRIPT_OFFSETS] = ("int64", (samples + 1,))
    for modality, info in manifest.modalities.items():
        expected[feature_file(modality)] = (info.dtype, (info.steps, info.width))
        expected[offset_file(modality)] = ("int64", (samples + 1,))
    return expected


def check_content(store: Store) -> None:
    """Check values that everything else relies on, in time linear in the number of samples."""
    if store.labels.max() > 1:
        raise altered(store, LABELS, f"label {store.labels.max()}, expected 0 or 1")
    if store.has_unknown and (store.array(KNOWN).view(np.uint8) > 1).any():
        raise altered(store, KNOWN, "values other than true and false")
    if store.has_unknown and (store.labels[~store.known]).any():
        raise altered(store, LABELS, "a label that is unknown is 1, expected 0")
    if store.grades is not None and not ((store.grades >= 0) & (store.grades <= 1)).all():
        raise altered(store, GRADES, "values outside [0, 1]")
    if store.grades is not None and store.has_unknown and store.grades[~store.known].any():
        raise altered(store, GRADES, "a label that is unknown has a grade, expected 0")
    splits = store.manifest.splits
    counts = np.bincount(store.array(SPLIT).view(np.uint8), minlength=len(splits))
    if counts.tolist() != list(splits.values()):
        raise altered(
            store, SPLIT, f"{counts.tolist()[:9]} samples by split, expected {list(splits.values())}"
        )
    for name in (IDS, GROUPS, *({CORPORA} & store.manifest.files.keys())):
        if not _is_text(store.array(name)):
            raise altered(store, name, "characters that do not exist in Unicode")
    if _has_duplicates(store.ids):
        ids, number = np.unique(store.ids, return_counts=True)
        if number.max() > 1:
            raise altered(store, IDS, f"{number.max()} samples have the id '{ids[number.argmax()]}'")
    ends = {offset_file(m): info.steps for m, info in store.manifest.modalities.items()}
    if TRANSCRIPTS in store.manifest.files:
        ends[TRANSCRIPT_OFFSETS] = len(store.array(TRANSCRIPTS))
    for name, end in ends.items():
        offsets = store.array(name)
        if offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
            raise altered(store, name, "offsets do not match the data")


def _is_text(texts: NDArray[np.str_], chunk: int = 8192) -> bool:
    """Whether texts (N,) consist of Unicode characters, without halves of surrogate pairs."""
    for start in range(0, len(texts), chunk):  # which fits the processor's cache
        codes = _codes(texts[start : start + chunk])
        if codes.size and (codes.max() > 0x10FFFF or ((codes >= 0xD800) & (codes < 0xE000)).any()):
            return False
    return True


def _codes(texts: NDArray[np.str_]) -> NDArray[np.uint32]:
    """Code points (N, width) of texts (N,)."""
    native = np.array(texts, dtype=texts.dtype.newbyteorder("="))
    return native.view(np.uint32).reshape(len(native), -1)


def _has_duplicates(texts: NDArray[np.str_], chunk: int = 8192) -> bool:
    """Whether texts (N,) are probably not unique: equal texts have equal hashes (FNV-1a by character)."""
    keys = np.full(len(texts), 0xCBF29CE484222325, dtype=np.uint64)
    for start in range(0, len(texts), chunk):  # which fits the processor's cache
        key = keys[start : start + chunk]
        for characters in _codes(texts[start : start + chunk]).T:
            key ^= characters
            key *= np.uint64(0x100000001B3)
    keys.sort()
    return bool((keys[1:] == keys[:-1]).any())


def altered(store: Store, name: str, problem: str) -> DataError:
    """Make the error about a file of a store that has changed."""
    return DataError(f"{store.folder / name}: altered: {problem}; build the store again")
