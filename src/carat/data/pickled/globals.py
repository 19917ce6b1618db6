"""What a pickle may name: numpy arrays, scalars and dtypes, plain containers, torch tensors.

A global is never looked up in Python: each stands for one of the functions below, which only put plain data
together. What is not in `GLOBALS` is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

DTYPE = re.compile(r"[<>|=]?(b1|\?|[iuf][1248]|[SU]\d{1,9}|O8?)")


class RefusedError(Exception):
    """What a file holds that is not read, in words."""


@dataclass(frozen=True)
class Global:
    """A name in a pickle, never looked up in Python."""

    name: str


@dataclass
class Array:
    """An array under construction; `value` is there when its state has come."""

    value: NDArray[Any] | None = None


@dataclass
class Dtype:
    """A numpy dtype under construction."""

    code: str
    order: str = "="

    def numpy(self) -> np.dtype[Any]:
        """The dtype itself."""
        if not DTYPE.fullmatch(self.code):
            raise RefusedError(f"an array of type '{self.code[:20]}'; numbers and text are read")
        kind = np.dtype(self.code)
        return kind.newbyteorder(cast(Any, self.order)) if self.order in ("<", ">") else kind


@dataclass(frozen=True)
class Storage:
    """Elements of a torch storage."""

    elements: NDArray[Any]


@dataclass(frozen=True)
class Floats:
    """A run of floats in a list."""

    values: NDArray[np.float64]


def _codec(args: tuple[Any, ...]) -> Any:
    text, encoding = _of(args, str, str)
    if encoding.replace("-", "").replace("_", "").lower() not in ("latin1", "iso88591"):
        raise RefusedError(f"text encoded as '{encoding[:20]}'")
    return text.encode("latin-1")


def _reconstruct(args: tuple[Any, ...]) -> Array:
    kind, shape, _ = _of(args, Global, tuple, object)
    if kind.name != "numpy.ndarray" or len(shape) > 1:
        raise RefusedError(f"an array made of '{kind.name}'")
    return Array()


def _scalar(args: tuple[Any, ...]) -> Any:
    dtype, content = args if len(args) == 2 else (None, None)
    if not isinstance(dtype, Dtype) or not isinstance(content, (bytes, memoryview)):
        raise RefusedError("a numpy scalar of another form")
    kind = dtype.numpy()
    if len(content) != kind.itemsize:
        raise RefusedError(f"a numpy scalar of {len(content)} bytes instead of {kind.itemsize}")
    return np.frombuffer(content, kind)[0].item()


def _from_buffer(args: tuple[Any, ...]) -> Array:
    content, dtype, shape, order = _of(args, object, Dtype, tuple, object)
    return Array(shaped(content, dtype.numpy(), shape, as_text(order) == "F"))


def _dtype(args: tuple[Any, ...]) -> Dtype:
    if not args or len(args) > 3:
        raise RefusedError("a numpy dtype of another form")
    return Dtype(as_text(args[0]))


def _ordered(args: tuple[Any, ...]) -> dict[Any, Any]:
    pairs = args[0] if args else []
    if len(args) > 1 or not isinstance(pairs, list) or any(_length(pair) != 2 for pair in pairs):
        raise RefusedError("an OrderedDict of another form")
    return {as_key(key): value for key, value in pairs}


def _container(kind: Callable[[Any], Any]) -> Callable[[tuple[Any, ...]], Any]:
    def make(args: tuple[Any, ...]) -> Any:
        if len(args) > 1 or (args and not isinstance(args[0], (list, tuple, set, frozenset))):
            raise RefusedError(f"a {kind.__name__} of another form")
        return kind(as_key(x) for x in args[0]) if args else kind(())

    return make


def _bytes(args: tuple[Any, ...]) -> bytes:
    if not args:
        return b""
    if len(args) == 2 and isinstance(args[0], str):
        return bytes(_codec(args))
    if len(args) == 1 and isinstance(args[0], (bytes, memoryview)):
        return bytes(args[0])
    raise RefusedError("bytes of another form")


def _tensor(args: tuple[Any, ...]) -> Array:
    storage, offset, shape, strides = (*args, None, None, None, None)[:4]
    if not isinstance(storage, Storage) or not isinstance(offset, int):
        raise RefusedError("a tensor of another form")
    shape, strides = sizes(shape), sizes(strides)
    if len(shape) != len(strides):
        raise RefusedError("a tensor whose strides do not fit its shape")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 in shape:
        return Array(np.zeros(shape, storage.elements.dtype))
    if last >= len(storage.elements):
        raise RefusedError(f"a tensor of shape {shape} in a storage of {len(storage.elements)} elements")
    size = storage.elements.itemsize
    return Array(
        np.lib.stride_tricks.as_strided(
            storage.elements[offset:], shape, [step * size for step in strides], writeable=False
        )
    )


def _inert(args: tuple[Any, ...]) -> Any:
    raise RefusedError("a call of a type")


GLOBALS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "numpy.ndarray": _inert,
    "numpy.dtype": _dtype,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda args: {},
    "_codecs.encode": _codec,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    **{f"{home}.{name}": _container(kind)
       for home in ("builtins", "__builtin__") for name, kind in (("set", set), ("frozenset", frozenset))},
    **{f"{home}.{name}": _bytes for home in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    **{f"{home}.{name}": _inert
       for home in ("builtins", "__builtin__") for name in ("list", "dict", "int", "float", "str", "tuple")},
}  # fmt: skip
"""What a pickle may name, and what stands for it; all others are refused."""

STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "?",
}  # fmt: skip
GLOBALS |= {f"torch.{name}": _inert for name in STORAGES}


def shaped(content: Any, dtype: np.dtype[Any], shape: Any, fortran: bool) -> NDArray[Any]:
    """An array from bytes, as many as the shape needs; of objects, from a list of plain data."""
    shape = sizes(shape)
    count = 1
    for size in shape:
        count *= size
    order: Any = "F" if fortran else "C"
    if dtype.kind == "O":
        if not isinstance(content, list) or len(content) != count:
            raise RefusedError(f"an array of {count} objects without them")
        objects = np.empty(count, dtype=object)
        objects[:] = [finished(x) for x in content]
        return objects.reshape(shape, order=order)
    if isinstance(content, str):
        content = content.encode("latin-1")
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise RefusedError(f"an array whose content is {type(content).__name__}")
    if count * dtype.itemsize != len(content):
        found = f"{len(content)} bytes of content"
        raise RefusedError(f"an array of shape {shape} and type {dtype} with {found}")
    if not count or not dtype.itemsize:
        return np.zeros(shape, dtype)
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def sizes(shape: Any) -> tuple[int, ...]:
    """A checked shape."""
    if (
        not isinstance(shape, tuple)
        or len(shape) > 16
        or not all(isinstance(n, int) and n >= 0 for n in shape)
    ):
        raise RefusedError("an array whose shape is no tuple of numbers")
    return shape


def finished(value: Any) -> Any:
    """An array instead of one under construction."""
    if isinstance(value, Array):
        if value.value is None:
            raise RefusedError("an array without content")
        return value.value
    return value


def as_key(value: Any, deep: bool = True) -> Any:
    """What may be a key: flat values, and short tuples of them (hashing must stay cheap)."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, (str, bytes, int, float, type(None))):
        return value
    if deep and isinstance(value, tuple) and len(value) <= 8:
        return tuple(as_key(x, deep=False) for x in value)
    raise RefusedError(f"a key of type {type(value).__name__}")


def as_text(value: Any) -> str:
    """A name, also one that Python 2 wrote."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise RefusedError(f"{type(value).__name__} where text belongs")
    return value


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (list, tuple)) else -1


def _of(args: tuple[Any, ...], *kinds: Any) -> tuple[Any, ...]:
    if len(args) != len(kinds) or not all(isinstance(x, kind) for x, kind in zip(args, kinds, strict=True)):
        raise RefusedError("a call with other arguments than numpy and torch write")
    return args
