"""Recipe files: YAML that describes the table and feature sources of a store."""

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
from carat.data.cleaning import Cleaning
from carat.data.recipes.sources.arrays import ArraySource
from carat.data.recipes.sources.glove import GloveSource
from carat.data.recipes.sources.hidden_states import HuggingFaceSource
from carat.data.recipes.sources.tokens import TokenSource
from carat.data.recipes.sources.waveforms import WaveformSource
from carat.data.store.transform import Padding

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
    """Features from a file, or from a folder with one file per clip; see `ArraySource`."""

    source: Literal["array"]
    file: str
    """`.npz`, `.npy`, `.pkl`, `.pt`, `.h5`, `.mat` or `.csv` file, or a folder of such files."""
    column: str
    """Table column with the keys."""
    values: str | None = None
    """Name of the array of values in a file with several arrays."""
    keys: str | None = None
    """Name of the array of keys in such a file; a second file for `.npy`; a column for `.csv`."""
    columns: list[str] | None = None
    """Names or patterns, such as `AU*_r`, of columns of `.csv` files; defaults to all that are features."""

    def open(self, folder: Path) -> ArraySource:
        return ArraySource(folder / expand(self.file), self.values, self.keys, self.columns)


class GloveModality(Cleaning):
    """Word vectors of a text column; see `GloveSource`."""

    source: Literal["glove"]
    file: str
    column: str
    """Table column with the texts."""
    padding: Padding = "none"
    """See `Cleaning`; by default, zeros are words without a vector."""

    def open(self, folder: Path) -> GloveSource:
        return GloveSource(folder / expand(self.file))


class HuggingFaceModality(Cleaning):
    """Hidden states of a text encoder in a local Hugging Face folder; see `HuggingFaceSource`."""

    source: Literal["hf"]
    folder: str
    column: str
    """Table column with the texts."""
    max_tokens: int | None = Field(default=None, gt=2)
    """Length in tokens to which texts are truncated; defaults to the limit of the encoder."""
    batch_size: int = Field(default=32, gt=0)
    """Texts encoded at once."""
    padding: Padding = "none"
    """See `Cleaning`; hidden states have no padding."""

    def open(self, folder: Path) -> HuggingFaceSource:
        return HuggingFaceSource(folder / expand(self.folder), self.max_tokens, self.batch_size)


class TokenModality(Section):
    """Token IDs of a text column, for an encoder that is fine-tuned jointly; see `TokenSource`."""

    source: Literal["tokens"]
    folder: str
    column: str
    """Table column with the texts."""
    max_tokens: int | None = Field(default=None, gt=2)
    """Length in tokens to which texts are truncated; defaults to the limit of the encoder."""
    context: int = Field(default=0, ge=0, strict=True)
    """Maximum number of context tokens on each side of a text, from other texts of its group."""
    order: str | None = None
    """Numeric table column by which the texts of a group are sorted; defaults to the order of the table."""

    @model_validator(mode="after")
    def _check_order(self) -> TokenModality:
        if self.order is not None and "context" not in self.model_fields_set:
            raise ValueError("order has no effect without context; set context too, e.g. context: 24")
        return self

    def open(self, folder: Path) -> TokenSource:
        return TokenSource(folder / expand(self.folder), self.max_tokens, self.context)


class WaveformModality(Section):
    """Audio of media files, for an encoder that is fine-tuned jointly; see `WaveformSource`."""

    source: Literal["waveform"]
    folder: str
    column: str
    """Table column with the file names, relative to `folder`."""
    rate: int = Field(default=16000, gt=0)
    """Sampling rate in Hz."""
    seconds: float = Field(default=30.0, gt=0)
    """Duration to which audio is truncated."""

    def open(self, folder: Path) -> WaveformSource:
        return WaveformSource(folder / expand(self.folder), self.rate, self.seconds)


Modality = Annotated[
    ArrayModality | GloveModality | HuggingFaceModality | TokenModality | WaveformModality,
    Field(discriminator="source"),
]


class Labels(Section):
    """Label columns, and the rule that makes a label present."""

    columns: list[str] = Field(min_length=1)
    """Numeric table columns, in the order of the L axis."""
    rule: str = "> 0"
    """Comparison with a number: >, >=, <, <=, == or !=."""
    intensities: bool = False
    """Store the numbers as label intensities too."""

    @field_validator("rule")
    @classmethod
    def _check_rule(cls, rule: str) -> str:
        if not RULE.fullmatch(rule.strip()):
            raise ValueError(f"'{rule}' is not a comparison such as '> 0'")
        return rule.strip()

    def present(self, intensities: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Apply the rule to intensities (N, L); the result is 0 or 1."""
        match = RULE.fullmatch(self.rule)
        assert match is not None
        return np.asarray(COMPARE[match[1]](intensities, float(match[2])), dtype=np.uint8)


class Recipe(Section):
    """A table of samples, its label columns, and a feature source for each modality.

    Paths are relative to the folder of the recipe; `${NAME}` and `${NAME:-default}` are replaced by
    environment variables.
    """

    name: str
    """Name of the dataset."""
    table: str
    """CSV, TSV or Parquet file; see `Table`."""
    id: str | Annotated[list[str], Field(min_length=1)]
    """Table column with the sample ID, or several columns, joined by '/'."""
    split: str
    """Table column with the split."""
    splits: dict[Literal["train", "valid", "test"], str] = {
        "train": "train",
        "valid": "valid",
        "test": "test",
    }
    """Value of the split column for each split."""
    group: str | None = None
    """Table column with the video or dialogue, the unit of the bootstrap and of context."""
    transcript: str | None = None
    """Table column with the spoken words."""
    labels: Labels
    modalities: dict[str, Modality] = Field(min_length=1)
    dtype: Literal["float16", "float32"] = "float32"

    @model_validator(mode="after")
    def _check_group(self) -> Recipe:
        for m, modality in self.modalities.items():
            if isinstance(modality, TokenModality) and modality.context and self.group is None:
                raise ValueError(f"modalities.{m}: context needs `group`, the column with the conversation")
        return self


def load_recipe(file: str | os.PathLike[str]) -> Recipe:
    """Read and validate a recipe.

    Raises:
        ConfigError: the file cannot be read, or has an unknown key, a missing key or an invalid value.
    """
    return parse(Recipe, read_yaml(file), str(file))
