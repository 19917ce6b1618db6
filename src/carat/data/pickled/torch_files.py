"""Reading files written by `torch.save`: a zip archive, or before torch 1.6, pickles followed by storages."""

from __future__ import annotations

import re
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.pickled.globals import BFLOAT16, GLOBALS, STORAGES, Global, RefusedError, Storage, as_text
from carat.data.pickled.machine import Machine

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def _parse_storage(key: Any) -> tuple[str, str, int]:
    """Return dtype, name and number of elements of the storage with a persistent ID."""
    if not isinstance(key, tuple) or len(key) < 5 or as_text(key[0]) != "storage":
        raise RefusedError("an invalid persistent ID")
    kind, name, size = key[1], as_text(key[2]), key[4]
    if len(key) > 5 and key[5] is not None:
        raise RefusedError("a view of a storage; save a copy of the tensor")
    code = STORAGES.get(kind.name.removeprefix("torch.")) if isinstance(kind, Global) else None
    if code is None or not isinstance(size, int) or size < 0:
        raise RefusedError("a storage of an unsupported type, expected numbers")
    return code, name, size


def read_archive(path: Path, buffer: memoryview) -> Any:
    """Read a zip archive written by `torch.save`. Members are not compressed and are read in place."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if len(members) > 1_000_000:
        raise RefusedError("more than a million archive members")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        duplicate = Counter(names).most_common(1)[0][0]
        raise RefusedError(f"duplicate archive members '{duplicate[:80]}'")
    for name in names:
        if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name:
            raise RefusedError(f"an archive member with an unsafe path, '{name[:80]}'")
        if re.search(r"(^|/)(code|constants\.pkl)(/|$)", name):
            raise RefusedError("TorchScript code; save the data itself with torch.save")
    pickles = [name for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        raise RefusedError("no data.pkl, so it was not written by torch.save")
    root = pickles[0].removesuffix("data.pkl")
    content = {member.filename: _member(member, buffer) for member in members if not member.is_dir()}
    order = bytes(content.get(f"{root}byteorder", memoryview(b"little")))
    if order != b"little":
        raise RefusedError("big-endian numbers")

    def load_storage(key: Any) -> Storage:
        code, name, size = _parse_storage(key)
        data = content.get(f"{root}data/{name}")
        if data is None:
            raise RefusedError(f"a tensor whose storage '{name[:40]}' is missing")
        return Storage(_elements(data, code, size))

    return Machine(content[pickles[0]], 0, load_storage).run()


def _member(member: zipfile.ZipInfo, buffer: memoryview) -> memoryview:
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise RefusedError(
            f"a compressed archive member, '{member.filename[:80]}', which torch.save does not write"
        )
    start = member.header_offset
    if bytes(buffer[start : start + 4]) != b"PK\x03\x04":
        raise RefusedError(f"a corrupt archive member, '{member.filename[:80]}'")
    name, extra = struct.unpack("<HH", buffer[start + 26 : start + 30])
    start += 30 + name + extra
    if start + member.file_size > len(buffer):
        raise RefusedError(f"a truncated archive member, '{member.filename[:80]}'")
    return buffer[start : start + member.file_size]


def _item_size(code: str) -> int:
    return 2 if code == BFLOAT16 else np.dtype(code).itemsize


def _elements(data: memoryview, code: str, size: int) -> NDArray[Any]:
    end = size * _item_size(code)
    if end > len(data):
        raise RefusedError(f"a storage of {size} elements in {len(data)} bytes")
    if code == BFLOAT16:  # the upper half of a float32
        return (np.frombuffer(data[:end], "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data[:end], code)


def read_legacy(buffer: memoryview, position: int) -> Any:
    """Read a file written before torch 1.6: consecutive pickles, followed by the storages.

    Because the storages are last, the pickle is interpreted twice: with placeholders, to list the storages,
    and then with their content.

    Args:
        buffer: content of the file.
        position: end of the first pickle, the magic number.
    """
    start = position
    for _ in range(2):  # protocol version, and system information
        machine = Machine(buffer, start)
        machine.run()
        start = machine.position
    storages: dict[str, tuple[str, int]] = {}

    def make_placeholder(key: Any) -> Storage:
        code, name, size = _parse_storage(key)
        if size * _item_size(code) > len(buffer):
            raise RefusedError(f"a storage of {size} elements, more than the file has")
        storages[name] = code, size
        return Storage(np.broadcast_to(np.zeros(1, "<f4" if code == BFLOAT16 else code), size))

    machine = Machine(buffer, start, make_placeholder)
    machine.run()
    machine = Machine(buffer, machine.position)
    names = machine.run()
    if not isinstance(names, list):
        raise RefusedError("no list of storages")
    position = machine.position
    content: dict[str, NDArray[Any]] = {}
    for name in map(as_text, names):
        code, size = storages[name]
        if struct.unpack("<q", buffer[position : position + 8])[0] != size:
            raise RefusedError(f"a storage '{name[:40]}' whose size differs from that in its tensors")
        end = position + 8 + size * _item_size(code)
        content[name] = _elements(buffer[position + 8 : end], code, size)
        position = end
    return Machine(buffer, start, lambda key: Storage(content[_parse_storage(key)[1]])).run()


def _read_embedded(args: tuple[Any, ...]) -> Storage:
    """Read the storage of a tensor that was pickled without `torch.save`, as bytes in the pickle."""
    content = args[0] if len(args) == 1 else None
    if not isinstance(content, (bytes, memoryview)):
        raise RefusedError("an invalid storage")
    machine = Machine(memoryview(content))
    storage = read_legacy(machine.buffer, machine.position) if machine.run() == LEGACY_MAGIC else None
    if not isinstance(storage, Storage):
        raise RefusedError("an invalid storage")
    return storage


WITH_TENSORS = {**GLOBALS, "torch.storage._load_from_bytes": _read_embedded}
"""Allowed globals of a pickle with tensors, whose storages are pickles without tensors."""
