"""Settings for reading tables."""

from __future__ import annotations

import codecs
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator

from carat.config.base import Section

SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}
"""Names of separators, in the order in which they are tried."""
Column = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""Name of a table column; without a header, its number from 0."""


class TableFormat(Section):
    """How a table is written. What is not set is detected."""

    separator: str | None = Field(default=None, min_length=1)
    """Separator of cells: one character, or `tab`, `comma`, `semicolon`, `bar`. By default, that of the file
    extension, or whatever the first line contains."""
    quote: str | None = Field(default=None, min_length=1)
    """Character around cells that contain separators or line breaks, or `none` if quotes are ordinary
    characters. By default `"`, as far as the file agrees with it."""
    encoding: str | None = None
    """Encoding of the text, such as `cp1252` or `gbk`. By default UTF-8, or whatever is detected."""
    header: bool = True
    """Whether the first row names the columns."""
    columns: list[Column] | None = Field(default=None, min_length=1)
    """Names of the columns of a table without a header; their numbers from 0 by default."""

    @field_validator("separator")
    @classmethod
    def _check_separator(cls, separator: str | None) -> str | None:
        names = {name: character for character, name in SEPARATORS.items()}
        separator = names.get(separator or "", "\t" if separator == "\\t" else separator)
        if separator is not None and (len(separator) != 1 or separator in "\r\n\0"):
            raise ValueError(f"'{separator}' is not a character; use e.g. ',', ';' or tab")
        return separator

    @field_validator("quote")
    @classmethod
    def _check_quote(cls, quote: str | None) -> str | None:
        if quote not in (None, "none") and (len(quote) != 1 or quote.isalnum() or quote.isspace()):
            raise ValueError(f"'{quote}' is neither a quotation character nor 'none'")
        return quote

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str | None) -> str | None:
        try:
            if encoding is not None:
                "".encode(encoding)
        except (LookupError, UnicodeError, ValueError) as error:
            raise ValueError(
                f"'{encoding}' is not the name of an encoding; use e.g. utf-8, cp1252, gbk or utf-16"
            ) from error
        return codecs.lookup(encoding).name if encoding else None

    @model_validator(mode="after")
    def _check_consistency(self) -> TableFormat:
        if self.columns is not None and self.header:
            raise ValueError("columns name those of a table without a header; set header: false too")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError("columns has a name twice")
        if self.separator is not None and self.separator == self.quote:
            raise ValueError("separator and quote are the same character")
        return self
