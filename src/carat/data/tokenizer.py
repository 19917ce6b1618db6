"""Texts in their context: what was said before and after them in a conversation, as further tokens."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carat.utils.errors import DataError
from carat.utils.hugging_face import encode, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

OWN, CONTEXT = 0, 1
"""Second number of a step, its token type: of the text itself, or of its context."""


class Context(NamedTuple):
    """Token ids, without special ones, of what was said next to a text."""

    before: list[int]
    after: list[int]


NOTHING = Context([], [])


def conversations_of(names: Sequence[Hashable], order: ArrayLike | None = None) -> list[list[int]]:
    """Places of texts that belong together, one after another.

    Args:
        names: of each text's conversation; "", None or NaN where it stands alone.
        order: number of each text, by which those of a conversation follow one another; as given by default,
            and where numbers are equal.

    >>> conversations_of(["a", "", "a", ""], [2, 0, 1, 3])
    [[1], [2, 0], [3]]
    """
    places = np.arange(len(names)) if order is None else np.argsort(order, kind="stable")
    found: dict[Hashable, list[int]] = {}
    for place in places.tolist():
        name = names[place]
        alone = name is None or name == "" or name != name
        found.setdefault(object() if alone else name, []).append(place)
    return list(found.values())


def contexts_of(
    ids: Sequence[Sequence[int]], conversations: Iterable[Sequence[int]], tokens: int
) -> list[Context]:
    """The so many nearest tokens before each text, and after it, over as many texts as they take.

    Args:
        ids: of the texts, without special tokens.
        conversations: places of texts that follow one another.
        tokens: on either side.

    >>> contexts_of([[1, 2], [3], [4, 5]], [[0, 1, 2]], 3)[2]
    Context(before=[1, 2, 3], after=[])
    """
    found = [NOTHING] * len(ids)
    for places in conversations:
        for i, place in enumerate(places):
            before: list[int] = []
            for j in range(i - 1, -1, -1):
                if len(before) >= tokens:
                    break
                before = [*ids[places[j]], *before]
            after: list[int] = []
            for j in range(i + 1, len(places)):
                if len(after) >= tokens:
                    break
                after += ids[places[j]]
            found[place] = Context(before[-tokens:], after[:tokens])
    return found


def with_context(own: Sequence[int], context: Context, end: Sequence[int], longest: int) -> NDArray[np.int32]:
    """A text's tokens, then those of its context, the nearest ones where there is no room for all.

    Args:
        own: ids with special tokens; without any, there is no context either.
        context: see `contexts_of`; either side may take half of the room.
        end: special token that closes each part, if the tokenizer has one.
        longest: tokens in all.

    Returns:
        (T, 2): ids, and `OWN` or `CONTEXT`.
    """
    room = max(0, longest - len(own) - 2 * len(end)) // 2 if own else 0
    before, after = context.before[-room:] if room else [], context.after[:room]
    more = [*before, *end, *after, *end] if before or after else []
    types = [OWN] * len(own) + [CONTEXT] * len(more)
    return np.array([[*own, *more], types], dtype=np.int32).T


class ContextTokenizer:
    """Turns texts into the ids of their tokens, followed by those of their contexts where that is wanted.

    Args:
        folder: holds `tokenizer.json`.
        longest: tokens at which texts are cut, special ones and those of the context included.
        tokens: of the context on either side; none when 0.

    Raises:
        DataError: see `read_tokenizer`.
    """

    def __init__(self, folder: Path, longest: int, tokens: int = 0) -> None:
        self.folder, self.longest, self.tokens = folder, longest, tokens
        self.read_along = self.shortened = 0
        """Tokens of contexts read so far, and texts that there was no room for the whole context of."""
        self._cutting = read_tokenizer(folder, longest)

    @cached_property
    def _whole(self) -> Tokenizer:
        return read_tokenizer(self.folder)

    @cached_property
    def _end(self) -> list[int]:
        """The special token after a text."""
        (bare,), (full,) = (encode(self._whole, ["a"], special=special) for special in (False, True))
        starts = range(len(full) - len(bare) + 1)
        start = next((i for i in starts if full[i : i + len(bare)] == bare), 0)
        return full[start + len(bare) :][:1]

    def contexts(
        self, texts: Sequence[str], names: Sequence[Hashable], order: ArrayLike | None = None
    ) -> list[Context]:
        """The context of each text; see `conversations_of`.

        Raises:
            DataError: not as many names of conversations, or numbers, as texts.
        """
        if len(texts) != len(names):
            raise DataError(f"{len(texts)} texts, but the conversations of {len(names)}")
        if order is not None and np.shape(order) != (len(texts),):
            raise DataError(f"{len(texts)} texts, but an order of shape {np.shape(order)}")
        bare = encode(self._whole, texts, special=False)
        return contexts_of(bare, conversations_of(names, order), self.tokens)

    def read(
        self, texts: Sequence[str], contexts: Sequence[Context] | None = None
    ) -> list[NDArray[np.int32]]:
        """(T, 1) ids of each text, special ones included; (T, 2) with context, see `with_context`.

        Raises:
            DataError: so many texts and so many contexts do not go together.
        """
        found = encode(self._cutting, texts)
        if not self.tokens:
            return [np.array(ids, dtype=np.int32)[:, None] for ids in found]
        contexts = [NOTHING] * len(found) if contexts is None else contexts
        if len(contexts) != len(found):
            raise DataError(f"{len(found)} texts, but the contexts of {len(contexts)}")
        return [self._along(ids, context) for ids, context in zip(found, contexts, strict=True)]

    def _along(self, ids: list[int], context: Context) -> NDArray[np.int32]:
        steps = with_context(ids, context, self._end, self.longest)
        more = len(steps) - len(ids)
        read, wanted = more - 2 * len(self._end) if more else 0, len(context.before) + len(context.after)
        self.read_along += read
        self.shortened += bool(ids) and read < wanted
        return steps

    def spell(self, ids: NDArray[Any]) -> list[str]:
        """What tokens (T,) are called."""
        return [self._cutting.id_to_token(int(id)) or "?" for id in ids]


def own_steps(steps: NDArray[Any]) -> NDArray[Any]:
    """Of steps (T, 1), or with context (T, 2), those of the text itself."""
    return steps[steps[:, 1] == OWN] if steps.shape[1] > 1 else steps
