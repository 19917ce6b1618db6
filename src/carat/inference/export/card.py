"""What an exported file says of itself: all that is needed to use it alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from carat.inference.predictor import Predictor
from carat.runs.folder import WEIGHTS
from carat.utils.errors import ExportError
from carat.utils.version import version


def describe_inputs(predictor: Predictor) -> dict[str, str]:
    """Name of every input, in order, with shape and type.

    Raises:
        ExportError: two would have the same name.
    """
    inputs: dict[str, str] = {}
    for m, width in predictor.widths.items():
        longest = predictor.model.max_length[m]
        kind = "float32" if predictor.card.modalities[m].tokens is None else "int64"
        named = {m: f"(B, T ≤ {longest}, {width}) {kind}", f"{m}_mask": f"(B, T ≤ {longest}) bool"}
        taken = named.keys() & (inputs.keys() | describe_outputs(predictor).keys())
        if taken:
            raise ExportError(f"{predictor.folder}: two inputs or outputs would be named '{min(taken)}'")
        inputs |= named
    return inputs


def describe_outputs(predictor: Predictor) -> dict[str, str]:
    """Name of every output, in order, with shape and type."""
    size = f"(B, {len(predictor.labels)})"
    return {"scores": f"{size} float32", "attribution": f"{size} int64"}


def describe(predictor: Predictor, int8: bool, f1: Mapping[str, Any] | None) -> dict[str, Any]:
    """The description as plain data.

    Args:
        predictor: the run.
        int8: whether the file is quantised.
        f1: what was measured on data, if it was.
    """
    card = predictor.card
    notes = [
        "a label is present where its score is above its threshold",
        "attribution counts modalities in the order given here; every sample needs one at least",
    ]
    modalities: list[dict[str, Any]] = []
    for m, known in card.modalities.items():
        transform = known.transform if known.transform and known.transform.changes_values else None
        modalities.append(
            {
                "name": m,
                "width": known.width,
                "max_length": predictor.model.max_length[m],
                "pad_to": known.pad_to,
                "transform": transform.model_dump() if transform else None,
                "tokenizer": known.tokens.tokenizer if known.tokens else None,
            }
        )
        if known.tokens:
            notes.append(
                f"{m}: token ids by the tokenizer.json whose SHA-256 is {known.tokens.tokenizer}, special "
                f"tokens included, {known.tokens.longest} at most"
            )
            if known.tokens.context:
                notes.append(
                    f"{m}: beside each id, 0 for the text's own tokens, which come first, and 1 for its "
                    f"context: at most {known.tokens.context} tokens of what was said before it, the closing "
                    f"special token, as many of what was said after it, the closing token again; nothing "
                    f"where nothing was said"
                )
        if transform:
            notes.append(
                f"{m}: features as the extractor gave them must be transformed: leave out drop_columns, then "
                f"(x - mean) / deviation where there is a mean, 0 for inf and NaN"
            )
        if known.pad_to:
            notes.append(f"{m}: a shorter sequence gets zeros up to step {known.pad_to}, with mask True")
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
