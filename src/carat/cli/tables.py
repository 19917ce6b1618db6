"""Tables and JSON on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from carat.config.methods import find_method, method_names
from carat.utils.errors import ConfigError, printable, shorten
from carat.utils.tables import Table

if TYPE_CHECKING:  # imported lazily, since some tables need no PyTorch
    from carat.data.checks.store import Finding
    from carat.inference.clips.timeline import Timeline
    from carat.inference.prediction import Prediction

DIGITS = 4
SHOWN, STRONGEST = 8, 3
"""Number of segments of a clip that are printed, and of their labels, except for predicted ones."""
LONGEST = 200
"""Characters of a segment's text that are printed."""
VERDICTS = {"ok": "green", "warn": "yellow", "fail": "red"}
"""Colors of the verdicts of checks."""


def show_json(value: Any) -> None:
    """Print a value as JSON, with escapes for control characters beyond those that JSON demands."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print("".join(c if c == "\n" or printable(c) == c else json.dumps(c)[1:-1] for c in text))


def show_summary(summary: dict[str, Any]) -> None:
    """Print the summary of a store, see `carat.data.summary.summarize`."""
    print(printable(f"{summary['name']}: {summary['samples']} samples in {summary['groups']} groups"))
    print(f"fingerprint {summary['fingerprint']}" + (" (verified)" if "verified" in summary else ""))
    if summary["corpora"]:
        rows = [[name, *counts.values()] for name, counts in summary["corpora"].items()]
        Table(["corpus", *summary["splits"]], rows, "Corpora").show()
    for table in (_label_table(summary), _co_occurrence_table(summary), _modality_table(summary)):
        table.show()
    if summary["shared_groups"]:
        from carat.data.summary import describe_shared_groups

        print(printable(f"warning: {describe_shared_groups(summary['shared_groups'])}"))
    for m, modality in summary["modalities"].items():
        for line in modality["cleaning"]:
            print(printable(f"{m}: {line}"))
    for line in summary["notes"]:
        print(printable(line))


def _label_table(summary: dict[str, Any]) -> Table:
    splits, by_split = summary["splits"], summary["labels"]
    rows = [["samples", *splits.values()]]
    rows += [
        [name, *(_positives(by_split[s], name, splits[s]) for s in splits)]
        for name in summary["co_occurrence"]
    ]
    rows += [["labels per sample", *(by_split[s]["cardinality"] for s in splits)]]
    rows += [["fraction without label", *(by_split[s]["without_label"] for s in splits)]]
    return Table(["", *splits], rows, "Labels", DIGITS)


def _positives(labels: dict[str, Any], name: str, samples: int) -> int | str:
    """Positives of a label; if it is unknown in some samples, with the number of the others."""
    positives, known = labels["positives"][name], labels["known"][name]
    return positives if known == samples else f"{positives} of {known} known"


def _co_occurrence_table(summary: dict[str, Any]) -> Table:
    counts = summary["co_occurrence"]
    rows = [[label, *(others[other] for other in counts)] for label, others in counts.items()]
    return Table(["", *counts], rows, "Co-occurrence")


def _modality_table(summary: dict[str, Any]) -> Table:
    described = summary["modalities"]
    steps = next(iter(described.values()))["steps"]
    rows = [[key, *(x[key] for x in described.values())] for key in ("width", "dtype", "source")]
    rows += [[f"steps, {key}", *(x["steps"][key] for x in described.values())] for key in steps]
    rows += [[f"missing in {s}", *(x["missing"][s] for x in described.values())] for s in summary["splits"]]
    return Table(["", *described], rows, "Modalities")


def show_findings(findings: list[Finding]) -> None:
    """Print the verdicts of checks, one line each."""
    rows = [[finding.verdict, finding.check, finding.message] for finding in findings]
    Table(["verdict", "check", "message"], rows).show(align="left", bare=True, styles=VERDICTS)


def show_predictions(named: list[tuple[str, Prediction]]) -> None:
    """Print predictions with their IDs."""
    if not named:
        return
    names = list(named[0][1].scores)
    rows = [[id, *(f"{_score(x, name)} {x.attribution.get(name, '')}" for name in names)] for id, x in named]
    legend = "; then the attributed modality" if named[0][1].attribution else ""
    Table(["id", *names], rows, f"First predictions ({_mark(named[0][1])}{legend})").show()


def show_texts(predictions: list[Prediction]) -> None:
    """Print the scores of each text, the highest first, with the words to which they are attributed."""
    for prediction in predictions:
        ranked = sorted(prediction.scores, key=lambda name: -prediction.scores[name])
        rows = [
            [name, _score(prediction, name), ", ".join(prediction.words.get(name, []))] for name in ranked
        ]
        Table(
            ["label", f"score ({_mark(prediction)})", "attributed words"], rows, shorten(prediction.text)
        ).show()


def show_timeline(timeline: Timeline) -> None:
    """Print the first segments of a clip: when, what is said, and the scores of the strongest labels."""
    rows = []
    for segment in timeline.segments[:SHOWN]:
        prediction = segment.prediction
        ranked = sorted(prediction.scores, key=lambda name: -prediction.scores[name])
        ranked = ranked[: max(STRONGEST, len(prediction.labels))]
        scores = ", ".join(f"{name} {_score(prediction, name).strip()}" for name in ranked)
        said = f"{segment.speaker}: {segment.text}" if segment.speaker else segment.text
        said = said if len(said) <= LONGEST else f"{said[:LONGEST].rsplit(' ', 1)[0]} …"
        rows.append([f"{segment.start:.1f} – {segment.end:.1f} s", scores, said])
    more = f", first {SHOWN} of {len(timeline.segments)} segments" if len(timeline.segments) > SHOWN else ""
    title = f"{timeline.clip.file.name}{more}"
    Table(["time", "scores (* predicted)", "text"], rows, title).show(align="left")


def _mark(prediction: Prediction) -> str:
    return "and decision" if prediction.decisions else "* predicted"


def _score(prediction: Prediction, name: str) -> str:
    if prediction.decisions:
        return f"{prediction.scores[name]:.2f} {prediction.decisions[name]}"
    return f"{prediction.scores[name]:.2f}{' *' if name in prediction.labels else '  '}"


def show_methods() -> None:
    """Print every method with its summary, or with the error if its package cannot be imported."""
    rows = [[name, _summary(name)] for name in method_names()]
    Table(["name", "description"], rows, "Methods, for carat train --method NAME").show(align="left")


def _summary(name: str) -> str:
    try:
        return find_method(name).summary()
    except ConfigError as error:
        return str(error)


def show_method(name: str) -> None:
    """Print the summary, presets and keys of a method; keys are set with `--method.KEY`."""
    method = find_method(name)
    print(f"{name}: {method.summary()}")
    print(f"Presets: {', '.join(method.config_class().PRESETS)}. Keys and their defaults:")
    rows = list(_keys(method.default_config(), "method"))
    Table(["key", "default", "description"], rows).show(align="left")


def _keys(section: BaseModel, prefix: str) -> Iterator[list[str]]:
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{prefix}.{key}")
        else:
            yield [f"{prefix}.{key}", str(value), field.description or ""]
