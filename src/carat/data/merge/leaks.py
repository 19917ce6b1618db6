"""Samples that occur in different splits of two corpora."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from carat.data.merge.part import Part
from carat.data.recipes.splits import DEFAULT_VALUES
from carat.utils.errors import DataError
from carat.utils.progress import track

SPLITS: list[str] = list(DEFAULT_VALUES)
"""Names of splits by rank."""
MIN_WORDS = 4
"""Length of texts that are compared between splits; shorter ones, such as "I know", occur anywhere."""

Place = tuple[int, str, str]
"""Rank of a split (later ones are held out from earlier ones), corpus, and id of a sample."""


def check_leaks(parts: Sequence[Part], *, drop: bool) -> tuple[list[Part], list[str]]:
    """Check that no sample of a corpus is in another split of another corpus.

    Samples are the same if their texts are, without case and punctuation and from four words on, or if their
    features are. What one corpus has in two splits stays, as its authors divided it.

    Args:
        parts: the corpora.
        drop: leave such samples out of the earlier split, training before validation before test.

    Returns:
        The corpora, and notes on samples that were left out or are in the same split more than once.

    Raises:
        DataError: the same sample is in different splits, unless `drop`.
    """
    samples = [list(_samples(part)) for part in parts]
    places: dict[bytes, list[Place]] = {}
    for _, place, keys in (sample for of_part in samples for sample in of_part):
        for key in keys:
            places.setdefault(key, []).append(place)
    checked: list[Part] = []
    dropped = repeated = 0
    for part, of_part in zip(parts, samples, strict=True):
        left_out, earlier = set(), {x.name for x in checked}
        for row, place, keys in of_part:
            others = [x for key in keys if len(places[key]) > 1 for x in places[key] if x[1] != part.name]
            later = max(others, default=place)
            if later[0] > place[0]:
                if not drop:
                    raise DataError(
                        f"{_describe(place)} is {_describe(later)}; a merged store must not have it in two "
                        "splits: `leaks: drop` leaves it out of the former, or leave one out by `splits`"
                    )
                left_out.add(row)
            elif any(x[0] == place[0] and x[1] in earlier for x in others):
                repeated += 1
        dropped += len(left_out)
        checked.append(replace(part, left_out=frozenset(left_out)))
    notes = [f"{dropped} samples left out, which another corpus has in a later split"] if dropped else []
    return checked, notes + (
        [f"{repeated} samples occur in two corpora, in the same split"] if repeated else []
    )


def _samples(part: Part) -> Iterator[tuple[int, Place, list[bytes]]]:
    """Row, place and keys of every sample."""
    rows, splits, ids = part.rows(), part.split_names(), part.store.ids
    for row in map(int, track(rows, f"Comparing {part.name}", total=len(rows))):
        yield row, (SPLITS.index(splits[row]), part.name, str(ids[row])), list(_keys(part, row))


def _describe(place: Place) -> str:
    rank, corpus, id = place
    return f"sample '{id}' of {corpus} ({SPLITS[rank]})"


def _keys(part: Part, row: int) -> Iterator[bytes]:
    """What identifies a sample: its text, and the features of each modality."""
    words = "".join(c if c.isalnum() else " " for c in part.store.transcript(row).casefold()).split()
    if len(words) >= MIN_WORDS:
        yield hashlib.sha256(" ".join(words).encode()).digest()
    for m, own in part.modalities.items():
        steps = part.store.features(own, row)
        if steps.size > MIN_WORDS:
            yield hashlib.sha256(m.encode() + b"\0" + np.ascontiguousarray(steps).tobytes()).digest()
