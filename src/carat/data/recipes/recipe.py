"""Recipe files: YAML that describes the table and feature sources of a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from carat.config.base import Section, expand, parse, read_yaml
from carat.data.cleaning import Cleaning
from carat.data.recipes.columns import Columns, Prefix, select_columns
from carat.data.recipes.labels import Labels
from carat.data.recipes.sources.arrays import ArraySource
from carat.data.recipes.sources.columns import ColumnSource
from carat.data.recipes.sources.glove import GloveSource
from carat.data.recipes.sources.hidden_states import HuggingFaceSource
from carat.data.recipes.sources.media import MediaSource
from carat.data.recipes.sources.table import Table
from carat.data.recipes.sources.tokens import TokenSource
from carat.data.recipes.sources.waveforms import WaveformSource
from carat.data.recipes.splits import DEFAULT_VALUES, Split, SplitName
from carat.data.store.transform import Padding
from carat.data.tables.format import Column, TableFormat
from carat.features.description import (
    FaceSettings,
    OpenSmileSettings,
    Settings,
    VoiceSettings,
    WhisperSettings,
)
from carat.utils.errors import DataError


class ArrayModality(Cleaning):
    """Features from a file, or from a folder with one file per clip; see `ArraySource`."""

    source: Literal["array"]
    file: str
    """`.npz`, `.npy`, `.pkl`, `.pt`, `.h5`, `.mat` or `.csv` file, or a folder of such files."""
    column: Column
    """Table column with the keys."""
    values: str | None = None
    """Name of the array of values in a file with several arrays."""
    keys: str | None = None
    """Name of the array of keys in such a file; a second file for `.npy`; a column for `.csv`."""
    columns: list[str] | None = None
    """Names or patterns, such as `AU*_r`, of columns of `.csv` files; defaults to all that are features."""

    def open(self, folder: Path) -> ArraySource:
        return ArraySource(folder / expand(self.file), self.values, self.keys, self.columns)


class ColumnModality(Cleaning):
    """Features in numeric columns of the table, one step per sample; see `ColumnSource`."""

    source: Literal["columns"]
    columns: Columns
    """Names of columns, or a pattern such as `voice_*`."""
    padding: Padding = "none"
    """See `Cleaning`; by default, zeros are numbers like others."""

    def open(self, table: Table, ids: Sequence[str], labels: Sequence[str]) -> ColumnSource:
        columns = select_columns(table, self.columns)
        if leaks := [name for name in labels if name in columns]:
            raise DataError(f"{table.file}: features contain the label column '{leaks[0]}'; leave it out")
        return ColumnSource(table, list(columns), ids)


class GloveModality(Cleaning):
    """Word vectors of a text column; see `GloveSource`."""

    source: Literal["glove"]
    file: str
    column: Column
    """Table column with the texts."""
    padding: Padding = "none"
    """See `Cleaning`; by default, zeros are words without a vector."""

    def open(self, folder: Path) -> GloveSource:
        return GloveSource(folder / expand(self.file))


class HuggingFaceModality(Cleaning):
    """Hidden states of a text encoder in a local Hugging Face folder; see `HuggingFaceSource`."""

    source: Literal["hf"]
    folder: str
    column: Column
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
    column: Column
    """Table column with the texts."""
    max_tokens: int | None = Field(default=None, gt=2)
    """Length in tokens to which texts are truncated; defaults to the limit of the encoder."""
    context: int = Field(default=0, ge=0, strict=True)
    """Maximum number of context tokens on each side of a text, from other texts of its group."""
    order: Column | None = None
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
    column: Column
    """Table column with the file names, relative to `folder`."""
    rate: int = Field(default=16000, gt=0)
    """Sampling rate in Hz."""
    seconds: float = Field(default=30.0, gt=0)
    """Duration to which audio is truncated."""

    def open(self, folder: Path) -> WaveformSource:
        return WaveformSource(folder / expand(self.folder), self.rate, self.seconds)


class MediaModality(Cleaning):
    """Features extracted from media files; see `MediaSource`."""

    settings_type: ClassVar[type[Section]]
    """Parameters of the extractor."""
    folder: str
    column: Column
    """Table column with the file names, relative to `folder`."""
    start: Column | None = None
    """Table column with the start of each sample in its file, in seconds; defaults to whole files."""
    end: Column | None = None
    """Table column with the end of each sample."""

    @model_validator(mode="after")
    def _check_part(self) -> Self:
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end belong together; name both columns")
        return self

    @property
    def settings(self) -> Settings:
        """Parameters of the extractor: the fields that it shares with the modality."""
        values = self.model_dump(include=set(self.settings_type.model_fields))
        return cast("Settings", self.settings_type.model_validate(values))

    def open(self, folder: Path, table: Table) -> MediaSource:
        parts = None
        if self.start is not None and self.end is not None:
            parts = list(zip(table.numbers(self.start), table.numbers(self.end), strict=True))
            wrong = next((i for i, (start, end) in enumerate(parts) if not 0 <= start < end), None)
            if wrong is not None:
                start, end = parts[wrong]
                raise DataError(
                    f"{table.file}: {table.place(wrong)} runs from {start:g} to {end:g} s; expected a start "
                    "of at least 0, and a later end"
                )
        return MediaSource(folder / expand(self.folder), self.settings, table.text(self.column), parts)


class FaceModality(MediaModality, FaceSettings):
    """Facial expression and head pose of the person in a video."""

    settings_type: ClassVar[type[Section]] = FaceSettings
    source: Literal["face"]


class VoiceModality(MediaModality, VoiceSettings):
    """Log-mel energies, loudness and pitch."""

    settings_type: ClassVar[type[Section]] = VoiceSettings
    source: Literal["voice"]


class WhisperModality(MediaModality, WhisperSettings):
    """Hidden states of Whisper's encoder."""

    settings_type: ClassVar[type[Section]] = WhisperSettings
    source: Literal["whisper"]


class OpenSmileModality(MediaModality, OpenSmileSettings):
    """Descriptors of eGeMAPSv02; openSMILE's licence allows no commercial use."""

    settings_type: ClassVar[type[Section]] = OpenSmileSettings
    source: Literal["opensmile"]


Modality = Annotated[
    ArrayModality
    | ColumnModality
    | GloveModality
    | HuggingFaceModality
    | TokenModality
    | WaveformModality
    | FaceModality
    | VoiceModality
    | WhisperModality
    | OpenSmileModality,
    Field(discriminator="source"),
]


class Recipe(TableFormat):
    """A table of samples, its label columns, and a feature source for each modality.

    Paths are relative to the folder of the recipe; `${NAME}` and `${NAME:-default}` are replaced by
    environment variables.
    """

    name: str
    """Name of the dataset."""
    table: str | Annotated[dict[SplitName, str], Field(min_length=1)]
    """CSV, TSV, JSON lines or Parquet file, see `Table`; or a file for each split, which get a column `split`
    if they have none."""
    rows: int | None = Field(default=None, gt=0, strict=True)
    """Number of rows to use for a trial, evenly spaced over the table; all by default."""
    id: Column | Annotated[list[Column], Field(min_length=1)]
    """Table column with the sample ID, or several columns, joined by '/'."""
    split: Split | None = None
    """Table column with the split, lists of IDs, or shares; not given if there is a table for each split."""
    splits: dict[SplitName, Column] = DEFAULT_VALUES
    """Value of the split column for each split."""
    group: Prefix | Column | Annotated[list[Column], Field(min_length=1)] | None = None
    """Table column with the video or dialogue, the unit of the bootstrap and of context; or several columns,
    or the beginning of one."""
    transcript: Column | None = None
    """Table column with the spoken words."""
    labels: Labels
    modalities: dict[str, Modality] = Field(min_length=1)
    dtype: Literal["float16", "float32"] = "float32"

    @model_validator(mode="after")
    def _check_splits(self) -> Recipe:
        if isinstance(self.table, dict):
            if self.split is not None or "splits" in self.model_fields_set:
                raise ValueError("split and splits have no effect, because there is a table for each split")
        elif self.split is None:
            raise ValueError("'split' is missing")
        elif not isinstance(self.split, str) and "splits" in self.model_fields_set:
            raise ValueError("splits names values of a split column, but split is none")
        return self

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
