"""The pickle machine: a stack, marks, a memo and one small function per opcode, over a mapped file."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from carat.data.pickled.globals import (
    GLOBALS,
    Array,
    Dtype,
    Floats,
    Global,
    RefusedError,
    as_key,
    as_text,
    finished,
    shaped,
)

LARGE = 1 << 16
"""Byte strings of this size and more stay in the file and are handed out as views."""
DEEPEST = 1 << 20
"""Entries of the stack and of marks."""

Persistent = Callable[[Any], Any]


class Machine:
    """The pickle machine: a stack, marks and a memo, and one method per opcode.

    Args:
        buffer: the file.
        place: where the pickle starts.
        persistent: what a persistent id stands for; refused when None.
    """

    def __init__(self, buffer: memoryview, place: int = 0, persistent: Persistent | None = None) -> None:
        self.buffer, self.place, self.persistent = buffer, place, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.budget = 4 * len(buffer) + 1_000_000
        """Elements that may still be copied: a small file cannot ask for much by naming things again."""

    def run(self) -> Any:
        """What the pickle holds; `place` is then behind it."""
        operations = OPERATIONS
        while True:
            code = self.buffer[self.place]
            self.place += 1
            if code == STOP:
                return finished(self.stack.pop())
            operation = operations[code]
            if operation is None:
                raise RefusedError(f"opcode {bytes([code])!r}: no pickle, or one of objects")
            operation(self)
            if len(self.stack) + len(self.marks) > DEEPEST:
                raise RefusedError("more than a million values on the stack")

    def take(self, size: int) -> memoryview:
        """The next bytes."""
        if size < 0 or self.place + size > len(self.buffer):
            raise ValueError(f"it is truncated: {size} bytes are needed where it ends")
        start = self.place
        self.place += size
        return self.buffer[start : self.place]

    def number(self, form: str) -> Any:
        """The next little- or big-endian number."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        """Up to the end of the line."""
        content = bytearray()
        while True:
            part = bytes(self.buffer[self.place : self.place + 4096])
            end = part.find(b"\n")
            if end >= 0:
                self.place += end + 1
                return bytes(content + part[:end])
            if not part:
                raise ValueError("it is truncated: a line without end")
            content += part
            self.place += len(part)

    def marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def bytes_of(self, size: int) -> bytes | memoryview:
        """A byte string; large ones stay in the file."""
        content = self.take(size)
        return content if size >= LARGE else bytes(content)

    def top(self, kind: Any) -> Any:
        """The value on top, which must be of a kind."""
        found = self.stack[-1]
        if not isinstance(found, kind):
            raise RefusedError(f"an operation on {type(found).__name__} that is not defined")
        return found

    def call(self, function: Any, args: Any) -> None:
        """Push what a global stands for."""
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise RefusedError(f"a call of {type(function).__name__}")
        handler = GLOBALS.get(function.name)
        if handler is None:
            raise RefusedError(f"'{function.name}', which is not read")
        self.spend(*args)
        self.stack.append(handler(tuple(map(finished, args))))

    def spend(self, *values: Any) -> None:
        """Count what is about to be copied."""
        self.budget -= sum(
            len(x) for x in values if isinstance(x, (str, bytes, memoryview, list, tuple, set))
        )
        if self.budget < 0:
            raise RefusedError("far more than its size: the same values over and over")

    def name(self, module: str, name: str) -> None:
        """Push a global, if it may be named."""
        full = f"{module}.{name}"
        if full not in GLOBALS:
            raise RefusedError(
                f"'{full[:80]}', which could run code; only plain data, arrays and tensors are read"
            )
        self.stack.append(Global(full))

    def floats(self) -> None:
        """A run of floats: as they are many, they are read together."""
        start, stack = self.place - 1, self.stack
        length = 64
        while True:
            part = np.frombuffer(self.buffer[start : start + 9 * length], np.uint8)
            rows = part[: len(part) // 9 * 9].reshape(-1, 9)
            other = np.flatnonzero(rows[:, 0] != ord("G"))
            if len(other) or len(rows) < length:
                break
            length *= 4
        count = int(other[0]) if len(other) else len(rows)
        if not count:
            raise ValueError("it is truncated: a number where it ends")
        self.place = start + 9 * count
        values = rows[:count, 1:].copy().view(">f8")[:, 0].astype(np.float64)
        if count >= 8 and self.marks and isinstance(stack[self.marks[-1] - 1] if stack else None, list):
            stack.append(Floats(values))
        else:
            stack.extend(values.tolist())

    def build(self) -> None:
        """Give an array or a dtype its state."""
        state, target = finished(self.stack.pop()), self.stack[-1]
        if isinstance(target, Array) and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, content = state
            if not isinstance(dtype, Dtype):
                raise RefusedError("an array without dtype")
            self.spend(content)
            target.value = shaped(content, dtype.numpy(), shape, bool(fortran))
        elif isinstance(target, Dtype) and isinstance(state, tuple) and len(state) >= 5:
            if state[2] is not None or state[3] is not None or state[4] is not None:
                raise RefusedError("a structured array; numbers and text are read")
            target.order = as_text(state[1])
        else:
            raise RefusedError(f"a state of {type(target).__name__}")


def _long(content: memoryview) -> int:
    if len(content) > 64:
        raise RefusedError("a number of more than 512 bits")
    return int.from_bytes(content, "little", signed=True)


def _integer(line: bytes) -> Any:
    if line in (b"00", b"01"):
        return line == b"01"
    if len(line) > 160:
        raise RefusedError("a number of more than 512 bits")
    return int(line.rstrip(b"L"))


def _quoted(line: bytes) -> bytes:
    line = line.strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b'"', b"'"):
        raise RefusedError("text without quotes")
    return bytes(codecs.escape_decode(line[1:-1])[0])


def _items(machine: Machine, pairs: list[Any]) -> None:
    target = machine.top(dict)
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        target[as_key(name)] = finished(value)


def _operations() -> list[Callable[[Machine], None] | None]:
    def push(make: Callable[[Machine], Any]) -> Callable[[Machine], None]:
        return lambda m: m.stack.append(make(m))

    def extend(m: Machine) -> None:
        items = m.marked()
        m.top(list).extend(map(finished, items))

    def append(m: Machine) -> None:
        item = m.stack.pop()
        m.top(list).append(finished(item))

    def add(m: Machine) -> None:
        items = m.marked()
        m.top(set).update(map(as_key, items))

    def set_item(m: Machine) -> None:
        value, key = m.stack.pop(), m.stack.pop()
        _items(m, [key, value])

    def set_items(m: Machine) -> None:
        pairs = m.marked()
        _items(m, pairs)

    def last(count: int) -> Callable[[Machine], None]:
        def make(m: Machine) -> None:
            if len(m.stack) < count:
                raise RefusedError("a tuple of more than there is")
            items = tuple(map(finished, m.stack[-count:]))
            del m.stack[-count:]
            m.stack.append(items)

        return make

    def put(index: Callable[[Machine], int]) -> Callable[[Machine], None]:
        def store(m: Machine) -> None:
            m.memo[index(m)] = m.stack[-1]

        return store

    def pop(m: Machine) -> None:
        if m.marks and m.marks[-1] == len(m.stack):
            m.marks.pop()
        else:
            m.stack.pop()

    def proto(m: Machine) -> None:
        version = m.number("<B")
        if version > 5:
            raise RefusedError(f"pickle protocol {version}; 0 to 5 are read")

    def reduce(m: Machine) -> None:
        args, function = m.stack.pop(), m.stack.pop()
        m.call(function, args)

    def named(m: Machine) -> None:
        module, name = m.line().decode("utf-8"), m.line().decode("utf-8")
        m.name(module, name)

    def named_on_stack(m: Machine) -> None:
        name, module = m.stack.pop(), m.stack.pop()
        m.name(as_text(module), as_text(name))

    def persist(m: Machine) -> None:
        key = m.stack.pop()
        if m.persistent is None:
            raise RefusedError("a persistent id, which only a torch file has")
        m.stack.append(m.persistent(key))

    def decoded(m: Machine, size: int) -> str:
        return str(m.take(size), "utf-8", "surrogatepass")

    def to_dict(m: Machine) -> None:
        pairs = m.marked()
        m.stack.append({})
        _items(m, pairs)

    def mark(m: Machine) -> None:
        m.marks.append(len(m.stack))

    table: dict[bytes, Callable[[Machine], None]] = {
        b"(": mark,
        b"0": pop,
        b"1": lambda m: (m.marked(), None)[1],
        b"2": push(lambda m: m.stack[-1]),
        b"F": push(lambda m: float(m.line())),
        b"G": Machine.floats,
        b"I": push(lambda m: _integer(m.line())),
        b"L": push(lambda m: _integer(m.line())),
        b"J": push(lambda m: m.number("<i")),
        b"K": push(lambda m: m.number("<B")),
        b"M": push(lambda m: m.number("<H")),
        b"\x8a": push(lambda m: _long(m.take(m.number("<B")))),
        b"\x8b": push(lambda m: _long(m.take(m.number("<i")))),
        b"N": push(lambda m: None),
        b"\x88": push(lambda m: True),
        b"\x89": push(lambda m: False),
        b"S": push(lambda m: _quoted(m.line())),
        b"T": push(lambda m: m.bytes_of(m.number("<i"))),
        b"U": push(lambda m: m.bytes_of(m.number("<B"))),
        b"B": push(lambda m: m.bytes_of(m.number("<I"))),
        b"C": push(lambda m: m.bytes_of(m.number("<B"))),
        b"\x8e": push(lambda m: m.bytes_of(m.number("<Q"))),
        b"\x96": push(lambda m: m.bytes_of(m.number("<Q"))),
        b"V": push(lambda m: m.line().decode("raw-unicode-escape")),
        b"X": push(lambda m: decoded(m, m.number("<I"))),
        b"\x8c": push(lambda m: decoded(m, m.number("<B"))),
        b"\x8d": push(lambda m: decoded(m, m.number("<Q"))),
        b"]": push(lambda m: []),
        b"}": push(lambda m: {}),
        b")": push(lambda m: ()),
        b"\x8f": push(lambda m: set()),
        b"l": push(lambda m: list(map(finished, m.marked()))),
        b"t": push(lambda m: tuple(map(finished, m.marked()))),
        b"\x91": push(lambda m: frozenset(map(as_key, m.marked()))),
        b"d": to_dict,
        b"a": append,
        b"e": extend,
        b"s": set_item,
        b"u": set_items,
        b"\x90": add,
        b"\x85": last(1),
        b"\x86": last(2),
        b"\x87": last(3),
        b"p": put(lambda m: int(m.line())),
        b"q": put(lambda m: m.number("<B")),
        b"r": put(lambda m: m.number("<I")),
        b"\x94": put(lambda m: len(m.memo)),
        b"g": push(lambda m: m.memo[int(m.line())]),
        b"h": push(lambda m: m.memo[m.number("<B")]),
        b"j": push(lambda m: m.memo[m.number("<I")]),
        b"c": named,
        b"\x93": named_on_stack,
        b"R": reduce,
        b"b": Machine.build,
        b"Q": persist,
        b"\x80": proto,
        b"\x95": lambda m: (m.take(8), None)[1],
    }
    return [table.get(bytes([code])) for code in range(256)]


OPERATIONS = _operations()
STOP = ord(".")
