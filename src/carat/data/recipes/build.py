"""From recipe to store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from carat.config.base import expand
from carat.data.recipes.cleaning import CHUNK, Cleaner, Cleaning, Verbatim
from carat.data.recipes.recipe import Recipe, TokenModality, load_recipe
from carat.data.recipes.sources.table import Table
from carat.data.store import Store, open_store
from carat.data.store.writer import STORE, StoreWriter
from carat.utils.errors import DataError
from carat.utils.output_folder import check_folder
from carat.utils.progress import track


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
    check_folder(STORE, Path(path), overwrite=overwrite)
    folder = Path(recipe_file).parent
    table = Table(folder / expand(recipe.table))
    ids = _ids(table, recipe)
    splits = _splits(table, recipe)
    groups = table.text(recipe.group) if recipe.group else ids
    transcripts = table.text(recipe.transcript) if recipe.transcript else [""] * len(table)
    intensities = np.array([table.numbers(column) for column in recipe.labels.columns]).T
    present = recipe.labels.present(intensities)
    opened = {m: modality.open(folder) for m, modality in recipe.modalities.items()}
    cleaners = {m: _reader(m, recipe, opened[m], table, splits) for m in recipe.modalities}
    sources = {m: source.id for m, source in opened.items()}
    with StoreWriter(
        path,
        recipe.name,
        recipe.labels.columns,
        sources,
        list(recipe.splits),
        dtype=recipe.dtype,
        non_finite=[
            m
            for m, rules in recipe.modalities.items()
            if isinstance(rules, Cleaning) and rules.non_finite == "as-released"
        ],
        read_by_encoders={
            m: found
            for m, source in opened.items()
            if (found := getattr(source, "tokens", None) or getattr(source, "waveform", None))
        },
        overwrite=overwrite,
    ) as writer:
        chunks = range(0, len(table), CHUNK)
        for start in track(chunks, "Building", total=len(chunks)):
            features = {m: cleaner.read(start, start + CHUNK) for m, cleaner in cleaners.items()}
            for i in range(start, min(start + CHUNK, len(table))):
                arrays = {m: column[i - start] for m, column in features.items()}
                if all(x is None or not len(x) for x in arrays.values()):
                    looked = ", ".join(f"{m} of '{cleaner.keys[i]}'" for m, cleaner in cleaners.items())
                    raise DataError(
                        f"{table.file}: data row {i + 1}, sample '{ids[i]}': no modality is present "
                        f"({looked}); take it out"
                    )
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
            if cleaner.transform is not None:
                writer.transforms[m] = cleaner.transform
        writer.notes.append(f"labels present where the column is {recipe.labels.rule}")
    return open_store(path)


def _reader(m: str, recipe: Recipe, source: Any, table: Table, splits: list[str]) -> Cleaner | Verbatim:
    """What reads a modality row by row."""
    rules = recipe.modalities[m]
    keys = table.text(rules.column)
    if isinstance(rules, Cleaning):
        return Cleaner(m, rules, source, keys, splits)
    if isinstance(rules, TokenModality) and rules.context and recipe.group:
        order = np.asarray(table.numbers(rules.order)) if rules.order else None
        groups = zip(table.text(recipe.group), splits, strict=True)  # nothing is read across splits
        apart = [(group, split) if group else None for group, split in groups]
        return Verbatim(m, source, keys, source.contexts(keys, apart, order))
    return Verbatim(m, source, keys)


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
            known = ", ".join(names)
            raise DataError(
                f"{table.file}: data row {row} has split '{written}', but the recipe's splits name {known}"
            )
    for written, split in names.items():
        if written not in found:
            raise DataError(f"{table.file}: split '{split}' has no samples ('{written}' in '{recipe.split}')")
    return [names[written] for written in found]
