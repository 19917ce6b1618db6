"""Recipe files: YAML that describes the table and feature sources of a store."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field, model_validator

from carat.config.base import parse, read_yaml
from carat.data.recipes.columns import Prefix
from carat.data.recipes.labels import Labels
from carat.data.recipes.modalities import (
    TRANSCRIPT,
    GloveModality,
    HuggingFaceModality,
    MediaModality,
    Modality,
    TokenModality,
    Transcription,
)
from carat.data.recipes.splits import DEFAULT_VALUES, Split, SplitName
from carat.data.tables.format import Column, TableFormat


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
    transcript: Transcription | Column | None = None
    """Table column with the spoken words; or media files, whose transcripts become that column."""
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

    @model_validator(mode="after")
    def _check_alignment(self) -> Recipe:
        for m, modality in self.modalities.items():
            is_aligned = isinstance(modality, MediaModality) and modality.align is not None
            if is_aligned and not isinstance(self.transcript, Transcription):
                raise ValueError(
                    f"modalities.{m}: align needs `transcript` with the media files, e.g. transcript: "
                    "{folder: clips, column: file}"
                )
        return self

    @property
    def needs_word_times(self) -> bool:
        """Whether features are averaged over words."""
        return any(isinstance(x, MediaModality) and x.align is not None for x in self.modalities.values())

    def reads_transcripts(self, m: str) -> bool:
        """Whether a modality consists of the transcripts that `transcript` makes."""
        modality = self.modalities[m]
        if not isinstance(modality, GloveModality | HuggingFaceModality | TokenModality):
            return False
        return modality.column == TRANSCRIPT and isinstance(self.transcript, Transcription)


def load_recipe(file: str | os.PathLike[str]) -> Recipe:
    """Read and validate a recipe.

    Raises:
        ConfigError: the file cannot be read, or has an unknown key, a missing key or an invalid value.
    """
    return parse(Recipe, read_yaml(file), str(file))
