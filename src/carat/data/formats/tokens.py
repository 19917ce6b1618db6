"""Token ids of a text column, for an encoder that learns along (extra `text`)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.cleaning import Verbatim
from carat.data.manifest import Tokens
from carat.hugging_face import (
    TOKENIZER,
    check_folder,
    digest,
    longest_text,
    read_config,
)
from carat.surroundings import ALONE, ContextTokenizer, Surrounding


class TokenSource:
    """The tokens of a text by the tokenizer of a local Hugging Face folder, its special tokens included.

    Args:
        folder: of the encoder, see `check_folder`.
        max_tokens: longer texts are cut; the encoder's own limit when None.
        context: tokens on either side, of what was said before and after, that a text is read with.

    Raises:
        DataError: no such folder, something of it is missing or may run code, or the extra is not installed.
    """

    waveform = None

    def __init__(self, folder: Path, max_tokens: int | None = None, context: int = 0) -> None:
        check_folder(folder, tokenizer=True, weights=False)
        config = read_config(folder)
        limit = longest_text(config)
        longest = min(max_tokens or limit, limit)
        self._tokenizer = ContextTokenizer(folder, longest, context)
        known = digest(folder / TOKENIZER)
        self.tokens = Tokens(
            tokenizer=known, vocabulary=config["vocab_size"], longest=longest, context=context
        )
        self.id = f"tokens:{known[:12]}:{longest}" + (f":{context}" if context else "")
        self.around = self._tokenizer.around

    def read(
        self, texts: Sequence[str], around: Sequence[Surrounding] | None = None
    ) -> list[NDArray[Any] | None]:
        """int32 steps of each text, see `ContextTokenizer.read`; None for an empty one."""
        found = self._tokenizer.read(texts, around)
        return [steps if text.strip() else None for text, steps in zip(texts, found, strict=True)]

    def report(self) -> list[str]:
        """Where texts are cut."""
        return [f"{self._tokenizer.cut} texts have {self.tokens.longest} tokens, where they are cut"]


class InConversation(Verbatim):
    """Reads tokens of texts together with those of what was said around them.

    Args:
        name: of the modality.
        source: with context.
        texts: of every table row.
        conversations: names that are equal in rows that belong together.
        order: numbers by which those follow one another; the table's own order when None.
    """

    def __init__(
        self,
        name: str,
        source: TokenSource,
        texts: Sequence[str],
        conversations: Sequence[Hashable],
        order: NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__(name, source, texts)
        self._around = source.around(texts, conversations, order)

    def _read(self, start: int, stop: int) -> list[NDArray[Any] | None]:
        found: TokenSource = self.source  # type: ignore[assignment]
        return found.read(self.keys[start:stop], self._around[start:stop])

    def report(self) -> list[str]:
        """What the source says, and how many texts stand alone."""
        alone = sum(near == ALONE for near in self._around)
        return [*super().report(), f"{alone} texts have nothing said before or after them"]
