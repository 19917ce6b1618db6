"""The feature sources of a recipe's modalities, and its transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from carat.config.base import Section, expand
from carat.data.cleaning import Cleaning
from carat.data.recipes.columns import Columns, select_columns
from carat.data.recipes.sources.arrays import ArraySource
from carat.data.recipes.sources.columns import ColumnSource
from carat.data.recipes.sources.glove import GloveSource
from carat.data.recipes.sources.hidden_states import HuggingFaceSource
from carat.data.recipes.sources.media import MediaSource, Parts
from carat.data.recipes.sources.table import Table
from carat.data.recipes.sources.tokens import TokenSource
from carat.data.recipes.sources.transcripts import TranscriptSource
from carat.data.recipes.sources.waveforms import WaveformSource
from carat.data.store.transform import Padding
from carat.data.tables.format import Column
from carat.features.description import (
    FaceSettings,
    OpenSmileSettings,
    Settings,
    TranscriptSettings,
    VoiceSettings,
    WhisperSettings,
)
from carat.utils.errors import DataError

TRANSCRIPT = "transcript"
"""Column that `transcript` adds to the table."""


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


class Clips(Section):
    """Media files of the table rows, or parts of them."""

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

    def parts(self, table: Table) -> Parts | None:
        """Start and end of each row in seconds; None for whole files.

        Raises:
            DataError: a start or an end is invalid.
        """
        if self.start is None or self.end is None:
            return None
        parts = list(zip(table.numbers(self.start), table.numbers(self.end), strict=True))
        wrong = next((i for i, (start, end) in enumerate(parts) if not 0 <= start < end), None)
        if wrong is not None:
            start, end = parts[wrong]
            raise DataError(
                f"{table.file}: {table.place(wrong)} runs from {start:g} to {end:g} s; expected a start "
                "of at least 0, and a later end"
            )
        return parts


class Transcription(Clips, TranscriptSettings):
    """Transcripts of media files, given or recognized, as the column `transcript`; see `TranscriptSource`."""

    given: Column | None = None
    """Table column with texts, or with names of transcript files relative to `folder`; where it is empty,
    speech is recognized."""

    def open(self, folder: Path, table: Table, *, timed: bool) -> TranscriptSource:
        if TRANSCRIPT in table.columns and self.given != TRANSCRIPT:
            raise DataError(
                f"{table.file}: has a column '{TRANSCRIPT}' already; use it (transcript: {TRANSCRIPT}), or "
                f"complete it (given: {TRANSCRIPT})"
            )
        files = table.text(self.column)
        given = [""] * len(table) if self.given is None else table.text(self.given)
        places = [f"{table.where(row)}, column '{self.given}'" for row in range(len(table))]
        settings = TranscriptSettings.model_validate(
            self.model_dump(include=set(TranscriptSettings.model_fields))
        )
        return TranscriptSource(
            folder / expand(self.folder), settings, files, given, places, self.parts(table), timed=timed
        )


class MediaModality(Cleaning, Clips):
    """Features extracted from media files; see `MediaSource`."""

    settings_type: ClassVar[type[Section]]
    """Parameters of the extractor."""
    align: Literal["words"] | None = None
    """Average features over each word of the recipe's `transcript`; words at which there are none are
    absent."""

    @property
    def settings(self) -> Settings:
        """Parameters of the extractor: the fields that it shares with the modality."""
        values = self.model_dump(include=set(self.settings_type.model_fields))
        return cast("Settings", self.settings_type.model_validate(values))

    def open(self, folder: Path, table: Table) -> MediaSource:
        files = table.text(self.column)
        return MediaSource(folder / expand(self.folder), self.settings, files, self.parts(table))


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
