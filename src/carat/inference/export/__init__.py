"""Export of a run to a single file that is used without carat: ONNX, or a `torch.export` program."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

from carat.data.store import Store, open_store
from carat.inference.export.card import describe, describe_inputs, describe_outputs
from carat.inference.export.checks import F1, check_outputs, compare_f1
from carat.inference.export.files import KINDS
from carat.inference.loading import load
from carat.utils.errors import ExportError
from carat.utils.output_folder import check_file


@dataclass(frozen=True)
class Exported:
    """Result of `export`."""

    path: Path
    size: int
    """In bytes."""
    inputs: dict[str, str]
    """Shape and type by name, in order."""
    outputs: dict[str, str]
    """Shape and type by name, in order."""
    largest_difference: float
    """Maximum absolute difference of a score from PyTorch, over random batches."""
    f1: dict[str, F1]
    """F1 on the data of the `float` model, and of the `int8` model if requested; empty without data."""
    notes: list[str]
    """Caveats of the results on the data."""


def export(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    int8: bool = False,
    store: Store | str | os.PathLike[str] | None = None,
    split: str = "valid",
    overwrite: bool = False,
) -> Exported:
    """Export a run to a single file, after verifying its outputs against PyTorch.

    Inputs are, for each modality, features `<modality>` (B, T, d) float32 (token IDs: int64) and their mask
    `<modality>_mask` (B, T) bool, valid = True. B and T are dynamic, with T up to the modality's max_length;
    a modality is absent from a sample if its mask is all False. Outputs are `scores` (B, L) float32 in
    [0, 1] and `attribution` (B, L) int64, indices of modalities. Labels, thresholds and everything else that
    is needed to use the file are embedded as JSON.

    Args:
        run: folder created by `carat train`, or a `TrainedRun` or `Predictor`.
        out: file to write: `.onnx`, or `.pt2` for `torch.export.load`.
        int8: quantize the linear layers of an `.onnx`; requires `store`.
        store: store, or its folder, on which F1 is measured; unless `int8` is set, the exported file must
            predict the same labels there as the run.
        split: split of the store.
        overwrite: replace an existing file.

    Returns:
        The file, its inputs and outputs, and the difference of its scores from PyTorch.

    Raises:
        ExportError: the export failed, or the outputs differ from PyTorch; no file is written.
        RunError: there is no run, it is unfinished, or another process is writing to the folder of `out`.
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
    truth = (
        None if opened is None else predictor.score(opened, split, calibrated=False)[1:]
    )  # also checks that the store fits the run
    model = KINDS[file.suffix].make(predictor, list(inputs), list(outputs))
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.stem}.unfinished{file.suffix}")
    temporary.unlink(missing_ok=True)  # left by a killed process, or a link
    f1: dict[str, F1] = {}
    try:
        if int8:
            model.write(temporary, "")
            check_outputs(model.open(temporary), predictor)  # before quantization
            model = model.quantize(temporary)
        if opened is not None and truth is not None:
            model.write(temporary, "")
            f1 = compare_f1(model.open(temporary), predictor, opened, split, *truth, exact=not int8)
        card = describe(predictor, int8, {"split": split, **f1} if f1 else None)
        model.write(temporary, json.dumps(card, ensure_ascii=False))
        difference = check_outputs(model.open(temporary), predictor, exact=not int8)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    notes = [] if opened is None else predictor.notes(opened, [split])
    return Exported(file, file.stat().st_size, inputs, outputs, difference, f1, notes)


def check_request(file: Path, int8: bool, data: bool, overwrite: bool) -> None:
    """Validate the arguments of `export` before the run is read.

    Raises:
        ExportError: unknown file extension, `int8` without ONNX or data, the file exists, or packages are
            missing.
        RunError: another process is writing to the folder of the file.
    """
    if file.suffix not in KINDS:
        raise ExportError(f"{file}: unknown ending '{file.suffix}'; use {', '.join(KINDS)}")
    if int8 and file.suffix != ".onnx":
        raise ExportError(f"{file}: --int8 is supported for .onnx only")
    if int8 and not data:
        raise ExportError("--int8 needs --data to measure the loss of F1")
    check_file(file, overwrite, ExportError)
    missing = [name for name in KINDS[file.suffix].needs if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"{file}: needs {', '.join(missing)}: pip install 'carat-emotion[export]'")
