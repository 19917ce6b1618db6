"""A run as one file that needs no carat: ONNX, or a program of `torch.export`."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

from carat.data.store import Store, open_store
from carat.inference.export.card import describe, describe_inputs, describe_outputs
from carat.inference.export.checks import F1, check, compare
from carat.inference.export.files import KINDS
from carat.inference.predictor import load
from carat.utils.errors import ExportError
from carat.utils.output_folder import check_file


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    path: Path
    size: int
    """In bytes."""
    inputs: dict[str, str]
    """By name, in order: shape and type."""
    outputs: dict[str, str]
    largest_difference: float
    """Of a score from PyTorch's, over random batches."""
    f1: dict[str, F1]
    """On the data: of `float`, and of `int8` if that was asked for; empty without data."""
    notes: list[str]
    """What a user should know before trusting the numbers on the data."""


def export(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    int8: bool = False,
    store: Store | str | os.PathLike[str] | None = None,
    split: str = "valid",
    overwrite: bool = False,
) -> Exported:
    """Write a run as one file; it gets its name when it has given PyTorch's numbers.

    Inputs are for each modality its features `<modality>` (B, T, d) float32 and their mask `<modality>_mask`
    (B, T) bool, valid = True. B is any number, T any up to the modality's max_length; a sample lacks a
    modality where its mask is all False. Outputs are `scores` (B, L) float32 in [0, 1] and `attribution`
    (B, L) int64, the place of a modality. The file holds labels, thresholds and what else is needed to use
    it alone, as JSON.

    Args:
        run: folder made by `carat train`, or a `TrainedRun` or `Predictor`.
        out: file to write, `.onnx`, or `.pt2` for `torch.export.load`.
        int8: quantise the linear layers of an `.onnx`; needs `store`.
        store: a store, or its folder, on which the file's F1 is measured; unless `int8`, the labels that it
            predicts there must be the run's.
        split: which split of the store.
        overwrite: replace an existing file.

    Returns:
        The file, its inputs and outputs, and how far its scores are from PyTorch's.

    Raises:
        ExportError: it cannot be, or the file gives other numbers; nothing is left then.
        RunError: no run, an unfinished one, or another process works in the folder of `out`.
        DataError: the store does not fit the run.

    Example:
        exported = carat.export("demo-run", "demo.pt2", store="demo-store")
        exported.inputs, exported.largest_difference
    """
    file = Path(out)
    check_request(file, int8, store is not None, overwrite)
    predictor = load(run, device="cpu")
    inputs, outputs = describe_inputs(predictor), describe_outputs(predictor)
    opened = None if store is None else open_store(store)
    truth = None if opened is None else predictor.score(opened, split)[1:]  # refuses what does not fit
    model = KINDS[file.suffix].make(predictor, list(inputs), list(outputs))
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.stem}.unfinished{file.suffix}")
    f1: dict[str, F1] = {}
    try:
        if int8:
            model.write(temporary, "")
            check(model.open(temporary), predictor)  # before its weights are rounded
            model = model.quantise(temporary)
        if opened is not None and truth is not None:
            model.write(temporary, "")
            f1 = compare(model.open(temporary), predictor, opened, split, *truth, exact=not int8)
        card = describe(predictor, int8, {"split": split, **f1} if f1 else None)
        model.write(temporary, json.dumps(card, ensure_ascii=False))
        difference = check(model.open(temporary), predictor, exact=not int8)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    notes = [] if opened is None else predictor.notes(opened, [split])
    return Exported(file, file.stat().st_size, inputs, outputs, difference, f1, notes)


def check_request(file: Path, int8: bool, data: bool, overwrite: bool) -> None:
    """Refuse what can be refused before a run is read.

    Raises:
        ExportError: unknown ending, `int8` without ONNX or data, the file exists, or packages are missing.
        RunError: another process works in the file's folder.
    """
    if file.suffix not in KINDS:
        raise ExportError(f"{file}: unknown ending '{file.suffix}'; use {', '.join(KINDS)}")
    if int8 and file.suffix != ".onnx":
        raise ExportError(f"{file}: --int8 is for .onnx only")
    if int8 and not data:
        raise ExportError("--int8 needs --data to report what it costs")
    check_file(file, overwrite, ExportError)
    missing = [name for name in KINDS[file.suffix].needs if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"{file}: needs {', '.join(missing)}: pip install 'carat-emotion[export]'")
