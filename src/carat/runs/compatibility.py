"""Whether data fits a run, and current names for the weights of runs written by earlier versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from carat.utils.errors import DataError

if TYPE_CHECKING:
    from carat.data.store.manifest import ModalityInfo, Tokens
    from carat.runs.card import ModalityCard, RunCard

T = TypeVar("T")

PARTS = {
    "widen": "linear1",
    "narrow": "linear2",
    "attended": "out_proj",
    "attention_norm": "norm1",
    "output_norm": "norm2",
}
"""Of Transformer layers, by their names in schema 1."""


def rename_weights(state: Mapping[str, T]) -> dict[str, T]:
    """A state dictionary of a schema 1 run by the names that models have today.

    >>> rename_weights({"method.model.encoder.text.layers.0.widen.bias": 1, "queue.rows": 2})
    {'model.network.encoder.text.layers.0.linear1.bias': 1, 'memory_bank.rows': 2}
    """
    return {rename_weight(name): value for name, value in state.items()}


def rename_weight(name: str) -> str:
    """The current name of one weight."""
    if name.startswith("method."):  # the model behind pretrained encoders
        return f"model.{rename_weight(name.removeprefix('method.'))}"
    name = re.sub(r"^model\.", "network.", name)
    name = re.sub(r"^queue\.", "memory_bank.", name)
    return re.sub(rf"(^|\.)({'|'.join(PARTS)})\.", lambda found: f"{found[1]}{PARTS[found[2]]}.", name)


def check_fit(
    run: str, card: RunCard, store: str, labels: list[str] | None, modalities: Mapping[str, ModalityInfo]
) -> None:
    """Refuse data that a run cannot read.

    Args:
        run: name of the run, for the error.
        card: what the run expects.
        store: name of the data, for the error.
        labels: label names of the data, None if it has none.
        modalities: the data's modalities.

    Raises:
        DataError: other labels, another width or tokenizer, or none of the run's modalities.
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
        raise DataError(
            f"{store}: none of the run's modalities ({', '.join(card.modalities)}) is in the data"
        )


def _check_context(run: str, store: str, m: str, actual: Tokens | None, expected: Tokens | None) -> None:
    """Refuse tokens of the run's tokenizer that were read with another length of context."""
    if actual is None or expected is None or actual.tokenizer != expected.tokenizer:
        return
    if actual.context != expected.context:
        read, learned = (
            f"{x.context} tokens of context on either side" if x.context else "no context"
            for x in (actual, expected)
        )
        raise DataError(
            f"{store}: {m} is read with {read}, but the run {run} was trained with {learned}; build a store "
            f"whose recipe says context: {expected.context}"
        )


def _input_kind(modality: ModalityInfo | ModalityCard) -> tuple[str | None, int | None]:
    """Tokenizer and sampling rate; both None for features."""
    tokens, waveform = modality.tokens, modality.waveform
    return tokens.tokenizer if tokens else None, waveform.rate if waveform else None


def _content(modality: ModalityInfo | ModalityCard) -> str:
    """What a modality holds, for messages."""
    if modality.tokens is not None:
        return f"tokens by the tokenizer {modality.tokens.tokenizer[:12]}"
    if modality.waveform is not None:
        return f"audio sampled at {modality.waveform.rate} Hz"
    return "features"
