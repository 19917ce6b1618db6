"""A store's features in numbers, one pass per modality, and the checks that look at their values alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carat.data.store.store import Store, feature_file, offset_file
from carat.data.tokenizer import drop_context

BLOCK = 4_000_000
"""Numbers read at once; only a single sequence that is longer takes more."""
DRAWN = 5000
"""Samples that the expensive measurements look at."""
COLUMNS = 128
"""Columns ranked at once."""
NAMES = {"visual": ("visual", "vision", "video"), "audio": ("audio", "acoustic")}
"""What modalities are called, by kind."""
FACET = 35
"""Width of FACET's features."""

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Survey:
    """One modality in numbers; inf and NaN are counted and then taken as 0."""

    present: NDArray[np.bool_]
    """(N,)"""
    digest: NDArray[np.uint64]
    """(N,) hash of the sequence; 0 where it is absent or nothing but padding."""
    moving: NDArray[np.bool_]
    """(N,) whether two steps of the sequence differ."""
    own: NDArray[np.int64]
    """(N,) steps of the sequence; of a text in context, those of the text itself."""
    padded: int
    """Sequences that begin or end with padding: zeros, or what standardisation made of zeros."""
    lowest: NDArray[np.float32]
    """(d,)"""
    highest: NDArray[np.float32]
    """(d,)"""
    non_finite: NDArray[np.int64]
    """(d,) inf and NaN."""
    long: int
    """Drawn sequences of three steps at least."""
    rising: NDArray[np.int64]
    """(d,) how many of these rise at every step."""
    rows: NDArray[np.int64]
    """(n,) drawn samples, ascending."""
    means: NDArray[np.float32]
    """(n, d) of the drawn samples over time."""


class Context(NamedTuple):
    """What every check gets."""

    store: Store
    known: str | None
    surveys: Mapping[str, Survey]
    splits: Mapping[str, NDArray[np.int64]]
    """Rows by split."""


def survey(store: Store, modality: str) -> Survey:
    """Measure a modality.

    Every value is read, in blocks. Means over time and rising columns are taken of at most `DRAWN` samples,
    drawn with a fixed seed.
    """
    offsets = np.asarray(store.array(offset_file(modality)))
    info = store.manifest.modalities[modality]
    width = info.width
    present = np.diff(offsets) > 0
    rows = np.flatnonzero(present)
    if len(rows) > DRAWN:
        rows = np.sort(np.random.default_rng(0).choice(rows, DRAWN, replace=False))
    place = np.full(len(present), -1)
    place[rows] = np.arange(len(rows))
    blanks = _blanks(store, modality)
    digest = np.zeros(len(present), dtype=np.uint64)
    moving = np.zeros(len(present), dtype=bool)
    own = np.zeros(len(present), dtype=np.int64)
    lowest, highest = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    non_finite, rising = np.zeros(width, dtype=np.int64), np.zeros(width, dtype=np.int64)
    means = np.zeros((len(rows), width), dtype=np.float32)
    padded = long = 0
    for first, last, block in _blocks(store, modality, offsets):
        values, wrong = _finite(block)
        non_finite += wrong
        lowest, highest = np.minimum(lowest, values.min(0)), np.maximum(highest, values.max(0))
        for row in first + np.flatnonzero(present[first:last]):
            start, stop = offsets[row : row + 2] - offsets[first]
            steps = drop_context(block[start:stop]) if info.tokens else block[start:stop]
            own[row] = len(steps)
            moving[row] = _differ(steps[:1], steps[-1:]) or _differ(steps[:1], steps)
            edges = [any(np.array_equal(step, blank) for blank in blanks) for step in steps[[0, -1]]]
            padded += any(edges)
            if moving[row] or not all(edges):
                digest[row] = _hash(steps)
            if place[row] >= 0:
                drawn = values[start:stop]
                means[place[row]] = drawn.mean(0, dtype=np.float64)
                if len(drawn) >= 3:
                    long += 1
                    rising += (drawn[1:] > drawn[:-1]).all(0)
    return Survey(
        present,
        digest,
        moving,
        own,
        padded,
        lowest,
        highest,
        non_finite,
        long,
        rising,
        rows=rows,
        means=means,
    )


def _blocks(
    store: Store, modality: str, offsets: NDArray[np.int64]
) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """First sample, the one after the last, and their flat (ΣT, d) features."""
    flat = store.array(feature_file(modality))
    first = 0
    while first < len(offsets) - 1:
        limit = offsets[first] + max(BLOCK // max(flat.shape[1], 1), 1)
        last = max(int(np.searchsorted(offsets, limit, side="right")) - 1, first + 1)
        if offsets[last] > offsets[first]:
            yield first, last, np.array(flat[offsets[first] : offsets[last]])
        first = last


def _blanks(store: Store, modality: str) -> list[NDArray[Any]]:
    """What a step of zeros looks like in the store, as it is and standardised: (d,) each."""
    info = store.manifest.modalities[modality]
    blanks = [np.zeros(info.width, dtype=info.dtype)]
    if info.transform is not None and info.transform.mean:
        zeros = np.zeros((1, info.transform.width))
        with np.errstate(over="ignore"):
            blanks.append(info.transform.apply(zeros, modality)[0].astype(info.dtype))
    return blanks


def _finite(block: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Values with 0 for inf and NaN, and how many these were by column."""
    values = block.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore"):
        extremes = np.stack([values.min(0), values.max(0)])
    if np.isfinite(extremes).all():
        return values, np.zeros(values.shape[1], dtype=np.int64)
    finite = np.isfinite(values)
    return np.where(finite, values, np.float32(0)), (~finite).sum(0)


def _differ(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return bool((a != b).any())


def _hash(steps: NDArray[Any]) -> int:
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(steps).data, digest_size=8).digest())


def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks from 1 within each column; equal values share their mean rank.

    >>> ranks(np.array([[5], [1], [5], [9]]))[:, 0].tolist()
    [2.5, 1.0, 2.5, 4.0]
    """
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    new = np.ones(values.shape, dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    place = np.arange(len(values))[:, None]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=0)
    ends = np.ones(values.shape, dtype=bool)
    ends[:-1] = new[1:]
    last = np.minimum.accumulate(np.where(ends, place, len(values))[::-1], axis=0)[::-1]
    out = np.empty(values.shape)
    np.put_along_axis(out, order, (first + last) / 2 + 1, axis=0)
    return out


def spearman(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Rank correlation of two (n,) arrays; 0 if one of them is constant.

    >>> spearman(np.array([1, 2, 3]), np.array([30, 20, 10]))
    -1.0
    """
    both = ranks(np.stack([x, y], axis=1))
    both -= both.mean(0)
    scale = float(np.sqrt((both**2).sum(0).prod()))
    return float((both[:, 0] * both[:, 1]).sum()) / scale if scale else 0.0


def auroc(values: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """How well each column tells each label: (L, d) areas under the ROC curve.

    Args:
        values: (n, d), finite.
        labels: (n, L), 0 or 1; each label occurs and is absent once at least.
    """
    positives = labels.sum(0, dtype=np.float64)[:, None]
    out = np.empty((labels.shape[1], values.shape[1]))
    for start in range(0, values.shape[1], COLUMNS):
        part = slice(start, start + COLUMNS)
        above = labels.T.astype(np.float64) @ ranks(values[:, part]) - positives * (positives + 1) / 2
        out[:, part] = above / (positives * (len(labels) - positives))
    return out


def shift_between(
    x: NDArray[np.int64], y: NDArray[np.int64], furthest: int, enough: int
) -> tuple[int, float, float] | None:
    """Where the lengths of two modalities fit best, if they fit at all.

    Args:
        x: (n,) lengths in store order, 0 where the modality is absent.
        y: (n,) of the other modality.
        furthest: shift to try in either direction.
        enough: samples that must have both.

    Returns:
        Shift k at which x[i + k] fits y[i] best, the rank correlation there, and that at shift 0. None if
        too few samples have both.
    """
    found = {}
    furthest = min(furthest, len(x) - 1)
    for k in range(-furthest, furthest + 1):
        a, b = x[max(k, 0) : len(x) + min(k, 0)], y[max(-k, 0) : len(y) + min(-k, 0)]
        both = (a > 0) & (b > 0)
        if both.sum() >= enough:
            found[k] = spearman(a[both], b[both])
    if 0 not in found:
        return None
    best = max(found, key=lambda k: found[k])
    return best, found[best], found[0]


def repeats(key: NDArray[Any], split: NDArray[Any]) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Pairs of equal keys in one split, and rows whose key is in two splits, equal keys side by side."""
    order = np.lexsort((split, key))
    order = order[key[order] != 0]
    same = key[order[1:]] == key[order[:-1]]
    other = split[order[1:]] != split[order[:-1]]
    pairs = [(int(order[i]), int(order[i + 1])) for i in np.flatnonzero(same & ~other)]
    shared = np.unique(key[order[1:]][same & other])
    rows = order[np.isin(key[order], shared)]
    if len(rows):  # an example from two splits first
        at = int(np.flatnonzero(same & other)[0])
        first = order[at : at + 2]
        rows = np.concatenate([first, rows[~np.isin(rows, first)]])
    return pairs, rows


def non_finite_values(c: Context) -> tuple[Verdict, str]:
    bad = [
        f"{int(s.non_finite.sum())} values of {m} are inf or NaN ({_columns(s.non_finite > 0)})"
        for m, s in c.surveys.items()
        if s.non_finite.any()
    ]
    if bad:
        return "fail", f"{', '.join(bad)}; build or import without as-released, which makes them 0"
    return "ok", "none"


def features_of(c: Context) -> dict[str, Survey]:
    """Those modalities whose values are features: a token's id or a sample of sound says nothing alone."""
    described = c.store.manifest.modalities
    return {m: found for m, found in c.surveys.items() if described[m].has_features}


def constant_columns(c: Context) -> tuple[Verdict, str]:
    dead = {m: s.lowest == s.highest for m, s in features_of(c).items()}
    found = [f"{m}: {_columns(x)} of {len(x)}" for m, x in dead.items() if x.any()]
    if any(x.mean() > 0.5 for x in dead.values()):
        return "fail", f"most columns are constant in {', '.join(found)}; extract the features again"
    if found:
        return "warn", f"constant in {', '.join(found)}; drop_columns leaves them out"
    return "ok", "none"


def time_stamps(c: Context) -> tuple[Verdict, str]:
    rising = {m: s.rising >= 0.99 * s.long for m, s in features_of(c).items() if s.long >= 20}
    found = [f"{m}: {_columns(x)}" for m, x in rising.items() if x.any()]
    if found:
        return "warn", f"values rise at every step like time stamps in {', '.join(found)}; leave them out"
    return "ok", "none"


def leakage(c: Context) -> tuple[Verdict, str]:
    names = c.store.label_names
    hits: list[tuple[float, str]] = []
    for m, s in features_of(c).items():
        labels = np.asarray(c.store.labels)[s.rows]
        n, positives = len(labels), labels.sum(0, dtype=int)
        use = np.flatnonzero(np.minimum(positives, n - positives) >= 10)
        if n < 200 or not len(use):
            continue
        area = auroc(s.means, labels[:, use])
        telling = np.maximum(area, 1 - area)
        p = positives[use]  # what thousands of columns reach by chance with few positives does not count
        chance = 0.5 + 5 * np.sqrt((n + 1) / (12 * p * (n - p)))[:, None]
        for i, column in np.argwhere(telling >= np.maximum(0.9, chance)).tolist():
            score = float(telling[i, column])
            shown = f"{np.floor(100 * score) / 100:.2f}".removeprefix("0")
            said = f"column {column} of {m} alone tells '{names[use[i]]}' (AUROC {shown})"
            hits.append((score, said))
    if hits:
        hits.sort(key=lambda hit: -hit[0])
        verdict: Verdict = "fail" if hits[0][0] >= 0.98 else "warn"
        return verdict, f"{some([said for _, said in hits], 3)}: are labels among the features?"
    for m, info in c.store.manifest.modalities.items():
        facet = m.casefold() in NAMES["visual"] and raw_width(c.store, m) == FACET
        if facet and "openface" not in info.source.casefold():
            scores = "some of its columns are themselves emotion scores by another classifier"
            return "ok", f"none; {m} has FACET's width: {scores}"
    return "ok", "no column alone tells a label"


def padding(c: Context) -> tuple[Verdict, str]:
    found = []
    for m, s in features_of(c).items():
        if c.store.manifest.modalities[m].source.startswith("glove"):
            continue  # words without vector are zeros there
        if (share := s.padded / max(int(s.present.sum()), 1)) > 0.01:
            found.append(f"{share:.0%} of the {m} sequences")
    if found:
        return (
            "warn",
            f"{' and '.join(found)} begin or end with zeros; import without --keep-padding or cut them off",
        )
    return "ok", "none"


def raw_width(store: Store, modality: str) -> int:
    """Width before columns were dropped."""
    info = store.manifest.modalities[modality]
    return info.transform.width if info.transform else info.width


def _columns(chosen: NDArray[np.bool_]) -> str:
    numbers = np.flatnonzero(chosen).tolist()
    return f"column{'s' * (len(numbers) > 1)} {some(numbers)}"


def some(items: Sequence[object], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more
