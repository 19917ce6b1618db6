"""Texts of a user's own: turned into a run's tokens, and taken apart word by word."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.config.encoders import ENCODERS
from carat.data.tokenizer import NO_CONTEXT, Context, ContextTokenizer, drop_context
from carat.runs.card import RunCard
from carat.utils.errors import DataError, RunError

WORD = re.compile(r"\S*\w\S*")
AROUND = "[context]"
"""What was said before and after a text, among the words that carry its labels."""
LEAST = 0.005
"""How far a score must fall without a word that carried it."""


class Reader:
    """Turns texts into tokens as a run's training store did.

    Args:
        folder: of the run.
        card: of the run.
        longest: tokens that its method can read, by modality; longer texts are cut.

    Raises:
        RunError: the run has no modality of tokens, or more than one.
        DataError: its tokenizer cannot be read.
    """

    def __init__(self, folder: Path, card: RunCard, longest: Mapping[str, int]) -> None:
        found = {m: x.tokens for m, x in card.modalities.items() if x.tokens is not None}
        if len(found) != 1:
            has = "features" if not found else f"the tokens of {' and '.join(found)}"
            raise RunError(
                f"{folder}: it was trained on {has}, so it reads no texts; that needs a store whose recipe "
                f"has one source 'tokens'"
            )
        ((self.modality, tokens),) = found.items()
        self.longest = min(tokens.longest, longest[self.modality])
        """Tokens at which texts are cut."""
        self.context = tokens.context
        """Tokens on either side that are read along."""
        self.cut = 0
        """Texts so far that have as many of their own, or more."""
        self._folder = folder
        self._tokenizer = ContextTokenizer(folder / ENCODERS / self.modality, tokens.longest, tokens.context)

    def contexts(
        self,
        texts: Sequence[str] | str,
        conversations: Sequence[Hashable] | None = None,
        order: Sequence[float] | None = None,
    ) -> list[Context]:
        """The context of each text.

        Args:
            texts: those of a conversation in the order in which they were said, with or without others
                between them.
            conversations: a name of each text's; "", None or NaN where it stands alone. All are one by
                default.
            order: numbers by which those of a conversation follow one another instead.

        Raises:
            RunError: the run reads every text by itself.
            DataError: not as many names or numbers as texts.
        """
        self._check_context()
        texts = [texts] if isinstance(texts, str) else texts
        names = [0] * len(texts) if conversations is None else conversations
        return self._tokenizer.contexts(texts, names, order)

    def read(
        self, texts: Sequence[str], contexts: Sequence[Context] | None = None
    ) -> list[NDArray[np.int32]]:
        """Tokens of each text, special ones included, as a store of the run has them.

        Raises:
            DataError: not as many contexts as texts.
        """
        found = [steps[: self.longest] for steps in self._tokenizer.encode(texts, contexts)]
        self.cut += sum(len(drop_context(steps)) == self.longest for steps in found)
        return found

    def told(
        self,
        texts: Sequence[str],
        contexts: Sequence[Context] | None,
        conversations: Sequence[Hashable] | None,
    ) -> Sequence[Context]:
        """The context of each text, from either of the two; `NO_CONTEXT` without them.

        Raises:
            DataError: both are given, not as many as texts, or something else.
            RunError: the run reads every text by itself.
        """
        if conversations is not None:
            if contexts is not None:
                raise DataError("contexts follow from conversations; give one of them")
            return self.contexts(texts, conversations)
        if contexts is None:
            return [NO_CONTEXT] * len(texts)
        self._check_context()
        if not all(isinstance(context, Context) for context in contexts):
            raise DataError("contexts are what reader.contexts(texts, conversations) gives; names go there")
        if len(contexts) != len(texts):
            raise DataError(f"{len(texts)} texts, but the contexts of {len(contexts)}")
        return contexts

    def _check_context(self) -> None:
        if not self.context:
            raise RunError(
                f"{self._folder}: this run reads every text by itself, so it takes no conversations; one "
                f"trained on a store whose recipe sets context does"
            )

    def spell(self, ids: NDArray[Any]) -> list[str]:
        """What tokens (T,) are called."""
        return self._tokenizer.convert_ids_to_tokens(ids)


def without_each_word(text: str) -> list[tuple[str, str]]:
    """Every word of a text, with the text that is left without it.

    >>> without_each_word("so  glad")
    [('so', 'glad'), ('glad', 'so')]
    """
    found = list(WORD.finditer(text))
    return [(x.group(), f"{text[: x.start()]}{text[x.end() :].lstrip()}".strip()) for x in found]


def without_each_part(text: str, context: Context) -> list[tuple[str, str, Context]]:
    """Every word of a text, with the text that is left without it and its context; then, if there is any,
    `AROUND`, with the text and without context."""
    parts = [(word, rest, context) for word, rest in without_each_word(text)]
    return parts if context == NO_CONTEXT else [*parts, (AROUND, text, NO_CONTEXT)]


def strongest(words: Sequence[str], falls: NDArray[Any], most: int) -> list[str]:
    """At most so many words without which a score falls by `LEAST`, the largest fall first.

    Args:
        words: of a text, in order.
        falls: (words,), score of the whole text minus that of the text without the word.
        most: how many.
    """
    order = np.argsort(-falls, kind="stable")[:most]
    return [words[i].strip(".,;:!?\"'()…") for i in order if falls[i] >= LEAST]


def carriers(
    whole: Mapping[str, float], parts: Sequence[tuple[str, Mapping[str, float]]], most: int
) -> dict[str, list[str]]:
    """By label, at most so many words that carried it: from a text's scores, and those without each word."""
    words = [word for word, _ in parts]
    return {
        name: strongest(words, score - np.array([rest[name] for _, rest in parts]), most)
        for name, score in whole.items()
        if words
    }


def check_texts(texts: Sequence[str], words: int) -> None:
    """Refuse what cannot be scored, or not taken apart into so many words.

    Raises:
        DataError: a text is empty, or there are fewer than no words.
    """
    if words < 0:
        raise DataError(f"words is {words}, but is to be 0 or more")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"text {i + 1} of {len(texts)}: no words")
