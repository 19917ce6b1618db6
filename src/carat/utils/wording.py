"""Numbers in messages."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """
    >>> count(1, "segment"), count(2, "segment")
    ('1 segment', '2 segments')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
