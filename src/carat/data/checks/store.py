"""Is a store what it should be? Each check gives a verdict and says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from carat.data.checks.features import (
    DRAWN,
    NAMES,
    Context,
    Verdict,
    constant_columns,
    leakage,
    non_finite_values,
    padding,
    raw_width,
    repeats,
    shift_between,
    some,
    spearman,
    survey,
    time_stamps,
)
from carat.data.corpora.dialogues import M3ED
from carat.data.corpora.label_table import MOSEI
from carat.data.recipes.sources.glove import tokenize
from carat.data.store.store import SPLIT, TRANSCRIPTS, Store
from carat.data.summary import leakage_notes
from carat.utils.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    """Short name, e.g. "labels against published"."""
    verdict: Verdict
    message: str
    """One line: what was found, what is expected, what to do."""


@dataclass(frozen=True)
class Published:
    """Numbers of a published data set."""

    labels: tuple[str, ...]
    """In their published order."""
    sizes: Mapping[str, int]
    """By split."""
    unit: Literal["samples", "dialogues"] = "samples"
    """What the sizes count; dialogues are groups."""
    positives: tuple[int, ...] = ()
    """Of each label in test; empty when unknown."""


PUBLISHED = {
    "mosei": Published(
        MOSEI, {"train": 16326, "valid": 1871, "test": 4659}, positives=(2502, 1129, 1071, 441, 805, 385)
    ),
    "m3ed": Published(M3ED, {"train": 685, "valid": 126, "test": 179}, unit="dialogues"),
}
WIDTHS = {"visual": (35, 342, 709, 713), "audio": (74, 1024, 1582)}
"""Of well-known extractors; on its own, 1024 is no sign of audio, image encoders have it too."""
SAID_AGAIN = 10
"""Steps from which on equal texts count: shorter sentences are often said twice."""


def check_store(store: Store, known: str | None = None) -> list[Finding]:
    """Examine a store: content, splits, labels, features, and how they belong together.

    Every feature is read once, in blocks. Time stamps and leakage are looked for in at most 5000 samples of a
    modality, drawn with a fixed seed, and transcripts are compared for at most 5000.

    Args:
        store: as opened.
        known: published data set that the store must equal, "mosei" or "m3ed"; when None it is recognised by
            its labels, and a store of other size is only warned about.

    Returns:
        One finding per check, always in the same order.

    Raises:
        DataError: `known` is no published data set that is known here.
    """
    if known is not None and known not in PUBLISHED:
        hint = did_you_mean(known, PUBLISHED) or f"; known are: {', '.join(PUBLISHED)}"
        raise DataError(f"no published numbers of '{known}'{hint}")
    surveys = {m: survey(store, m) for m in store.modalities}
    splits = {split: store.indices(split) for split in store.manifest.splits}
    context = Context(store, known, surveys, splits)
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            verdict, message = check(context)
        except (DataError, IndexError, ValueError):
            if not findings or findings[0].verdict == "ok":
                raise
            verdict, message = "fail", "cannot be examined, the content is altered"
        findings.append(Finding(name, verdict, " ".join(message.split())))
    return findings


def _content(c: Context) -> tuple[Verdict, str]:
    try:
        c.store.verify()
    except DataError as error:
        return "fail", f"{error}; build the store again"
    return "ok", f"all {len(c.store.manifest.files)} files are as the manifest says"


def _splits(c: Context) -> tuple[Verdict, str]:
    lacking = [split for split in ("train", "valid", "test") if not len(c.splits.get(split, ()))]
    if not lacking:
        return "ok", ", ".join(f"{split} {len(rows)}" for split, rows in c.splits.items())
    found = f"no samples of {some(lacking)}; a store needs train, valid and test"
    return "fail" if "train" in lacking else "warn", found


def _labels_against_published(c: Context) -> tuple[Verdict, str]:
    named = tuple(name.casefold() for name in c.store.label_names)
    recognised = (name for name, published in PUBLISHED.items() if set(published.labels) == set(named))
    known = c.known or next(recognised, None)
    made_up = all(info.source.startswith("synthetic:") for info in c.store.manifest.modalities.values())
    if known is None or (c.known is None and made_up):
        return "ok", "no published numbers for these labels"
    published = PUBLISHED[known]
    if set(named) != set(published.labels):
        return "fail", f"labels are {', '.join(named)}; {known} has {', '.join(published.labels)}"
    sizes = {split: len(rows) for split, rows in c.splits.items()}
    if published.unit == "dialogues":
        sizes = {split: len(np.unique(c.store.groups[rows])) for split, rows in c.splits.items()}
    wrong = []
    if sizes != published.sizes:
        wrong.append(
            f"not the published data set: {_sizes(sizes)} {published.unit}, {known} has "
            f"{_sizes(published.sizes)}; do not compare scores with published ones"
        )
    elif published.positives:
        positives = np.asarray(c.store.labels)[c.splits["test"]].sum(0, dtype=int)
        found = [int(positives[named.index(label)]) for label in published.labels]
        expected = list(published.positives)
        if found != expected and sorted(found) == sorted(expected):
            pairs = zip(published.labels, found, strict=True)
            moved = [(a, published.labels[expected.index(n)]) for a, n in pairs]
            swaps = [f"'{a}' has the positives of '{b}'" for a, b in moved if a != b]
            return "fail", f"labels are in another order: {some(swaps)}; name them in the right order"
        if found != expected:
            wrong.append(f"positives in test are {_counts(named, positives)}, not those of {known}")
    if named != published.labels:
        wrong.append(f"labels are ordered {', '.join(named)}, {known} has {', '.join(published.labels)}")
    if wrong:
        return "fail" if c.known else "warn", "; ".join(wrong)
    return "ok", f"as published for {known}"


def _label_frequencies(c: Context) -> tuple[Verdict, str]:
    names = c.store.label_names
    share = {s: np.asarray(c.store.labels)[rows].mean(0) for s, rows in c.splits.items() if len(rows)}
    if "train" not in share:
        return "ok", "no train split to look at"
    train = share.pop("train")
    for what, value in (("never", 0), ("always", 1)):
        if which := [f"'{name}'" for name, x in zip(names, train, strict=True) if x == value]:
            return "warn", f"train {what} has {some(which)}: nothing can be learned of it; check the labels"
    for split, other in share.items():
        order = np.empty(len(names), dtype=int)
        order[np.argsort(other)] = np.argsort(train)
        apart, closest = np.abs(other - train).max(), np.abs(other - train[order]).max()
        if min(len(c.splits[split]), len(c.splits["train"])) >= 100 and apart > 0.1 and closest < 0.03:
            swaps = [f"'{names[i]}' is as frequent as '{names[j]}'" for i, j in enumerate(order) if i != j]
            return "warn", f"labels of {split} look ordered unlike those of train: {some(swaps)}"
    return "ok", f"in train {_counts(names, (100 * train).round().astype(int), '%')}"


def _samples_without_labels(c: Context) -> tuple[Verdict, str]:
    none = np.asarray(c.store.labels).sum(1) == 0
    share = {split: float(none[rows].mean()) for split, rows in c.splits.items() if len(rows)}
    found = ", ".join(f"{split} {x:.0%}" for split, x in share.items())
    if max(share.values()) > 0.6:
        return "warn", f"many samples without labels: {found}; check how the labels were read"
    compared = [x for split, x in share.items() if len(c.splits[split]) >= 50]
    if compared and max(compared) - min(compared) > 0.2:
        return "warn", f"splits differ in samples without labels: {found}; was one labelled otherwise?"
    return "ok", found


def _duplicated_samples(c: Context) -> tuple[Verdict, str]:
    texts = _texts(c.store)
    keys = {m: np.where(s.moving, s.digest, 0) for m, s in c.surveys.items() if s.moving.any()}
    for m in texts & set(keys):
        keys[m][c.surveys[m].own < SAID_AGAIN] = 0
    split = np.asarray(c.store.array(SPLIT))
    others = [m for m in c.surveys if m not in texts]
    if not keys or (others and not set(others) & set(keys)):
        keys["features"] = _all_together(c, others or c.surveys, split)
    lenient = set(keys) if not others else texts
    sizes = np.array([len(rows) for rows in c.splits.values()])
    across, within, said = [], [], 0
    for m, key in keys.items():
        pairs, rows = repeats(key, split)
        inside = len(pairs)
        if len(rows):
            i, j = (f"'{c.store.ids[r]}' ({list(c.splits)[split[r]]})" for r in rows[:2])
            share = np.bincount(split[rows], minlength=len(sizes)) / np.maximum(sizes, 1)
            if m in lenient and (share.max() < 0.02 or len(rows) < 6):
                said += len(rows)
            else:
                across.append(f"{i} and {j} have the same {m} ({len(rows)} such samples)")
        if inside and (m not in lenient or inside >= 0.02 * len(split)):
            i, j = (f"'{c.store.ids[r]}'" for r in pairs[0])
            within.append(f"{inside} samples repeat the {m} of another, e.g. {i} and {j}")
    if across:
        return "fail", f"{'; '.join(across)}: take them out of one split"
    if within:
        return "warn", f"{'; '.join(within)}, of the same split: leave out the copies"
    return "ok", f"{said} samples have the words of one in another split, no more" if said else "none"


def _all_together(c: Context, telling: Iterable[str], split: NDArray[Any]) -> NDArray[Any]:
    """(N,) equal where all modalities are equal; 0 without a telling one, and for all but one of a group.

    For modalities of one step per sample, which the samples of a group may share.
    """
    digests = np.stack([s.digest for s in c.surveys.values()], axis=1)
    chosen = np.any([c.surveys[m].digest != 0 for m in telling], axis=0)
    key = np.where(chosen, np.unique(digests, axis=0, return_inverse=True)[1].ravel() + 1, 0)
    group = np.unique(c.store.groups, return_inverse=True)[1]
    once = np.unique(np.stack([key, split, group]), axis=1, return_index=True)[1]
    return np.where(np.isin(np.arange(len(key)), once), key, 0)


def _groups_in_two_splits(c: Context) -> tuple[Verdict, str]:
    if found := leakage_notes(c.store):
        return "fail", f"{found[0]}: scores flatter; split by group"
    return "ok", f"{len(np.unique(c.store.groups))} groups, each in one split"


def _identical_modalities(c: Context) -> tuple[Verdict, str]:
    equal = []
    for (a, x), (b, y) in combinations(c.surveys.items(), 2):
        both = (x.digest != 0) & (y.digest != 0)
        if both.any() and (share := float((x.digest == y.digest)[both].mean())) > 0.5:
            equal.append(f"{b} equals {a} in {share:.0%} of the samples that have both")
    return ("fail", f"{'; '.join(equal)}: read each from its own file") if equal else ("ok", "none")


def _swapped_modalities(c: Context) -> tuple[Verdict, str]:
    widths = {m: raw_width(c.store, m) for m in c.store.modalities}
    odd = {}
    for kind, other in (("visual", "audio"), ("audio", "visual")):
        for m in widths:
            if m.casefold() in NAMES[kind] and widths[m] in WIDTHS[other]:
                odd[kind] = f"{m} has width {widths[m]}, which is known of {other}"
    if len(odd) == 2:
        return "fail", f"audio and visual look swapped by width: {', '.join(odd.values())}; swap the files"
    if odd and not any(widths[m] == 1024 for m in widths if m.casefold() in NAMES["visual"]):
        return "warn", f"{next(iter(odd.values()))}; check where it comes from"
    return "ok", "no width says so"


def _pairing(c: Context) -> tuple[Verdict, str]:
    wrong = []
    varied = {m: x for m in c.store.modalities if (x := c.store.lengths(m))[x > 0].std() > 0}
    for (a, x), (b, y) in combinations(varied.items(), 2):
        for split, rows in c.splits.items():
            fit = shift_between(x[rows], y[rows], furthest=5, enough=50)
            if fit and fit[2] < 0.3 and fit[1] > 0.6:
                then = f"correlation of lengths {fit[1]:.2f} then, {fit[2]:.2f} as they are"
                wrong.append(f"{a} is shifted by {fit[0]} against {b} in {split} ({then})")
    if wrong:
        return "fail", f"{some(wrong)}: pair the files by id"
    rows = np.arange(0, len(c.store), max(-(-len(c.store) // DRAWN), 1))
    for m in varied if TRANSCRIPTS in c.store.manifest.files else ():
        if not c.store.manifest.modalities[m].source.startswith("glove"):
            continue
        words = np.array([len(tokenize(c.store.transcript(int(row)))) for row in rows])
        steps = varied[m][rows]
        both = (words > 0) & (steps > 0)
        if both.sum() < 50 or not words[both].std() or not steps[both].std():
            continue
        fits = spearman(words[both], steps[both])
        if fits < 0.5:
            return "fail", (
                f"{m} features do not belong to these transcripts: lengths correlate by {fits:.2f} only; "
                "pair them by id"
            )
    return "ok", "lengths give no sign of a shift"


CHECKS: dict[str, Callable[[Context], tuple[Verdict, str]]] = {
    "content": _content,
    "splits": _splits,
    "labels against published": _labels_against_published,
    "label frequencies": _label_frequencies,
    "samples without labels": _samples_without_labels,
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


def _texts(store: Store) -> set[str]:
    """Modalities that are functions of the words: the same sentence gives the same features."""
    modalities = store.manifest.modalities.items()
    return {
        m for m, info in modalities if m == "text" or info.source.startswith(("glove:", "hf:", "tokens:"))
    }


def _sizes(sizes: Mapping[str, int]) -> str:
    return "/".join(map(str, sizes.values()))


def _counts(names: Sequence[str], counts: NDArray[Any], unit: str = "") -> str:
    return ", ".join(f"{name} {count}{unit}" for name, count in zip(names, counts.tolist(), strict=True))
