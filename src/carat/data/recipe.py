"""Recipes: YAML that turns a user's own table and features into a store."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from carat.config import Section, expand, parse, read_yaml
from carat.data.formats.arrays import ArraySource
from carat.data.formats.glove import GloveSource
from carat.data.formats.hugging_face import HuggingFaceSource
from carat.data.formats.table import Table
from carat.data.store import Store, open_store
from carat.data.writer import StoreWriter, check_target
from carat.errors import DataError, did_you_mean
from carat.progress import track

CHUNK = 512
RULE = re.compile(r"(>=|<=|==|!=|>|<)\s*(-?\d+(?:\.\d+)?)")
COMPARE = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


class Cleaning(Section):
    """What is changed in a modality's features, in this order."""

    drop_columns: list[Annotated[int, Field(ge=0)]] = []
    """Columns to leave out, counted from 0 in the source."""
    non_finite: Literal["zero", "error"] = "zero"
    """Set inf and NaN to 0 (they are counted in the manifest), or refuse them."""
    standardise: bool = False
    """Subtract the mean and divide by the standard deviation of each column over the training split."""


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


Modality = Annotated[ArrayModality | GloveModality | HuggingFaceModality, Field(discriminator="source")]


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
    id: str | list[str]
    """Column that names the sample, or several, joined by '/'."""
    split: str
    """Column that names the split."""
    splits: dict[str, str] = {"train": "train", "valid": "valid", "test": "test"}
    """Split names of the store, and what stands for each in the column."""
    group: str | None = None
    """Column that names the video or dialogue; intervals are resampled by it."""
    transcript: str | None = None
    """Column of what is said."""
    labels: Labels
    modalities: dict[str, Modality] = Field(min_length=1)
    dtype: Literal["float16", "float32"] = "float32"


class Source(Protocol):
    """Where features come from."""

    id: str

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]: ...


def load_recipe(file: str | os.PathLike[str]) -> Recipe:
    """Read and check a recipe.

    Raises:
        ConfigError: unknown key, missing key, or a value that is not allowed.
    """
    return parse(Recipe, read_yaml(file), str(file))


def build_store(
    recipe_file: str | os.PathLike[str], path: str | os.PathLike[str], *, overwrite: bool = False
) -> Store:
    """Turn a recipe into a store; nothing is left behind when it fails.

    Args:
        recipe_file: YAML, see `Recipe`.
        path: folder of the store to make.
        overwrite: replace an existing store.

    Raises:
        ConfigError: the recipe is wrong.
        DataError: the data is wrong; names file, column or sample and what to do.
    """
    recipe = load_recipe(recipe_file)
    check_target(Path(path), overwrite)
    folder = Path(recipe_file).parent
    table = Table(folder / expand(recipe.table))
    ids = _ids(table, recipe)
    splits = _splits(table, recipe)
    groups = table.text(recipe.group) if recipe.group else ids
    transcripts = table.text(recipe.transcript) if recipe.transcript else [""] * len(table)
    intensities = np.array([table.numbers(column) for column in recipe.labels.columns]).T
    present = recipe.labels.present(intensities)
    keys = {m: table.text(modality.column) for m, modality in recipe.modalities.items()}
    cleaners = {
        m: Cleaner(m, modality, modality.open(folder), keys[m], splits)
        for m, modality in recipe.modalities.items()
    }
    sources = {m: cleaner.source.id for m, cleaner in cleaners.items()}
    with StoreWriter(
        path,
        recipe.name,
        recipe.labels.columns,
        sources,
        list(recipe.splits),
        dtype=recipe.dtype,
        overwrite=overwrite,
    ) as writer:
        chunks = range(0, len(table), CHUNK)
        for start in track(chunks, "Building", total=len(chunks)):
            features = {m: cleaner.read(start, start + CHUNK) for m, cleaner in cleaners.items()}
            for i in range(start, min(start + CHUNK, len(table))):
                arrays = {m: column[i - start] for m, column in features.items()}
                writer.append(
                    ids[i],
                    splits[i],
                    present[i],
                    {m: x for m, x in arrays.items() if x is not None},
                    group=groups[i],
                    transcript=transcripts[i],
                    intensities=intensities[i] if recipe.labels.intensities else None,
                )
        for m, cleaner in cleaners.items():
            writer.cleaning[m] = cleaner.report()
        writer.notes.append(f"labels present where the column is {recipe.labels.rule}")
    return open_store(path)


class Cleaner:
    """Reads one modality and cleans it as the recipe says; counts what it changed.

    Args:
        name: of the modality.
        rules: what to change.
        source: where the features come from.
        keys: key of every table row.
        splits: split of every table row; standardisation looks at training rows only.
    """

    def __init__(
        self, name: str, rules: Cleaning, source: Source, keys: Sequence[str], splits: Sequence[str]
    ) -> None:
        self.name, self.rules, self.source, self.keys = name, rules, source, keys
        self.found = self.finite = self.replaced = 0
        self._mean: NDArray[np.float64] | None = None
        self._deviation: NDArray[np.float64] | None = None
        if rules.standardise:
            self._learn([key for key, split in zip(keys, splits, strict=True) if split == "train"])

    def read(self, start: int, stop: int) -> list[NDArray[Any] | None]:
        """Cleaned features of some table rows; None where the modality is absent."""
        out: list[NDArray[Any] | None] = []
        for key, array in zip(self.keys[start:stop], self.source.read(self.keys[start:stop]), strict=True):
            if array is None or not len(array):
                out.append(None)
                continue
            cleaned = self._drop(array)
            finite = np.isfinite(cleaned)
            self.found += 1
            self.finite += int(finite.sum())
            self.replaced += int((~finite).sum())
            if self.rules.non_finite == "error" and not finite.all():
                raise DataError(
                    f"modality '{self.name}', key '{key}': inf or NaN in column {_column(finite)}"
                )
            cleaned = np.where(finite, cleaned, 0)
            if self._mean is not None and self._deviation is not None:
                cleaned = np.where(finite, (cleaned - self._mean) / self._deviation, 0)
            out.append(cleaned.astype(np.float32))
        return out

    def report(self) -> list[str]:
        """What was changed, in words.

        Raises:
            DataError: nothing was found, or nothing of it is a finite number.
        """
        if not self.found:
            raise DataError(
                f"modality '{self.name}': no key of the table occurs in its source, e.g. '{self.keys[0]}'"
            )
        if not self.finite:
            raise DataError(f"modality '{self.name}': all values are inf or NaN")
        done = []
        if self.rules.drop_columns:
            done.append(f"columns dropped: {', '.join(map(str, self.rules.drop_columns))}")
        if self.replaced:
            done.append(f"{self.replaced} values that were inf or NaN set to 0")
        if self.rules.standardise:
            done.append("standardised by mean and standard deviation of the training split")
        return done

    def _drop(self, array: NDArray[Any]) -> NDArray[Any]:
        if not self.rules.drop_columns:
            return array
        outside = [column for column in self.rules.drop_columns if column >= array.shape[1]]
        if outside:
            raise DataError(
                f"modality '{self.name}': no column {outside[0]} to drop, the source has {array.shape[1]}"
            )
        return np.delete(array, self.rules.drop_columns, axis=1)

    def _learn(self, keys: Sequence[str]) -> None:
        """Mean and deviation of the training rows' finite values, in two passes' worth of sums."""
        count: Any = 0
        total: Any = 0
        squares: Any = 0
        shift: Any = None
        for start in range(0, len(keys), CHUNK):
            for array in self.source.read(keys[start : start + CHUNK]):
                if array is None or not len(array):
                    continue
                values = self._drop(array).astype(np.float64)
                values[~np.isfinite(values)] = np.nan
                if shift is None:  # sums of differences from a first guess lose no digits
                    shift = np.nan_to_num(values[0])
                finite = np.isfinite(values)
                moved = np.where(finite, values - shift, 0)
                count = count + finite.sum(0)
                total = total + moved.sum(0)
                squares = squares + (moved**2).sum(0)
        if shift is None:
            raise DataError(f"modality '{self.name}': absent from the training split, cannot be standardised")
        seen = np.maximum(count, 1)
        deviation = np.sqrt(np.maximum(squares / seen - (total / seen) ** 2, 0))
        self._mean = shift + total / seen
        self._deviation = np.where(deviation > 1e-8 * np.maximum(np.abs(self._mean), 1), deviation, 1.0)


def _column(finite: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(~finite.all(0))[0])


def _ids(table: Table, recipe: Recipe) -> list[str]:
    columns = [recipe.id] if isinstance(recipe.id, str) else recipe.id
    ids = ["/".join(parts) for parts in zip(*map(table.text, columns), strict=True)]
    first: dict[str, int] = {}
    for row, id in enumerate(ids, start=1):
        if id in first:
            raise DataError(f"{table.file}: id '{id}' occurs twice, in data rows {first[id]} and {row}")
        first[id] = row
    return ids


def _splits(table: Table, recipe: Recipe) -> list[str]:
    names = {written: split for split, written in recipe.splits.items()}
    found = table.text(recipe.split)
    for row, written in enumerate(found, start=1):
        if written not in names:
            hint = did_you_mean(written, names) or f"; the recipe knows: {', '.join(names)}"
            raise DataError(f"{table.file}: data row {row}, split '{written}'{hint}")
    for written, split in names.items():
        if written not in found:
            raise DataError(f"{table.file}: split '{split}' has no samples ('{written}' in '{recipe.split}')")
    return [names[written] for written in found]
