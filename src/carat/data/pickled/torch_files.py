"""Files of `torch.save`: a zip read in place, or before 1.6 pickles with storages behind them."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.pickled.globals import STORAGES, Global, RefusedError, Storage, as_text
from carat.data.pickled.machine import Machine

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def _storage_kind(key: Any) -> tuple[str, str, int]:
    """Dtype, name and elements of a torch persistent id."""
    if not isinstance(key, tuple) or len(key) < 5 or as_text(key[0]) != "storage":
        raise RefusedError("a persistent id of another form")
    kind, name, size = key[1], as_text(key[2]), key[4]
    if len(key) > 5 and key[5] is not None:
        raise RefusedError("a view of a storage; save a copy of the tensor")
    code = STORAGES.get(kind.name.removeprefix("torch.")) if isinstance(kind, Global) else None
    if code is None or not isinstance(size, int) or size < 0:
        raise RefusedError("a storage of another type; numbers are read")
    return code, name, size


def read_archive(path: Path, buffer: memoryview) -> Any:
    """A zip as `torch.save` writes it: members uncompressed, read in place, none extracted."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if len(members) > 1_000_000:
        raise RefusedError("more than a million members")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise RefusedError(f"the member '{next(n for n in names if names.count(n) > 1)[:80]}' twice")
    for name in names:
        if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name:
            raise RefusedError(f"a member outside of it, '{name[:80]}'")
        if re.search(r"(^|/)(code|constants\.pkl)(/|$)", name):
            raise RefusedError("code: it is a TorchScript archive; save the data itself with torch.save")
    pickles = [name for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        raise RefusedError("no data.pkl: it is no file of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    content = {member.filename: _member(member, buffer) for member in members if not member.is_dir()}
    order = bytes(content.get(f"{root}byteorder", memoryview(b"little")))
    if order != b"little":
        raise RefusedError("big-endian numbers")

    def persistent(key: Any) -> Storage:
        code, name, size = _storage_kind(key)
        data = content.get(f"{root}data/{name}")
        if data is None:
            raise RefusedError(f"a tensor whose storage '{name[:40]}' is missing")
        return Storage(_elements(data, code, size))

    return Machine(content[pickles[0]], 0, persistent).run()


def _member(member: zipfile.ZipInfo, buffer: memoryview) -> memoryview:
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise RefusedError(f"a compressed member, '{member.filename[:80]}', which torch.save does not write")
    start = member.header_offset
    if bytes(buffer[start : start + 4]) != b"PK\x03\x04":
        raise RefusedError(f"a damaged member, '{member.filename[:80]}'")
    name, extra = struct.unpack("<HH", buffer[start + 26 : start + 30])
    start += 30 + name + extra
    if start + member.file_size > len(buffer):
        raise RefusedError(f"a truncated member, '{member.filename[:80]}'")
    return buffer[start : start + member.file_size]


def _elements(data: memoryview, code: str, size: int) -> NDArray[Any]:
    kind = np.dtype(code)
    if size * kind.itemsize > len(data):
        raise RefusedError(f"a storage of {size} elements in {len(data)} bytes")
    return np.frombuffer(data[: size * kind.itemsize], kind)


def read_legacy(buffer: memoryview, place: int) -> Any:
    """What `torch.save` wrote before 1.6: pickles one after the other, then the storages.

    The storages come last, so that the pickle is run twice: once to learn which there are, once with their
    content.
    """
    start = place
    for _ in range(2):  # protocol version, then a description of the system
        machine = Machine(buffer, start)
        machine.run()
        start = machine.place
    kinds: dict[str, tuple[str, int]] = {}

    def note(key: Any) -> Storage:
        code, name, size = _storage_kind(key)
        if size * np.dtype(code).itemsize > len(buffer):
            raise RefusedError(f"a storage of {size} elements")
        kinds[name] = code, size
        return Storage(np.broadcast_to(np.zeros(1, code), size))

    machine = Machine(buffer, start, note)
    machine.run()
    listing = Machine(buffer, machine.place)
    names = listing.run()
    if not isinstance(names, list):
        raise RefusedError("no list of storages")
    place = listing.place
    content: dict[str, NDArray[Any]] = {}
    for name in map(as_text, names):
        code, size = kinds[name]
        if struct.unpack("<q", buffer[place : place + 8])[0] != size:
            raise RefusedError(f"a storage '{name[:40]}' of another size than its tensors say")
        stop = place + 8 + size * np.dtype(code).itemsize
        content[name] = _elements(buffer[place + 8 : stop], code, size)
        place = stop
    return Machine(buffer, start, lambda key: Storage(content[_storage_kind(key)[1]])).run()
