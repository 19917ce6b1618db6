"""`carat predict --text` and `--file`: score texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from carat.cli.scores import ScoreArguments
from carat.utils.errors import ConfigError
from carat.utils.logging import logger

if TYPE_CHECKING:
    from carat.data.tables.format import TableFormat
    from carat.data.tokenizer import Context
    from carat.inference.prediction import Prediction
    from carat.inference.predictor import Predictor
    from carat.inference.text_files import Columns, Text

CHUNK = 1024
"""Texts of a file that are scored at a time; they are sorted by length to reduce padding."""
DEFAULT_WORDS = 3
"""Default number of words per label with `--text`."""


@Parameter(name="*", group=Group("Texts", sort_key=2))
@dataclass(frozen=True)
class TextOptions:
    """Options for reading and explaining texts."""

    column: str | None = None
    """Column (or JSON key) of the text; defaults to `text`."""
    conversation: str | None = None
    """Column (or JSON key) of the conversation name, for a run that uses context. Conversations may be
    interleaved, but their texts must be in order unless --order is given; a text without a name is read
    without context."""
    order: str | None = None
    """Column (or JSON key) of numbers by which the texts of a conversation are sorted."""
    vectors: Path | None = None
    """File of the word vectors that the run was trained on (source `glove`), if it was."""
    separator: str | None = None
    """Separator of the cells of a table: a character, or tab, comma, semicolon; detected by default."""
    quote: str | None = None
    """Character around cells of a table, or `none` if quotes are ordinary characters; detected by default."""
    encoding: str | None = None
    """Encoding of the file, e.g. cp1252 or gbk; detected by default."""
    together: bool = False
    """Treat all texts as one conversation, in the order given."""
    words: Annotated[int | None, Parameter(validator=Number(gte=0))] = None
    """Maximum number of words to which each label is attributed; defaults to 3 with --text, 0 with --file.
    Words are left out one at a time (occlusion), which takes one forward pass per word; `[context]` stands
    for the context of the text."""

    @property
    def describes_file(self) -> bool:
        """Whether any option applies only to files."""
        columns = self.column, self.conversation, self.order
        return any(x is not None for x in (*columns, self.separator, self.quote, self.encoding))

    @property
    def columns(self) -> Columns:
        """Columns of text, conversation and order."""
        from carat.inference.text_files import Columns

        return Columns(self.column or "text", self.conversation, self.order)

    @property
    def format(self) -> TableFormat:
        """How the file is written.

        Raises:
            ConfigError: an invalid option.
        """
        from carat.config.base import parse
        from carat.data.tables.format import TableFormat

        values = {"separator": self.separator, "quote": self.quote, "encoding": self.encoding}
        return parse(TableFormat, values, "--separator, --quote, --encoding")


def predict_texts(
    run: Path,
    texts: list[str] | None,
    file: Path | None,
    out: Path | None,
    options: TextOptions,
    scores: ScoreArguments,
    overwrite: bool,
) -> None:
    """Score texts, or the texts of a file, and print or write the predictions.

    Args:
        run: folder of the run.
        texts: texts to score, or None if `file` is given.
        file: file of texts, or None if `texts` is given.
        out: file to write; optional with `texts`, whose predictions are printed by default.
        options: options of texts.
        scores: precision, calibration and promised risks.
        overwrite: replace an existing file.

    Raises:
        ConfigError: the options contradict each other.
    """
    from carat.cli.tables import show_texts
    from carat.inference.writers import check_output, write_predictions

    if file is None and options.describes_file:
        raise ConfigError(
            "--separator, --quote, --encoding, --column, --conversation and --order are for --file; for a "
            "conversation use --together"
        )
    if out is not None:
        check_output(out, overwrite)
    _check_options(texts, file, out, options)
    predictor = scores.load(run, options.vectors)
    for note in predictor.scale.guarantee():
        logger.warning(f"note: {note}")
    in_context = options.conversation is not None or options.together
    has_several = file is not None or len(texts or []) > 1
    if has_several and predictor.reader.context_tokens and not in_context:
        logger.warning(
            "note: each text is read without context; to use the context of this run, add --conversation "
            "COLUMN or --together"
        )
    if file is None:
        texts = texts or []
        contexts = predictor.reader.contexts(texts) if options.together else None
        words = DEFAULT_WORDS if options.words is None else options.words
        predictions = predictor.predict_text(texts, words=words, contexts=contexts)
        if out is None:
            show_texts(predictions)
            _report_reading(predictor)
            return
        identified: Iterator[tuple[str, Prediction]] = (
            (str(i), x) for i, x in enumerate(predictions, start=1)
        )
    else:
        identified = _score_file(predictor, file, options)
    assert out is not None
    count = write_predictions(identified, out, overwrite=overwrite)
    _report_reading(predictor)
    logger.info(f"{count} predictions → {out}")


def _check_options(
    texts: list[str] | None, file: Path | None, out: Path | None, options: TextOptions
) -> None:
    """Raise ConfigError if options are missing or contradict each other."""
    if file is None and not texts:
        raise ConfigError(
            '--text needs a text, e.g. --text "so glad"; write --text="- …" if it begins with a dash'
        )
    if options.conversation is not None and options.together:
        raise ConfigError(
            "--conversation and --together exclude each other; --together makes all texts one conversation"
        )
    if options.order is not None and options.conversation is None and not options.together:
        raise ConfigError("--order needs conversations; add --conversation COLUMN or --together")
    if file is not None and out is None:
        raise ConfigError("--file needs --out, e.g. --out scores.csv")


def _report_reading(predictor: Predictor) -> None:
    if predictor.reader.truncated:
        logger.warning(
            f"note: texts are truncated to {predictor.reader.max_length} tokens, as in the training store"
        )
    if predictor.reader.without_vectors:
        logger.warning("note: some texts have no word with a vector; their scores do not depend on the words")


def _score_file(predictor: Predictor, file: Path, options: TextOptions) -> Iterator[tuple[str, Prediction]]:
    """Yield IDs and predictions of the texts of a file; empty texts are skipped."""
    from carat.utils.progress import track

    texts, total, contexts = _read_file(predictor, file, options)
    stream = iter(track(texts, f"Scoring {file.name}", total=total))
    done = 0
    while chunk := list(islice(stream, CHUNK)):
        chunk_contexts = None if contexts is None else contexts[done : done + len(chunk)]
        predictions = predictor.predict_text(
            [x.text for x in chunk], words=options.words or 0, contexts=chunk_contexts
        )
        done += len(chunk)
        yield from zip((x.id for x in chunk), predictions, strict=True)


def _read_file(
    predictor: Predictor, file: Path, options: TextOptions
) -> tuple[Iterable[Text], int, list[Context] | None]:
    """Read the non-empty texts of a file, their number, and their contexts if conversations are given."""
    from carat.inference.text_files import TextFile

    columns, together = options.columns, options.together
    in_context = together or columns.conversation is not None
    source = TextFile(file, columns, options.format)
    all_texts: Iterable[Text] = source
    for note in source.notes:
        logger.warning(f"note: {note}")
    if in_context:  # the context includes the following texts
        all_texts = list(all_texts)
    counts = Counter(x.is_empty for x in all_texts)
    if counts[True]:
        logger.warning(f"note: skipped {counts[True]} empty texts of {counts.total()}")
    if not in_context:
        return (x for x in source if not x.is_empty), counts[False], None
    texts = [x for x in all_texts if not x.is_empty]
    names = None if together else [x.conversation for x in texts]
    order = None if columns.order is None else [x.order for x in texts]
    return texts, len(texts), predictor.reader.contexts([x.text for x in texts], names, order)
