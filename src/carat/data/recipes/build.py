"""Building stores from recipes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from carat.data.recipes.cleaning import CHUNK, Cleaning, CleaningReader, UncleanedReader
from carat.data.recipes.recipe import ColumnModality, Recipe, TokenModality, load_recipe
from carat.data.recipes.samples import Samples, read_samples
from carat.data.store import Store, open_store
from carat.data.store.writer import STORE, StoreWriter
from carat.data.summary import store_warnings
from carat.utils.errors import DataError
from carat.utils.logging import logger
from carat.utils.output_folder import check_folder
from carat.utils.progress import track


def build_store(
    recipe: str | os.PathLike[str], out: str | os.PathLike[str], *, overwrite: bool = False
) -> Store:
    """Build a store from a recipe. If it fails, no store is written and an existing one is kept.

    Args:
        recipe: YAML file, see `Recipe`; paths in it are relative to its folder.
        out: folder of the store.
        overwrite: replace an existing store.

    Returns:
        The store.

    Raises:
        ConfigError: invalid recipe.
        DataError: invalid data, or the target exists.

    Example:
        store = carat.build_store("my-recipe.yaml", "my-store")
        store.manifest.splits
    """
    return _build(load_recipe(recipe), Path(recipe).parent, Path(out), overwrite)


def _build(recipe: Recipe, folder: Path, path: Path, overwrite: bool) -> Store:
    """Write the store of a recipe whose paths are relative to a folder."""
    check_folder(STORE, path, overwrite=overwrite)
    samples = read_samples(recipe, folder)
    table, ids, splits, labels = samples.table, samples.ids, samples.splits, samples.labels
    for note in samples.notes:
        logger.warning(f"note: {note}")
    sources = {
        m: modality.open(table, ids) if isinstance(modality, ColumnModality) else modality.open(folder)
        for m, modality in recipe.modalities.items()
    }
    readers = {m: _make_reader(m, recipe, sources[m], samples) for m in recipe.modalities}
    specs = {
        m: getattr(source, "tokens", None) or getattr(source, "waveform", None)
        for m, source in sources.items()
    }
    with StoreWriter(
        path,
        recipe.name,
        labels.names,
        {m: source.id for m, source in sources.items()},
        samples.split_names,
        dtype=recipe.dtype,
        non_finite=[
            m
            for m, rules in recipe.modalities.items()
            if isinstance(rules, Cleaning) and rules.non_finite == "as-released"
        ],
        encoder_inputs={m: spec for m, spec in specs.items() if spec is not None},
        overwrite=overwrite,
    ) as writer:
        chunks = range(0, len(table), CHUNK)
        for start in track(chunks, "Building", total=len(chunks)):
            features = {m: reader.read(start, start + CHUNK) for m, reader in readers.items()}
            for i in range(start, min(start + CHUNK, len(table))):
                arrays = {m: chunk[i - start] for m, chunk in features.items()}
                if all(x is None or not len(x) for x in arrays.values()):
                    keys = ", ".join(f"{m} '{reader.keys[i]}'" for m, reader in readers.items())
                    raise DataError(
                        f"{table.where(i)}, sample '{ids[i]}': no modality is present "
                        f"(keys: {keys}); remove the row or add its features"
                    )
                writer.append(
                    ids[i],
                    splits[i],
                    labels.present[i],
                    {m: x for m, x in arrays.items() if x is not None},
                    group=samples.groups[i],
                    transcript=samples.transcripts[i],
                    intensities=None if labels.intensities is None else labels.intensities[i],
                )
        for m, reader in readers.items():
            writer.cleaning[m] = reader.report()
            if reader.transform is not None:
                writer.transforms[m] = reader.transform
        writer.notes += [labels.note, *samples.notes]
    store = open_store(path)
    if len(store) != len(table):
        raise DataError(f"{path}: {len(store)} samples, but {len(table)} rows were read; report this")
    for warning in store_warnings(store):
        logger.warning(f"warning: {warning}")
    return store


def _make_reader(m: str, recipe: Recipe, source: Any, samples: Samples) -> CleaningReader | UncleanedReader:
    """Make the reader of a modality, whose rows are those of the table."""
    rules, table, splits = recipe.modalities[m], samples.table, samples.splits
    keys = samples.ids if isinstance(rules, ColumnModality) else table.text(rules.column)
    if isinstance(rules, Cleaning):
        return CleaningReader(m, rules, source, keys, splits)
    if isinstance(rules, TokenModality) and rules.context and recipe.group:
        order = np.asarray(table.numbers(rules.order)) if rules.order else None
        # the split is part of the conversation: context never crosses splits
        groups = zip(samples.groups, splits, strict=True)
        conversations = [(group, split) if group else None for group, split in groups]
        return UncleanedReader(m, source, keys, source.contexts(keys, conversations, order))
    return UncleanedReader(m, source, keys)
