"""Local folders of pretrained models in Hugging Face layout, validated before use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from carat.utils.errors import DataError, shorten
from carat.utils.reading import check_content, check_regular, hash_file, parse_json, read_text

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
MAX_CONFIG = 4 << 20
"""Maximum size in bytes of a configuration file."""
MAX_SIZE = 1 << 24
SIZES = {
    "hidden_size": (1, MAX_SIZE),
    "num_hidden_layers": (0, 1000),
    "num_attention_heads": (1, MAX_SIZE),
    "intermediate_size": (1, MAX_SIZE),
    "vocab_size": (1, MAX_SIZE),
    "max_position_embeddings": (1, MAX_SIZE),
    "type_vocab_size": (0, MAX_SIZE),
    "pad_token_id": (-1, MAX_SIZE),
}
"""Keys of a configuration that are sizes, with the smallest and the largest valid value."""
MIN_LENGTH = 3
"""Minimum length of a text in tokens, including special tokens."""
LISTS_OF_SIZES = ("conv_dim", "conv_kernel", "conv_stride")
"""Keys of the convolutions of speech models."""
CHARACTERS_PER_TOKEN = (16, 1024)
"""Characters of a text that are read at least and at most for each token that is used of it."""
MAX_CHARACTERS = 1 << 20
"""Characters of texts that are tokenized at a time; each takes about half a kilobyte."""
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
        check_content(folder / name)
    config = read_config(folder)
    if "auto_map" in config:
        raise DataError(f"{folder / CONFIG}: requires custom code ('auto_map'), which carat never executes")
    if not isinstance(config.get("model_type"), str):
        raise DataError(f"{folder / CONFIG}: has no model_type")
    _check_sizes(folder / CONFIG, config)
    if tokenizer:
        _check_tokenizer(folder, config)


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """Read a JSON file of a model folder, which must contain a mapping.

    Raises:
        DataError: the file cannot be read.
    """
    file = folder / name
    check_content(file)
    content = parse_json(read_text(file, limit=MAX_CONFIG), f"{file}: cannot be read")
    if not isinstance(content, dict):
        raise DataError(f"{folder / name}: expected a mapping, found {type(content).__name__}")
    return content


def _check_sizes(file: Path, config: dict[str, Any]) -> None:
    """Check a model's sizes and dropouts, as far as they are named as in most models."""
    for key, value in config.items():
        found = f"{file}: {key} is {shorten(repr(value), 60)}, expected"
        if value is None:  # the default
            continue
        if key in SIZES or key in LISTS_OF_SIZES:
            smallest, largest = SIZES.get(key, (1, MAX_SIZE))
            values = value if key in LISTS_OF_SIZES and isinstance(value, list) else [value]
            if not all(type(x) is int and smallest <= x <= largest for x in values):
                raise DataError(f"{found} a whole number from {smallest} to {largest}")
        is_fraction = type(value) in (int, float) and 0 <= value < 1
        if key.endswith(("dropout", "dropout_prob")) and not is_fraction:
            raise DataError(f"{found} a number from 0 to below 1")
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if hidden and heads and "head_dim" not in config and hidden % heads:
        raise DataError(f"{file}: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")


def _check_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    """Check that the tokenizer belongs to the model."""
    tokenizer = read_tokenizer(folder)
    with tokenizing(folder / TOKENIZER):
        ids = tokenizer.get_vocab(with_added_tokens=True)
    if not ids:
        raise DataError(f"{folder / TOKENIZER}: has an empty vocabulary")
    size = config.get("vocab_size")
    if not isinstance(size, int):
        raise DataError(f"{folder / CONFIG}: has no vocab_size, which text models need")
    if longest_text(config) < MIN_LENGTH:
        raise DataError(f"{folder / CONFIG}: max_position_embeddings leaves no room for a text")
    (probe,) = encode(tokenizer, ["a b"], file=folder / TOKENIZER)
    largest = max([*ids.values(), *probe])
    if largest >= size or len(ids) < MIN_VOCABULARY_FRACTION * size:
        raise DataError(
            f"{folder / TOKENIZER}: belongs to another model: it has {len(ids)} tokens with IDs up to "
            f"{largest}, but {CONFIG} has a vocabulary of {size}"
        )
    vocabulary = folder / VOCABULARY
    if vocabulary.is_file():
        tokens = read_text(vocabulary).splitlines()
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
    file = folder / TOKENIZER
    check_regular(file)
    with tokenizing(file, "cannot be read"):
        tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if max_length is not None:
            tokenizer.enable_truncation(max_length)
    return tokenizer


@contextmanager
def tokenizing(file: Path, problem: str = "fails on a text") -> Iterator[None]:
    """Turn all errors of the tokenizers package into one line (context manager).

    It raises plain exceptions, and on a panic one that is no `Exception` and is printed on standard error.

    Args:
        file: file of the tokenizer, for messages.
        problem: what is wrong with it if there is an error.

    Raises:
        DataError: an error occurred.
    """
    with TemporaryFile() as printed, _redirected_stderr(printed) as discard:
        try:
            yield
        except DataError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            discard()
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{file}: {problem} ({reason})") from error


@contextmanager
def _redirected_stderr(printed: IO[bytes]) -> Iterator[Callable[[], None]]:
    """Collect what is written to file descriptor 2 in a file, and write it to the original one at the end.

    Yields:
        Function that ends the redirection and discards what was collected.
    """
    try:
        original = os.dup(2)
    except OSError:  # closed
        yield lambda: None
        return
    discarded = False

    def discard() -> None:
        nonlocal discarded
        discarded = True

    os.dup2(printed.fileno(), 2)
    try:
        yield discard
    finally:
        os.dup2(original, 2)
        os.close(original)
        printed.seek(0)
        content = b"" if discarded else printed.read()
        if content:
            os.write(2, content)


def digest(file: Path) -> str:
    """Compute the SHA-256 of a file, which identifies tokenizers and weights."""
    return hash_file(file)


def longest_text(config: dict[str, Any]) -> int:
    """Return the maximum text length in tokens of a model, including special tokens."""
    positions = int(config.get("max_position_embeddings") or 512)
    padding = config.get("pad_token_id")
    offset = config["model_type"] in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
    return positions - (int(padding or 0) + 1 if offset else 0)


def cut(text: str, max_length: int) -> str:
    """Cut a text far beyond the number of tokens that is used of it, so that memory is bounded.

    Args:
        text: text.
        max_length: number of tokens that is used.

    >>> len(cut("so glad " * 1_000_000, 10))
    10240
    """
    limit = _limit(max_length)
    return text if len(text) <= limit else text.strip()[:limit]


def cut_middle(text: str, max_length: int) -> str:
    """Cut the middle out of a text, far from the tokens at both ends that are used of it; see `cut`."""
    half = _limit(max_length)
    return text if len(text) <= 2 * half else f"{text[:half]} {text[-half:]}"


def _limit(tokens: int) -> int:
    """Number of characters that are read of a text of which so many tokens are used."""
    least, most = (number * tokens for number in CHARACTERS_PER_TOKEN)
    return max(least, min(most, MAX_CHARACTERS))


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], special: bool = True, *, file: Path = Path(TOKENIZER)
) -> list[list[int]]:
    """Tokenize texts, a limited number of characters at a time.

    Args:
        tokenizer: see `read_tokenizer`.
        texts: texts.
        special: whether to add special tokens.
        file: file of the tokenizer, for messages.

    Returns:
        Token IDs of each text.

    Raises:
        DataError: the tokenizer fails.
    """
    ids: list[list[int]] = []
    start = 0
    while start < len(texts):
        stop, characters = start, 0
        while stop < len(texts) and (stop == start or characters + len(texts[stop]) <= MAX_CHARACTERS):
            characters += len(texts[stop])
            stop += 1
        with tokenizing(file):
            part = tokenizer.encode_batch(list(texts[start:stop]), add_special_tokens=special)
        ids += [encoding.ids for encoding in part]
        start = stop
    return ids
