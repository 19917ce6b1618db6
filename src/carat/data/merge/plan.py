"""Merge plans: YAML that describes which corpora become one store, with maps of labels and modalities."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field, model_validator

from carat.config.base import Section, parse, read_yaml
from carat.data.recipes.splits import SplitName

Name = Annotated[str, Field(min_length=1)]
Names = Name | Annotated[list[Name], Field(min_length=1)]


class Corpus(Section):
    """One of the corpora: a store, or a recipe from which one is built."""

    store: str | None = None
    """Folder of a store, relative to that of the plan."""
    recipe: str | None = None
    """Recipe file, relative to the folder of the plan."""
    labels: dict[Name, Names] | None = None
    """By label of the merged store, the label or labels of this corpus that mean it: it is present if one of
    them is, and absent if all of them are. Defaults to labels of the same name; others are unknown."""
    modalities: dict[Name, Name] | None = None
    """By modality of the merged store, that of this corpus; others are left out. Defaults to all, with their
    names."""
    splits: Annotated[list[SplitName], Field(min_length=1)] | None = None
    """Splits to take; all by default."""

    @model_validator(mode="after")
    def _check_source(self) -> Corpus:
        if (self.store is None) == (self.recipe is None):
            raise ValueError("needs either `store`, a folder, or `recipe`, a file")
        return self


class MergePlan(Section):
    """Corpora that become one store; a label that a corpus does not have is unknown for its samples."""

    name: str
    """Name of the merged data set."""
    labels: Annotated[list[Name], Field(min_length=1)] | None = None
    """Labels in the order of the L axis; defaults to those of all corpora, in order of appearance."""
    modalities: Annotated[list[Name], Field(min_length=1)] | None = None
    """Modalities in the order of the M axis; defaults to those of all corpora, in order of appearance."""
    leaks: Literal["refuse", "drop"] = "refuse"
    """A sample that two corpora have in different splits: refuse it, or drop it from the earlier split, so
    that nothing in validation or test was trained on."""
    corpora: dict[Name, Corpus] = Field(min_length=1)
    """Corpora by name; the names become the column `corpus`, and the beginnings of ids and groups."""

    @model_validator(mode="after")
    def _check_names(self) -> MergePlan:
        for name in self.corpora:
            if "/" in name:
                raise ValueError(f"corpora.{name}: a name of a corpus has no '/'")
        return self


def load_plan(file: str | os.PathLike[str]) -> MergePlan:
    """Read and validate a merge plan.

    Raises:
        ConfigError: the file cannot be read, or has an unknown key, a missing key or an invalid value.
    """
    return parse(MergePlan, read_yaml(file), str(file))
