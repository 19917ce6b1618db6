"""Detection of the encoding of text that is not UTF-8."""

from __future__ import annotations

import codecs
import re

import charset_normalizer

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by byte order mark; that of UTF-32 begins with that of UTF-16."""
SHORT = 16
"""Number of non-ASCII bytes below which Chinese encodings cannot be told apart; GBK is assumed."""


def detect_by_mark(head: bytes) -> str | None:
    """Detect Unicode by its byte order mark, or UTF-16 by the zeros of ASCII characters.

    >>> detect_by_mark("a,b".encode("utf-16-le"))
    'utf-16-le'
    """
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    even, odd = head[::2], head[1::2]
    if len(head) >= 4 and even.count(0) < len(even) / 8 and odd.count(0) > len(odd) / 2:
        return "utf-16-le"
    if len(head) >= 4 and odd.count(0) < len(odd) / 8 and even.count(0) > len(even) / 2:
        return "utf-16-be"
    return None


def detect(sample: bytes) -> str | None:
    """Guess the encoding of lines that are not ASCII and not UTF-8; None if there is no good guess.

    In Western text, bytes beyond ASCII stand alone between letters; elsewhere they follow each other.

    >>> detect("it’s a café".encode("cp1252")), detect("今天天气很好".encode("gbk"))
    ('cp1252', 'gb18030')
    """
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", sample)]
    if sum(n for n in runs if n > 1) * 2 < sum(runs):
        return _first(sample, ["cp1252"])
    isolated = ["gb18030", "big5", "cp932", "euc_kr", "cp1251", "cp1252"]
    best = charset_normalizer.from_bytes(sample, cp_isolation=isolated, threshold=0.5).best()
    guess = best.encoding if best else None
    if guess not in ("gb18030", "cp932") and sum(runs) < SHORT and _first(sample, ["gb2312"]):
        return "gb18030"
    return guess or _first(sample, ["cp1252"])


def _first(sample: bytes, encodings: list[str]) -> str | None:
    for encoding in encodings:
        try:
            sample.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return None
