"""Folders of pretrained models as Hugging Face lays them out: looked at before anything of them is used."""

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
"""Endings of files whose reading may run code."""
CODE = {".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".ipynb"}
FILLED = 0.9
"""A tokenizer knows at least this share of its model's vocabulary; the rest rounds sizes up."""


def check_folder(folder: Path, *, tokenizer: bool = False, weights: bool = True) -> None:
    """Refuse a folder that lacks something, or that holds what may run code.

    Args:
        folder: holds `config.json`, `model.safetensors` and, for text, `tokenizer.json`.
        tokenizer: whether it must have a tokenizer, which is compared with the rest.
        weights: whether it must have weights.

    Raises:
        DataError: names the folder and the file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; carat downloads nothing, put the model there")
    if not (folder / CONFIG).is_file():  # perhaps not such a folder at all
        raise DataError(f"{folder}: {CONFIG} is missing")
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in PICKLED:
            raise DataError(f"{file}: pickled weights in a model's folder; keep safetensors only")
        if file.suffix.lower() in CODE:
            raise DataError(f"{file}: code in a model's folder, of which none is run; take it away")
    for name in (*[WEIGHTS] * weights, *[TOKENIZER] * tokenizer):
        if not (folder / name).is_file():
            raise DataError(f"{folder}: {name} is missing")
    config = read_config(folder)
    if "auto_map" in config:
        raise DataError(f"{folder / CONFIG}: asks for code of its own ('auto_map'); no such code is run")
    if not isinstance(config.get("model_type"), str):
        raise DataError(f"{folder / CONFIG}: names no model_type")
    if tokenizer:
        _check_tokenizer(folder, config)


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """A JSON file of the folder that holds one mapping.

    Raises:
        DataError: it cannot be read.
    """
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / name}: cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"{folder / name}: expected one mapping, found {type(found).__name__}")
    return found


def _check_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    known = read_tokenizer(folder).get_vocab(with_added_tokens=True)
    size = config.get("vocab_size")
    if not isinstance(size, int):
        raise DataError(f"{folder / CONFIG}: names no vocab_size, as a model of text does")
    if max(known.values()) >= size or len(known) < FILLED * size:
        raise DataError(
            f"{folder / TOKENIZER}: another model's, it knows {len(known)} tokens up to "
            f"{max(known.values())}; {CONFIG} has a vocabulary of {size}"
        )
    listed = folder / VOCABULARY
    if listed.is_file():
        tokens = listed.read_text(encoding="utf-8").splitlines()
        wrong = [token for place, token in enumerate(tokens) if known.get(token) != place]
        if wrong:
            raise DataError(
                f"{folder / TOKENIZER}: another model's, it and {VOCABULARY} disagree on '{wrong[0]}'"
            )


def read_tokenizer(folder: Path, longest: int | None = None) -> Tokenizer:
    """The tokenizer of a folder, without padding.

    Args:
        folder: holds `tokenizer.json`.
        longest: tokens after which texts are cut, special ones included.

    Raises:
        DataError: it cannot be read, or the package is missing.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DataError("texts need the extra: pip install 'carat[text]'") from error
    try:
        found: Tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the package raises nothing narrower
        raise DataError(f"{folder / TOKENIZER}: cannot be read ({str(error).splitlines()[0]})") from error
    found.no_padding()
    found.no_truncation()
    if longest is not None:
        found.enable_truncation(longest)
    return found


def digest(file: Path) -> str:
    """SHA-256 of a file, by which a tokenizer or weights are known again."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def longest_text(config: dict[str, Any]) -> int:
    """Tokens of the longest text that a model of this configuration reads, special ones included."""
    positions = int(config.get("max_position_embeddings") or 512)
    padding = config.get("pad_token_id")
    offset = config["model_type"] in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
    return positions - (int(padding or 0) + 1 if offset else 0)


def encode(tokenizer: Tokenizer, texts: Sequence[str], special: bool = True) -> list[list[int]]:
    """Token ids of each text, special ones included by default."""
    return [found.ids for found in tokenizer.encode_batch(list(texts), add_special_tokens=special)]
