"""Token IDs of a text column, for encoders that are fine-tuned jointly (extra `text`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from carat.data.store.manifest import Tokens
from carat.data.tokenizer import NO_CONTEXT, Context, ContextTokenizer, drop_context
from carat.utils.hugging_face import (
    TOKENIZER,
    check_folder,
    digest,
    longest_text,
    read_config,
)


class TokenSource:
    """Tokenize texts with the tokenizer of a local Hugging Face folder, including its special tokens.

    Args:
        folder: folder of the encoder, see `check_folder`.
        max_tokens: length in tokens to which texts are truncated; defaults to the limit of the encoder.
        context: maximum number of context tokens on each side of a text.

    Raises:
        DataError: the folder is missing, incomplete or contains code, or the extra is not installed.
    """

    waveform = None

    def __init__(self, folder: Path, max_tokens: int | None = None, context: int = 0) -> None:
        check_folder(folder, tokenizer=True, weights=False)
        config = read_config(folder)
        limit = longest_text(config)
        max_length = min(max_tokens or limit, limit)
        self._tokenizer = ContextTokenizer(folder, max_length, context)
        checksum = digest(folder / TOKENIZER)
        self.tokens = Tokens(
            tokenizer=checksum, vocabulary=config["vocab_size"], longest=max_length, context=context
        )
        self.id = f"tokens:{checksum[:12]}:{max_length}" + (f":{context}" if context else "")
        self.contexts = self._tokenizer.contexts
        self._texts = self._full_length = self._without_context = 0

    def read(
        self, texts: Sequence[str], contexts: Sequence[Context] | None = None
    ) -> list[NDArray[Any] | None]:
        """Tokenize texts; see `ContextTokenizer.encode`. The result is None for empty texts."""
        encoded = self._tokenizer.encode(texts, contexts)
        self._full_length += sum(len(drop_context(steps)) == self.tokens.longest for steps in encoded)
        self._texts += len(texts)
        self._without_context += sum(context == NO_CONTEXT for context in contexts or ())
        return [steps if text.strip() else None for text, steps in zip(texts, encoded, strict=True)]

    def report(self) -> list[str]:
        """Count truncated texts and contexts."""
        max_length, context = self.tokens.longest, self.tokens.context
        if not context:
            return [f"{self._full_length} texts have {max_length} tokens, where they are cut"]
        mean = self._tokenizer.appended_tokens / max(self._texts, 1)
        return [
            f"{self._full_length} texts have {max_length} tokens of their own, where they are cut",
            f"{mean:.1f} tokens of context per text, of {2 * context} at most",
            f"{self._tokenizer.truncated_contexts} texts lack some of it for want of room within "
            f"{max_length} tokens",
            f"{self._without_context} texts have nothing said before or after them",
        ]
