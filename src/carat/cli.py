"""The command line: `carat data …`, `carat train`, `carat evaluate`, `carat predict` and more."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter
from cyclopts.validators import Number
from pydantic import ValidationError

from carat import __version__
from carat.config import Experiment, load_experiment
from carat.errors import CaratError, ConfigError
from carat.sections import explain, read_yaml

app = App(
    name="carat",
    help="""Which emotions, several at once, does a person show in speech, face and words?

    Start: `carat data synth demo-store`, then `carat train --preset small --data demo-store --out demo-run`,
    then `carat evaluate demo-run --data demo-store`.

    Errors are one line; `--debug` with any command shows the traceback too.
    """,
    version=f"carat {__version__}",
    help_format="markdown",
    default_parameter=Parameter(consume_multiple=True),
)
data = App(name="data", help="Make and inspect stores: checked data sets that training and evaluation read.")
app.command(data)
app.register_install_completion_command()

Overwrite = Annotated[bool, Parameter(help="Replace what is there.", negative=())]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON instead of tables.", negative=())]

Raw = Annotated[
    bool,
    Parameter(
        help="The file holds features as the extractor gave them: clean them as the recipe did.", negative=()
    ),
]
Verify = Annotated[bool, Parameter(help="Read every byte and compare it with the fingerprint.", negative=())]


@data.command
def synth(
    store: Path, /, *, samples: int = 3000, seed: int = 0, missing: float = 0.05, overwrite: Overwrite = False
) -> None:
    """Make the built-in benchmark: three modalities of unequal length, correlated labels, learnable.

    **Examples**

        carat data synth demo-store

        carat data synth big-store --samples 20000 --seed 7

    Parameters
    ----------
    store
        Folder to make.
    samples
        How many samples, 100 at least; 70 % train, 15 % valid, 15 % test.
    seed
        The same seed gives the same store.
    missing
        Share of modalities that samples lack.
    """
    from carat.data.synthetic import synthesise

    made = synthesise(store, samples=samples, seed=seed, missing=missing, overwrite=overwrite)
    _say(f"{made!r} → {store}")


@data.command
def build(recipe: Path, store: Path, /, *, overwrite: Overwrite = False) -> None:
    """Turn your own table and features into a checked store, as a recipe says.

    **Examples**

        carat data build recipes/mosei_reduced.yaml mosei

        carat data build my-recipe.yaml my-store --overwrite

    Parameters
    ----------
    recipe
        YAML: table, id, split and label columns, and per modality where its features come from;
        docs/data.md describes every key.
    store
        Folder to make.
    """
    from carat.data.build import build_store

    made = build_store(recipe, store, overwrite=overwrite)
    _say(f"{made!r} → {store}")


@data.command
def info(store: Path, /, *, verify: Verify = False, as_json: AsJson = False) -> None:
    """Show splits, labels, co-occurrence, lengths, missing modalities and fingerprint of a store.

    **Examples**

        carat data info demo-store

        carat data info demo-store --verify --json

    Parameters
    ----------
    store
        Folder of the store.
    """
    from carat.data.store import open_store
    from carat.data.summary import summarise
    from carat.display import show_summary

    opened = open_store(store)
    if verify:
        opened.verify()
    summary = summarise(opened) | ({"verified": True} if verify else {})
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        show_summary(summary)


@app.command
def train(
    experiment_file: Path | None = None,
    /,
    *,
    data: Path,
    out: Path,
    preset: str | None = None,
    overwrite: Overwrite = False,
    experiment: Annotated[Experiment | None, Parameter(name="*")] = None,
) -> None:
    """Train a method on a store and write a run folder.

    Values come from the preset, then the experiment file, then the command line; later ones win. The epoch
    and the threshold are chosen on the validation split; the test split is not looked at.

    **Examples**

        carat train --preset small --data demo-store --out demo-run

        carat train my-experiment.yaml --data mosei --out run1 --seed 1 --training.epochs 10

        carat train --data mosei --out two --data.modalities text audio --data.long truncate

    Parameters
    ----------
    experiment_file
        YAML with what differs from the preset; docs/experiments.md describes every key.
    data
        Folder of the store, with splits train and valid.
    out
        Folder of the run to make.
    preset
        Starting point: paper (the default, the method as published), official (as the authors' released
        code) or small (a minute on a laptop).
    """
    from carat.training.train import train as run_training

    resolved = _resolve(experiment_file, preset, experiment)
    made = run_training(resolved, data, out, overwrite=overwrite)
    card = made.card
    thresholds = sorted(set(card.thresholds.values()))
    shown = f"{thresholds[0]:.2f}" if len(thresholds) == 1 else f"{thresholds[0]:.2f}…{thresholds[-1]:.2f}"
    for note in card.notes:
        _say(f"note: {note}")
    _say(
        f"best epoch {card.epoch}: validation micro-F1 {card.validation['micro_f1']:.4f} at threshold {shown}"
    )
    _say(f"run → {out}")
    _say(f"training curves → {out / 'curves.svg'}")


@app.command
def convert(
    official: Path,
    run: Path,
    /,
    *,
    layout: Literal["mosei-aligned", "mosei-unaligned", "m3ed"],
    overwrite: Overwrite = False,
) -> None:
    """Turn weights of the authors' released code into a run, to evaluate or predict with.

    Every key of the state dictionary must be there, of the right shape, and none may be left over; pickled
    files are read without running code. Labels get the published threshold .25.

    **Examples**

        carat convert pytorch_model.bin official-run --layout mosei-aligned

        carat convert official.safetensors official-run --layout m3ed --overwrite

    Parameters
    ----------
    official
        State dictionary by the released code's names: .bin, .pt or .safetensors.
    run
        Folder of the run to make.
    layout
        What it was trained on: says labels, their order, and whether visual and audio are aligned first.
    """
    from carat.convert import convert as convert_weights

    card = convert_weights(official, layout, run, overwrite=overwrite)
    for note in card.notes:
        _say(f"note: {note}")
    _say(f"run → {run}")


@app.command
def ablate(
    experiment_file: Path | None = None,
    /,
    *,
    data: Path,
    out: Path,
    preset: str | None = None,
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 3,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    overwrite: Overwrite = False,
    experiment: Annotated[Experiment | None, Parameter(name="*")] = None,
) -> None:
    """Train CARAT without each of its parts, with fewer modalities, and with each quirk of the released code.

    Writes a table of test metrics with the paired difference to the full method: ablation.md, .csv and .svg.
    Finished trainings are not repeated: after an interruption the same command goes on.

    **Examples**

        carat ablate --data demo-store --out ablation --seeds 2

        carat ablate --data mosei --out ablation --preset paper --seeds 5 --workers 16

    Parameters
    ----------
    experiment_file
        YAML of the full method, as for `carat train`.
    data
        Folder of the store, with splits train, valid and test.
    out
        Folder to make, or to go on with.
    preset
        Starting point of the full method: small (the default here), paper, or another.
    seeds
        Trainings of each variant, with seeds counted from the experiment's.
    workers
        Trainings at a time, one core each; as many as there are cores by default.
    """
    from carat.ablation import ablate as run_ablation

    full = _resolve(experiment_file, preset, experiment, default="small")
    run_ablation(
        full, data, out, seeds=seeds, workers=workers or os.cpu_count() or 1, overwrite=overwrite, say=_say
    )
    print((out / "ablation.md").read_text(encoding="utf-8"))
    _say(f"table → {out / 'ablation.md'}, {out / 'ablation.csv'}")
    _say(f"picture → {out / 'ablation.svg'}")


@app.command
def evaluate(run: Path, /, *, data: Path, split: str = "test", as_json: AsJson = False) -> None:
    """Evaluate a run on a split, with the thresholds found on validation, and 95 % intervals.

    Intervals are bootstrapped by group (video or dialogue). Accuracy is the mean sample Jaccard.

    **Examples**

        carat evaluate demo-run --data demo-store

        carat evaluate demo-run --data demo-store --split valid --json

    Parameters
    ----------
    run
        Folder made by `carat train`.
    data
        Folder of a store with the run's labels.
    split
        Which split.
    """
    from carat.data.store import open_store
    from carat.display import show_report
    from carat.predictor import load

    report = load(run).evaluate(open_store(data), split)
    if as_json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        show_report(report)


@app.command
def predict(
    run: Path,
    /,
    *,
    data: Path,
    out: Path,
    split: str | None = None,
    raw: Raw = False,
    overwrite: Overwrite = False,
) -> None:
    """Score samples: each label's score, which labels are present, which modality carried each.

    **Examples**

        carat predict demo-run --data demo-store --split test --out scores.csv

        carat predict demo-run --data clip.npz --out scores.jsonl

        carat predict my-run --data raw-clips.npz --raw --out scores.parquet

    Parameters
    ----------
    run
        Folder made by `carat train`.
    data
        Folder of a store, or an `.npz` with arrays (T, d) named `modality`; for several samples,
        `id/modality`.
    out
        File to write: .csv, .parquet or .jsonl.
    split
        Only this split of the store.
    """
    from carat.data.store import open_store
    from carat.display import show_predictions
    from carat.predictions import check_output, write_predictions
    from carat.predictor import load, read_features

    check_output(out, overwrite)
    if not data.exists():
        raise CaratError(f"{data}: no such store or file")
    if split and not data.is_dir():
        raise ConfigError(f"--split needs a store, but {data} is a file")
    predictor = load(run)
    if data.is_dir():
        store = open_store(data)
        notes = predictor.notes(store, [split] if split else list(store.manifest.splits))
        stream = predictor.predict_store(store, split)
    else:
        samples, notes = predictor.own_features(read_features(data), raw)
        names = [f"{data}, '{id}'" for id in samples]
        found = predictor.predict_batch(list(samples.values()), names=names, raw=raw)
        stream = zip(samples, found, strict=True)
    for note in notes:
        _say(f"note: {note}")
    first: list[tuple[str, Any]] = []
    count = write_predictions(_keep(stream, first, 5), out, overwrite=overwrite)
    show_predictions(first)
    _say(f"{count} predictions → {out}")


def main() -> None:
    """Entry point: bad input ends with one line on standard error and exit code 2."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except KeyboardInterrupt as stop:
        print(": ".join(["carat: interrupted", *map(str, stop.args)]), file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except (CaratError, CycloptsError, ValidationError, OSError) as error:
        if debug:
            traceback.print_exc()
        print(f"carat: error: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _resolve(
    file: Path | None, preset: str | None, options: Experiment | None, default: str = ""
) -> Experiment:
    """Preset, experiment file and command line; `default` is the preset where none of them names one."""
    overrides = options.model_dump(exclude_unset=True) if options else {}
    named = file is not None and "preset" in read_yaml(file)
    return load_experiment(file, preset=preset or (None if named else default), overrides=overrides)


def _one_line(error: Exception) -> str:
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.argument.name} is missing; see --help"
    if isinstance(error, OSError):
        return f"{error.filename or 'system'}: {error.strerror or error}"
    cause: BaseException | None = None if isinstance(error, CaratError) else error
    while cause is not None:  # cyclopts wraps what pydantic finds in options
        if isinstance(cause, ValidationError):
            return explain(cause, Experiment)
        cause = cause.__cause__
    return " ".join(str(error).split())


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _keep(stream: Any, first: list[Any], count: int) -> Any:
    for item in stream:
        if len(first) < count:
            first.append(item)
        yield item


if __name__ == "__main__":
    main()
