"""Text files of unknown origin: kind, compression, encoding and limits of size, found in one pass."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from carat.utils.encoding import detect, detect_by_mark
from carat.utils.errors import DataError
from carat.utils.reading import open_file

COMPRESSIONS = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".zst": b"\x28\xb5\x2f\xfd"}
"""First bytes of compressed files, by extension."""
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
FOREIGN = {
    b"PK\x03\x04": "is a ZIP archive or an Excel workbook; save the table as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save the sheet as CSV (UTF-8)",
    b"PAR1": "is a Parquet file; rename it to end in .parquet",
    b"%PDF": "is a PDF, not a table",
    b"\x80\x04\x95": "is a pickle, not a table",
    b"\xfd7zXZ\x00": "is compressed by xz; compress it by gzip, bzip2 or Zstandard instead",
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; fetch it by `git lfs pull`",
    b"<!doctype html": "is a web page, not a table; download the raw file",
    b"<html": "is a web page, not a table; download the raw file",
}
"""First bytes, in lower case where they are letters, of files that are often taken for tables."""
CHUNK = 1 << 20
MAX_LINE = 4 << 20
"""Maximum length of a line in bytes."""
MAX_EXPANSION = 50
"""Maximum ratio of the size of a decompressed file to its size on disk, beyond `MIN_LIMIT`."""
MIN_LIMIT = 64 << 20
"""Size in bytes to which any compressed file may be decompressed."""
SAMPLE = 1 << 18
"""Bytes of lines beyond ASCII from which the encoding is guessed."""


class TextContent:
    """The decoded lines of a text file, which may be compressed.

    The file is read once to check it and to detect its encoding, and again by each call of `lines`.

    Args:
        file: text file, plain or compressed by gzip, bzip2 or Zstandard.
        encoding: encoding of the text; detected by default.

    Raises:
        DataError: the file cannot be read, is of another kind, too large when decompressed, or not text.
    """

    def __init__(self, file: Path, encoding: str | None = None) -> None:
        self.file = file
        self.notes: list[str] = []
        """What was detected, for the user."""
        self.has_quotes = False
        """Whether the file contains a double quotation mark."""
        with open_file(file) as opened:
            head = opened.read(64)
            self._size = opened.seek(0, io.SEEK_END)
        magic = (ending for ending, start in COMPRESSIONS.items() if head.startswith(start))
        self._compression = next(magic, None)
        _check_kind(file, file.name.lower(), head)
        self._given = encoding
        self.encoding = encoding or "utf-8"
        self._scan()

    def lines(self) -> Generator[str, None, None]:
        """Yield the lines with their ends: "\\n", "\\r\\n" or "\\r".

        Raises:
            DataError: the file cannot be read or is not text in its encoding.
        """
        try:
            with self._text() as text:
                first = text.readline()
                if first:
                    yield first.removeprefix("\ufeff")
                yield from text
        except UnicodeError as error:
            raise DataError(
                f"{self.file}, line {self._find_undecodable()}: not text in {self.encoding} "
                f"({_reason(error)}); set its encoding (--encoding), e.g. cp1252 or gbk"
            ) from error

    def _find_undecodable(self) -> int:
        """Return the number of the first line that cannot be decoded."""
        with self._text(errors="replace") as text:
            try:
                return next((i for i, line in enumerate(text, start=1) if "\ufffd" in line), 1)
            except UnicodeError:  # a stream of UTF-16 without byte order mark
                return 1

    @contextmanager
    def _text(self, errors: str = "strict") -> Iterator[io.TextIOWrapper]:
        """Open the decoded text (context manager)."""
        with (
            self._open() as raw,
            io.TextIOWrapper(raw, encoding=self.encoding, errors=errors, newline="") as text,
        ):
            yield text

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """Open the decompressed bytes (context manager)."""
        try:
            with open_file(self.file) as opened:
                yield self._decompress(opened)
        except UnicodeError:
            raise
        except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
            raise DataError(f"{self.file}: cannot be read ({_reason(error)})") from error

    def _decompress(self, opened: IO[bytes]) -> Any:
        if self._compression == ".gz":
            return gzip.GzipFile(fileobj=opened, mode="rb")
        if self._compression == ".bz2":
            return bz2.BZ2File(opened)
        if self._compression == ".zst":
            return pa.CompressedInputStream(pa.PythonFile(opened, mode="r"), "zstd")
        return opened

    def _scan(self) -> None:
        """Check the size, the lengths of lines and the characters, and detect the encoding."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        is_utf8, is_wide, size, line, length = True, False, 0, 1, 0
        beyond_ascii: list[bytes] = []
        with self._open() as raw:
            while chunk := raw.read(CHUNK):
                if size == 0:
                    _check_kind(self.file, "", chunk[:64])
                    detected = detect_by_mark(chunk[:4096])
                    self.encoding = self._given or detected or "utf-8"
                    is_wide = self.encoding.startswith(("utf-16", "utf-32", "utf_16", "utf_32"))
                    if detected and not self._given and detected != "utf-8-sig":
                        self._note(detected)
                size += len(chunk)
                self._check_size(size)
                if not is_wide and 0 in chunk:
                    number = line + chunk[: chunk.index(0)].count(b"\n")
                    raise DataError(
                        f"{self.file}, line {number}: contains a NUL byte; it is damaged or not a text file"
                    )
                self.has_quotes |= b'"' in chunk
                length = self._check_line(chunk, length, line)
                line += chunk.count(b"\n")
                if is_utf8 and not self._given and not is_wide:
                    is_utf8 = _decodes(decoder, chunk)
                if not chunk.isascii() and sum(map(len, beyond_ascii)) < SAMPLE:
                    beyond_ascii += [x for x in chunk.splitlines(keepends=True) if not x.isascii()]
        if is_utf8 and not self._given and size and not is_wide:
            is_utf8 = _decodes(decoder, b"", final=True)
        if not is_utf8:
            self.encoding = self._detect(b"".join(beyond_ascii)[:SAMPLE])

    def _detect(self, sample: bytes) -> str:
        encoding = detect(sample[: sample.rfind(b"\n") + 1] or sample)
        if encoding is None:
            raise DataError(
                f"{self.file}: not UTF-8 text, and its encoding was not recognized; set encoding "
                "(--encoding), e.g. cp1252"
            )
        self._note(encoding)
        return encoding

    def _note(self, encoding: str) -> None:
        self.notes.append(
            f"{self.file.name} is not UTF-8; read as {encoding}, which was detected; to change that, set "
            "encoding (--encoding)"
        )

    def _check_size(self, size: int) -> None:
        limit = max(MIN_LIMIT, MAX_EXPANSION * self._size)
        if self._compression and size > limit:
            raise DataError(
                f"{self.file}: decompresses to more than {limit / 1e6:.0f} MB, {MAX_EXPANSION} times its "
                "size, which is refused as damaged; decompress it yourself if it is meant to"
            )

    def _check_line(self, chunk: bytes, length: int, line: int) -> int:
        """Return the length of the last, unfinished line of the file so far."""
        last = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
        if last >= 0:
            return len(chunk) - last - 1
        if length + len(chunk) > MAX_LINE:
            raise DataError(f"{self.file}, line {line}: longer than {MAX_LINE >> 20} MB, which is refused")
        return length + len(chunk)


def _check_kind(file: Path, name: str, head: bytes) -> None:
    """Raise DataError for files that are no table, by their name and their first bytes."""
    if name.endswith(SPREADSHEETS):
        raise DataError(f"{file}: is a spreadsheet; save the sheet as CSV (UTF-8)")
    start = head.removeprefix(codecs.BOM_UTF8)
    for magic, problem in FOREIGN.items():
        text = start.lstrip().lower() if magic.islower() else start
        if text.startswith(magic):
            raise DataError(f"{file}: {problem}")


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, final: bool = False) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return getattr(error, "strerror", None) or (lines[0] if lines else type(error).__name__)
