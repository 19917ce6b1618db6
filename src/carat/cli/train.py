"""`carat train` and `carat methods`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from carat.cli.app import Options, Overwrite, app, resolve, takes_experiment
from carat.config.experiment import preset_values
from carat.utils.logging import logger


@Parameter(name="*", group=Group("Training", sort_key=1))
@dataclass(frozen=True)
class TrainOptions:
    """Processes, and how to treat a finished run and data with gaps."""

    devices: Annotated[int | None, Parameter(validator=Number(gte=1, lte=4096))] = None
    """Number of data-parallel processes, one core or GPU each; short for `--training.devices`."""
    threads: Annotated[int | None, Parameter(validator=Number(gte=1, lte=1024))] = None
    """Threads of the arithmetic on a CPU, shared by all processes; defaults to the physical cores. Other
    numbers round differently, so that after some hundred steps weights differ."""
    resume: Annotated[bool, Parameter(negative=())] = False
    """Exit successfully if this run is already complete, for jobs that are requeued; or extend a complete run
    to more epochs."""
    strict: Annotated[bool, Parameter(negative=())] = False
    """Refuse a store in which no training sample has a modality, or a split has no positive sample of a
    label; otherwise such a modality is left out with a warning."""


@app.command
@takes_experiment
def train(
    experiment_file: Path | None = None,
    /,
    *,
    data: Path,
    out: Path,
    method: str | None = None,
    preset: str | None = None,
    options: TrainOptions | None = None,
    overwrite: Overwrite = False,
    experiment: Options = None,
) -> None:
    """Train a method on a store and write a run folder.

    Values come from the preset, then the experiment file, then the command line; later ones win. The epoch
    and the threshold are chosen on the validation split; the test split is not used.

    After an interruption the same command resumes the training, with the same weights as without the
    interruption. Ctrl-C and SIGTERM save the state first; a second one stops at once.

    **Examples**

        carat train --preset small --data demo-store --out demo-run

        carat train --method mult --data mosei --out mult-run --method.hidden 64

        carat train my-experiment.yaml --data mosei --out run1 --seed 1 --training.epochs 10

        carat train --data mosei --out two --data.modalities text audio --data.truncation

        carat train --preset text --data mosei-text --out text-run --encoders.text.folder models/minilm

        carat train --data mosei --out run2 --devices 2

        torchrun --nproc-per-node 4 -m carat train --data mosei --out run3 --resume

        carat train run1/experiment.yaml --data mosei --out run1 --resume --training.epochs 30

    Parameters
    ----------
    experiment_file
        YAML of the changes to the preset; keys are described in docs/reference/configuration.md.
    data
        Folder of the store, with splits train and valid.
    out
        Folder of the run to create or resume.
    method
        Method to train, see `carat methods`; defaults to carat. With --help, shows the options of the method.
    preset
        Preset: paper (default, the published method), official (the authors' released code), small (a minute
        on a laptop) or text (with a pretrained text encoder).
    """
    from carat.training.launched import started_by_launcher
    from carat.training.train import train as run_training
    from carat.utils.threads import set_threads

    options = options or TrainOptions()
    set_threads(options.threads)
    resolved = resolve(experiment_file, preset, experiment, method=method)
    if options.devices is not None:
        training = resolved.training.model_copy(update={"devices": options.devices})
        resolved = resolved.model_copy(update={"training": training})
    trained = run_training(
        resolved, data, out, overwrite=overwrite, resume=options.resume, strict=options.strict
    )
    launched = started_by_launcher()
    if launched is not None and not launched.is_global_zero:
        return
    card = trained.card
    thresholds = sorted(set(card.thresholds.values()))
    threshold = (
        f"{thresholds[0]:.2f}" if len(thresholds) == 1 else f"{thresholds[0]:.2f}…{thresholds[-1]:.2f}"
    )
    for note in card.notes:
        logger.warning(f"note: {note}")
    logger.info(
        f"best epoch {card.epoch}: validation micro-F1 {card.validation['micro_f1']:.4f} "
        f"at threshold {threshold}"
    )
    logger.info(f"run → {out}")
    logger.info(f"training curves → {out / 'curves.svg'}")


@app.command
def methods(name: str | None = None, /) -> None:
    """List the methods for `carat train --method NAME`, or describe one of them.

    **Examples**

        carat methods

        carat methods mult

    Parameters
    ----------
    name
        Method to describe: its summary, presets, and configuration keys with defaults.
    """
    from carat.cli.tables import show_method, show_methods

    if name is None:
        show_methods()
    else:
        preset_values("paper", name)
        show_method(name)
