"""Tokenization of texts with context: the tokens before and after them in a conversation."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carat.utils.errors import DataError
from carat.utils.hugging_face import TOKENIZER, cut, cut_middle, encode, read_tokenizer, tokenizing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_OCCLUDED = 1 << 18
"""Characters up to which a text is read whose words are left out in turn."""
OWN, CONTEXT = 0, 1
"""Token types: tokens of the text itself, and of its context."""


class Context(NamedTuple):
    """Token IDs before and after a text, without special tokens."""

    before: list[int]
    after: list[int]


NO_CONTEXT = Context([], [])


def group_conversations(names: Sequence[Hashable], order: ArrayLike | None = None) -> list[list[int]]:
    """Group texts by conversation.

    Args:
        names: conversation of each text; texts named "", None or NaN are not grouped.
        order: (n,) numbers by which texts are sorted, stably; defaults to the order given.

    Returns:
        For each conversation, the indices of its texts in order.

    >>> group_conversations(["a", "", "a", ""], [2, 0, 1, 3])
    [[1], [2, 0], [3]]
    """
    indices = np.arange(len(names)) if order is None else np.argsort(order, kind="stable")
    conversations: dict[Hashable, list[int]] = {}
    for i in indices.tolist():
        name = names[i]
        is_unnamed = name is None or name == "" or name != name
        conversations.setdefault(object() if is_unnamed else name, []).append(i)
    return list(conversations.values())


def extract_contexts(
    ids: Sequence[Sequence[int]], conversations: Iterable[Sequence[int]], context_tokens: int
) -> list[Context]:
    """Collect the nearest tokens before and after each text, across as many texts as needed.

    Args:
        ids: token IDs of each text, without special tokens.
        conversations: indices of the texts of each conversation, in order.
        context_tokens: maximum number of tokens on each side.

    Returns:
        Context of each text; empty for texts in no conversation.

    >>> extract_contexts([[1, 2], [3], [4, 5]], [[0, 1, 2]], 3)[2]
    Context(before=[1, 2, 3], after=[])
    """
    contexts = [NO_CONTEXT] * len(ids)
    for conversation in conversations:
        for position, i in enumerate(conversation):
            before: list[int] = []
            for j in range(position - 1, -1, -1):
                if len(before) >= context_tokens:
                    break
                before = [*ids[conversation[j]], *before]
            after: list[int] = []
            for j in range(position + 1, len(conversation)):
                if len(after) >= context_tokens:
                    break
                after += ids[conversation[j]]
            contexts[i] = Context(before[-context_tokens:], after[:context_tokens])
    return contexts


def append_context(
    own: Sequence[int], context: Context, end: Sequence[int], max_length: int
) -> NDArray[np.int32]:
    """Append the context to the tokens of a text, keeping the nearest tokens if not all fit.

    Args:
        own: token IDs with special tokens; if empty, no context is appended.
        context: see `extract_contexts`; each side may take half of the remaining length.
        end: special token that closes each side, if the tokenizer has one.
        max_length: total length in tokens.

    Returns:
        (T, 2) token IDs and token types, `OWN` or `CONTEXT`.
    """
    tokens_per_side = max(0, max_length - len(own) - 2 * len(end)) // 2 if own else 0
    before = context.before[-tokens_per_side:] if tokens_per_side else []
    after = context.after[:tokens_per_side]
    appended = [*before, *end, *after, *end] if before or after else []
    types = [OWN] * len(own) + [CONTEXT] * len(appended)
    return np.array([[*own, *appended], types], dtype=np.int32).T


def drop_context(steps: NDArray[Any]) -> NDArray[Any]:
    """Select the steps of the text itself from (T, 1), or with context (T, 2)."""
    return steps[steps[:, 1] == OWN] if steps.shape[1] > 1 else steps


class ContextTokenizer:
    """Tokenizer that can append context to each text.

    Args:
        folder: folder with `tokenizer.json`.
        max_length: length in tokens to which texts are truncated, including special tokens and context.
        context_tokens: maximum number of context tokens on each side; 0 for no context.

    Raises:
        DataError: see `read_tokenizer`.
    """

    def __init__(self, folder: Path, max_length: int, context_tokens: int = 0) -> None:
        self.folder, self.max_length, self.context_tokens = folder, max_length, context_tokens
        self.appended_tokens = 0
        """Context tokens appended so far."""
        self.truncated_contexts = 0
        """Texts so far whose context did not fit in full."""
        self._file = folder / TOKENIZER
        self._truncating = read_tokenizer(folder, max_length)

    @cached_property
    def _untruncated(self) -> Tokenizer:
        return read_tokenizer(self.folder)

    @cached_property
    def _end(self) -> list[int]:
        """The special token that follows a text, if the tokenizer adds one."""
        (bare,), (full,) = (
            encode(self._untruncated, ["a"], special, file=self._file) for special in (False, True)
        )
        starts = range(len(full) - len(bare) + 1)
        start = next((i for i in starts if full[i : i + len(bare)] == bare), 0)
        return full[start + len(bare) :][:1]

    def contexts(
        self, texts: Sequence[str], names: Sequence[Hashable], order: ArrayLike | None = None
    ) -> list[Context]:
        """Extract the context of each text.

        Args:
            texts: n texts.
            names: n conversation names, see `group_conversations`.
            order: (n,) see `group_conversations`.

        Raises:
            DataError: the lengths of the arguments differ.
        """
        if len(texts) != len(names):
            raise DataError(f"{len(texts)} texts, but {len(names)} conversation names")
        if order is not None and np.shape(order) != (len(texts),):
            raise DataError(f"{len(texts)} texts, but an order of shape {np.shape(order)}")
        texts = [cut_middle(text, self.context_tokens) for text in texts]
        ids = encode(self._untruncated, texts, special=False, file=self._file)
        return extract_contexts(ids, group_conversations(names, order), self.context_tokens)

    def encode(
        self, texts: Sequence[str], contexts: Sequence[Context] | None = None
    ) -> list[NDArray[np.int32]]:
        """Tokenize texts.

        Args:
            texts: n texts.
            contexts: n contexts; without any, texts have none. Ignored if `context_tokens` is 0.

        Returns:
            For each text, token IDs (T, 1), or with context IDs and token types (T, 2), see `append_context`.

        Raises:
            DataError: the numbers of texts and contexts differ.
        """
        ids = encode(self._truncating, [cut(text, self.max_length) for text in texts], file=self._file)
        if not self.context_tokens:
            return [np.array(own, dtype=np.int32)[:, None] for own in ids]
        contexts = [NO_CONTEXT] * len(ids) if contexts is None else contexts
        if len(contexts) != len(ids):
            raise DataError(f"{len(ids)} texts, but {len(contexts)} contexts")
        return [self._append(own, context) for own, context in zip(ids, contexts, strict=True)]

    def _append(self, own: list[int], context: Context) -> NDArray[np.int32]:
        steps = append_context(own, context, self._end, self.max_length)
        extra = len(steps) - len(own)
        appended = extra - 2 * len(self._end) if extra else 0
        self.appended_tokens += appended
        self.truncated_contexts += bool(own) and appended < len(context.before) + len(context.after)
        return steps

    def used_part(self, text: str) -> tuple[str, int]:
        """Cut a text where no word can matter any more, even if the longest one before is left out.

        Args:
            text: text.

        Returns:
            The text up to twice `max_length` tokens, and the end of its first `max_length` tokens, in
            characters: what begins there is not read.

        Raises:
            DataError: the tokenizer fails.
        """
        text = cut(text, 2 * self.max_length)[:MAX_OCCLUDED]
        with tokenizing(self._file):
            offsets = self._twice.encode(text).offsets
        ends = [end for _, end in offsets]
        whole = len(ends) < 2 * self.max_length
        read = len(text) if len(ends) <= self.max_length else max(ends[: self.max_length])
        return text if whole else text[: max(ends)], read

    @cached_property
    def _twice(self) -> Tokenizer:
        return read_tokenizer(self.folder, 2 * self.max_length)

    def convert_ids_to_tokens(self, ids: NDArray[Any]) -> list[str]:
        """Return the string of each token ID (T,); "?" for unknown IDs."""
        return [self._truncating.id_to_token(int(id)) or "?" for id in ids]
