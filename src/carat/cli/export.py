"""`carat export` and `carat convert`: export runs, and import released weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from carat.cli.app import Overwrite, app
from carat.utils.logging import logger


@app.command
def export(
    run: Path,
    out: Path,
    /,
    *,
    int8: Annotated[bool, Parameter(negative=())] = False,
    without_base: Annotated[bool, Parameter(negative=())] = False,
    data: Path | None = None,
    split: str = "valid",
    overwrite: Overwrite = False,
) -> None:
    """Export a run to a single file that is used without carat: ONNX, or a torch.export program.

    Batch size and lengths are dynamic, and modalities may be absent. The file includes labels, thresholds and
    everything else that is needed to use it. Its outputs are verified against PyTorch on random batches,
    which takes seconds for a small network, up to a minute for a large one.

    **Examples**

        carat export demo-run demo.onnx

        carat export demo-run demo.pt2

        carat export demo-run small.onnx --int8 --data demo-store

        carat export text-run small-run --without-base

    Parameters
    ----------
    run
        Folder created by `carat train`.
    out
        File to write: .onnx or .pt2; a folder with --without-base.
    int8
        Quantize the linear layers of an .onnx: a smaller file with slightly different scores. Needs --data.
    without_base
        Write a run that lacks the published weights of its text encoder: what fine-tuning changed, as 8-bit
        differences. It is used like any run where the encoder is installed, see `carat models list`.
    data
        Folder of a store with the labels of the run, on which F1 of the file is measured.
    split
        Split of the store.
    """
    if without_base:
        _export_without_base(run, out, data, split, overwrite)
        return
    from carat.inference.export import export as run_export

    exported = run_export(run, out, int8=int8, store=data, split=split, overwrite=overwrite)
    for note in exported.notes:
        logger.warning(f"note: {note}")
    for kind, specs in (("input", exported.inputs), ("output", exported.outputs)):
        for name, shape in specs.items():
            logger.info(f"{kind} {name} {shape}")
    logger.info(f"largest difference from PyTorch's scores: {exported.largest_difference:.1e}")
    for kind, f1 in exported.f1.items():
        values = (
            f"{name.replace('_f1', '-F1')} {'undefined' if x is None else f'{x:.4f}'}"
            for name, x in f1.items()
        )
        logger.info(f"{split}, {kind}: {', '.join(values)}")
    logger.info(f"{exported.size / 1e6:.2f} MB → {exported.path}")


def _export_without_base(run: Path, out: Path, data: Path | None, split: str, overwrite: bool) -> None:
    from carat.inference.export.without_base import export_without_base

    small = export_without_base(run, out, store=data, split=split, overwrite=overwrite)
    for kind, f1 in small.f1.items():
        logger.info(f"{split}, {kind}: micro-F1 {f1['micro_f1']:.4f}, macro-F1 {f1['macro_f1']:.4f}")
    names = ", ".join(f"{model} for {modality}" for modality, model in small.bases.items())
    logger.info(f"without {names}: {small.size_before / 1e6:.1f} → {small.size / 1e6:.1f} MB → {small.path}")


@app.command
def convert(
    official: Path,
    run: Path,
    /,
    *,
    trained_on: Literal["mosei-aligned", "mosei-unaligned", "m3ed"],
    overwrite: Overwrite = False,
) -> None:
    """Convert weights of the authors' released code to a run, for evaluation and prediction.

    Missing and unknown keys and wrong shapes in the state dictionary are errors; pickled files are read
    without running code. The published threshold .25 is used for all labels.

    **Examples**

        carat convert pytorch_model.bin official-run --trained-on mosei-aligned

        carat convert official.safetensors official-run --trained-on m3ed --overwrite

    Parameters
    ----------
    official
        State dictionary of the released code: .bin, .pt or .safetensors.
    run
        Folder of the run to create.
    trained_on
        Corpus that the weights were trained on, which determines the labels, their order, and whether visual
        and audio are aligned first.
    """
    from carat.runs.official_weights import convert as convert_weights

    card = convert_weights(official, trained_on, run, overwrite=overwrite)
    for note in card.notes:
        logger.warning(f"note: {note}")
    logger.info(f"run → {run}")
