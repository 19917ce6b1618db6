"""Hidden states of a text encoder in a local Hugging Face folder (extra `text`)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.utils.errors import DataError
from carat.utils.hugging_face import TOKENIZER, WEIGHTS, check_folder, cut, digest, tokenizing


class HuggingFaceSource:
    """Compute the last hidden state of every token of a text, including special tokens.

    Nothing is downloaded and no code from the folder is executed; weights must be safetensors.

    Args:
        folder: folder with an encoder and its tokenizer, see `check_folder`.
        max_tokens: length in tokens to which texts are truncated; defaults to the limit of the encoder.
        batch_size: texts encoded at once.

    Raises:
        DataError: the folder cannot be loaded, or the extra `text` is not installed.
    """

    def __init__(self, folder: Path, max_tokens: int | None = None, batch_size: int = 32) -> None:
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise DataError("source 'hf' needs the extra: pip install 'carat-emotion[text]'") from error
        check_folder(folder)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._folder = folder
        try:
            with warnings.catch_warnings(), tokenizing(folder / TOKENIZER, "cannot be read"):
                warnings.simplefilter("ignore")
                self._tokenizer = AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._model = AutoModel.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
                ).eval()
            limit = min(self._model.config.max_position_embeddings, self._tokenizer.model_max_length)
            if self._tokenizer.pad_token is None:
                raise ValueError("the tokenizer has no padding token")
        except DataError:
            raise
        except Exception as error:  # a configuration may make transformers raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{folder}: cannot be loaded ({reason})") from error
        self._max_tokens = min(max_tokens or limit, limit)
        self._batch_size = batch_size
        self.id = f"hf:{digest(folder / WEIGHTS)[:12]}:{self._max_tokens}"

    def read(self, texts: Sequence[str]) -> list[NDArray[Any] | None]:
        """Return hidden states (T, d) for each text; None for empty texts."""
        import torch

        features: list[NDArray[Any] | None] = [None] * len(texts)
        order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(texts[i]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            with tokenizing(self._folder / TOKENIZER):
                tokens = self._tokenizer(
                    [cut(texts[i], self._max_tokens) for i in batch],
                    padding=True,
                    truncation=True,
                    max_length=self._max_tokens,
                    return_tensors="pt",
                )
            try:
                with torch.inference_mode():
                    hidden = self._model(**tokens).last_hidden_state.float().numpy()
            except (ArithmeticError, IndexError, TypeError, ValueError, RuntimeError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise DataError(f"{self._folder}: cannot encode a text ({reason})") from error
            for i, states, mask in zip(batch, hidden, tokens["attention_mask"].numpy(), strict=True):
                features[i] = np.ascontiguousarray(states[mask.astype(bool)])
        return features

    def report(self) -> list[str]:
        """Describe the truncation of texts."""
        return [f"texts cut at {self._max_tokens} tokens, special tokens included"]
