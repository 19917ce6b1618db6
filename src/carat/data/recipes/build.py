"""Building stores from recipes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from carat.data.cleaning import Cleaning
from carat.data.recipes.cleaning import CHUNK, CleaningReader, UncleanedReader
from carat.data.recipes.modalities import (
    TRANSCRIPT,
    ColumnModality,
    MediaModality,
    TokenModality,
    Transcription,
)
from carat.data.recipes.recipe import Recipe, load_recipe
from carat.data.recipes.samples import Samples, read_samples
from carat.data.recipes.sources.media import MediaSource
from carat.data.recipes.sources.transcripts import TranscriptSource
from carat.data.store import Store, open_store
from carat.data.store.publishing import STORE
from carat.data.store.targets import to_targets
from carat.data.store.writer import StoreWriter
from carat.features.description import Description
from carat.features.extraction import extract_all
from carat.utils.errors import DataError
from carat.utils.logging import logger
from carat.utils.output_folder import check_folder
from carat.utils.parallel.tasks import Engine
from carat.utils.progress import track


def build_store(
    recipe: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    strict: bool = False,
    workers: int = 1,
    engine: Engine = "local",
    address: str | None = None,
) -> Store:
    """Build a store from a recipe. If it fails, no store is written and an existing one is kept.

    Args:
        recipe: YAML file, see `Recipe`; paths in it are relative to its folder.
        out: folder of the store.
        overwrite: replace an existing store.
        strict: refuse data in which no training sample has a modality, or a split has no positive sample of a
            label, instead of warning.
        workers: number of media files from which features are extracted at a time.
        engine: where they are extracted: processes of this machine, or Ray.
        address: address of a Ray cluster; defaults to one started on this machine.

    Returns:
        The store.

    Raises:
        ConfigError: invalid recipe.
        DataError: invalid data, or the target exists.

    Example:
        store = carat.build_store("my-recipe.yaml", "my-store")
        store.manifest.splits
    """
    parsed, folder, path = load_recipe(recipe), Path(recipe).parent, Path(out)
    check_folder(STORE, path, overwrite=overwrite)
    samples = read_samples(parsed, folder)
    transcripts = None
    if isinstance(parsed.transcript, Transcription):
        transcripts = parsed.transcript.open(folder, samples.table, timed=parsed.needs_word_times)
    sources: dict[str, Any] = {}
    for m, modality in parsed.modalities.items():
        if isinstance(modality, ColumnModality):
            sources[m] = modality.open(samples.table, samples.ids, samples.labels.columns)
        elif isinstance(modality, MediaModality):
            sources[m] = modality.open(folder, samples.table)
        else:
            sources[m] = modality.open(folder)
            if transcripts is None or modality.column != TRANSCRIPT:
                samples.table.text(modality.column)
    extracting = [
        x for x in (transcripts, *sources.values()) if isinstance(x, MediaSource | TranscriptSource)
    ]
    work = [item for source in extracting for item in source.work()]
    problems = extract_all(work, workers=workers, engine=engine, address=address)  # takes time
    for source in extracting:
        source.accept(problems)
    if transcripts is not None:
        spoken = transcripts.read()
        texts, notes = [x.text for x in spoken], [*samples.notes, *transcripts.report()]
        table = samples.table.with_column(TRANSCRIPT, texts)
        samples = replace(samples, table=table, transcripts=texts, notes=notes)
        for m, modality in parsed.modalities.items():
            if isinstance(modality, MediaModality) and modality.align:
                sources[m].average_over([x.words for x in spoken])
    return _build(parsed, samples, sources, transcripts, path, overwrite, strict)


def _build(
    recipe: Recipe,
    samples: Samples,
    sources: dict[str, Any],
    transcripts: TranscriptSource | None,
    path: Path,
    overwrite: bool,
    strict: bool,
) -> Store:
    """Write the store of a recipe from its opened sources."""
    table, ids, splits, labels = samples.table, samples.ids, samples.splits, samples.labels
    for note in samples.notes:
        logger.warning(f"note: {note}")
    readers = {m: _make_reader(m, recipe, sources[m], samples) for m in recipe.modalities}
    specs = {
        m: getattr(source, "tokens", None) or getattr(source, "waveform", None)
        for m, source in sources.items()
    }
    extractions = {m: x.extraction for m, x in sources.items() if isinstance(x, MediaSource)}
    alignments: dict[str, Description] = {}
    if transcripts is not None:
        if transcripts.extraction is not None:
            extractions |= {m: transcripts.extraction for m in sources if recipe.reads_transcripts(m)}
        alignments = {
            m: transcripts.alignment
            for m, modality in recipe.modalities.items()
            if isinstance(modality, MediaModality) and modality.align
        }
    empty: list[str] = []
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
        extractions=extractions,
        alignments=alignments,
        overwrite=overwrite,
        strict=strict,
    ) as writer:
        chunks = range(0, len(table), CHUNK)
        for start in track(chunks, "Building", total=len(chunks)):
            features = {m: reader.read(start, start + CHUNK) for m, reader in readers.items()}
            for i in range(start, min(start + CHUNK, len(table))):
                at_row = {m: chunk[i - start] for m, chunk in features.items()}
                arrays = {m: x for m, x in at_row.items() if x is not None and len(x)}
                if not arrays:
                    keys = ", ".join(f"{m} '{reader.keys[i]}'" for m, reader in readers.items())
                    empty.append(f"{table.place(i)}, sample '{ids[i]}' (keys: {keys})")
                    continue
                writer.append(
                    ids[i],
                    splits[i],
                    to_targets(labels.present[i], labels.known[i]),
                    arrays,
                    group=samples.groups[i],
                    transcript=samples.transcripts[i],
                    intensities=None if labels.intensities is None else labels.intensities[i],
                    grades=None if labels.grades is None else labels.grades[i],
                )
        for m, reader in readers.items():  # an error if a modality is absent from every sample
            writer.cleaning[m] = reader.report()
            if reader.transform is not None:
                writer.transforms[m] = reader.transform
        writer.notes += [labels.note, *samples.notes]
        if empty:
            excluded = f"{len(empty)} rows without any modality excluded, first {empty[0]}"
            for split, count in writer.counts().items():
                if not count:
                    raise DataError(f"{table.file}: split '{split}' has no samples: {excluded}")
            writer.notes.append(excluded)
            logger.warning(f"note: {table.file}: {excluded}")
    store = open_store(path)
    if len(store) + len(empty) != len(table):
        raise DataError(
            f"{path}: {len(store)} samples of {len(table)} rows, {len(empty)} excluded; report this"
        )
    return store


def _make_reader(m: str, recipe: Recipe, source: Any, samples: Samples) -> CleaningReader | UncleanedReader:
    """Make the reader of a modality, whose rows are those of the table."""
    rules, table, splits = recipe.modalities[m], samples.table, samples.splits
    if isinstance(rules, ColumnModality):
        keys = samples.ids
    else:
        keys = source.keys if isinstance(source, MediaSource) else table.text(rules.column)
    if isinstance(rules, Cleaning):
        return CleaningReader(m, rules, source, keys, splits, recipe.dtype)
    if isinstance(rules, TokenModality) and rules.context and recipe.group:
        order = np.asarray(table.numbers(rules.order)) if rules.order else None
        # the split is part of the conversation: context never crosses splits
        groups = zip(samples.groups, splits, strict=True)
        conversations = [(group, split) if group else None for group, split in groups]
        return UncleanedReader(m, source, keys, source.contexts(keys, conversations, order))
    return UncleanedReader(m, source, keys)
