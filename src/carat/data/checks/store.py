"""Checks of a store: content, splits, labels, features, and how modalities belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from carat.data.checks.features import (
    MAX_SUBSET,
    NAMES,
    CheckContext,
    Verdict,
    compute_statistics,
    constant_columns,
    find_repeats,
    leakage,
    non_finite_values,
    padding,
    raw_width,
    shift_between,
    some,
    spearman,
    time_stamps,
)
from carat.data.checks.labels import (
    format_counts,
    label_frequencies,
    samples_without_labels,
    unknown_labels,
)
from carat.data.corpora.labels import M3ED, MOSEI
from carat.data.recipes.sources.glove import tokenize
from carat.data.store.layout import SPLIT, TRANSCRIPT_OFFSETS, TRANSCRIPTS
from carat.data.store.store import Store
from carat.data.summary import leakage_notes
from carat.utils.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Finding:
    """Result of a check."""

    check: str
    """Name of the check, a key of `CHECKS`."""
    verdict: Verdict
    message: str
    """What was found, what was expected, and what to do, on one line."""


@dataclass(frozen=True)
class Published:
    """Published statistics of a dataset."""

    labels: tuple[str, ...]
    """Label names, in their published order."""
    sizes: Mapping[str, int]
    """Size of each split."""
    unit: Literal["samples", "dialogues"] = "samples"
    """Unit of the sizes; a dialogue is a group."""
    positives: tuple[int, ...] = ()
    """Positives of each label in the test split; empty if unknown."""


PUBLISHED = {
    "mosei": Published(
        MOSEI, {"train": 16326, "valid": 1871, "test": 4659}, positives=(2502, 1129, 1071, 441, 805, 385)
    ),
    "m3ed": Published(M3ED, {"train": 685, "valid": 126, "test": 179}, unit="dialogues"),
}
WIDTHS = {"visual": (35, 342, 709, 713), "audio": (74, 1024, 1582)}
"""Feature widths of common extractors. 1024 alone is no evidence of audio, as image encoders have it too."""
MIN_REPEATED_STEPS = 10
"""Minimum length at which equal texts count as duplicates; shorter sentences are often repeated."""


def check_store(store: Store, known: str | None = None) -> list[Finding]:
    """Run all checks on a store.

    All features are read once, in blocks. Time stamps, leakage and transcripts are checked on random subsets
    of at most `MAX_SUBSET` samples, with a fixed seed.

    Args:
        store: an open store.
        known: published dataset that the store must equal, a key of `PUBLISHED`. By default it is recognized
            by its labels, and differences are warnings only.

    Returns:
        One finding per check, in the order of `CHECKS`.

    Raises:
        DataError: unknown dataset.
    """
    if known is not None and known not in PUBLISHED:
        hint = did_you_mean(known, PUBLISHED) or f"; available: {', '.join(PUBLISHED)}"
        raise DataError(f"no published statistics of '{known}'{hint}")
    statistics = {m: compute_statistics(store, m) for m in store.modalities}
    splits = {split: store.indices(split) for split in store.manifest.splits}
    context = CheckContext(store, known, statistics, splits)
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            verdict, message = check(context)
        except (DataError, IndexError, ValueError):
            if not findings or findings[0].verdict == "ok":
                raise
            verdict, message = "fail", "not possible, because the content is altered"
        findings.append(Finding(name, verdict, " ".join(message.split())))
    return findings


def _content(c: CheckContext) -> tuple[Verdict, str]:
    """Check that all files match their checksums, and what opening a store leaves unread."""
    try:
        c.store.verify()
    except DataError as error:
        return "fail", str(error)
    for m, info in c.store.manifest.modalities.items():
        lowest, highest = c.statistics[m].lowest, c.statistics[m].highest
        if info.tokens is not None and (lowest.min() < 0 or highest[0] >= info.tokens.vocabulary):
            return "fail", f"{m} has IDs from {lowest.min():.0f} to {highest[0]:.0f}; {info.tokens.expected}"
    if c.store.intensities is not None and not np.isfinite(c.store.intensities).all():
        return "fail", "intensities are inf or NaN"
    if TRANSCRIPTS in c.store.manifest.files and not _is_utf8(c.store):
        return "fail", "transcripts are not UTF-8; build the store again"
    return "ok", f"all {len(c.store.manifest.files)} files match the manifest"


def _is_utf8(store: Store) -> bool:
    content, offsets = store.array(TRANSCRIPTS), store.array(TRANSCRIPT_OFFSETS)
    starts = content[offsets[:-1][np.diff(offsets) > 0]]
    if (starts & 0xC0 == 0x80).any():  # a character that continues in the next transcript
        return False
    try:
        bytes(content).decode()
    except UnicodeDecodeError:
        return False
    return True


def _splits(c: CheckContext) -> tuple[Verdict, str]:
    """Check that the splits train, valid and test have samples."""
    missing = [split for split in ("train", "valid", "test") if not len(c.splits.get(split, ()))]
    if not missing:
        return "ok", ", ".join(f"{split} {len(rows)}" for split, rows in c.splits.items())
    verdict: Verdict = "fail" if "train" in missing else "warn"
    return verdict, f"no samples in split {some(missing)}; expected train, valid and test"


def _labels_against_published(c: CheckContext) -> tuple[Verdict, str]:
    """Compare labels and sizes with the published dataset."""
    names = tuple(name.casefold() for name in c.store.label_names)
    recognized = (name for name, published in PUBLISHED.items() if set(published.labels) == set(names))
    known = c.known or next(recognized, None)
    is_synthetic = all(info.source.startswith("synthetic:") for info in c.store.manifest.modalities.values())
    if known is None or (c.known is None and is_synthetic):
        return "ok", "no published statistics for these labels"
    published = PUBLISHED[known]
    if set(names) != set(published.labels):
        return "fail", f"labels are {', '.join(names)}; {known} has {', '.join(published.labels)}"
    sizes = {split: len(rows) for split, rows in c.splits.items()}
    if published.unit == "dialogues":
        sizes = {split: len(np.unique(c.store.groups[rows])) for split, rows in c.splits.items()}
    problems = []
    if sizes != published.sizes:
        problems.append(
            f"not the published dataset: {_format_sizes(sizes)} {published.unit}, but {known} has "
            f"{_format_sizes(published.sizes)}; scores are not comparable with published ones"
        )
    elif published.positives:
        positives = np.asarray(c.store.labels)[c.splits["test"]].sum(0, dtype=int)
        actual = [int(positives[names.index(label)]) for label in published.labels]
        expected = list(published.positives)
        if actual != expected and sorted(actual) == sorted(expected):
            matching = [published.labels[expected.index(count)] for count in actual]
            swaps = [
                f"'{a}' has the positives of '{b}'"
                for a, b in zip(published.labels, matching, strict=True)
                if a != b
            ]
            return "fail", f"labels are in the wrong order: {some(swaps)}; reorder their names"
        if actual != expected:
            problems.append(f"positives in test are {format_counts(names, positives)}, unlike {known}")
    if names != published.labels:
        problems.append(f"label order is {', '.join(names)}; {known} has {', '.join(published.labels)}")
    if problems:
        return "fail" if c.known else "warn", "; ".join(problems)
    return "ok", f"as published for {known}"


def _modalities_in_training(c: CheckContext) -> tuple[Verdict, str]:
    """Check that every modality can be learned."""
    if "train" not in c.splits:
        return "ok", "not possible without a train split"
    share = {m: s.present[c.splits["train"]].mean() for m, s in c.statistics.items()}
    if absent := [m for m, x in share.items() if not x]:
        return "fail", (
            f"no training sample has {', '.join(absent)}; models are trained without it, and samples that "
            "have nothing else cannot be scored"
        )
    return "ok", ", ".join(f"{x:.0%} of train has {m}" for m, x in share.items())


def _duplicated_samples(c: CheckContext) -> tuple[Verdict, str]:
    """Check for samples with equal features. For texts, a few are normal."""
    text_modalities = _text_modalities(c.store)
    other_modalities = [m for m in c.statistics if m not in text_modalities]
    split = np.asarray(c.store.array(SPLIT))
    keys = {m: np.where(s.is_varying, s.digest, 0) for m, s in c.statistics.items() if s.is_varying.any()}
    for m in text_modalities & set(keys):
        keys[m][c.statistics[m].steps < MIN_REPEATED_STEPS] = 0
    if not keys or (other_modalities and not set(other_modalities) & set(keys)):
        keys["features"] = _joint_key(c, other_modalities or c.statistics, split)
    lenient = text_modalities if other_modalities else set(keys)  # sentences may repeat now and then
    sizes = np.array([len(rows) for rows in c.splits.values()])
    across, within, repeated_texts = [], [], 0
    for m, key in keys.items():
        pairs, rows = find_repeats(key, split)
        if len(rows):
            a, b = (f"'{c.store.ids[row]}' ({list(c.splits)[split[row]]})" for row in rows[:2])
            fraction = np.bincount(split[rows], minlength=len(sizes)) / np.maximum(sizes, 1)
            if m in lenient and (fraction.max() < 0.02 or len(rows) < 6):
                repeated_texts += len(rows)
            else:
                across.append(f"{a} and {b} have the same {m} ({len(rows)} such samples)")
        if pairs and (m not in lenient or len(pairs) >= 0.02 * len(split)):
            a, b = (f"'{c.store.ids[row]}'" for row in pairs[0])
            within.append(f"{len(pairs)} samples repeat the {m} of another, e.g. {a} and {b}")
    if across:
        return "fail", f"{'; '.join(across)}; remove them from one of the splits"
    if within:
        return "warn", f"{'; '.join(within)}, in the same split; remove the copies"
    if repeated_texts:
        return "ok", f"only texts: {repeated_texts} samples have the text of a sample in another split"
    return "ok", "none"


def _joint_key(c: CheckContext, modalities: Iterable[str], split: NDArray[Any]) -> NDArray[Any]:
    """Compute keys that are equal for samples whose features are equal in all modalities.

    Used for modalities of one step per sample, which the samples of a group may share.

    Args:
        c: input of the check.
        modalities: modalities of which a sample must have at least one.
        split: (N,) split codes.

    Returns:
        (N,) keys; 0 for samples without any of the modalities, and for repeats within a group.
    """
    digests = np.stack([s.digest for s in c.statistics.values()], axis=1)
    present = np.any([c.statistics[m].digest != 0 for m in modalities], axis=0)
    key = np.where(present, np.unique(digests, axis=0, return_inverse=True)[1].ravel() + 1, 0)
    group = np.unique(c.store.groups, return_inverse=True)[1]
    first_of_group = np.unique(np.stack([key, split, group]), axis=1, return_index=True)[1]
    return np.where(np.isin(np.arange(len(key)), first_of_group), key, 0)


def _groups_in_two_splits(c: CheckContext) -> tuple[Verdict, str]:
    """Check that no group is in more than one split."""
    if notes := leakage_notes(c.store):
        return "fail", f"{notes[0]}: scores will be optimistic (leakage between splits); split by group"
    return "ok", f"{len(np.unique(c.store.groups))} groups, each in one split"


def _identical_modalities(c: CheckContext) -> tuple[Verdict, str]:
    """Check for modalities with equal features."""
    equal = []
    for (a, x), (b, y) in combinations(c.statistics.items(), 2):
        both = (x.digest != 0) & (y.digest != 0)
        if both.any() and (fraction := float((x.digest == y.digest)[both].mean())) > 0.5:
            equal.append(f"{b} equals {a} in {fraction:.0%} of the samples that have both")
    return ("fail", f"{'; '.join(equal)}; read each from its own file") if equal else ("ok", "none")


def _swapped_modalities(c: CheckContext) -> tuple[Verdict, str]:
    """Check for widths that are usual for another modality."""
    widths = {m: raw_width(c.store, m) for m in c.store.modalities}
    suspicious = {}
    for kind, other in (("visual", "audio"), ("audio", "visual")):
        for m in widths:
            if m.casefold() in NAMES[kind] and widths[m] in WIDTHS[other]:
                suspicious[kind] = f"{m} has width {widths[m]}, which is usual for {other}"
    if len(suspicious) == 2:
        return "fail", f"audio and visual seem swapped: {', '.join(suspicious.values())}; swap the files"
    if suspicious and not any(widths[m] == 1024 for m in widths if m.casefold() in NAMES["visual"]):
        return "warn", f"{next(iter(suspicious.values()))}; check its source"
    return "ok", "no sign of it in the widths"


def _pairing(c: CheckContext) -> tuple[Verdict, str]:
    """Check that the lengths of modalities and transcripts correlate within samples."""
    problems = []
    lengths = {m: x for m in c.store.modalities if (x := c.store.lengths(m))[x > 0].std() > 0}
    for (a, x), (b, y) in combinations(lengths.items(), 2):
        for split, rows in c.splits.items():
            result = shift_between(x[rows], y[rows], max_shift=5, min_samples=50)
            if result is None:
                continue
            shift, shifted, unshifted = result
            if unshifted < 0.3 and shifted > 0.6:
                problems.append(
                    f"{a} is shifted by {shift} against {b} in {split} (correlation of lengths "
                    f"{shifted:.2f} with the shift, {unshifted:.2f} without)"
                )
    if problems:
        return "fail", f"{some(problems)}; match the files by id"
    rows = np.arange(0, len(c.store), max(-(-len(c.store) // MAX_SUBSET), 1))
    for m in lengths if TRANSCRIPTS in c.store.manifest.files else ():
        if not c.store.manifest.modalities[m].source.startswith("glove"):
            continue
        words = np.array([len(tokenize(c.store.transcript(int(row)))) for row in rows])
        steps = lengths[m][rows]
        both = (words > 0) & (steps > 0)
        if both.sum() < 50 or not words[both].std() or not steps[both].std():
            continue
        correlation = spearman(words[both], steps[both])
        if correlation < 0.5:
            return "fail", (
                f"{m} features do not match the transcripts (correlation of lengths {correlation:.2f}); "
                "match the files by id"
            )
    return "ok", "no sign of a shift in the lengths"


CHECKS: dict[str, Callable[[CheckContext], tuple[Verdict, str]]] = {
    "content": _content,
    "splits": _splits,
    "labels against published": _labels_against_published,
    "unknown labels": unknown_labels,
    "label frequencies": label_frequencies,
    "samples without labels": samples_without_labels,
    "modalities in training": _modalities_in_training,
    "duplicated samples": _duplicated_samples,
    "groups in two splits": _groups_in_two_splits,
    "identical modalities": _identical_modalities,
    "swapped modalities": _swapped_modalities,
    "pairing": _pairing,
    "non-finite values": non_finite_values,
    "constant columns": constant_columns,
    "time stamps": time_stamps,
    "leakage": leakage,
    "padding": padding,
}


def _text_modalities(store: Store) -> set[str]:
    """Return the modalities whose features depend on the words alone, so that equal sentences are equal."""
    modalities = store.manifest.modalities.items()
    return {
        m for m, info in modalities if m == "text" or info.source.startswith(("glove:", "hf:", "tokens:"))
    }


def _format_sizes(sizes: Mapping[str, int]) -> str:
    return "/".join(map(str, sizes.values()))
