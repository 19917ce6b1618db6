"""Texts in their conversation: what was said before and after them, as further tokens."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carat.hugging_face import encode, read_tokenizer

OWN, AROUND = 0, 1
"""Second number of a step: a token of the text itself, or of what was said around it."""


class Surrounding(NamedTuple):
    """Token ids, without special ones, of what was said next to a text."""

    before: list[int]
    after: list[int]


ALONE = Surrounding([], [])


def conversations_of(names: Sequence[Hashable], order: ArrayLike | None = None) -> list[list[int]]:
    """Places of texts that belong together, one after another.

    Args:
        names: of each text's conversation.
        order: number of each text, by which those of a conversation follow one another; as given by default.

    >>> conversations_of(["a", "b", "a"], [2, 0, 1])
    [[2, 0], [1]]
    """
    places = np.arange(len(names)) if order is None else np.argsort(order, kind="stable")
    found: dict[Hashable, list[int]] = {name: [] for name in names}
    for place in places.tolist():
        found[names[place]].append(place)
    return list(found.values())


def surroundings(
    ids: Sequence[Sequence[int]], conversations: Iterable[Sequence[int]], context: int
) -> list[Surrounding]:
    """The so many nearest tokens before each text, and after it, over as many texts as they take.

    Args:
        ids: of the texts, without special tokens.
        conversations: places of texts that follow one another.
        context: tokens on either side.

    >>> surroundings([[1, 2], [3], [4, 5]], [[0, 1, 2]], 3)[2]
    Surrounding(before=[1, 2, 3], after=[])
    """
    found = [ALONE] * len(ids)
    for places in conversations:
        for i, place in enumerate(places):
            before: list[int] = []
            for other in reversed(places[:i]):
                if len(before) >= context:
                    break
                before = [*ids[other], *before]
            after: list[int] = []
            for other in places[i + 1 :]:
                if len(after) >= context:
                    break
                after += ids[other]
            found[place] = Surrounding(before[-context:], after[:context])
    return found


def in_conversation(
    own: Sequence[int], around: Surrounding, end: Sequence[int], longest: int
) -> NDArray[np.int32]:
    """A text's tokens, then those around it, as many as there is room for, the nearest ones.

    Args:
        own: ids with special tokens.
        around: see `surroundings`.
        end: special token that closes each part, if the tokenizer has one.
        longest: tokens in all.

    Returns:
        (T, 2): ids, and `OWN` or `AROUND`.
    """
    room = max(0, longest - len(own) - 2 * len(end)) // 2
    before, after = around.before[-room:] if room else [], around.after[:room]
    more = [*before, *end, *after, *end] if before or after else []
    kinds = [OWN] * len(own) + [AROUND] * len(more)
    return np.array([[*own, *more], kinds], dtype=np.int32).T


class ContextTokenizer:
    """Turns texts into the ids of their tokens, together with those of what was said around them.

    Args:
        folder: holds `tokenizer.json`.
        longest: tokens at which texts are cut, special ones and those around them included.
        context: tokens on either side that are read along; none when 0.

    Raises:
        DataError: see `read_tokenizer`.
    """

    def __init__(self, folder: Path, longest: int, context: int = 0) -> None:
        self.longest, self.context = longest, context
        self._cutting, self._whole = read_tokenizer(folder, longest), read_tokenizer(folder)
        self._end = self._whole.encode("").ids[-1:]
        self.cut = 0
        """Texts so far that are as long as can be."""

    def around(
        self, texts: Sequence[str], names: Sequence[Hashable], order: ArrayLike | None = None
    ) -> list[Surrounding]:
        """What was said around each text; see `conversations_of`."""
        bare = encode(self._whole, texts, special=False)
        return surroundings(bare, conversations_of(names, order), self.context)

    def read(
        self, texts: Sequence[str], around: Sequence[Surrounding] | None = None
    ) -> list[NDArray[np.int32]]:
        """(T, 1) ids of each text, special ones included; (T, 2) with context, see `in_conversation`."""
        found = encode(self._cutting, texts)
        self.cut += sum(len(ids) == self.longest for ids in found)
        if not self.context:
            return [np.array(ids, dtype=np.int32)[:, None] for ids in found]
        around = around or [ALONE] * len(found)
        return [
            in_conversation(ids, near, self._end, self.longest)
            for ids, near in zip(found, around, strict=True)
        ]

    def spell(self, ids: NDArray[Any]) -> list[str]:
        """What tokens (T,) are called."""
        return [self._whole.id_to_token(int(id)) or "?" for id in ids]
