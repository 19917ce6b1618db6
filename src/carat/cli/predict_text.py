"""`carat predict --text` and `--file`: what the words of a person say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from carat.utils.errors import ConfigError
from carat.utils.logging import logger

if TYPE_CHECKING:
    from carat.data.tokenizer import Context
    from carat.inference.predictor import Prediction, Predictor
    from carat.inference.text_files import Columns, Text

AT_ONCE = 1024
"""Texts of a file that are scored at once: sorted by length, they leave little padding."""
SHOWN = 3
"""Words that are shown with each label."""


def predict_texts(
    run: Path,
    texts: list[str] | None,
    file: Path | None,
    out: Path | None,
    columns: Columns,
    together: bool,
    words: int | None,
    precision: Literal["float32", "bf16"],
    overwrite: bool,
) -> None:
    """Score texts or those of a file; print them or write them. Arguments are those of `carat predict`."""
    from carat.cli.tables import show_texts
    from carat.inference.predictor import load
    from carat.inference.writers import check_output, write_predictions

    if out is not None:
        check_output(out, overwrite)
    if file is None and not texts:
        raise ConfigError(
            '--text needs a text, e.g. --text "so glad"; one that begins with a dash as --text="- …"'
        )
    if columns.conversation is not None and together:
        raise ConfigError("give --conversation or --together, not both: --together makes one of all texts")
    if columns.order is not None and columns.conversation is None and not together:
        raise ConfigError("--order is of texts in a conversation; add --conversation COLUMN or --together")
    if file is not None and out is None:
        raise ConfigError("--file needs --out, e.g. --out scores.csv")
    predictor = load(run, precision=precision)
    several = file is not None or len(texts or []) > 1
    if several and predictor.reader.context and columns.conversation is None and not together:
        logger.warning(
            "note: each text is read by itself; with --conversation COLUMN or --together this run reads what "
            "was said before and after it too"
        )
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
        named = _scored(predictor, file, columns, together, words or 0)
    assert out is not None
    count = write_predictions(named, out, overwrite=overwrite)
    _report_cuts(predictor)
    logger.info(f"{count} predictions → {out}")


def _report_cuts(predictor: Predictor) -> None:
    if predictor.reader.cut:
        logger.warning(
            f"note: texts are cut at {predictor.reader.longest} tokens, as those of the training store were"
        )


def _scored(
    predictor: Predictor, file: Path, columns: Columns, together: bool, words: int
) -> Iterator[tuple[str, Prediction]]:
    """Ids and predictions of a file's texts, but empty ones."""
    from carat.utils.progress import track

    texts, total, contexts = _read(predictor, file, columns, together)
    stream = iter(track(texts, f"Scoring {file.name}", total=total))
    done = 0
    while some := list(islice(stream, AT_ONCE)):
        some_contexts = None if contexts is None else contexts[done : done + len(some)]
        found = predictor.predict_text([x.text for x in some], words=words, contexts=some_contexts)
        done += len(some)
        yield from zip((x.id for x in some), found, strict=True)


def _read(
    predictor: Predictor, file: Path, columns: Columns, together: bool
) -> tuple[Iterable[Text], int, list[Context] | None]:
    """A file's texts that have words, how many they are, and their contexts, where these are wanted."""
    from carat.inference.text_files import read_texts

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
