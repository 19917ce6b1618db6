"""`carat predict --text` and `--file`: what the words of a person say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from carat.cli.app import say
from carat.errors import ConfigError

if TYPE_CHECKING:
    from carat.context import Context
    from carat.predictor import Prediction, Predictor
    from carat.texts import Text

AT_ONCE = 1024
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
    if file is not None and out is None:
        raise ConfigError("--file needs --out, e.g. --out scores.csv")
    predictor = load(run, precision=precision)
    if file is None:
        said = texts or []
        contexts = predictor.reader.contexts(said) if together else None
        found = predictor.predict_text(said, words=SHOWN if words is None else words, contexts=contexts)
        if out is None:
            show_texts(found)
            _report_cuts(predictor)
            return
        named: Iterator[tuple[str, Prediction]] = ((str(i), x) for i, x in enumerate(found, start=1))
    else:
        given: Iterable[Text] = read_texts(file, column, conversation)
        contexts = None
        if together or conversation is not None:  # what follows is needed too
            given = every = list(given)
            names = None if together else [x.conversation or i for i, x in enumerate(every)]
            contexts = predictor.reader.contexts([x.text for x in every], names)
            total = len(every)
        else:
            total = sum(1 for _ in read_texts(file, column))
        stream = track(given, f"Scoring {file.name}", total=total)
        named = _scored(predictor, stream, words or 0, contexts)
    assert out is not None
    count = write_predictions(named, out, overwrite=overwrite)
    _report_cuts(predictor)
    say(f"{count} predictions → {out}")


def _report_cuts(predictor: Predictor) -> None:
    if predictor.reader.cut:
        say(f"note: texts are cut at {predictor.reader.longest} tokens, as those of the training store were")


def _scored(
    predictor: Predictor, texts: Iterator[Text], words: int, contexts: list[Context] | None
) -> Iterator[tuple[str, Prediction]]:
    done = 0
    while some := list(islice(texts, AT_ONCE)):
        some_contexts = None if contexts is None else contexts[done : done + len(some)]
        found = predictor.predict_text([x.text for x in some], words=words, contexts=some_contexts)
        done += len(some)
        yield from zip((x.id for x in some), found, strict=True)
