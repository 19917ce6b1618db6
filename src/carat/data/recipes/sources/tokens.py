"""Token ids of a text column, for an encoder that learns along (extra `text`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from carat.data.store.manifest import Tokens
from carat.data.tokenizer import NOTHING, Context, ContextTokenizer, own_steps
from carat.utils.hugging_face import (
    TOKENIZER,
    check_folder,
    digest,
    longest_text,
    read_config,
)


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
        self.contexts = self._tokenizer.contexts
        self._read = self._cut = self._alone = 0

    def read(
        self, texts: Sequence[str], contexts: Sequence[Context] | None = None
    ) -> list[NDArray[Any] | None]:
        """int32 steps of each text, see `ContextTokenizer.read`; None for an empty one."""
        found = self._tokenizer.read(texts, contexts)
        self._cut += sum(len(own_steps(steps)) == self.tokens.longest for steps in found)
        self._read += len(texts)
        self._alone += sum(context == NOTHING for context in contexts or ())
        return [steps if text.strip() else None for text, steps in zip(texts, found, strict=True)]

    def report(self) -> list[str]:
        """Where texts are cut, and how much context there is."""
        longest, tokens = self.tokens.longest, self.tokens.context
        if not tokens:
            return [f"{self._cut} texts have {longest} tokens, where they are cut"]
        mean = self._tokenizer.read_along / max(self._read, 1)
        return [
            f"{self._cut} texts have {longest} tokens of their own, where they are cut",
            f"{mean:.1f} tokens of context per text, of {2 * tokens} at most",
            f"{self._tokenizer.shortened} texts lack some of it for want of room within {longest} tokens",
            f"{self._alone} texts have nothing said before or after them",
        ]
