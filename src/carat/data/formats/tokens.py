"""Token ids of a text column, for an encoder that learns along (extra `text`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.manifest import Tokens
from carat.hugging_face import (
    TOKENIZER,
    check_folder,
    digest,
    encode,
    longest_text,
    read_config,
    read_tokenizer,
)


class TokenSource:
    """The tokens of a text by the tokenizer of a local Hugging Face folder, its special tokens included.

    Args:
        folder: of the encoder, see `check_folder`.
        max_tokens: longer texts are cut; the encoder's own limit when None.

    Raises:
        DataError: no such folder, something of it is missing or may run code, or the extra is not installed.
    """

    waveform = None

    def __init__(self, folder: Path, max_tokens: int | None = None) -> None:
        check_folder(folder, tokenizer=True, weights=False)
        config = read_config(folder)
        limit = longest_text(config)
        longest = min(max_tokens or limit, limit)
        self._tokenizer = read_tokenizer(folder, longest)
        known = digest(folder / TOKENIZER)
        self.tokens = Tokens(tokenizer=known, vocabulary=config["vocab_size"], longest=longest)
        self.id = f"tokens:{known[:12]}:{longest}"
        self._cut = 0

    def read(self, texts: Sequence[str]) -> list[NDArray[Any] | None]:
        """(tokens, 1) int32 for each text, None for an empty one."""
        found = encode(self._tokenizer, texts)
        self._cut += sum(len(ids) == self.tokens.longest for ids in found)
        return [
            np.array(ids, dtype=np.int32)[:, None] if text.strip() else None
            for text, ids in zip(texts, found, strict=True)
        ]

    def report(self) -> list[str]:
        """Where texts are cut."""
        return [f"{self._cut} texts have {self.tokens.longest} tokens, where they are cut"]
