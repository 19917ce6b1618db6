"""Allow-list of globals in pickles: NumPy arrays, scalars and dtypes, plain containers and torch tensors.

Globals are never imported: each is replaced by one of the functions below, which build plain data. All others
are refused.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

DTYPE = re.compile(r"[<>|=]?(b1|\?|[iuf][1248]|[SU]\d{1,9}|O8?)")
MAX_REPETITION = 4
"""Number of times that a tensor may contain the elements of its storage, as expanded tensors do."""

BFLOAT16 = "bfloat16"
"""Data type that NumPy lacks; it is converted to float32."""


class RefusedError(Exception):
    """The file contains something that is not allowed, named by the message as a noun phrase."""


@dataclass(frozen=True)
class Global:
    """The name of a global, which is never imported."""

    name: str


@dataclass
class Array:
    """An array under construction; `value` is None until its state is set."""

    value: NDArray[Any] | None = None


@dataclass
class Dtype:
    """A NumPy dtype under construction."""

    code: str
    order: str = "="

    def numpy(self) -> np.dtype[Any]:
        """Return the dtype.

        Raises:
            RefusedError: neither a numeric nor a text type, nor object.
        """
        if not DTYPE.fullmatch(self.code):
            raise RefusedError(f"an array of type '{self.code[:20]}', expected numbers or text")
        kind = np.dtype(self.code)
        return kind.newbyteorder(cast(Any, self.order)) if self.order in ("<", ">") else kind


@dataclass(frozen=True)
class Storage:
    """A torch storage."""

    elements: NDArray[Any]


@dataclass(frozen=True)
class Floats:
    """Consecutive floats in a list, kept as an array."""

    values: NDArray[np.float64]


def _codec(args: tuple[Any, ...]) -> Any:
    text, encoding = _check_args(args, str, str)
    if encoding.replace("-", "").replace("_", "").lower() not in ("latin1", "iso88591"):
        raise RefusedError(f"text encoded as '{encoding[:20]}', expected latin-1")
    return text.encode("latin-1")


def _reconstruct(args: tuple[Any, ...]) -> Array:
    kind, shape, _ = _check_args(args, Global, tuple, object)
    if kind.name != "numpy.ndarray" or len(shape) > 1:
        raise RefusedError(f"an array of class '{kind.name}', expected numpy.ndarray")
    return Array()


def _scalar(args: tuple[Any, ...]) -> Any:
    dtype, content = args if len(args) == 2 else (None, None)
    if not isinstance(dtype, Dtype) or not isinstance(content, (bytes, memoryview)):
        raise RefusedError("an invalid NumPy scalar")
    kind = dtype.numpy()
    if len(content) != kind.itemsize:
        raise RefusedError(f"a NumPy scalar of {len(content)} bytes, expected {kind.itemsize}")
    return _from_bytes(content, kind)[0].item()


def _from_buffer(args: tuple[Any, ...]) -> Array:
    content, dtype, shape, order = _check_args(args, object, Dtype, tuple, object)
    return Array(shaped(content, dtype.numpy(), shape, as_text(order) == "F"))


def _dtype(args: tuple[Any, ...]) -> Dtype:
    if not args or len(args) > 3:
        raise RefusedError("an invalid NumPy dtype")
    return Dtype(as_text(args[0]))


def _ordered(args: tuple[Any, ...]) -> dict[Any, Any]:
    pairs = args[0] if args else []
    if len(args) > 1 or not isinstance(pairs, list) or any(_length(pair) != 2 for pair in pairs):
        raise RefusedError("an invalid OrderedDict")
    return {as_key(key): value for key, value in pairs}


def _container(kind: Callable[[Any], Any]) -> Callable[[tuple[Any, ...]], Any]:
    def make(args: tuple[Any, ...]) -> Any:
        if len(args) > 1 or (args and not isinstance(args[0], (list, tuple, set, frozenset))):
            raise RefusedError(f"an invalid {kind.__name__}")
        return kind(as_key(x) for x in args[0]) if args else kind(())

    return make


def _bytes(args: tuple[Any, ...]) -> bytes:
    if not args:
        return b""
    if len(args) == 2 and isinstance(args[0], str):
        return bytes(_codec(args))
    if len(args) == 1 and isinstance(args[0], (bytes, memoryview)):
        return bytes(args[0])
    raise RefusedError("an invalid byte string")


def _tensor(args: tuple[Any, ...]) -> Array:
    storage, offset, shape, strides = (*args, None, None, None, None)[:4]
    if not isinstance(storage, Storage) or not isinstance(offset, int):
        raise RefusedError("an invalid tensor")
    shape, strides = sizes(shape), sizes(strides)
    if len(shape) != len(strides):
        raise RefusedError("a tensor whose strides do not match its shape")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 in shape:
        return Array(np.zeros(shape, storage.elements.dtype))
    stored = len(storage.elements)
    if last >= stored or math.prod(shape) > MAX_REPETITION * stored + 1_000_000:
        raise RefusedError(f"a tensor of shape {shape} in a storage of {stored} elements")
    size = storage.elements.itemsize
    return Array(
        np.lib.stride_tricks.as_strided(
            storage.elements[offset:], shape, [step * size for step in strides], writeable=False
        )
    )


def _parameter(args: tuple[Any, ...]) -> Array:
    tensor, _, _ = _check_args(args, np.ndarray, object, object)
    return Array(tensor)


def _not_callable(args: tuple[Any, ...]) -> Any:
    raise RefusedError("a call to a type")


GLOBALS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "numpy.ndarray": _not_callable,
    "numpy.dtype": _dtype,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda args: {},
    "_codecs.encode": _codec,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    **{f"{home}.{name}": _container(kind)
       for home in ("builtins", "__builtin__") for name, kind in (("set", set), ("frozenset", frozenset))},
    **{f"{home}.{name}": _bytes for home in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    **{f"{home}.{name}": _not_callable
       for home in ("builtins", "__builtin__") for name in ("list", "dict", "int", "float", "str", "tuple")},
}  # fmt: skip
"""Allowed globals by name, and the functions that replace them."""

STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "?", "BFloat16Storage": BFLOAT16,
}  # fmt: skip
GLOBALS |= {f"torch.{name}": _not_callable for name in STORAGES}


def shaped(content: Any, dtype: np.dtype[Any], shape: Any, fortran: bool) -> NDArray[Any]:
    """Build an array of a shape from bytes, or an object array from a list of plain data.

    Raises:
        RefusedError: the content does not match shape and dtype.
    """
    shape = sizes(shape)
    count = 1
    for size in shape:
        count *= size
    order: Any = "F" if fortran else "C"
    if dtype.kind == "O":
        if isinstance(content, list) and any(isinstance(x, Floats) for x in content):
            content = [y for x in content for y in (x.values.tolist() if isinstance(x, Floats) else [x])]
        if not isinstance(content, list) or len(content) != count:
            raise RefusedError(f"an array of {count} objects whose content is not a list of that length")
        objects = np.empty(count, dtype=object)
        objects[:] = [finished(x) for x in content]
        return objects.reshape(shape, order=order)
    if isinstance(content, str):
        content = content.encode("latin-1")
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise RefusedError(f"an array whose content has type {type(content).__name__}")
    if count * dtype.itemsize != len(content):
        raise RefusedError(f"an array of shape {shape} and type {dtype} with {len(content)} bytes of content")
    if not count or not dtype.itemsize:
        return np.zeros(shape, dtype)
    return _from_bytes(content, dtype).reshape(shape, order=order)


def _from_bytes(content: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Build an array from bytes; text must consist of valid characters."""
    array = np.frombuffer(content, dtype)
    if dtype.kind == "U" and (np.frombuffer(content, dtype.str[0] + "u4") > sys.maxunicode).any():
        raise RefusedError("text with invalid characters")
    return array


def sizes(shape: Any) -> tuple[int, ...]:
    """Validate a shape."""
    if (
        not isinstance(shape, tuple)
        or len(shape) > 16
        or not all(isinstance(n, int) and n >= 0 for n in shape)
    ):
        raise RefusedError("an array whose shape is not a tuple of sizes")
    return shape


def finished(value: Any) -> Any:
    """Replace an array under construction by the array."""
    if isinstance(value, Array):
        if value.value is None:
            raise RefusedError("an array without content")
        return value.value
    return value


def as_key(value: Any, deep: bool = True) -> Any:
    """Validate a key: flat values and short tuples of them are allowed, so that hashing stays cheap."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, (str, bytes, int, float, type(None))):
        return value
    if deep and isinstance(value, tuple) and len(value) <= 8:
        return tuple(as_key(x, deep=False) for x in value)
    raise RefusedError(f"a key of type {type(value).__name__}")


def as_text(value: Any) -> str:
    """Convert to text; byte strings are text written by Python 2."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise RefusedError(f"a value of type {type(value).__name__}, expected text")
    return value


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (list, tuple)) else -1


def _check_args(args: tuple[Any, ...], *kinds: Any) -> tuple[Any, ...]:
    """Check the number and types of arguments."""
    if len(args) != len(kinds) or not all(isinstance(x, kind) for x, kind in zip(args, kinds, strict=True)):
        raise RefusedError("a call with unexpected arguments")
    return args
