"""`carat evaluate` and `carat predict`: inference on a store, texts, clips or feature files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import Group, Parameter

from carat.cli.app import AsJson, Overwrite, Workers, app, cores
from carat.cli.predict_clips import ClipArguments, predict_clips
from carat.cli.predict_text import TextOptions, predict_texts
from carat.cli.scores import ScoreArguments
from carat.utils.errors import CaratError, ConfigError
from carat.utils.logging import logger

if TYPE_CHECKING:
    from carat.inference.prediction import Prediction

SHOWN = 5
"""Number of predictions that are printed."""


@Parameter(name="*", group=Group("What to score", sort_key=1))
@dataclass(frozen=True)
class Input:
    """Exactly one of `data`, `text`, `file` and `clip`."""

    data: Path | None = None
    """Folder of a store, or an `.npz` file with arrays (T, d) named `modality`; for several samples,
    `id/modality`."""
    text: list[str] | None = None
    """Texts to score, with a run trained on tokens or word vectors."""
    file: Path | None = None
    """File of texts: .txt (one per line), .csv, .tsv or .jsonl."""
    clip: list[Path] | None = None
    """Audio or video files, or folders of them; writes the folder `--out`."""
    split: str | None = None
    """With a store: only this split."""
    raw: bool | None = None
    """With an `.npz` file: features are as extracted (--raw) and are cleaned like those of the training
    store, or they are as a store holds them (--no-raw). Must be chosen if the run was trained on standardised
    features."""


@Parameter(name="*", group=Group("Folder of predictions", sort_key=3))
@dataclass(frozen=True)
class FolderOptions:
    """Options for scoring a store or clips in parallel, with an `--out` without extension."""

    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or Ray (pip install 'carat-emotion[ray]')."""
    address: str | None = None
    """Address of a Ray cluster; by default one is started on this machine."""
    workers: Workers = None
    """Number of files worked on in parallel; defaults to the number of cores."""
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    """Format of the files."""


@Parameter(name="*", group=Group("What to report", sort_key=2))
@dataclass(frozen=True)
class ReportArguments:
    """Further parts of the report."""

    floors: bool = True
    """Compare with simple predictors: the prior, and TF-IDF with logistic regression if the store has
    transcripts."""
    by: str | None = None
    """Metrics by `group`, `corpus` or a column of a table, e.g. speakers.csv:gender, whose column `id` has
    ids of samples or groups."""
    reliability: Path | None = None
    """SVG file to write, with a reliability diagram for each label."""


@app.command
def evaluate(
    run: Path,
    /,
    *,
    data: Path,
    split: str = "test",
    scores: ScoreArguments | None = None,
    parts: ReportArguments | None = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run on a split, with the thresholds chosen on validation and 95 % intervals.

    Intervals are bootstrapped by group (video or dialogue). Accuracy is the mean sample Jaccard. Reliability
    is measured before and after calibration; with --risk, so are the rates of decisions.

    **Examples**

        carat evaluate demo-run --data demo-store

        carat evaluate demo-run --data demo-store --split valid --json

        carat evaluate demo-run --data demo-store --risk .2 --reliability reliability.svg

        carat evaluate demo-run --data demo-store --by speakers.csv:gender

    Parameters
    ----------
    run
        Folder created by `carat train`.
    data
        Folder of a store with the labels of the run.
    split
        Split to evaluate.
    """
    from carat.cli.reports import show_report
    from carat.cli.tables import show_json
    from carat.data.store import open_store
    from carat.inference.evaluate import evaluate_split

    parts = parts or ReportArguments()
    if parts.reliability is not None and parts.reliability.suffix != ".svg":
        raise ConfigError(f"--reliability {parts.reliability}: use a file name that ends in .svg")
    predictor, store = (scores or ScoreArguments()).load(run), open_store(data)
    report = evaluate_split(predictor, store, split, floors=parts.floors, by=parts.by)
    if parts.reliability is not None:
        from carat.inference.calibrate import draw_split

        draw_split(predictor, store, split, parts.reliability)
    if as_json:
        show_json(report.to_json())
    else:
        show_report(report)


@app.command
def predict(
    run: Path,
    /,
    *,
    source: Input | None = None,
    out: Path | None = None,
    texts: TextOptions | None = None,
    clips: ClipArguments | None = None,
    folder: FolderOptions | None = None,
    scores: ScoreArguments | None = None,
    overwrite: Overwrite = False,
) -> None:
    """Score samples: the score of each label, the predicted labels, and the modality they are attributed to.

    **Examples**

        carat predict demo-run --data demo-store --split test --out scores.csv

        carat predict demo-run --data demo-store --split test --risk .1 --out decisions.csv

        carat predict demo-run --data clip.npz --out scores.jsonl

        carat predict text-run --text "I am so relieved, but I miss him"

        carat predict text-run --file lines.txt --out scores.csv

        carat predict text-run --file reviews.csv --column review --words 3 --out scores.jsonl

        carat predict text-run --file calls.csv --conversation call --order turn --out scores.csv

        carat predict text-run --together --text "Where is he?" "Gone." "Oh"

        carat predict my-run --clip interview.mp4 --out timelines

        carat predict my-run --clip recordings --transcript subtitles --segments transcript --out timelines

        carat predict my-run --data raw-clips.npz --raw --out scores.parquet

        carat predict my-run --data millions --out scores --workers 8

        carat predict my-run --data millions --out scores --engine ray --address ray://head:10001

    Parameters
    ----------
    run
        Folder created by `carat train`.
    out
        File to write: .csv, .parquet or .jsonl. With a store, a name without extension is a folder of many
        files, scored in parallel; after an interruption the same command resumes. With clips, a folder of
        tables, .eaf (ELAN), .TextGrid (Praat) and .vtt files, and HTML pages with a timeline.
    """
    source, texts, folder = source or Input(), texts or TextOptions(), folder or FolderOptions()
    clips, scores = clips or ClipArguments(), scores or ScoreArguments()
    if sum(x is not None for x in (source.data, source.text, source.file, source.clip)) != 1:
        raise ConfigError("give exactly one of --data, --text, --file and --clip")
    if source.clip is not None:
        if source.split or source.raw is not None or texts.together or texts.describes_file:
            raise ConfigError("--split, --raw, --together and the options of --file are not for --clip")
        predict_clips(
            run,
            source.clip,
            out,
            clips,
            words=texts.words,
            vectors=texts.vectors,
            workers=folder.workers,
            engine=folder.engine,
            address=folder.address,
            scores=scores,
            overwrite=overwrite,
        )
        return
    if not clips.is_default:
        raise ConfigError("--transcript, --segments, --formats and other options of clips need --clip")
    if source.data is None:
        if source.split or source.raw is not None or folder.engine != "local":
            raise ConfigError("--split, --raw and --engine are for --data")
        predict_texts(run, source.text, source.file, out, texts, scores, overwrite)
        return
    if texts.together or texts.describes_file:
        raise ConfigError("--column, --conversation, --order and --together are for --text and --file")
    if out is None:
        raise ConfigError("--data needs --out, e.g. --out scores.csv")
    if out.suffix:
        count = _write_file(run, source, source.data, out, folder, scores, overwrite)
    else:
        count = _write_folder(run, source, source.data, out, folder, scores, overwrite)
    logger.info(f"{count} predictions → {out}")


def _write_folder(
    run: Path,
    source: Input,
    data: Path,
    out: Path,
    folder: FolderOptions,
    scores: ScoreArguments,
    overwrite: bool,
) -> int:
    """Score a store into a folder of files; returns the number of predictions."""
    from carat.inference.shards import predict_in_shards

    _check_exists(data)
    if not data.is_dir():
        raise ConfigError(
            f"--out {out}: a folder needs a store; use a file name that ends in .csv, .parquet or .jsonl"
        )
    return predict_in_shards(
        run,
        data,
        out,
        split=source.split,
        ending=f".{folder.format}",
        workers=cores(folder.workers),
        engine=folder.engine,
        address=folder.address,
        **scores.options,
        overwrite=overwrite,
    )


def _write_file(
    run: Path,
    source: Input,
    data: Path,
    out: Path,
    folder: FolderOptions,
    scores: ScoreArguments,
    overwrite: bool,
) -> int:
    """Score a store or an `.npz` file into one file and print the first predictions; returns their number."""
    from carat.cli.tables import show_predictions
    from carat.data.store import open_store
    from carat.inference.features import read_features, select_modalities
    from carat.inference.writers import check_output, write_predictions

    check_output(out, overwrite)
    _check_exists(data)
    if folder.engine == "ray":
        raise ConfigError(f"--engine ray writes a folder, but {out} is a file; remove the extension")
    if source.raw is not None and data.is_dir():
        raise ConfigError("--raw is for an .npz file; the features of a store are cleaned already")
    if source.split and not data.is_dir():
        raise ConfigError(f"--split needs a store, but {data} is a file")
    predictor = scores.load(run)
    stream: Iterator[tuple[str, Prediction]]
    if data.is_dir():
        store = open_store(data)
        notes = predictor.notes(store, [source.split] if source.split else list(store.manifest.splits))
        stream = predictor.predict_store(store, source.split)
    else:
        samples, notes = select_modalities(read_features(data), predictor.card.modalities)
        names = [f"{data}, '{id}'" for id in samples]
        predictions = predictor.predict_batch(list(samples.values()), names=names, raw=source.raw)
        stream = zip(samples, predictions, strict=True)
    for note in [*notes, *predictor.scale.guarantee()]:
        logger.warning(f"note: {note}")
    first: list[tuple[str, Prediction]] = []
    count = write_predictions(_keep_first(stream, first), out, overwrite=overwrite)
    show_predictions(first)
    return count


def _check_exists(data: Path) -> None:
    if not data.exists():
        raise CaratError(f"{data}: no such store or file")


def _keep_first(
    stream: Iterator[tuple[str, Prediction]], first: list[tuple[str, Prediction]]
) -> Iterator[tuple[str, Prediction]]:
    """Yield the items of the stream, and append the first ones to `first`."""
    for item in stream:
        if len(first) < SHOWN:
            first.append(item)
        yield item
