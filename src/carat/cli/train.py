"""`carat train`, `evaluate`, `predict`, `convert`: make and use runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from carat.cli.app import AsJson, Options, Overwrite, app, resolve, say, takes_experiment
from carat.config.experiment import preset_values
from carat.utils.errors import CaratError, ConfigError

Raw = Annotated[
    bool,
    Parameter(
        help="The file holds features as the extractor gave them: clean them as the recipe did.", negative=()
    ),
]


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
    devices: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Overwrite = False,
    experiment: Options = None,
) -> None:
    """Train a method on a store and write a run folder.

    Values come from the preset, then the experiment file, then the command line; later ones win. The epoch
    and the threshold are chosen on the validation split; the test split is not looked at.

    A training that was killed or interrupted goes on when the same command is given again, and ends with the
    same weights as if nothing had happened. Ctrl-C and SIGTERM save the state first; a second one does not.

    **Examples**

        carat train --preset small --data demo-store --out demo-run

        carat train --method mult --data mosei --out rival --method.hidden 64

        carat train my-experiment.yaml --data mosei --out run1 --seed 1 --training.epochs 10

        carat train --data mosei --out two --data.modalities text audio --data.truncation

        carat train --preset text --data mosei-text --out text-run --encoders.text.folder models/minilm

        carat train --data mosei --out run2 --devices 2

        torchrun --nproc-per-node 4 -m carat train --data mosei --out run3 --resume

    Parameters
    ----------
    experiment_file
        YAML with what differs from the preset; docs/experiments.md describes every key.
    data
        Folder of the store, with splits train and valid.
    out
        Folder of the run to make.
    method
        Which method, carat by default: `carat methods` lists them. With `--help` the options are its own.
    preset
        Starting point: paper (the default, the method as published), official (as the authors' released
        code), small (a minute on a laptop) or text (behind a pretrained text encoder).
    devices
        Processes that share every batch, one core or GPU each; short for `--training.devices`.
    resume
        Be content with a finished run of the same experiment, so that a job that is started again and again
        needs no other command.
    """
    from carat.training.distributed import started_by_launcher
    from carat.training.train import train as run_training

    resolved = resolve(experiment_file, preset, experiment, method=method)
    if devices is not None:
        changed = resolved.training.model_copy(update={"devices": devices})
        resolved = resolved.model_copy(update={"training": changed})
    made = run_training(resolved, data, out, overwrite=overwrite, resume=resume, say=say)
    joined = started_by_launcher()
    if joined is not None and not joined.is_global_zero:
        return
    card = made.card
    thresholds = sorted(set(card.thresholds.values()))
    shown = f"{thresholds[0]:.2f}" if len(thresholds) == 1 else f"{thresholds[0]:.2f}…{thresholds[-1]:.2f}"
    for note in card.notes:
        say(f"note: {note}")
    say(
        f"best epoch {card.epoch}: validation micro-F1 {card.validation['micro_f1']:.4f} at threshold {shown}"
    )
    say(f"run → {out}")
    say(f"training curves → {out / 'curves.svg'}")


@app.command
def methods(name: str | None = None, /) -> None:
    """List the methods that `carat train --method NAME` trains, or describe one of them.

    **Examples**

        carat methods

        carat methods mult

    Parameters
    ----------
    name
        The method to describe: what it is, its presets, and every key of its section with the default.
    """
    from carat.cli.tables import show_method, show_methods

    if name is None:
        show_methods()
    else:
        preset_values("paper", name)
        show_method(name)


@app.command
def evaluate(
    run: Path,
    /,
    *,
    data: Path,
    split: str = "test",
    precision: Literal["float32", "bf16"] = "float32",
    as_json: AsJson = False,
) -> None:
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
    precision
        Arithmetic; thresholds were searched in float32.
    """
    from carat.cli.tables import show_report
    from carat.data.store import open_store
    from carat.inference.predictor import load

    report = load(run, precision=precision).evaluate(open_store(data), split)
    if as_json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        show_report(report)


@app.command
def predict(
    run: Path,
    /,
    *,
    data: Path | None = None,
    text: list[str] | None = None,
    file: Path | None = None,
    out: Path | None = None,
    split: str | None = None,
    column: str | None = None,
    conversation: str | None = None,
    order: str | None = None,
    together: bool = False,
    words: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    raw: Raw = False,
    precision: Literal["float32", "bf16"] = "float32",
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    format: Literal["parquet", "csv", "jsonl"] = "parquet",
    overwrite: Overwrite = False,
) -> None:
    """Score samples: each label's score, which labels are present, which modality carried each.

    **Examples**

        carat predict demo-run --data demo-store --split test --out scores.csv

        carat predict demo-run --data clip.npz --out scores.jsonl

        carat predict text-run --text "I am so relieved, but I miss him"

        carat predict text-run --file lines.txt --out scores.csv

        carat predict text-run --file reviews.csv --column said --words 3 --out scores.jsonl

        carat predict text-run --file calls.csv --conversation call --order turn --out scores.csv

        carat predict text-run --together --text "Where is he?" "Gone." "Oh"

        carat predict my-run --data raw-clips.npz --raw --out scores.parquet

        carat predict my-run --data millions --out scores --workers 8

        carat predict my-run --data millions --out scores --engine ray --address ray://head:10001

    Parameters
    ----------
    run
        Folder made by `carat train`.
    data
        Folder of a store, or an `.npz` with arrays (T, d) named `modality`; for several samples,
        `id/modality`.
    text
        Texts to score, by a run that reads tokens.
    file
        A file of texts: .txt (one a line), .csv, .tsv or .jsonl.
    column
        Column of the table, or key of the objects, that holds the text: `text` by default.
    conversation
        Column or key that names each text's conversation, for a run that reads texts with what was said
        before and after them. Those of one conversation need not stand together, but in the order in which
        they were said, or see --order; a text without a name is read by itself.
    order
        Column or key of numbers by which the texts of a conversation follow one another.
    together
        All texts are one conversation, in the order given.
    words
        So many words at most that carried each label, of a text: 3 with --text, else none. Each word is left
        out once to find them, which takes as many times longer as a text has words; `[context]` is what was
        said before and after it.
    out
        File to write: .csv, .parquet or .jsonl. With --data, a name without ending is a folder of many files,
        scored in parallel; after an interruption the same command goes on with those that are missing.
    split
        Only this split of the store.
    precision
        Arithmetic: bf16 is faster where the processor knows it; `evaluate` says what it costs.
    engine
        For a folder: processes of this machine, or Ray (pip install 'carat[ray]').
    address
        Of a Ray cluster; without, one is started here.
    workers
        For a folder: how many files at a time; as many as there are cores by default.
    format
        For a folder: of its files.
    """
    if sum(x is not None for x in (data, text, file)) != 1:
        raise ConfigError("say what to score: one of --data, --text and --file")
    if data is None:
        if split or raw or engine != "local":
            raise ConfigError("--split, --raw and --engine are for --data")
        from carat.cli.predict_text import predict_texts
        from carat.inference.text_files import Columns

        if file is None and any(x is not None for x in (column, conversation, order)):
            raise ConfigError(
                "--column, --conversation and --order are of --file; --together makes one of all texts"
            )
        columns = Columns(column or "text", conversation, order)
        predict_texts(run, text, file, out, columns, together, words, precision, overwrite)
        return
    if together or any(x is not None for x in (column, conversation, order)):
        raise ConfigError("--column, --conversation, --order and --together are for --text and --file")
    if out is None:
        raise ConfigError("--data needs --out, e.g. --out scores.csv")
    from carat.cli.tables import show_predictions
    from carat.data.store import open_store
    from carat.inference.features import read_features
    from carat.inference.predictor import load
    from carat.inference.writers import check_output, write_predictions

    if out.suffix:
        check_output(out, overwrite)
    if not data.exists():
        raise CaratError(f"{data}: no such store or file")
    if not out.suffix:
        from carat.inference.shards import predict_in_shards

        if not data.is_dir():
            raise ConfigError(f"--out {out}: a folder is for stores; end it in .csv, .parquet or .jsonl")
        count = predict_in_shards(
            run,
            data,
            out,
            split=split,
            ending=f".{format}",
            workers=workers or os.cpu_count() or 1,
            engine=engine,
            address=address,
            precision=precision,
            overwrite=overwrite,
            say=say,
        )
        say(f"{count} predictions → {out}")
        return
    if engine == "ray":
        raise ConfigError(f"--engine ray writes a folder, but {out} is a file; leave the ending out")
    if split and not data.is_dir():
        raise ConfigError(f"--split needs a store, but {data} is a file")
    predictor = load(run, precision=precision)
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
        say(f"note: {note}")
    first: list[tuple[str, Any]] = []
    count = write_predictions(_keep(stream, first, 5), out, overwrite=overwrite)
    show_predictions(first)
    say(f"{count} predictions → {out}")


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
    from carat.runs.official_weights import convert as convert_weights

    card = convert_weights(official, layout, run, overwrite=overwrite)
    for note in card.notes:
        say(f"note: {note}")
    say(f"run → {run}")


def _keep(stream: Any, first: list[Any], count: int) -> Any:
    for item in stream:
        if len(first) < count:
            first.append(item)
        yield item
