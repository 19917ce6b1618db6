"""Recipes: YAML that says how a user's own table and features become a store."""

from __future__ import annotations

import operator
import os
import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from carat.config.base import Section, expand, parse, read_yaml
from carat.data.recipes.cleaning import Cleaning
from carat.data.recipes.sources.arrays import ArraySource
from carat.data.recipes.sources.glove import GloveSource
from carat.data.recipes.sources.hidden_states import HuggingFaceSource
from carat.data.recipes.sources.tokens import TokenSource
from carat.data.recipes.sources.waveforms import WaveformSource

RULE = re.compile(r"(>=|<=|==|!=|>|<)\s*(-?\d+(?:\.\d+)?)")
COMPARE = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


class ArrayModality(Cleaning):
    """Features from an `.npz` or `.npy` file."""

    source: Literal["array"]
    file: str
    column: str
    """Column of the table that holds the keys."""
    values: str | None = None
    keys: str | None = None

    def open(self, folder: Path) -> ArraySource:
        return ArraySource(folder / expand(self.file), self.values, self.keys)


class GloveModality(Cleaning):
    """Word vectors of a text column."""

    source: Literal["glove"]
    file: str
    column: str

    def open(self, folder: Path) -> GloveSource:
        return GloveSource(folder / expand(self.file))


class HuggingFaceModality(Cleaning):
    """Token features of a text column from a local Hugging Face folder."""

    source: Literal["hf"]
    folder: str
    column: str
    max_tokens: int | None = Field(default=None, gt=2)
    batch_size: int = Field(default=32, gt=0)

    def open(self, folder: Path) -> HuggingFaceSource:
        return HuggingFaceSource(folder / expand(self.folder), self.max_tokens, self.batch_size)


class TokenModality(Section):
    """Token ids of a text column, for an encoder that learns along."""

    source: Literal["tokens"]
    folder: str
    column: str
    max_tokens: int | None = Field(default=None, gt=2)
    context: int = Field(default=0, ge=0, strict=True)
    """Tokens that are read along of what was said before in the same group, and as many of what follows."""
    order: str | None = None
    """Column of numbers by which samples of a group follow one another; the table's order by default."""

    @model_validator(mode="after")
    def _orders_something(self) -> TokenModality:
        if self.order is not None and "context" not in self.model_fields_set:
            raise ValueError("order says in which order context is read; set context too, e.g. context: 24")
        return self

    def open(self, folder: Path) -> TokenSource:
        return TokenSource(folder / expand(self.folder), self.max_tokens, self.context)


class WaveformModality(Section):
    """Sound of media files, for an encoder that learns along."""

    source: Literal["waveform"]
    folder: str
    column: str
    """Column of the table that holds the files' names."""
    rate: int = Field(default=16000, gt=0)
    seconds: float = Field(default=30.0, gt=0)

    def open(self, folder: Path) -> WaveformSource:
        return WaveformSource(folder / expand(self.folder), self.rate, self.seconds)


Modality = Annotated[
    ArrayModality | GloveModality | HuggingFaceModality | TokenModality | WaveformModality,
    Field(discriminator="source"),
]


class Labels(Section):
    """Which columns are labels, and when a label is present."""

    columns: list[str] = Field(min_length=1)
    rule: str = "> 0"
    """Comparison with a number: >, >=, <, <=, == or !=."""
    intensities: bool = False
    """Keep the numbers themselves in the store too."""

    @field_validator("rule")
    @classmethod
    def _is_comparison(cls, rule: str) -> str:
        if not RULE.fullmatch(rule.strip()):
            raise ValueError(f"'{rule}' is not a comparison such as '> 0'")
        return rule.strip()

    def present(self, intensities: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Apply the rule."""
        match = RULE.fullmatch(self.rule)
        assert match is not None
        return np.asarray(COMPARE[match[1]](intensities, float(match[2])), dtype=np.uint8)


class Recipe(Section):
    """A table, where its labels are, and where each modality's features come from.

    Relative paths start at the recipe's folder; `${NAME}` and `${NAME:-default}` are environment variables.
    """

    name: str
    table: str
    id: str | Annotated[list[str], Field(min_length=1)]
    """Column that names the sample, or several, joined by '/'."""
    split: str
    """Column that names the split."""
    splits: dict[Literal["train", "valid", "test"], str] = {
        "train": "train",
        "valid": "valid",
        "test": "test",
    }
    """What stands in the column for each split."""
    group: str | None = None
    """Column that names the video or dialogue; intervals are resampled by it."""
    transcript: str | None = None
    """Column of what is said."""
    labels: Labels
    modalities: dict[str, Modality] = Field(min_length=1)
    dtype: Literal["float16", "float32"] = "float32"

    @model_validator(mode="after")
    def _knows_conversations(self) -> Recipe:
        for m, modality in self.modalities.items():
            if isinstance(modality, TokenModality) and modality.context and self.group is None:
                raise ValueError(
                    f"modalities.{m}: context needs `group`, the column of what belongs together"
                )
        return self


def load_recipe(file: str | os.PathLike[str]) -> Recipe:
    """Read and check a recipe.

    Raises:
        ConfigError: unknown key, missing key, or a value that is not allowed.
    """
    return parse(Recipe, read_yaml(file), str(file))
