"""Local folders of pretrained models in Hugging Face layout, validated before use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carat.utils.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
VOCABULARY = "vocab.txt"
SPEECH = "preprocessor_config.json"

PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
"""Suffixes of files whose loading may execute code."""
CODE = {".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".ipynb"}
MIN_VOCABULARY_FRACTION = 0.9
"""Minimum fraction of a model's vocabulary that its tokenizer has; vocabularies are often padded."""


def check_folder(folder: Path, *, tokenizer: bool = False, weights: bool = True) -> None:
    """Check that a model folder is complete and contains nothing that could execute code.

    Args:
        folder: folder with `config.json`, `model.safetensors` and, for text, `tokenizer.json`.
        tokenizer: whether a tokenizer is required; it is compared with the configuration.
        weights: whether weights are required.

    Raises:
        DataError: a file is missing, invalid or not allowed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; carat downloads nothing, so put the model there")
    if not (folder / CONFIG).is_file():  # first, because other folders may have many files
        raise DataError(f"{folder}: {CONFIG} is missing")
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in PICKLED:
            raise DataError(f"{file}: model folder contains pickled weights; keep safetensors only")
        if file.suffix.lower() in CODE:
            raise DataError(f"{file}: model folder contains code, which carat never executes; remove it")
    for name in (*[WEIGHTS] * weights, *[TOKENIZER] * tokenizer):
        if not (folder / name).is_file():
            raise DataError(f"{folder}: {name} is missing")
    config = read_config(folder)
    if "auto_map" in config:
        raise DataError(f"{folder / CONFIG}: requires custom code ('auto_map'), which carat never executes")
    if not isinstance(config.get("model_type"), str):
        raise DataError(f"{folder / CONFIG}: has no model_type")
    if tokenizer:
        _check_tokenizer(folder, config)


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """Read a JSON file of a model folder, which must contain a mapping.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / name}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{folder / name}: expected a mapping, found {type(content).__name__}")
    return content


def _check_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    """Check that the tokenizer belongs to the model."""
    ids = read_tokenizer(folder).get_vocab(with_added_tokens=True)
    size = config.get("vocab_size")
    if not isinstance(size, int):
        raise DataError(f"{folder / CONFIG}: has no vocab_size, which text models need")
    if max(ids.values()) >= size or len(ids) < MIN_VOCABULARY_FRACTION * size:
        raise DataError(
            f"{folder / TOKENIZER}: belongs to another model: it has {len(ids)} tokens with IDs up to "
            f"{max(ids.values())}, but {CONFIG} has a vocabulary of {size}"
        )
    vocabulary = folder / VOCABULARY
    if vocabulary.is_file():
        tokens = vocabulary.read_text(encoding="utf-8").splitlines()
        different = [token for i, token in enumerate(tokens) if ids.get(token) != i]
        if different:
            raise DataError(
                f"{folder / TOKENIZER}: belongs to another model: the ID of '{different[0]}' differs from "
                f"{VOCABULARY}"
            )


def read_tokenizer(folder: Path, max_length: int | None = None) -> Tokenizer:
    """Read the tokenizer of a model folder, without padding.

    Args:
        folder: folder with `tokenizer.json`.
        max_length: length in tokens to which texts are truncated, including special tokens.

    Raises:
        DataError: the tokenizer cannot be read, or the extra is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DataError("texts need the extra: pip install 'carat-emotion[text]'") from error
    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # tokenizers raises no narrower type
        raise DataError(f"{folder / TOKENIZER}: cannot be read ({str(error).splitlines()[0]})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    return tokenizer


def digest(file: Path) -> str:
    """Compute the SHA-256 of a file, which identifies tokenizers and weights."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def longest_text(config: dict[str, Any]) -> int:
    """Return the maximum text length in tokens of a model, including special tokens."""
    positions = int(config.get("max_position_embeddings") or 512)
    padding = config.get("pad_token_id")
    offset = config["model_type"] in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
    return positions - (int(padding or 0) + 1 if offset else 0)


def encode(tokenizer: Tokenizer, texts: Sequence[str], special: bool = True) -> list[list[int]]:
    """Tokenize texts.

    Args:
        tokenizer: see `read_tokenizer`.
        texts: texts.
        special: whether to add special tokens.

    Returns:
        Token IDs of each text.
    """
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=special)]
