"""`carat predict --text` and `--file`: score texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from carat.utils.errors import ConfigError
from carat.utils.logging import logger

if TYPE_CHECKING:
    from carat.data.tokenizer import Context
    from carat.inference.prediction import Prediction
    from carat.inference.predictor import Predictor
    from carat.inference.text_files import Columns, Text

AT_ONCE = 1024
"""Texts of a file that are scored at once: sorted by length, they leave little padding."""
SHOWN = 3
"""Words that are shown with each label."""


@Parameter(name="*", group=Group("Texts", sort_key=2))
@dataclass(frozen=True)
class TextOptions:
    """How texts are read and explained."""

    column: str | None = None
    """Column of the table, or key of the objects, that holds the text; by default `text`."""
    conversation: str | None = None
    """Column or key that names each text's conversation, for a run that reads texts in context. The texts of
    a conversation may be apart, but must be in the order in which they were said, or see --order; a text
    without a name is read alone."""
    order: str | None = None
    """Column or key of numbers that order the texts of a conversation."""
    together: bool = False
    """All texts are one conversation, in the given order."""
    words: Annotated[int | None, Parameter(validator=Number(gte=0))] = None
    """Number of words, at most, that carried each label: 3 with --text, else none. They are found by leaving
    out each word once, so a text takes as many times longer as it has words; `[context]` is what was said
    before and after it."""

    @property
    def names_columns(self) -> bool:
        """Whether any option needs a file with columns."""
        return any(x is not None for x in (self.column, self.conversation, self.order))

    @property
    def columns(self) -> Columns:
        """Where the file holds texts, conversations and their order."""
        from carat.inference.text_files import Columns

        return Columns(self.column or "text", self.conversation, self.order)


def predict_texts(
    run: Path,
    texts: list[str] | None,
    file: Path | None,
    out: Path | None,
    options: TextOptions,
    precision: Literal["float32", "bf16"],
    overwrite: bool,
) -> None:
    """Score texts or those of a file, and print or write the predictions.

    Args:
        run: folder of the run.
        texts, file, out, options, precision, overwrite: as given to `carat predict`; one of `texts` and
            `file` is None.

    Raises:
        ConfigError: the options contradict each other.
    """
    from carat.cli.tables import show_texts
    from carat.inference.predictor import load
    from carat.inference.writers import check_output, write_predictions

    if file is None and options.names_columns:
        raise ConfigError(
            "--column, --conversation and --order are of --file; --together makes one of all texts"
        )
    if out is not None:
        check_output(out, overwrite)
    _check(texts, file, out, options)
    predictor = load(run, precision=precision)
    in_context = options.conversation is not None or options.together
    several = file is not None or len(texts or []) > 1
    if several and predictor.reader.context and not in_context:
        logger.warning(
            "note: each text is read by itself; with --conversation COLUMN or --together this run reads what "
            "was said before and after it too"
        )
    if file is None:
        given = texts or []
        contexts = predictor.reader.contexts(given) if options.together else None
        words = SHOWN if options.words is None else options.words
        predictions = predictor.predict_text(given, words=words, contexts=contexts)
        if out is None:
            show_texts(predictions)
            _report_cuts(predictor)
            return
        named: Iterator[tuple[str, Prediction]] = ((str(i), x) for i, x in enumerate(predictions, start=1))
    else:
        named = _scored(predictor, file, options)
    assert out is not None
    count = write_predictions(named, out, overwrite=overwrite)
    _report_cuts(predictor)
    logger.info(f"{count} predictions → {out}")


def _check(texts: list[str] | None, file: Path | None, out: Path | None, options: TextOptions) -> None:
    """Refuse options that contradict each other."""
    if file is None and not texts:
        raise ConfigError(
            '--text needs a text, e.g. --text "so glad"; one that begins with a dash as --text="- …"'
        )
    if options.conversation is not None and options.together:
        raise ConfigError("give --conversation or --together, not both: --together makes one of all texts")
    if options.order is not None and options.conversation is None and not options.together:
        raise ConfigError("--order is of texts in a conversation; add --conversation COLUMN or --together")
    if file is not None and out is None:
        raise ConfigError("--file needs --out, e.g. --out scores.csv")


def _report_cuts(predictor: Predictor) -> None:
    if predictor.reader.cut:
        logger.warning(
            f"note: texts are cut at {predictor.reader.longest} tokens, as those of the training store were"
        )


def _scored(predictor: Predictor, file: Path, options: TextOptions) -> Iterator[tuple[str, Prediction]]:
    """Ids and predictions of a file's texts; empty texts are left out."""
    from carat.utils.progress import track

    texts, total, contexts = _read(predictor, file, options)
    stream = iter(track(texts, f"Scoring {file.name}", total=total))
    done = 0
    while some := list(islice(stream, AT_ONCE)):
        some_contexts = None if contexts is None else contexts[done : done + len(some)]
        predictions = predictor.predict_text(
            [x.text for x in some], words=options.words or 0, contexts=some_contexts
        )
        done += len(some)
        yield from zip((x.id for x in some), predictions, strict=True)


def _read(
    predictor: Predictor, file: Path, options: TextOptions
) -> tuple[Iterable[Text], int, list[Context] | None]:
    """A file's texts that have words, their number, and their contexts if they are read in context."""
    from carat.inference.text_files import read_texts

    columns, together = options.columns, options.together
    in_context = together or columns.conversation is not None
    given: Iterable[Text] = read_texts(file, columns)
    if in_context:  # what follows a text is needed too
        given = list(given)
    counts = Counter(x.has_words for x in given)
    if counts[False]:
        logger.warning(f"note: left out as empty: {counts[False]} of {counts.total()} texts")
    if not in_context:
        return (x for x in read_texts(file, columns) if x.has_words), counts[True], None
    texts = [x for x in given if x.has_words]
    names = None if together else [x.conversation for x in texts]
    order = None if columns.order is None else [x.order for x in texts]
    return texts, len(texts), predictor.reader.contexts([x.text for x in texts], names, order)
