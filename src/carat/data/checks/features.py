"""Statistics of a store's features, computed in one pass per modality, and checks based on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from carat.data.store.layout import feature_file, offset_file
from carat.data.store.store import Store
from carat.data.tokenizer import drop_context
from carat.utils.errors import DataError

BLOCK = 4_000_000
"""Values read at once, or one sequence if it is longer."""
MAX_SUBSET = 5000
"""Maximum number of samples for expensive statistics."""
COLUMNS = 128
"""Columns ranked at once."""
NAMES = {"visual": ("visual", "vision", "video"), "audio": ("audio", "acoustic")}
"""Usual names of modalities."""
FACET_WIDTH = 35
"""Width of FACET's features."""

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class FeatureStatistics:
    """Statistics of a modality. Non-finite values are counted and then replaced by 0.

    Some statistics are computed on a random subset of n samples.
    """

    present: NDArray[np.bool_]
    """(N,) True where the modality is present."""
    digest: NDArray[np.uint64]
    """(N,) hash of the sequence; 0 where it is absent or consists of padding."""
    is_varying: NDArray[np.bool_]
    """(N,) True where not all steps of the sequence are equal."""
    steps: NDArray[np.int64]
    """(N,) steps of the sequence, without context."""
    padded: int
    """Sequences that begin or end with padding: zeros, or standardized zeros."""
    lowest: NDArray[np.float32]
    """(d,) minimum of each column."""
    highest: NDArray[np.float32]
    """(d,) maximum of each column."""
    non_finite: NDArray[np.int64]
    """(d,) inf and NaN values in each column."""
    long_sequences: int
    """Sequences of at least three steps in the subset."""
    rising: NDArray[np.int64]
    """(d,) long sequences in which a column rises at every step."""
    rows: NDArray[np.int64]
    """(n,) store rows of the subset, ascending."""
    means: NDArray[np.float32]
    """(n, d) means over time of the samples in the subset."""


class CheckContext(NamedTuple):
    """Input of a check."""

    store: Store
    known: str | None
    """Name of the published dataset that the store must equal, if given."""
    statistics: Mapping[str, FeatureStatistics]
    """Statistics by modality."""
    splits: Mapping[str, NDArray[np.int64]]
    """Store rows by split."""


def compute_statistics(store: Store, modality: str) -> FeatureStatistics:
    """Compute the statistics of a modality.

    All values are read, in blocks. Means over time and rising columns are computed on at most `MAX_SUBSET`
    samples, chosen at random with a fixed seed.
    """
    offsets = np.asarray(store.array(offset_file(modality)))
    info = store.manifest.modalities[modality]
    width = info.width
    present = np.diff(offsets) > 0
    rows = np.flatnonzero(present)
    if len(rows) > MAX_SUBSET:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_SUBSET, replace=False))
    subset_index = np.full(len(present), -1)
    subset_index[rows] = np.arange(len(rows))
    padding_steps = _padding_steps(store, modality)
    digest = np.zeros(len(present), dtype=np.uint64)
    is_varying = np.zeros(len(present), dtype=bool)
    lengths = np.zeros(len(present), dtype=np.int64)
    lowest, highest = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    non_finite, rising = np.zeros(width, dtype=np.int64), np.zeros(width, dtype=np.int64)
    means = np.zeros((len(rows), width), dtype=np.float32)
    padded = long_sequences = 0
    for first, last, block in _read_blocks(store, modality, offsets):
        values, block_non_finite = _replace_non_finite(block)
        non_finite += block_non_finite
        lowest, highest = np.minimum(lowest, values.min(0)), np.maximum(highest, values.max(0))
        for row in first + np.flatnonzero(present[first:last]):
            start, stop = offsets[row : row + 2] - offsets[first]
            if info.tokens and (problem := info.problem_of(block[start:stop])):
                raise DataError(f"{store.folder}: sample '{store.ids[row]}', {modality}: {problem}")
            steps = drop_context(block[start:stop]) if info.tokens else block[start:stop]
            lengths[row] = len(steps)
            # most sequences differ in their first and last step, which is fast to compare
            is_varying[row] = _differ(steps[:1], steps[-1:]) or _differ(steps[:1], steps)
            is_padding = [any(np.array_equal(step, x) for x in padding_steps) for step in steps[[0, -1]]]
            padded += any(is_padding)
            if is_varying[row] or not all(is_padding):
                digest[row] = _hash(steps)
            if subset_index[row] >= 0:
                sequence = values[start:stop]
                means[subset_index[row]] = sequence.mean(0, dtype=np.float64)
                if len(sequence) >= 3:
                    long_sequences += 1
                    rising += (sequence[1:] > sequence[:-1]).all(0)
    return FeatureStatistics(
        present=present,
        digest=digest,
        is_varying=is_varying,
        steps=lengths,
        padded=padded,
        lowest=lowest,
        highest=highest,
        non_finite=non_finite,
        long_sequences=long_sequences,
        rising=rising,
        rows=rows,
        means=means,
    )


def _read_blocks(
    store: Store, modality: str, offsets: NDArray[np.int64]
) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """Yield the first row, the end row (exclusive) and the features (ΣT, d) of each block of samples."""
    flat = store.array(feature_file(modality))
    first = 0
    while first < len(offsets) - 1:
        limit = offsets[first] + max(BLOCK // max(flat.shape[1], 1), 1)
        last = max(int(np.searchsorted(offsets, limit, side="right")) - 1, first + 1)
        if offsets[last] > offsets[first]:
            yield first, last, np.array(flat[offsets[first] : offsets[last]])
        first = last


def _padding_steps(store: Store, modality: str) -> list[NDArray[Any]]:
    """Return steps (d,) that are padding: zeros, and zeros standardized by the transform of the modality."""
    info = store.manifest.modalities[modality]
    padding_steps = [np.zeros(info.width, dtype=info.dtype)]
    if info.transform is not None and info.transform.mean:
        zeros = np.zeros((1, info.transform.width))
        standardised = info.transform.model_copy(update={"padding": "none"})
        with np.errstate(over="ignore"):
            padding_steps.append(standardised.clean(zeros, modality).features[0].astype(info.dtype))
    return padding_steps


def _replace_non_finite(block: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Replace inf and NaN by 0; also return their number in each column."""
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


def spearman(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Compute Spearman's rank correlation of two (n,) arrays; 0 if one of them is constant.

    >>> spearman(np.array([1, 2, 3]), np.array([30, 20, 10]))
    -1.0
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(spearmanr(x, y).statistic)


def auroc(
    values: NDArray[Any], labels: NDArray[Any], known: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Compute the area under the ROC curve of each column as a score for each label.

    The ranks of a column are computed once for all labels (Mann and Whitney 1947), whereas scikit-learn's
    `roc_auc_score` needs one call per column and label.

    Args:
        values: (n, d), finite.
        labels: (n, L), 0 or 1; each label needs a positive and a negative sample.
        known: (n, L), samples of which the area of each label is computed; None: all.

    Returns:
        (L, d) in [0, 1].
    """
    if known is not None and not known.all():
        parts = zip(known.T, labels.T, strict=True)
        return np.vstack([auroc(values[x], y[x, None], x[x, None]) for x, y in parts])
    positives = labels.sum(0, dtype=np.float64)[:, None]
    areas = np.empty((labels.shape[1], values.shape[1]))
    for start in range(0, values.shape[1], COLUMNS):
        part = slice(start, start + COLUMNS)
        rank_sums = labels.T.astype(np.float64) @ rankdata(values[:, part], axis=0)
        above = rank_sums - positives * (positives + 1) / 2
        areas[:, part] = above / (positives * (len(labels) - positives))
    return areas


def shift_between(
    x: NDArray[np.int64], y: NDArray[np.int64], max_shift: int, min_samples: int
) -> tuple[int, float, float] | None:
    """Find the shift between two modalities at which their lengths correlate best.

    Args:
        x: (n,) lengths in store order, 0 where the modality is absent.
        y: (n,) lengths of the other modality.
        max_shift: maximum shift in either direction.
        min_samples: minimum number of samples that have both modalities.

    Returns:
        The shift k at which x[i + k] and y[i] correlate best, the rank correlation at k, and that at 0; None
        if too few samples have both modalities.
    """
    correlations = {}
    max_shift = min(max_shift, len(x) - 1)
    for k in range(-max_shift, max_shift + 1):
        a, b = x[max(k, 0) : len(x) + min(k, 0)], y[max(-k, 0) : len(y) + min(-k, 0)]
        both = (a > 0) & (b > 0)
        if both.sum() >= min_samples:
            correlations[k] = spearman(a[both], b[both])
    if 0 not in correlations:
        return None
    best = max(correlations, key=lambda k: correlations[k])
    return best, correlations[best], correlations[0]


def find_repeats(key: NDArray[Any], split: NDArray[Any]) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Find samples with equal keys.

    Args:
        key: (N,) keys; 0 is ignored.
        split: (N,) split codes.

    Returns:
        Pairs of rows with equal keys in the same split, and rows whose key is in more than one split, sorted
        by key; the first two of these are an example from different splits.
    """
    order = np.lexsort((split, key))
    order = order[key[order] != 0]
    same_key = key[order[1:]] == key[order[:-1]]
    other_split = split[order[1:]] != split[order[:-1]]
    pairs = [(int(order[i]), int(order[i + 1])) for i in np.flatnonzero(same_key & ~other_split)]
    shared_keys = np.unique(key[order[1:]][same_key & other_split])
    rows = order[np.isin(key[order], shared_keys)]
    if len(rows):
        i = int(np.flatnonzero(same_key & other_split)[0])
        example = order[i : i + 2]
        rows = np.concatenate([example, rows[~np.isin(rows, example)]])
    return pairs, rows


def non_finite_values(c: CheckContext) -> tuple[Verdict, str]:
    """Check that all values are finite."""
    problems = [
        f"{int(s.non_finite.sum())} values of {m} are inf or NaN ({_format_columns(s.non_finite > 0)})"
        for m, s in c.statistics.items()
        if s.non_finite.any()
    ]
    if problems:
        return "fail", f"{', '.join(problems)}; build the store without as-released to replace them by 0"
    return "ok", "none"


def features_of(c: CheckContext) -> dict[str, FeatureStatistics]:
    """Return the statistics of the modalities whose values are features, not tokens or audio samples."""
    modalities = c.store.manifest.modalities
    return {m: s for m, s in c.statistics.items() if modalities[m].has_features}


def constant_columns(c: CheckContext) -> tuple[Verdict, str]:
    """Check for columns with a single value."""
    is_constant = {m: s.lowest == s.highest for m, s in features_of(c).items()}
    problems = [f"{m}: {_format_columns(x)} of {len(x)}" for m, x in is_constant.items() if x.any()]
    if any(x.mean() > 0.5 for x in is_constant.values()):
        return "fail", f"most columns are constant in {', '.join(problems)}; extract the features again"
    if problems:
        return "warn", f"constant in {', '.join(problems)}; remove them with drop_columns"
    return "ok", "none"


def time_stamps(c: CheckContext) -> tuple[Verdict, str]:
    """Check for columns that rise at every step."""
    is_rising = {
        m: s.rising >= 0.99 * s.long_sequences for m, s in features_of(c).items() if s.long_sequences >= 20
    }
    problems = [f"{m}: {_format_columns(x)}" for m, x in is_rising.items() if x.any()]
    if problems:
        return "warn", (
            f"values rise at every step like time stamps in {', '.join(problems)}; remove them with "
            "drop_columns"
        )
    return "ok", "none"


def leakage(c: CheckContext) -> tuple[Verdict, str]:
    """Check for columns whose mean over time separates the samples with and without a label."""
    names = c.store.label_names
    findings: list[tuple[float, str]] = []
    for m, s in features_of(c).items():
        labels = np.asarray(c.store.labels)[s.rows]
        known = c.store.known[s.rows]
        numbers, positives = known.sum(0), labels.sum(0, dtype=int)
        testable = np.flatnonzero((np.minimum(positives, numbers - positives) >= 10) & (numbers >= 200))
        if not len(testable):
            continue
        area = auroc(s.means, labels[:, testable], known[:, testable])
        area = np.maximum(area, 1 - area)
        # five standard deviations above chance: the maximum over thousands of columns can be high by chance
        n, p = numbers[testable], positives[testable]
        threshold = np.maximum(0.9, 0.5 + 5 * np.sqrt((n + 1) / (12 * p * (n - p))))[:, None]
        for i, column in np.argwhere(area >= threshold).tolist():
            score = float(area[i, column])
            rounded = f"{np.floor(100 * score) / 100:.2f}".removeprefix("0")
            label = names[testable[i]]
            findings.append((score, f"column {column} of {m} alone predicts '{label}' (AUROC {rounded})"))
    if findings:
        findings.sort(key=lambda finding: -finding[0])
        verdict: Verdict = "fail" if findings[0][0] >= 0.98 else "warn"
        listed = some([message for _, message in findings], 3)
        return verdict, f"{listed}; check whether the features contain labels"
    for m, info in c.store.manifest.modalities.items():
        is_facet = m.casefold() in NAMES["visual"] and raw_width(c.store, m) == FACET_WIDTH
        if is_facet and "openface" not in info.source.casefold():
            return "ok", (
                f"none; {m} has the width of FACET, some of whose columns are emotion scores of another "
                "classifier"
            )
    return "ok", "no column alone predicts a label"


def padding(c: CheckContext) -> tuple[Verdict, str]:
    """Check for sequences that begin or end with padding."""
    problems = []
    for m, s in features_of(c).items():
        transform = c.store.manifest.modalities[m].transform
        if c.store.manifest.modalities[m].source.startswith("glove") or (
            transform is not None and transform.padding == "strip"
        ):
            continue  # words without a vector are zeros, or padding was stripped
        if (fraction := s.padded / max(int(s.present.sum()), 1)) > 0.01:
            problems.append(f"{fraction:.0%} of the {m} sequences")
    if problems:
        return "warn", (
            f"{' and '.join(problems)} begin or end with zeros; import without --keep-padding, or build with "
            "padding: strip"
        )
    return "ok", "none"


def raw_width(store: Store, modality: str) -> int:
    """Return the width of a modality before columns were dropped."""
    info = store.manifest.modalities[modality]
    return info.transform.width if info.transform else info.width


def _format_columns(mask: NDArray[np.bool_]) -> str:
    columns = np.flatnonzero(mask).tolist()
    return f"column{'s' if len(columns) > 1 else ''} {some(columns)}"


def some(items: Sequence[object], limit: int = 5) -> str:
    """Format the first items, and the number of those that follow."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(map(str, items[:limit])) + more
