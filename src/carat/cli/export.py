"""`carat export` and `carat convert`: from and to runs."""

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
    data: Path | None = None,
    split: str = "valid",
    overwrite: Overwrite = False,
) -> None:
    """Write a run as one file that needs no carat: ONNX, or a program of torch.export.

    Batch size and lengths stay free, modalities may be absent. The file holds labels, thresholds and what
    else is needed to use it, and is compared with PyTorch on random batches before it gets its name. That
    takes seconds for a small network, up to a minute for a large one.

    **Examples**

        carat export demo-run demo.onnx

        carat export demo-run demo.pt2

        carat export demo-run small.onnx --int8 --data demo-store

    Parameters
    ----------
    run
        Folder made by `carat train`.
    out
        File to write: .onnx or .pt2.
    int8
        Quantise the linear layers of an .onnx: a smaller file with other scores. Needs --data.
    data
        Folder of a store with the run's labels: what F1 the file has there.
    split
        Which split of it.
    """
    from carat.inference.export import export as write

    made = write(run, out, int8=int8, store=data, split=split, overwrite=overwrite)
    for note in made.notes:
        logger.warning(f"note: {note}")
    for kind, named in (("input", made.inputs), ("output", made.outputs)):
        for name, shape in named.items():
            logger.info(f"{kind} {name} {shape}")
    logger.info(f"largest difference from PyTorch's scores: {made.largest_difference:.1e}")
    for kind, f1 in made.f1.items():
        shown = (
            f"{name.replace('_f1', '-F1')} {'undefined' if x is None else f'{x:.4f}'}"
            for name, x in f1.items()
        )
        logger.info(f"{split}, {kind}: {', '.join(shown)}")
    logger.info(f"{made.size / 1e6:.2f} MB → {made.path}")


@app.command
def convert(
    official: Path,
    run: Path,
    /,
    *,
    trained_on: Literal["mosei-aligned", "mosei-unaligned", "m3ed"],
    overwrite: Overwrite = False,
) -> None:
    """Turn weights of the authors' released code into a run, to evaluate or predict with.

    Missing, unknown and misshapen keys of the state dictionary are refused; pickled files are read without
    running code. Labels get the published threshold .25.

    **Examples**

        carat convert pytorch_model.bin official-run --trained-on mosei-aligned

        carat convert official.safetensors official-run --trained-on m3ed --overwrite

    Parameters
    ----------
    official
        State dictionary with the released code's names: .bin, .pt or .safetensors.
    run
        Folder of the run to create.
    trained_on
        Corpus that the weights were trained on: sets the labels, their order, and whether visual and audio
        are aligned first.
    """
    from carat.runs.official_weights import convert as convert_weights

    card = convert_weights(official, trained_on, run, overwrite=overwrite)
    for note in card.notes:
        logger.warning(f"note: {note}")
    logger.info(f"run → {run}")
