"""Pickles are read as plain data, and code in them is never executed."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import lzma
import os
import pickle
import resource
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carat.data.pickled.globals import Floats
from carat.data.pickled.reading import read_pickle, to_array
from carat.utils.errors import CaratError, DataError
from tests.data.field_files import python_2

DATA: dict[str, Any] = {
    "plain": [1, -2, 2.5, "ü€", b"\xff\x00", None, True, False, 10**30, (1, 2), {3, 4}, frozenset([5])],
    "array": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3)),
    "big-endian": np.arange(5, dtype=">i2"),
    "empty": np.zeros((0, 3)),
    "bool": np.array([True, False]),
    "text": np.array(["ab", "c"]),
    "bytes": np.array([b"ab", b"c"]),
    "objects": np.array(["v1", 3.5, None], dtype=object),
    "scalar": np.float32(0.5),
    "ordered": collections.OrderedDict(a=1, b=2),
    "default": collections.defaultdict(list, {"k": [1]}),
    "floats": [0.25 * i for i in range(3001)],
    "nested": [[0.5 * i + j for j in range(35)] for i in range(7)],
    "large": np.random.default_rng(0).random((67, 311)).astype("f4"),
}


def same(value: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        return (
            isinstance(value, np.ndarray)
            and value.shape == expected.shape
            and value.dtype.kind == expected.dtype.kind
            and bool((value == expected).all())
        )
    if isinstance(expected, dict):
        return list(value) == list(expected) and all(same(value[k], x) for k, x in expected.items())
    if isinstance(expected, (list, tuple)):
        flat: list[Any] = []
        for x in value:
            flat += x.values.tolist() if isinstance(x, Floats) else [x]
        return type(value) is type(expected) and len(flat) == len(expected) and all(map(same, flat, expected))
    return bool(value == expected)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_and_arrays_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(DATA, protocol=protocol))
    loaded = read_pickle(tmp_path / "x.pkl")
    for name, expected in DATA.items():
        assert same(loaded[name], expected), name
    assert to_array(loaded["floats"], "x").tolist() == DATA["floats"]
    assert to_array(loaded["nested"], "x").tolist() == DATA["nested"]


def test_python_2_text_is_bytes_and_arrays_are_arrays(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((31, 1103))
    (tmp_path / "x.pkl").write_bytes(python_2({"a": ["x", 3], "b": array, "n": (1, {"c": True})}))
    assert pickle.loads((tmp_path / "x.pkl").read_bytes(), encoding="latin1")["a"] == ["x", 3]
    loaded = read_pickle(tmp_path / "x.pkl")
    assert loaded[b"a"] == [b"x", 3]
    assert (loaded[b"b"] == array).all()
    assert loaded[b"n"] == (1, {b"c": True})


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch(tmp_path: Path, zipped: bool) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    value = {
        "whole": whole,
        "transposed": whole.T,
        "part": whole[1:3, 2:],
        "ints": torch.arange(5),
        "half": torch.ones(3, dtype=torch.float16),
        "empty": torch.zeros(0, 3),
        "data": DATA,
    }
    torch.save(value, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    loaded = read_pickle(tmp_path / "x.pt")
    for name, tensor in value.items():
        if isinstance(tensor, torch.Tensor):
            assert (loaded[name] == tensor.numpy()).all(), name
            assert loaded[name].shape == tuple(tensor.shape)
    assert same(loaded["data"]["nested"], DATA["nested"])


def test_tensors_in_a_pickle(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4).reshape(2, 2).T}
    for protocol in range(2, 6):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(tensors, protocol))
        value = read_pickle(tmp_path / "a.pkl")
        assert value["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert value["b"].tolist() == [[0, 2], [1, 3]]


def test_storages_in_storages_are_refused(tmp_path: Path) -> None:
    inner = pickle.dumps(torch.ones(2))
    evil = (
        b"\x80\x03ctorch.storage\n_load_from_bytes\nB" + len(inner).to_bytes(4, "little") + inner + b"\x85R."
    )
    (tmp_path / "a.pkl").write_bytes(evil)
    with pytest.raises(DataError, match=r"refused, contains 'torch\.storage\._load_from_bytes'"):
        read_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("zipped", [True, False])
def test_types_that_numpy_lacks(tmp_path: Path, zipped: bool) -> None:
    value = {"a": torch.tensor([[1.5, -2.0]]).bfloat16(), "b": torch.nn.Parameter(torch.ones(2))}
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    read = read_pickle(tmp_path / "a.pt")
    assert read["a"].tolist() == [[1.5, -2.0]]
    assert read["b"].tolist() == [1, 1]


def test_arrays_of_numbers_as_objects(tmp_path: Path) -> None:
    array = np.arange(30, dtype=object).reshape(10, 3) / 2
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(array))
    assert to_array(read_pickle(tmp_path / "a.pkl"), "a").tolist() == array.tolist()


@pytest.mark.parametrize("name", [b"pandas\nDataFrame", b"pandas.core.frame\nDataFrame"])
def test_tables_of_pandas_are_refused_with_advice(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02c" + name + b"\n)R.")
    with pytest.raises(DataError, match=r"could run code; .* allowed; save a table as CSV"):
        read_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_pickles_are_named(tmp_path: Path, pack: Any) -> None:
    (tmp_path / "a.pkl").write_bytes(pack(pickle.dumps([1])))
    with pytest.raises(DataError, match=r"is compressed \((gzip|bzip2|xz)\); decompress it first"):
        read_pickle(tmp_path / "a.pkl")


def test_large_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    array = np.zeros((1000, 5000), dtype="f4")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": array}, protocol=4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = read_pickle(tmp_path / "x.pkl")["a"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB, of 20 MB
    assert loaded.shape == array.shape
    assert not loaded.flags.writeable


class Calls:
    """An object that is pickled as a call to a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> Any:
        return self.function, self.args


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return out.getvalue()


PLAIN = pickle.dumps({"a": 1}, protocol=2)
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
FLOAT32 = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNN"
FLOAT32 += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
HOSTILE: dict[str, tuple[bytes, str]] = {
    "system by reduce": (
        pickle.dumps(Calls(os.system, "touch HACKED")),
        r"'posix\.system', which could run code",
    ),
    "eval": (
        pickle.dumps(Calls(eval, "open('HACKED','w')"), protocol=0),
        r"'__builtin__\.eval', which could",
    ),
    "numpy.load gadget": (
        b"\x80\x02cnumpy\nload\nX\x05\x00\x00\x00x.npyNN\x88\x87R.",
        r"'numpy\.load', which could run code",
    ),
    "getattr chain": (
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        r"'builtins\.getattr', which could run code",
    ),
    "torch loader": (
        b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x1acos\nsystem\n(S'touch x'\ntR.\x85R.",
        "'os.system', which could run code",
    ),
    "script archive": (
        archive({"m/data.pkl": PLAIN, "m/code/__torch__.py": b"import os", "m/version": b"3"}),
        "contains TorchScript code; save the data itself",
    ),
    "setstate of a dict": (b"\x80\x02}}X\x01\x00\x00\x00aK\x01sb.", "a state for an object of type dict"),
    "setstate of an array": (b"\x80\x02" + ARRAY + b"}b.", "a state for an object of type Array"),
    "instance": (b"(ios\nsystem\n.", "opcode b'i': not a pickle"),
    "object": (b"(cbuiltins\nset\no.", "opcode b'o': not a pickle"),
    "extension": (b"\x80\x02\x82\x01.", r"opcode b'\\x82': not a pickle"),
    "memo bomb": (
        b"\x80\x02]" + b"r\xff\xff\xff\xff" * 1000 + b"j\xfe\xff\xff\xff.",
        "corrupt or not a pickle",
    ),
    "repeated values": (
        b"\x80\x02](" + b"K\x01" * 5000 + b"eq\x00" + b"c__builtin__\nset\nh\x00\x85R0" * 3000 + b"N.",
        "values repeated far beyond the size of the file",
    ),
    "truncated": (pickle.dumps(DATA)[:900], "corrupt or not a pickle"),
    "declared size": (
        b"\x80\x04\x8e" + struct.pack("<Q", 10 << 30) + b"abc.",
        "truncated: 10737418240 more bytes expected",
    ),
    "declared shape": (
        b"\x80\x03" + ARRAY + b"(K\x01J\x00\x00\x00\x40J\x0a\x00\x00\x00\x86" + FLOAT32 + b"\x89C\x04abcdtb.",
        r"an array of shape \(1073741824, 10\) and type float32 with 4 bytes of content",
    ),
    "negative shape": (
        b"\x80\x03" + ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + FLOAT32 + b"\x89C\x04abcdtb.",
        "whose shape is not a tuple of sizes",
    ),
    "path in zip": (
        archive({"../../HACKED": b"x", "m/data.pkl": PLAIN}),
        "an archive member with an unsafe path",
    ),
    "absolute path in zip": (
        archive({"/etc/HACKED": b"x", "m/data.pkl": PLAIN}),
        "an archive member with an unsafe path",
    ),
    "compressed zip": (
        archive({"m/data.pkl": PLAIN * 9}, zipfile.ZIP_DEFLATED),
        "a compressed archive member",
    ),
    "zip without data": (
        archive({"m/other.pkl": PLAIN}),
        r"no data\.pkl, so it was not written by torch\.save",
    ),
    "wrong protocol": (b"\x80\x09N.", "pickle protocol 9, expected 0 to 5"),
    "unhashable key": (b"\x80\x02}]K\x01s.", "a key of type list"),
    "deep key": (b"\x80\x02}" + b")" + b"\x85" * 50 + b"K\x01s.", "a key of type tuple"),
    "no pickle": (b"hello world", "corrupt or not a pickle|not a pickle, or a pickle of objects"),
    "empty": (b"", "the file is empty"),
    "empty stack": (b"\x80\x02.", "corrupt or not a pickle"),
    "python object array": (
        b"\x80\x03" + ARRAY + b"(K\x01K\x02\x85cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R\x89]tb.",
        "an array of 2 objects whose content is not a list of that length",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content, message = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pt").write_bytes(content)
    peak, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(DataError, match=message) as refused:
        read_pickle(tmp_path / "evil.pt")
    assert time.monotonic() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 1 << 20  # KiB
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / 'evil.pt'}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]
    assert capfd.readouterr() == ("", "")


def test_allowed_globals_with_invalid_arguments_are_refused(tmp_path: Path) -> None:
    for call in (
        b"cnumpy\nndarray\nK\x05\x85R.",
        b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x85Rq\x00" + ARRAY + b"(K\x01K\x01\x85h\x00\x89C\x01atb.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00rot\x86R.",
        b"ccollections\nOrderedDict\nK\x05\x85R.",
        b"c__builtin__\nset\nK\x05\x85R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03tR.",
        b"cnumpy.core.multiarray\nscalar\nK\x01K\x02\x86R.",
        b"K\x01K\x02\x85R.",
        b"Q.",
    ):
        (tmp_path / "x.pkl").write_bytes(b"\x80\x03" + call)
        with pytest.raises(DataError):
            read_pickle(tmp_path / "x.pkl")


SEEDS = [pickle.dumps(DATA, protocol=p) for p in (0, 2, 4, 5)]


def seed_files() -> list[bytes]:
    loaded = list(SEEDS)
    for zipped in (True, False):
        out = io.BytesIO()
        torch.save(
            {"t": torch.arange(6.0).reshape(2, 3), "d": [1, "x", np.arange(3)]},
            out,
            _use_new_zipfile_serialization=zipped,
        )
        loaded.append(out.getvalue())
    return [*loaded, python_2({"a": ["x", 3], "b": np.arange(4.0)})]


FILES = seed_files()


def mutated(random: np.random.Generator) -> bytes:
    """A file with some bytes changed, removed or repeated, or truncated."""
    content = bytearray(FILES[random.integers(len(FILES))])
    for _ in range(random.integers(1, 6)):
        position, size = int(random.integers(len(content))), int(random.integers(1, 9))
        what = random.integers(5)
        if what == 0:
            content[position] = int(random.integers(256))
        elif what == 1:
            del content[position : position + size]
        elif what == 2:
            content[position:position] = content[position : position + size]
        elif what == 3:
            content[position : position + size] = random.bytes(size)
        else:
            del content[position:]
        content = content or bytearray(b".")
    return bytes(content)


def fuzz(folder: Path, seed: int, inputs: int) -> None:
    """Check that every mutated file is read or refused with a CaratError, in limited time and memory."""
    random = np.random.default_rng(seed)
    file = folder / "mutated"
    for i in range(inputs):
        content = mutated(random)
        file.write_bytes(content)
        started = time.monotonic()
        try:
            read_pickle(file)
        except CaratError:
            pass
        except Exception as error:
            raise AssertionError(f"seed {seed}, input {i}: {type(error).__name__} {error}") from error
        assert time.monotonic() - started < 5, f"seed {seed}, input {i}"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3 << 20  # KiB; other tests' share included


def test_mutated_files(tmp_path: Path) -> None:
    fuzz(tmp_path, seed=0, inputs=1500)


@pytest.mark.slow
def test_many_mutated_files(tmp_path: Path) -> None:
    fuzz(tmp_path, seed=1, inputs=20_000)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), protocol=st.sampled_from([b"", b"\x80\x02", b"\x80\x04"]))
def test_random_opcodes(tmp_path: Path, content: bytes, protocol: bytes) -> None:
    (tmp_path / "x").write_bytes(protocol + content + b".")
    message = ""
    try:
        read_pickle(tmp_path / "x")
    except CaratError as error:
        message = str(error)
    assert "\n" not in message
