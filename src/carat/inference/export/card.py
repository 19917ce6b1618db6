"""Description embedded in an exported file: everything that is needed to use it without carat."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from carat.data.store.transform import Transform
from carat.inference.predictor import Predictor
from carat.runs.folder import WEIGHTS
from carat.utils.errors import ExportError
from carat.utils.version import version


def describe_inputs(predictor: Predictor) -> dict[str, str]:
    """Shape and type of each input by name, in order.

    Raises:
        ExportError: two inputs or outputs would have the same name.
    """
    inputs: dict[str, str] = {}
    for m, width in predictor.widths.items():
        max_length = predictor.model.max_length[m]
        dtype = "float32" if predictor.card.modalities[m].tokens is None else "int64"
        specs = {m: f"(B, T ≤ {max_length}, {width}) {dtype}", f"{m}_mask": f"(B, T ≤ {max_length}) bool"}
        duplicates = specs.keys() & (inputs.keys() | describe_outputs(predictor).keys())
        if duplicates:
            raise ExportError(f"{predictor.folder}: two inputs or outputs would be named '{min(duplicates)}'")
        inputs |= specs
    return inputs


def describe_outputs(predictor: Predictor) -> dict[str, str]:
    """Shape and type of each output by name, in order."""
    size = f"(B, {len(predictor.labels)})"
    return {"scores": f"{size} float32", "attribution": f"{size} int64"}


def describe(predictor: Predictor, int8: bool, f1: Mapping[str, Any] | None) -> dict[str, Any]:
    """Describe an exported run as plain data.

    Args:
        predictor: predictor of the run.
        int8: whether the file is quantized.
        f1: split and F1 by kind of arithmetic, if measured.

    Returns:
        Data that can be serialized as JSON.
    """
    card = predictor.card
    notes = [
        "a label is predicted if its score is greater than its threshold",
        "attribution holds indices of modalities, in the order listed here; at least one must be present in "
        "each sample",
    ]
    modalities: list[dict[str, Any]] = []
    for m, info in card.modalities.items():
        transform = info.transform
        modalities.append(
            {
                "name": m,
                "width": info.width,
                "max_length": predictor.model.max_length[m],
                "pad_to": info.pad_to,
                "transform": transform.model_dump() if transform else None,
                "tokenizer": info.tokens.tokenizer if info.tokens else None,
            }
        )
        if info.tokens:
            notes.append(
                f"{m}: token IDs from the tokenizer.json with SHA-256 {info.tokens.tokenizer}, including "
                f"special tokens, at most {info.tokens.longest}"
            )
            if info.tokens.context:
                notes.append(
                    f"{m}: each ID is paired with a token type, 0 for the text and then 1 for its context: "
                    f"at most {info.tokens.context} tokens before the text, the closing special token, at "
                    f"most {info.tokens.context} tokens after the text, the closing special token; no tokens "
                    f"of type 1 if there is no context"
                )
        if transform:
            notes.append(f"{m}: features as extracted must be cleaned: {_describe(transform)}")
        if info.pad_to:
            notes.append(f"{m}: pad shorter sequences with zeros to {info.pad_to} steps, with mask True")
    return {
        "carat": version(),
        "weights": hashlib.sha256((predictor.folder / WEIGHTS).read_bytes()).hexdigest(),
        "store": card.store,
        "fingerprint": card.fingerprint,
        "int8": int8,
        "labels": card.labels,
        "thresholds": card.thresholds,
        "modalities": modalities,
        "inputs": describe_inputs(predictor),
        "outputs": describe_outputs(predictor),
        "f1": f1,
        "notes": notes,
    }


def _describe(transform: Transform) -> str:
    """Describe the steps of a transform, in order."""
    steps = ["remove drop_columns"] if transform.drop_columns else []
    if transform.padding == "strip":
        steps.append("remove steps of zeros before and after the sequence")
    if transform.mean:
        steps.append("compute (x - mean) / deviation")
    steps.append("replace inf and NaN by 0")
    absent = "all inf or NaN" if transform.padding == "none" else "all zeros, inf or NaN"
    return f"{', '.join(steps)}; a modality whose values are {absent} is absent"
