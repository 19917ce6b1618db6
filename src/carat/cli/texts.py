"""`carat predict --text` and `--file`: what the words of a person say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from carat.cli.app import say
from carat.errors import ConfigError

if TYPE_CHECKING:
    from carat.predictor import Prediction, Predictor
    from carat.surroundings import Surrounding
    from carat.texts import Text

TOGETHER = 1024
"""Texts of a file that are scored at once: sorted by length, they leave little padding."""
SHOWN = 3
"""Words that are shown with each label."""


def predict_texts(
    run: Path,
    texts: list[str] | None,
    file: Path | None,
    out: Path | None,
    column: str,
    conversation: str | None,
    together: bool,
    words: int | None,
    precision: Literal["float32", "bf16"],
    overwrite: bool,
) -> None:
    """Score texts or those of a file; print them or write them. Arguments are those of `carat predict`."""
    from carat.display import show_texts
    from carat.predictions import check_output, write_predictions
    from carat.predictor import load
    from carat.progress import track
    from carat.texts import read_texts

    if out is not None:
        check_output(out, overwrite)
    if file is None and not texts:
        raise ConfigError(
            '--text needs a text, e.g. --text "so glad"; one that begins with a dash as --text="- …"'
        )
    if conversation is not None and (file is None or together):
        raise ConfigError("--conversation names a column of --file; texts that are all one are --together")
    predictor = load(run, precision=precision)
    if file is None:
        said = texts or []
        around = predictor.reader.around(said) if together else None
        found = predictor.predict_text(said, words=SHOWN if words is None else words, around=around)
        if out is None:
            show_texts(found)
            _report_cuts(predictor)
            return
        named: Iterator[tuple[str, Prediction]] = ((str(i), x) for i, x in enumerate(found, start=1))
    else:
        if out is None:
            raise ConfigError("--file needs --out, e.g. --out scores.csv")
        given: Iterable[Text] = read_texts(file, column, conversation)
        around = None
        if together or conversation is not None:
            given = every = list(given)
            around = predictor.reader.around([x.text for x in every], [x.conversation for x in every])
        total = sum(1 for _ in read_texts(file, column))
        stream = track(given, f"Scoring {file.name}", total=total)
        named = _scored(predictor, stream, words or 0, around)
    count = write_predictions(named, out, overwrite=overwrite)
    _report_cuts(predictor)
    say(f"{count} predictions → {out}")


def _report_cuts(predictor: Predictor) -> None:
    if predictor.reader.cut:
        say(f"note: texts are cut at {predictor.reader.longest} tokens, as those of the training store were")


def _scored(
    predictor: Predictor, texts: Iterator[Text], words: int, around: list[Surrounding] | None
) -> Iterator[tuple[str, Prediction]]:
    done = 0
    while some := list(islice(texts, TOGETHER)):
        near = None if around is None else around[done : done + len(some)]
        found = predictor.predict_text([x.text for x in some], words=words, around=near)
        done += len(some)
        yield from zip((x.id for x in some), found, strict=True)
