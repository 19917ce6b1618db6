from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from carat.data.checks import store as check
from carat.data.checks.store import CHECKS, Finding, Published, check_store
from carat.data.store import Store, open_store
from carat.data.store.transform import Transform
from carat.data.store.writer import StoreWriter
from carat.data.synthetic import make_synthetic
from carat.utils.errors import DataError

LABELS = ["calm", "glad", "cross", "shy", "bored"]
FREQUENCY = [0.6, 0.4, 0.25, 0.14, 0.07]
SIZES = {"train": 211, "valid": 103, "test": 107}
WIDTHS = {"text": 7, "visual": 11, "audio": 13}
SOURCES = {"text": "glove:0123", "visual": "face", "audio": "voice"}
GROUP = 3


@dataclass
class Row:
    id: str
    split: str
    labels: NDArray[Any]
    features: dict[str, NDArray[Any]]
    group: str
    transcript: str


def good_rows(sizes: dict[str, int] = SIZES, frequency: Sequence[float] = FREQUENCY) -> list[Row]:
    """Samples without any problem: exact label frequencies, correlated lengths, groups of three."""
    random = np.random.default_rng(5)
    rows = []
    for split, size in sizes.items():
        marks = [random.permutation(size) < round(f * size) for f in frequency]
        for i, labels in enumerate(np.stack(marks, axis=1).astype(int)):
            words = int(random.integers(4, 31))
            lengths = {"text": words, "visual": 2 * words + random.integers(5), "audio": 3 * words}
            features = {m: random.normal(size=(lengths[m], WIDTHS[m])) for m in WIDTHS}
            transcript = " ".join(random.choice(["well", "they", "went", "home"], words))
            rows.append(Row(f"{split}{i}", split, labels, features, f"{split}-g{i // GROUP}", transcript))
    return rows


def write(
    path: Path,
    rows: Sequence[Row],
    labels: Sequence[str] = LABELS,
    sources: dict[str, str] = SOURCES,
    transforms: dict[str, Transform] | None = None,
) -> Store:
    splits = list(dict.fromkeys(row.split for row in rows))
    with StoreWriter(path / "store", "made", labels, sources, splits, non_finite=["audio"]) as writer:
        for row in rows:
            writer.append(
                row.id, row.split, row.labels, row.features, group=row.group, transcript=row.transcript
            )
        writer.transforms |= transforms or {}
    return open_store(path / "store")


def problems(findings: Sequence[Finding]) -> dict[str, Finding]:
    """Findings that are not ok, by check."""
    assert [finding.check for finding in findings] == list(CHECKS)
    for finding in findings:
        assert finding.message
        assert "\n" not in finding.message
    return {finding.check: finding for finding in findings if finding.verdict != "ok"}


def expect(findings: Sequence[Finding], name: str, verdict: str, message: str) -> None:
    """Assert that one check alone reports a problem, with this verdict and message."""
    by_check = problems(findings)
    assert list(by_check) == [name]
    assert by_check[name].verdict == verdict
    assert re.search(message, by_check[name].message), by_check[name].message


def finding(store: Store, name: str) -> Finding:
    """Run the checks and return one finding."""
    return next(x for x in check_store(store) if x.check == name)


def of(rows: Sequence[Row], split: str) -> list[Row]:
    """The rows of a split."""
    return [row for row in rows if row.split == split]


def lacks_valid(rows: list[Row]) -> None:
    rows[:] = [row for row in rows if row.split != "valid"]


def lacks_train(rows: list[Row]) -> None:
    rows[:] = [row for row in rows if row.split != "train"]


def never(rows: list[Row]) -> None:
    for row in of(rows, "train"):
        row.labels[3] = 0


def always(rows: list[Row]) -> None:
    for row in of(rows, "train"):
        row.labels[1] = 1


def reordered_in_test(rows: list[Row]) -> None:
    for row in of(rows, "test"):
        row.labels = row.labels[[1, 0, 2, 3, 4]]


def few_labels(rows: list[Row]) -> None:
    for i, row in enumerate(rows):
        row.labels = row.labels if i % 3 == 0 else 0 * row.labels


def few_labels_in_valid(rows: list[Row]) -> None:
    for row in of(rows, "valid")[::2]:
        row.labels = 0 * row.labels


def copied_to_test(rows: list[Row]) -> None:
    of(rows, "test")[17].features["visual"] = of(rows, "train")[23].features["visual"]


def copied_within(rows: list[Row]) -> None:
    for i in (3, 31):
        of(rows, "train")[i].features["audio"] = of(rows, "train")[2 * i].features["audio"]


def one_step(rows: list[Row]) -> None:
    for row in rows:
        row.features = {m: x[:1] for m, x in row.features.items()}
        row.transcript = ""


def one_step_copied(rows: list[Row]) -> None:
    one_step(rows)
    of(rows, "test")[2].features = of(rows, "train")[5].features


def texts_copied(rows: list[Row]) -> None:
    for i in range(0, 40, 2):
        a, b = of(rows, "train")[i], of(rows, "test")[i]
        a.transcript = b.transcript = "well " * 20
        a.features["text"] = b.features["text"] = np.random.default_rng(i).normal(size=(20, 7))
    one_vector_per_group(rows)


def group_in_two_splits(rows: list[Row]) -> None:
    of(rows, "test")[0].group = of(rows, "valid")[0].group


def same_modality_twice(rows: list[Row]) -> None:
    for row in rows:
        row.features["visual"] = row.features["audio"]


def with_widths(visual: int, audio: int) -> Callable[[list[Row]], None]:
    def plant(rows: list[Row]) -> None:
        random = np.random.default_rng(7)
        for row in rows:
            for m, width in (("visual", visual), ("audio", audio)):
                row.features[m] = random.normal(size=(len(row.features[m]), width))

    return plant


def shifted(rows: list[Row]) -> None:
    visual = [row.features["visual"] for row in rows]
    for i, row in enumerate(rows):
        row.features["visual"] = visual[i - 2]


def other_transcripts(rows: list[Row]) -> None:
    transcripts = [row.transcript for row in rows]
    for i, row in enumerate(rows):
        row.transcript = transcripts[i - 50]


def not_a_number(rows: list[Row]) -> None:
    rows[19].features["audio"][3, 2] = np.nan
    rows[29].features["audio"][0, 5] = np.inf


def constant(columns: slice) -> Callable[[list[Row]], None]:
    def plant(rows: list[Row]) -> None:
        for row in rows:
            row.features["visual"][:, columns] = 3.5

    return plant


def time_stamp(rows: list[Row]) -> None:
    for row in rows:
        row.features["audio"][:, 4] = np.arange(len(row.features["audio"])) / 10 + len(row.id)


def leak(strength: float) -> Callable[[list[Row]], None]:
    def plant(rows: list[Row]) -> None:
        random = np.random.default_rng(2)
        for row in rows:
            row.features["visual"][:, 9] += 50 * (strength * row.labels[1] + random.normal())

    return plant


def padded(rows: list[Row]) -> None:
    for row in rows[::10]:
        row.features["audio"][-2:] = 0


PROBLEMS: list[tuple[Callable[[list[Row]], None], str, str, str]] = [
    (lacks_valid, "splits", "warn", "no samples in split valid; expected train, valid and test"),
    (lacks_train, "splits", "fail", "no samples in split train"),
    (never, "label frequencies", "warn", "train never has 'shy', which cannot be learned"),
    (always, "label frequencies", "warn", "train always has 'glad', which cannot be learned"),
    (
        reordered_in_test,
        "label frequencies",
        "warn",
        "label order in test seems to differ .*'calm' is as frequent as 'glad'",
    ),
    (few_labels, "samples without labels", "warn", "many samples without labels: train 72%, valid 72%"),
    (
        few_labels_in_valid,
        "samples without labels",
        "warn",
        r"splits differ in samples without labels: .* valid 5\d%",
    ),
    (copied_to_test, "duplicated samples", "fail", r"'train23' \(train\) and 'test17' \(test\) .* visual"),
    (copied_within, "duplicated samples", "warn", "2 samples repeat the audio of another, e.g. 'train"),
    (one_step_copied, "duplicated samples", "fail", "'train5' .* and 'test2' .* same features"),
    (texts_copied, "duplicated samples", "fail", r"same text \(40 such samples\)"),
    (
        group_in_two_splits,
        "groups in two splits",
        "fail",
        "1 group has .* e.g. 'valid-g0': scores will be optimistic",
    ),
    (same_modality_twice, "identical modalities", "fail", "audio equals visual in 100%"),
    (
        with_widths(74, 35),
        "swapped modalities",
        "fail",
        "audio and visual seem swapped: visual has width 74",
    ),
    (with_widths(1024, 74), "swapped modalities", "ok", ""),
    (with_widths(342, 1024), "swapped modalities", "ok", ""),
    (with_widths(74, 13), "swapped modalities", "warn", "visual has width 74, which is usual for audio"),
    (
        shifted,
        "pairing",
        "fail",
        "text is shifted by -2 against visual in train .*visual is shifted by 2 against",
    ),
    (other_transcripts, "pairing", "fail", "text features do not match the transcripts"),
    (not_a_number, "non-finite values", "fail", r"2 values of audio are inf or NaN \(columns 2, 5\)"),
    (constant(slice(6, 7)), "constant columns", "warn", "visual: column 6 of 11"),
    (constant(slice(0, 7)), "constant columns", "fail", "visual: columns 0, 1, 2, 3, 4 and 2 more of 11"),
    (time_stamp, "time stamps", "warn", "audio: column 4"),
    (leak(9), "leakage", "fail", r"column 9 of visual alone predicts 'glad' \(AUROC 1.00\)"),
    (leak(2.2), "leakage", "warn", r"column 9 of visual alone predicts 'glad' \(AUROC .9\d\)"),
    (padded, "padding", "warn", "10% of the audio sequences begin or end with zeros; .*--keep-padding"),
]


@pytest.mark.parametrize(
    ("plant", "name", "verdict", "message"),
    PROBLEMS,
    ids=[f"{problem[1]}-{i}" for i, problem in enumerate(PROBLEMS)],
)
def test_each_problem_is_reported_by_one_check(
    plant: Callable[[list[Row]], None], name: str, verdict: str, message: str, tmp_path: Path
) -> None:
    rows = good_rows()
    plant(rows)
    findings = check_store(write(tmp_path, rows))
    if verdict == "ok":
        assert not problems(findings)
    else:
        expect(findings, name, verdict, message)


def one_vector_per_group(rows: list[Row]) -> None:
    """The samples of a group share one visual and one audio vector."""
    shared: dict[str, dict[str, NDArray[Any]]] = {}
    for row in rows:
        first = {m: row.features[m][:1] for m in ("visual", "audio")}
        row.features |= shared.setdefault(row.group, first)


def repeated_texts(rows: list[Row]) -> None:
    """Short texts, here half of all, are repeated many times, and a long one a few times."""
    one_vector_per_group(rows)
    texts = [np.random.default_rng(n).normal(size=(n, 7)) for n in range(1, 30)]
    for i, row in enumerate(rows):
        steps = 3 + i % 5 if i % 2 else 20 if i % 211 == 0 else 0
        if steps:
            row.features["text"], row.transcript = texts[steps], "well " * steps


def missing(rows: list[Row]) -> None:
    random = np.random.default_rng(3)
    for row in rows:
        for m in random.permutation(list(WIDTHS))[: random.integers(3)]:
            del row.features[m]


def unknown_words(rows: list[Row]) -> None:
    """Words without a vector are zeros."""
    for row in rows:
        row.features["text"][-1] = 0


def no_face(rows: list[Row]) -> None:
    """A few clips of equal length have no face."""
    for row in rows[::150]:
        row.features["visual"] = np.zeros((23, 11))


@pytest.mark.parametrize(
    "change",
    [lambda rows: None, missing, one_vector_per_group, repeated_texts, one_step, unknown_words, no_face],
    ids=[
        "plain",
        "missing",
        "one vector per group",
        "repeated texts",
        "one step",
        "unknown words",
        "no face",
    ],
)
def test_no_problem_in_good_data(change: Callable[[list[Row]], None], tmp_path: Path) -> None:
    rows = good_rows()
    change(rows)
    assert not problems(check_store(write(tmp_path, rows)))


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_no_problem_in_the_benchmark(share: float, tmp_path: Path) -> None:
    assert not problems(check_store(make_synthetic(tmp_path / "store", samples=400, missing=share)))


@pytest.mark.parametrize("name", ["features/audio.npy", "labels.npy", "split.npy", "transcripts.npy"])
def test_altered_content_fails_and_the_other_checks_run(name: str, tmp_path: Path) -> None:
    store = write(tmp_path, good_rows())
    with (store.folder / name).open("rb+") as file:
        file.seek(-1, 2)
        file.write(b"\xee")
    first = check_store(store)[0]  # opened before: opening it now refuses other labels and splits
    assert (first.check, first.verdict) == ("content", "fail")
    assert first.message.endswith(f"{name}: altered (SHA-256 mismatch); build the store again")


def published(rows: Sequence[Row]) -> Published:
    positives = np.sum([row.labels for row in of(rows, "test")], axis=0)
    return Published(tuple(LABELS), SIZES, positives=tuple(positives.tolist()))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Published:
    """The good samples as a published dataset, "ours"."""
    numbers = published(good_rows())
    monkeypatch.setattr(check, "PUBLISHED", {"ours": numbers})
    return numbers


def labels_finding(store: Store, known: str | None = None) -> tuple[str, str]:
    finding = check_store(store, known)[2]
    assert finding.check == "labels against published"
    return finding.verdict, finding.message


def test_published_dataset_is_recognized(known: Published, tmp_path: Path) -> None:
    store = write(tmp_path, good_rows())
    assert labels_finding(store) == labels_finding(store, "ours") == ("ok", "as published for ours")


def test_label_order_is_recognized_by_the_positives(known: Published, tmp_path: Path) -> None:
    rows = good_rows()
    for row in rows:
        row.labels = row.labels[[0, 1, 4, 3, 2]]
    verdict, message = labels_finding(write(tmp_path, rows))
    assert verdict == "fail"
    assert "'cross' has the positives of 'bored', 'bored' has the positives of 'cross'" in message


def test_reordered_labels_with_reordered_names(known: Published, tmp_path: Path) -> None:
    rows = good_rows()
    for row in rows:
        row.labels = row.labels[::-1]
    store = write(tmp_path, rows, labels=LABELS[::-1])
    verdict, message = labels_finding(store)
    assert verdict == "warn"
    assert message.startswith("label order is bored, shy, cross, glad, calm; ours has calm, glad")
    assert labels_finding(store, "ours")[0] == "fail"


def test_subset_is_a_warning_unless_the_dataset_is_given(known: Published, tmp_path: Path) -> None:
    store = write(tmp_path, good_rows()[2:])
    verdict, message = labels_finding(store)
    assert verdict == "warn"
    assert "not the published dataset: 209/103/107 samples, but ours has 211/103/107" in message
    assert labels_finding(store, "ours")[0] == "fail"


def test_other_positives(known: Published, tmp_path: Path) -> None:
    rows = good_rows()
    of(rows, "test")[0].labels = 1 - of(rows, "test")[0].labels
    verdict, message = labels_finding(write(tmp_path, rows))
    assert verdict == "warn"
    assert "positives in test are calm" in message


def test_dialogues_are_counted_by_group(
    known: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {split: -(-size // GROUP) for split, size in SIZES.items()}
    numbers = replace(known, sizes=sizes, unit="dialogues", positives=())
    monkeypatch.setattr(check, "PUBLISHED", {"ours": numbers})
    assert labels_finding(write(tmp_path, good_rows()), "ours")[0] == "ok"


def test_labels_of_another_dataset(tmp_path: Path) -> None:
    store = write(tmp_path, good_rows())
    assert labels_finding(store) == ("ok", "no published statistics for these labels")
    verdict, message = labels_finding(store, "mosei")
    assert verdict == "fail"
    assert message.endswith("mosei has happy, sad, anger, surprise, disgust, fear")
    with pytest.raises(DataError, match="no published statistics of 'mosie'; did you mean 'mosei'"):
        check_store(store, "mosie")


def test_facet_is_mentioned_and_openface_is_not(tmp_path: Path) -> None:
    rows = good_rows()
    with_widths(35, 74)(rows)
    store = write(tmp_path / "facet", rows)
    assert not problems(check_store(store))
    assert (
        "visual has the width of FACET, some of whose columns are emotion scores"
        in finding(store, "leakage").message
    )
    store = write(tmp_path / "openface", rows, sources=SOURCES | {"visual": "openface35"})
    assert finding(store, "leakage").message == "no column alone predicts a label"


def test_standardized_padding_is_detected(tmp_path: Path) -> None:
    rows = good_rows()
    transform = Transform(width=13, mean=[1.7] * 13, deviation=[0.3] * 13)
    for row in rows:
        row.features["audio"] = transform.clean(row.features["audio"], "audio").features
    for row in rows[::5]:
        row.features["audio"][0] = transform.clean(np.zeros((1, 13)), "audio").features
    findings = check_store(write(tmp_path, rows, transforms={"audio": transform}))
    expect(findings, "padding", "warn", "20% of the audio sequences")


def test_dropped_columns_do_not_hide_a_swap(tmp_path: Path) -> None:
    transforms = {
        "visual": Transform(width=74, drop_columns=list(range(63))),
        "audio": Transform(width=35, drop_columns=list(range(22))),
    }
    findings = check_store(write(tmp_path, good_rows(), transforms=transforms))
    expect(findings, "swapped modalities", "fail", "visual has width 74.* audio has width 35")
