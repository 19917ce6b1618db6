"""Compatibility of data with a run, and of runs with earlier versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from carat.utils.errors import DataError

if TYPE_CHECKING:
    from carat.data.store.manifest import ModalityInfo, Tokens
    from carat.runs.card import ModalityCard, RunCard

T = TypeVar("T")

RENAMED_LAYERS = {
    "widen": "linear1",
    "narrow": "linear2",
    "attended": "out_proj",
    "attention_norm": "norm1",
    "output_norm": "norm2",
}
"""Current names of the parts of Transformer layers by their names in schema 1."""


def rename_weights(state: Mapping[str, T]) -> dict[str, T]:
    """Rename the weights of a schema 1 state dictionary to current names.

    >>> rename_weights({"method.model.encoder.text.layers.0.widen.bias": 1, "queue.rows": 2})
    {'model.network.encoder.text.layers.0.linear1.bias': 1, 'memory_bank.rows': 2}
    """
    return {rename_weight(name): value for name, value in state.items()}


def rename_weight(name: str) -> str:
    """Return the current name of a schema 1 weight."""
    if name.startswith("method."):  # the model behind pretrained encoders
        return f"model.{rename_weight(name.removeprefix('method.'))}"
    name = re.sub(r"^model\.", "network.", name)
    name = re.sub(r"^queue\.", "memory_bank.", name)
    return re.sub(
        rf"(^|\.)({'|'.join(RENAMED_LAYERS)})\.", lambda match: f"{match[1]}{RENAMED_LAYERS[match[2]]}.", name
    )


def check_fit(
    run: str, card: RunCard, store: str, labels: list[str] | None, modalities: Mapping[str, ModalityInfo]
) -> None:
    """Check that data is compatible with a run.

    Args:
        run: name of the run, for messages.
        card: card of the run.
        store: name of the data, for messages.
        labels: label names of the data; None if it is unlabeled.
        modalities: modalities of the data.

    Raises:
        DataError: labels, widths, tokenizers or sampling rates differ, or no modality is in common.
    """
    if labels is not None and labels != card.labels:
        raise DataError(
            f"{store}: labels {', '.join(labels)}, but the run {run} was trained on {', '.join(card.labels)}"
        )
    for m in card.modalities.keys() & modalities.keys():
        actual, expected = modalities[m], card.modalities[m]
        _check_context(run, store, m, actual.tokens, expected.tokens)
        if _input_kind(actual) != _input_kind(expected):
            raise DataError(
                f"{store}: {m} holds {_content(actual)}, but the run {run} was trained on "
                f"{_content(expected)}"
            )
        if actual.width != expected.width:
            raise DataError(
                f"{store}: {m} has width {actual.width}, but the run {run} was trained on {expected.width}"
            )
    if not card.modalities.keys() & modalities.keys():
        raise DataError(f"{store}: the data has none of the run's modalities ({', '.join(card.modalities)})")


def difference_notes(card: RunCard, modalities: Mapping[str, ModalityInfo]) -> list[str]:
    """Describe how the modalities of data differ from those that a run was trained on, one line each."""
    notes = []
    for m, expected in card.modalities.items():
        if m not in modalities:
            notes.append(f"the store has no {m}: it is absent from every sample")
            continue
        actual = modalities[m]
        if actual.source != expected.source:
            notes.append(f"{m} comes from {actual.source}, but the run was trained on {expected.source}")
        if actual.transform != expected.transform:
            notes.append(
                f"{m} was cleaned by other rules or statistics than the training data, so that scores may be "
                "wrong; to clean as in training, score the features as extracted (--raw)"
            )
    return notes


def _check_context(run: str, store: str, m: str, actual: Tokens | None, expected: Tokens | None) -> None:
    """Check that tokens of the run's tokenizer have the same length of context."""
    if actual is None or expected is None or actual.tokenizer != expected.tokenizer:
        return
    if actual.context != expected.context:
        stored, trained = (
            f"{x.context} tokens of context on each side" if x.context else "no context"
            for x in (actual, expected)
        )
        raise DataError(
            f"{store}: {m} has {stored}, but the run {run} was trained with {trained}; build the store "
            f"with a recipe that sets context: {expected.context}"
        )


def _input_kind(modality: ModalityInfo | ModalityCard) -> tuple[str | None, int | None]:
    """Tokenizer and sampling rate; both None for features."""
    tokens, waveform = modality.tokens, modality.waveform
    return tokens.tokenizer if tokens else None, waveform.rate if waveform else None


def _content(modality: ModalityInfo | ModalityCard) -> str:
    """Content of a modality, for messages."""
    if modality.tokens is not None:
        return f"tokens of the tokenizer {modality.tokens.tokenizer[:12]}"
    if modality.waveform is not None:
        return f"audio sampled at {modality.waveform.rate} Hz"
    return "features"
