"""Number formatting in reports: three decimals, without the leading zero."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from carat.evaluation.bootstrap import Interval


def short(text: str) -> str:
    """Remove the zero before the decimal point from every number in a text.

    >>> short("0.250 and -0.5, but 10.5")
    '.250 and -.5, but 10.5'
    """
    return re.sub(r"\b0\.", ".", text)


def decimal(value: float) -> str:
    """Format a number as `.123`.

    >>> decimal(0.25), decimal(float("nan"))
    ('.250', 'nan')
    """
    return short(f"{value:.3f}")


def signed(value: float) -> str:
    """Format a number with its sign, as `+.123` or `-.123`.

    >>> signed(0.25)
    '+.250'
    """
    return short(f"{value:+.3f}")


def mean_and_spread(values: Sequence[float]) -> str:
    """Format mean and standard deviation as `.123 ± .004`; for a single value, only the mean.

    >>> mean_and_spread([0.5, 0.75]), mean_and_spread([-0.25])
    ('.625 ± .177', '-.250')
    """
    spread = f" ± {decimal(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return f"{decimal(float(np.mean(values)))}{spread}"


def in_brackets(interval: Interval, signed: bool = False) -> str:
    """Format an interval as `.123 – .456`, or with signs as `-.012 … +.345`.

    >>> in_brackets((0.25, 1.5)), in_brackets((-0.25, 0.5), signed=True)
    ('.250 – 1.500', '-.250 … +.500')
    """
    form = "{:+.3f} … {:+.3f}" if signed else "{:.3f} – {:.3f}"
    return short(form.format(*interval))
