"""Interpreter of pickle opcodes that builds plain data only."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
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

VIEW_SIZE = 1 << 16
"""Minimum size in bytes of byte strings that are returned as views of the file."""
MAX_STACK = 1 << 20
"""Maximum number of values and marks on the stack."""

Handler = Callable[[tuple[Any, ...]], Any]
"""Returns what a global would, for its arguments."""
Persistent = Callable[[Any], Any]
"""Returns the object of a persistent ID."""


class Machine:
    """The state of the pickle virtual machine: a stack, marks and a memo.

    Args:
        buffer: content of the file.
        position: start of the pickle.
        load_persistent: returns the object of a persistent ID; None refuses persistent IDs.
        handlers: functions that replace the allowed globals, by name.
    """

    def __init__(
        self,
        buffer: memoryview,
        position: int = 0,
        load_persistent: Persistent | None = None,
        handlers: Mapping[str, Handler] = GLOBALS,
    ) -> None:
        self.buffer, self.position, self.load_persistent = buffer, position, load_persistent
        self.handlers = handlers
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.budget = 4 * len(buffer) + 1_000_000
        """Elements that may still be copied, which stops small files from expanding by repetition."""

    def run(self) -> Any:
        """Interpret the pickle and return its value; `position` is then its end.

        Raises:
            RefusedError: the pickle contains something that is not plain data.
        """
        operations = OPERATIONS
        while True:
            code = self.buffer[self.position]
            self.position += 1
            if code == STOP:
                return finished(self.stack.pop())
            operation = operations[code]
            if operation is None:
                raise RefusedError(f"opcode {bytes([code])!r}: not a pickle, or a pickle of objects")
            operation(self)
            if len(self.stack) + len(self.marks) > MAX_STACK:
                raise RefusedError("more than a million values on the stack")

    def read(self, size: int) -> memoryview:
        """Read bytes."""
        if size < 0 or self.position + size > len(self.buffer):
            raise ValueError(f"truncated: {size} more bytes expected")
        start = self.position
        self.position += size
        return self.buffer[start : self.position]

    def read_number(self, format: str) -> Any:
        """Read a number in a format of the `struct` module."""
        return struct.unpack(format, self.read(struct.calcsize(format)))[0]

    def read_line(self) -> bytes:
        """Read to the end of the line."""
        content = bytearray()
        while True:
            part = bytes(self.buffer[self.position : self.position + 4096])
            end = part.find(b"\n")
            if end >= 0:
                self.position += end + 1
                return bytes(content + part[:end])
            if not part:
                raise ValueError("truncated: end of line expected")
            content += part
            self.position += len(part)

    def pop_mark(self) -> list[Any]:
        """Pop the values above the last mark, and the mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def read_bytes(self, size: int) -> bytes | memoryview:
        """Read a byte string; large ones are views of the file."""
        content = self.read(size)
        return content if size >= VIEW_SIZE else bytes(content)

    def peek(self, kind: Any) -> Any:
        """Return the top of the stack, which must have a type."""
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise RefusedError(f"an invalid operation on a value of type {type(value).__name__}")
        return value

    def call(self, function: Any, args: Any) -> None:
        """Push the result of calling a global."""
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise RefusedError(f"a call to a value of type {type(function).__name__}")
        handler = self.handlers.get(function.name)
        if handler is None:
            raise RefusedError(f"'{function.name}', which is not allowed")
        self.charge(*args)
        self.stack.append(handler(tuple(map(finished, args))))

    def charge(self, *values: Any) -> None:
        """Charge the budget for values that are about to be copied."""
        self.budget -= sum(
            len(x) for x in values if isinstance(x, (str, bytes, memoryview, list, tuple, set))
        )
        if self.budget < 0:
            raise RefusedError("values repeated far beyond the size of the file")

    def push_global(self, module: str, name: str) -> None:
        """Push a global, if it is allowed."""
        full_name = f"{module}.{name}"
        if full_name not in self.handlers:
            hint = "; save a table as CSV" if module.partition(".")[0] == "pandas" else ""
            raise RefusedError(
                f"'{full_name[:80]}', which could run code; only plain data, arrays and tensors are allowed"
                f"{hint}"
            )
        self.stack.append(Global(full_name))

    def push_floats(self) -> None:
        """Push a run of floats. They are decoded together, because files contain millions of them."""
        start, stack = self.position - 1, self.stack
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
            raise ValueError("truncated: number expected")
        self.position = start + 9 * count
        values = rows[:count, 1:].copy().view(">f8")[:, 0].astype(np.float64)
        if count >= 8 and self.marks and isinstance(stack[self.marks[-1] - 1] if stack else None, list):
            stack.append(Floats(values))
        else:
            stack.extend(values.tolist())

    def build(self) -> None:
        """Set the state of an array or dtype."""
        state, target = finished(self.stack.pop()), self.stack[-1]
        if isinstance(target, Array) and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, content = state
            if not isinstance(dtype, Dtype):
                raise RefusedError("an array without dtype")
            self.charge(content)
            target.value = shaped(content, dtype.numpy(), shape, bool(fortran))
        elif isinstance(target, Dtype) and isinstance(state, tuple) and len(state) >= 5:
            if state[2] is not None or state[3] is not None or state[4] is not None:
                raise RefusedError("a structured array, expected numbers or text")
            target.order = as_text(state[1])
        else:
            raise RefusedError(f"a state for an object of type {type(target).__name__}")


def _long(content: memoryview) -> int:
    if len(content) > 64:
        raise RefusedError("an integer of more than 512 bits")
    return int.from_bytes(content, "little", signed=True)


def _integer(line: bytes) -> Any:
    if line in (b"00", b"01"):
        return line == b"01"
    if len(line) > 160:
        raise RefusedError("an integer of more than 512 bits")
    return int(line.rstrip(b"L"))


def _quoted(line: bytes) -> bytes:
    line = line.strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b'"', b"'"):
        raise RefusedError("text without quotes")
    return bytes(codecs.escape_decode(line[1:-1])[0])


def _items(machine: Machine, pairs: list[Any]) -> None:
    target = machine.peek(dict)
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        target[as_key(name)] = finished(value)


def _operations() -> list[Callable[[Machine], None] | None]:
    def push(make: Callable[[Machine], Any]) -> Callable[[Machine], None]:
        return lambda m: m.stack.append(make(m))

    def extend(m: Machine) -> None:
        items = m.pop_mark()
        m.peek(list).extend(map(finished, items))

    def append(m: Machine) -> None:
        item = m.stack.pop()
        m.peek(list).append(finished(item))

    def add(m: Machine) -> None:
        items = m.pop_mark()
        m.peek(set).update(map(as_key, items))

    def set_item(m: Machine) -> None:
        value, key = m.stack.pop(), m.stack.pop()
        _items(m, [key, value])

    def set_items(m: Machine) -> None:
        pairs = m.pop_mark()
        _items(m, pairs)

    def last(count: int) -> Callable[[Machine], None]:
        def make(m: Machine) -> None:
            if len(m.stack) < count:
                raise RefusedError("a tuple of more values than the stack has")
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
        version = m.read_number("<B")
        if version > 5:
            raise RefusedError(f"pickle protocol {version}, expected 0 to 5")

    def reduce(m: Machine) -> None:
        args, function = m.stack.pop(), m.stack.pop()
        m.call(function, args)

    def named(m: Machine) -> None:
        module, name = m.read_line().decode("utf-8"), m.read_line().decode("utf-8")
        m.push_global(module, name)

    def named_on_stack(m: Machine) -> None:
        name, module = m.stack.pop(), m.stack.pop()
        m.push_global(as_text(module), as_text(name))

    def persist(m: Machine) -> None:
        key = m.stack.pop()
        if m.load_persistent is None:
            raise RefusedError("a persistent ID, which only files written by torch.save have")
        m.stack.append(m.load_persistent(key))

    def decoded(m: Machine, size: int) -> str:
        return str(m.read(size), "utf-8", "surrogatepass")

    def to_dict(m: Machine) -> None:
        pairs = m.pop_mark()
        m.stack.append({})
        _items(m, pairs)

    def mark(m: Machine) -> None:
        m.marks.append(len(m.stack))

    table: dict[bytes, Callable[[Machine], None]] = {
        b"(": mark,
        b"0": pop,
        b"1": lambda m: (m.pop_mark(), None)[1],
        b"2": push(lambda m: m.stack[-1]),
        b"F": push(lambda m: float(m.read_line())),
        b"G": Machine.push_floats,
        b"I": push(lambda m: _integer(m.read_line())),
        b"L": push(lambda m: _integer(m.read_line())),
        b"J": push(lambda m: m.read_number("<i")),
        b"K": push(lambda m: m.read_number("<B")),
        b"M": push(lambda m: m.read_number("<H")),
        b"\x8a": push(lambda m: _long(m.read(m.read_number("<B")))),
        b"\x8b": push(lambda m: _long(m.read(m.read_number("<i")))),
        b"N": push(lambda m: None),
        b"\x88": push(lambda m: True),
        b"\x89": push(lambda m: False),
        b"S": push(lambda m: _quoted(m.read_line())),
        b"T": push(lambda m: m.read_bytes(m.read_number("<i"))),
        b"U": push(lambda m: m.read_bytes(m.read_number("<B"))),
        b"B": push(lambda m: m.read_bytes(m.read_number("<I"))),
        b"C": push(lambda m: m.read_bytes(m.read_number("<B"))),
        b"\x8e": push(lambda m: m.read_bytes(m.read_number("<Q"))),
        b"\x96": push(lambda m: m.read_bytes(m.read_number("<Q"))),
        b"V": push(lambda m: m.read_line().decode("raw-unicode-escape")),
        b"X": push(lambda m: decoded(m, m.read_number("<I"))),
        b"\x8c": push(lambda m: decoded(m, m.read_number("<B"))),
        b"\x8d": push(lambda m: decoded(m, m.read_number("<Q"))),
        b"]": push(lambda m: []),
        b"}": push(lambda m: {}),
        b")": push(lambda m: ()),
        b"\x8f": push(lambda m: set()),
        b"l": push(lambda m: list(map(finished, m.pop_mark()))),
        b"t": push(lambda m: tuple(map(finished, m.pop_mark()))),
        b"\x91": push(lambda m: frozenset(map(as_key, m.pop_mark()))),
        b"d": to_dict,
        b"a": append,
        b"e": extend,
        b"s": set_item,
        b"u": set_items,
        b"\x90": add,
        b"\x85": last(1),
        b"\x86": last(2),
        b"\x87": last(3),
        b"p": put(lambda m: int(m.read_line())),
        b"q": put(lambda m: m.read_number("<B")),
        b"r": put(lambda m: m.read_number("<I")),
        b"\x94": put(lambda m: len(m.memo)),
        b"g": push(lambda m: m.memo[int(m.read_line())]),
        b"h": push(lambda m: m.memo[m.read_number("<B")]),
        b"j": push(lambda m: m.memo[m.read_number("<I")]),
        b"c": named,
        b"\x93": named_on_stack,
        b"R": reduce,
        b"b": Machine.build,
        b"Q": persist,
        b"\x80": proto,
        b"\x95": lambda m: (m.read(8), None)[1],
    }
    return [table.get(bytes([code])) for code in range(256)]


OPERATIONS = _operations()
STOP = ord(".")
