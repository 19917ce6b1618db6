"""Merging of stores with different labels and modalities."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.config.base import expand
from carat.data.merge.leaks import check_leaks
from carat.data.merge.part import Part
from carat.data.merge.plan import Corpus, MergePlan, load_plan
from carat.data.recipes.build import build_store
from carat.data.recipes.splits import DEFAULT_VALUES
from carat.data.store import Store, open_store
from carat.data.store.layout import SPLIT
from carat.data.store.manifest import ModalityInfo
from carat.data.store.publishing import STORE
from carat.data.store.writer import StoreWriter
from carat.utils.errors import DataError, did_you_mean, printable, shorten
from carat.utils.logging import logger
from carat.utils.output_folder import check_folder
from carat.utils.progress import track


def merge_stores(
    plan: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    strict: bool = False,
    workers: int = 1,
) -> Store:
    """Merge several stores or recipes into one store.

    A label that a corpus does not have is unknown for its samples, and a modality that it does not have is
    absent. Ids and groups begin with the name of the corpus.

    Args:
        plan: YAML file, see `MergePlan`; paths in it are relative to its folder.
        out: folder of the store.
        overwrite: replace an existing store.
        strict: refuse gaps, see `build_store`.
        workers: see `build_store`.

    Returns:
        The store.

    Raises:
        ConfigError: invalid plan.
        DataError: a label or a modality of the plan does not exist, modalities of two corpora differ, the
            same sample is in different splits, or the target exists.

    Example:
        store = carat.merge_stores("corpora.yaml", "all-corpora")
        store.corpora
    """
    parsed, folder, path = load_plan(plan), Path(plan).parent, Path(out)
    check_folder(STORE, path, overwrite=overwrite)
    with ExitStack() as stack:
        parts = []
        for name, corpus in parsed.corpora.items():
            if corpus.store is not None:
                store = open_store(folder / expand(corpus.store))
            else:
                assert corpus.recipe is not None
                temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_parent(path))))
                logger.info(f"building {name} from {corpus.recipe}")
                store = build_store(folder / expand(corpus.recipe), temporary / "store", workers=workers)
            parts.append(_make_part(name, corpus, store))
        labels = parsed.labels or list(dict.fromkeys(label for part in parts for label in part.labels))
        parts = [_with_labels(part, parsed, labels) for part in parts]
        modalities = parsed.modalities or list(dict.fromkeys(m for part in parts for m in part.modalities))
        parts = [_with_modalities(part, parsed, modalities) for part in parts]
        infos = {m: _common_info(m, parts) for m in modalities}
        parts, leaks = check_leaks(parts, drop=parsed.leaks == "drop")
        notes = [*_source_notes(modalities, parts), *leaks]
        _write(parsed, path, parts, labels, infos, notes, overwrite=overwrite, strict=strict)
    return open_store(path)


def _parent(path: Path) -> Path:
    """The nearest folder above the target that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _make_part(name: str, corpus: Corpus, store: Store) -> Part:
    own = {label: i for i, label in enumerate(store.label_names)}
    labels: dict[str, Sequence[int]] = {label: [i] for label, i in own.items()}
    if corpus.labels is not None:
        labels = {}
        for target, sources in corpus.labels.items():
            names = [sources] if isinstance(sources, str) else sources
            labels[target] = [own[_known(x, own, f"corpora.{name}.labels.{target}")] for x in names]
    modalities = {m: m for m in store.modalities}
    if corpus.modalities is not None:
        modalities = {
            target: _known(source, modalities, f"corpora.{name}.modalities.{target}")
            for target, source in corpus.modalities.items()
        }
    splits = list(store.manifest.splits)
    taken = corpus.splits or splits
    for split in taken:
        _known(split, splits, f"corpora.{name}.splits")
    return Part(name, store, labels, modalities, [split for split in splits if split in taken])


def _known(name: str, names: Sequence[str] | Mapping[str, Any], where: str) -> str:
    if name not in names:
        hint = did_you_mean(name, names) or f"; available: {shorten(', '.join(names), 150)}"
        raise DataError(f"{where}: the corpus has no '{printable(name)}'{hint}")
    return name


def _with_labels(part: Part, plan: MergePlan, labels: Sequence[str]) -> Part:
    """The part with the labels of the merged store, in their order; refuse a map to others."""
    if plan.labels is not None and plan.corpora[part.name].labels is not None:
        for target in part.labels:
            if target not in labels:
                hint = did_you_mean(target, labels) or f"; labels are {', '.join(labels)}"
                raise DataError(f"corpora.{part.name}.labels: '{target}' is no label of the plan{hint}")
    found = {label: part.labels.get(label, []) for label in labels}
    if not any(found.values()):
        raise DataError(
            f"corpora.{part.name}: has none of the labels {shorten(', '.join(labels), 150)}, only "
            f"{shorten(', '.join(part.store.label_names), 150)}; map them by `labels`"
        )
    return replace(part, labels=found)


def _with_modalities(part: Part, plan: MergePlan, modalities: Sequence[str]) -> Part:
    found = {m: part.modalities[m] for m in modalities if m in part.modalities}
    if not found:
        raise DataError(
            f"corpora.{part.name}: has none of the modalities {', '.join(modalities)}, only "
            f"{', '.join(part.store.modalities)}; map them by `modalities`"
        )
    return replace(part, modalities=found)


def _common_info(m: str, parts: Sequence[Part]) -> ModalityInfo:
    """What the corpora say of a modality; it must be the same where it matters.

    Raises:
        DataError: width, data type, tokens, sampling rate or cleaning differ, or no corpus has it.
    """
    having = [part for part in parts if m in part.modalities]
    if not having:
        raise DataError(f"modalities: no corpus has '{m}'")
    infos = [part.info(m) for part in having]
    first = infos[0]
    for part, info in zip(having[1:], infos[1:], strict=True):
        for key in ("width", "dtype", "tokens", "waveform", "transform"):
            mine, other = getattr(first, key), getattr(info, key)
            if mine == other:
                continue
            where = f"modality '{m}' of {having[0].name} and {part.name}"
            if key == "transform":
                raise DataError(
                    f"{where} was cleaned in different ways (standardised by their own means, or other "
                    "columns); build both without `standardise`, or map one to another name by `modalities`"
                )
            raise DataError(f"{where} differs in {key}: {_short(mine)} and {_short(other)}")
    return first


def _short(value: object) -> str:
    return shorten(str(value), 80)


def _source_notes(modalities: Sequence[str], parts: Sequence[Part]) -> list[str]:
    """Say where features of a modality come from different extractors."""
    notes = []
    for m in modalities:
        sources = {part.info(m).source for part in parts if m in part.modalities}
        if len(sources) > 1:
            notes.append(f"{m} comes from different sources: {', '.join(sorted(sources))}")
    return notes


def _write(
    plan: MergePlan,
    path: Path,
    parts: Sequence[Part],
    labels: Sequence[str],
    infos: Mapping[str, ModalityInfo],
    notes: Sequence[str],
    *,
    overwrite: bool,
    strict: bool,
) -> None:
    splits = [split for split in DEFAULT_VALUES if any(split in part.splits for part in parts)]
    has_intensities = all(part.store.intensities is not None for part in parts) and all(
        len(columns) == 1 for part in parts for columns in part.labels.values()
    )
    has_grades = any(part.store.grades is not None for part in parts)
    specs = {m: info.tokens or info.waveform for m, info in infos.items()}
    with StoreWriter(
        path,
        plan.name,
        labels,
        {m: info.source for m, info in infos.items()},
        splits,
        dtype=next((info.dtype for info in infos.values() if info.has_features), "float32"),
        non_finite=[m for m, info in infos.items() if not info.is_finite],
        encoder_inputs={m: spec for m, spec in specs.items() if spec is not None},
        extractions={m: x for m, info in infos.items() if (x := info.extraction) is not None},
        alignments={m: x for m, info in infos.items() if (x := info.alignment) is not None},
        overwrite=overwrite,
        strict=strict,
    ) as writer:
        for m, info in infos.items():
            if info.transform is not None:
                writer.transforms[m] = info.transform
        for part in parts:
            store, names = part.store, list(part.store.manifest.splits)
            codes = store.array(SPLIT)
            rows = part.rows()
            for row in track(rows, f"Merging {part.name}", total=len(rows)):
                group = str(store.groups[row])
                writer.append(
                    f"{part.name}/{store.ids[row]}",
                    names[codes[row]],
                    part.targets(int(row)),
                    {m: store.features(own, int(row)) for m, own in part.modalities.items()},
                    group=f"{part.name}/{group}",
                    transcript=store.transcript(int(row)),
                    intensities=_intensities(part, int(row)) if has_intensities else None,
                    grades=part.grades(int(row)) if has_grades else None,
                    corpus=part.name,
                )
        for m in infos:
            writer.cleaning[m] = [
                f"{part.name}: {line}"
                for part in parts
                if m in part.modalities
                for line in part.info(m).cleaning
            ]
        writer.notes += [
            f"{part.name}: {line}" for part in parts for line in part.store.manifest.notes if line
        ]
        writer.notes += notes
    for note in notes:
        logger.warning(f"note: {note}")


def _intensities(part: Part, row: int) -> NDArray[np.float32]:
    assert part.store.intensities is not None
    return np.array([part.store.intensities[row, columns[0]] for columns in part.labels.values()], np.float32)
