"""The model card of a run, as JSON and as Markdown in the layout of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from carat.config.experiment import Experiment
from carat.runs.card import RunCard
from carat.runs.folder import MODEL_CARD, MODEL_CARD_JSON
from carat.utils.errors import RunError, printable
from carat.utils.files import write_atomically, write_json
from carat.utils.reading import read_json
from carat.utils.tables import Table, escape_markdown

UNKNOWN = "unknown"
NOT_MEASURED = "not measured"
AVERAGE = "average_precision"
SHOWN = ("micro_f1", "macro_f1", "weighted_f1", "accuracy", "precision", "recall", "hamming_loss")
"""Metrics of a card; those of labels are in a table of their own."""
USES = (
    "Research on the recognition of emotions that people show, and sorting or searching recordings of the "
    "kind that the model was trained on, with a person who checks what matters."
)
MISUSES = (
    "Decisions about single people: hiring, grading, policing, diagnosis, credit, surveillance. The labels "
    "are what annotators saw or heard, not what somebody feels. Laws restrict emotion recognition in some "
    "places, e.g. article 5 of the EU's AI Act at work and in education."
)
RISKS = (
    "People show emotions differently across cultures, languages, ages, genders and conditions, and "
    "annotators judge them differently. Results hold for data like the training data; results by group of "
    "people are in this card only if somebody measured them "
    "(`carat evaluate RUN --data STORE --by FILE:COLUMN`)."
)


def describe_model(
    name: str,
    card: RunCard,
    experiment: Experiment,
    environment: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None = None,
    license: str = UNKNOWN,
) -> dict[str, Any]:
    """Collect what a model card says.

    Args:
        name: name of the model.
        card: card of the run.
        experiment: its experiment.
        environment: content of `environment.json`; what early versions lack is unknown.
        evaluation: see `carat.evaluation.summary`; None if nothing was measured.
        license: license of the weights, by its name on the Hugging Face Hub.
    """
    packages = environment.get("packages")
    version = packages.get("carat", UNKNOWN) if isinstance(packages, dict) else UNKNOWN
    return {
        "name": name,
        "license": license,
        "library": f"carat {version}",
        "method": experiment.method.name,
        "labels": card.labels,
        "modalities": {
            m: {"width": x.width, "source": x.source or UNKNOWN} for m, x in card.modalities.items()
        },
        "parameters": environment.get("parameters"),
        "data": {
            "store": card.store or UNKNOWN,
            "fingerprint": card.fingerprint,
            "license": UNKNOWN,
            "origin": card.origin.run if card.origin else None,
        },
        "training": {
            "epoch": card.epoch,
            "epochs": environment.get("epochs"),
            "seed": experiment.seed,
            "seconds": environment.get("seconds"),
            "peak_gb": environment.get("peak_gb"),
            "processor": environment.get("processor") or UNKNOWN,
            "processes": environment.get("processes"),
            "threads": environment.get("threads"),
            "commit": environment.get("commit"),
            "carbon": NOT_MEASURED,
        },
        "uses": USES,
        "misuses": MISUSES,
        "risks": RISKS,
        "thresholds": card.thresholds,
        "evaluation": dict(evaluation) if evaluation else None,
        "calibration": _calibration(card),
        "notes": card.notes,
    }


def _calibration(card: RunCard) -> dict[str, Any] | None:
    if card.calibration is None:
        return None
    found = card.calibration
    return {
        "split": found.split,
        "store": found.store,
        "groups": found.groups,
        "labels": {name: {"kind": x.kind, "positives": x.positives} for name, x in found.labels.items()},
    }


def write_model_card(folder: Path, model: Mapping[str, Any]) -> None:
    """Write `model_card.json` and `model_card.md` of a run."""
    write_json(folder / MODEL_CARD_JSON, model)
    write_atomically(folder / MODEL_CARD, to_markdown(model))


def read_evaluation(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Read evaluation and license of the model card of a run; None and unknown if it has none.

    Raises:
        RunError: the card is damaged.
    """
    if not (folder / MODEL_CARD_JSON).is_file():
        return None, UNKNOWN
    content = read_json(folder / MODEL_CARD_JSON, RunError)
    if not isinstance(content, dict):
        raise RunError(f"{folder / MODEL_CARD_JSON}: expected a JSON object")
    evaluation, license = content.get("evaluation"), content.get("license")
    if evaluation is not None:
        try:
            list(_evaluation(evaluation))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{folder / MODEL_CARD_JSON}: damaged; --data measures anew") from error
    return evaluation, license if isinstance(license, str) else UNKNOWN


def to_markdown(model: Mapping[str, Any]) -> str:
    """Format a model card: YAML metadata, then sections as the Hub's template has them."""
    metadata = yaml.safe_dump(_metadata(model), sort_keys=False, allow_unicode=True)
    return f"---\n{metadata}---\n\n" + "\n\n".join(_sections(model)) + "\n"


def _metadata(model: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "license": model["license"],
        "library_name": "carat",
        "tags": ["emotion-recognition", "multi-label-classification", "multimodal", model["method"]],
        "metrics": ["f1", "accuracy"],
    }
    evaluation = model["evaluation"]
    if evaluation:
        task = {"type": "other", "name": "multi-label emotion recognition"}
        data = {"name": evaluation["store"], "type": evaluation["store"], "split": evaluation["split"]}
        metrics = [
            {"type": "f1", "name": name, "value": round(value["value"], 4)}
            for name, value in evaluation["metrics"].items()
            if name.endswith("f1") and value["value"] is not None
        ]
        if metrics:
            results = [{"task": task, "dataset": data, "metrics": metrics}]
            values["model-index"] = [{"name": model["name"], "results": results}]
    return values


def _sections(model: Mapping[str, Any]) -> Iterator[str]:
    name, data, training = escape_markdown(model["name"]), model["data"], model["training"]
    inputs = ", ".join(f"{m} ({x['width']}, {x['source']})" for m, x in model["modalities"].items())
    yield f"# {name}"
    yield (
        f"Scores {len(model['labels'])} emotions, several at once, from any subset of "
        f"{len(model['modalities'])} modalities."
    )
    yield "## Model Details"
    yield _list(
        {
            "Method": model["method"],
            "Labels": ", ".join(model["labels"]),
            "Modalities (width, source)": inputs,
            "Parameters": model["parameters"],
            "License": model["license"],
            "Library": model["library"],
        }
    )
    yield "## Uses"
    yield f"### Direct Use\n\n{model['uses']}"
    yield f"### Out-of-Scope Use\n\n{model['misuses']}"
    yield f"## Bias, Risks, and Limitations\n\n{model['risks']}"
    if model["notes"]:
        yield "\n".join(f"- {escape_markdown(note)}" for note in model["notes"])
    yield "## How to Get Started with the Model"
    yield '```python\nimport carat\n\npredictor = carat.load("path/of/this/folder")\n```'
    yield "## Training Details"
    yield _list(
        {
            "Data": data["store"],
            "Fingerprint of the data": data["fingerprint"],
            "License of the data": data["license"],
            "Started from": data["origin"],
            "Epoch": f"{training['epoch']} of {training['epochs'] or UNKNOWN}, chosen on validation",
            "Seed": training["seed"],
            "Commit": training["commit"],
        }
    )
    yield "## Evaluation"
    yield from _evaluation(model["evaluation"])
    yield "## Calibration"
    yield _calibration_text(model["calibration"])
    yield "## Environmental Impact"
    seconds = training["seconds"]
    yield _list(
        {
            "Hardware": training["processor"],
            "Processes": training["processes"],
            "Threads of each": training["threads"],
            "Time": UNKNOWN if seconds is None else f"{seconds} s",
            "Peak memory": UNKNOWN if training["peak_gb"] is None else f"{training['peak_gb']} GB",
            "Carbon emitted": training["carbon"],
        }
    )


def _evaluation(evaluation: Mapping[str, Any] | None) -> Iterator[str]:
    if not evaluation:
        yield "Not measured."
        return
    yield (
        f"Split {escape_markdown(str(evaluation['split']))} of {escape_markdown(str(evaluation['store']))}: "
        f"{evaluation['samples']} samples in {evaluation['groups']} groups. Intervals are 95 % bootstrap "
        "intervals over groups (videos, dialogues)."
    )
    rows = [[name, x["value"], *_ends(x)] for name, x in evaluation["metrics"].items()]
    yield Table(["metric", "value", "low", "high"], rows, digits=3).to_markdown()
    rows = [
        [name, x["positives"], x["f1"], *_ends(x), *(x[m] for m in ("precision", "recall", AVERAGE))]
        for name, x in evaluation["labels"].items()
    ]
    columns = ["label", "positives", "F1", "low", "high", "precision", "recall", "average precision"]
    yield Table(columns, rows, digits=3).to_markdown()
    if notes := evaluation.get("notes"):
        yield "\n".join(f"- {escape_markdown(str(note))}" for note in notes)


def _ends(value: Mapping[str, Any]) -> Sequence[Any]:
    return value.get("interval") or (None, None)


def _calibration_text(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return "Scores are not calibrated."
    rows = [[name, x["kind"], x["positives"]] for name, x in calibration["labels"].items()]
    table = Table(["label", "map", "positives"], rows).to_markdown()
    return (
        f"Learnt on split {escape_markdown(calibration['split'])} of "
        f"{escape_markdown(calibration['store'])}, {calibration['groups']} groups.\n\n{table}"
    )


def _list(values: Mapping[str, Any]) -> str:
    lines = ((name, value) for name, value in values.items() if value is not None)
    return "\n".join(f"- **{name}:** {escape_markdown(printable(str(value)))}" for name, value in lines)
