"""Transcripts of media files, given or recognized while a store is built (extra `clip`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carat.data.recipes.sources.media import Parts, describe_problems
from carat.features.clip import ClipReader, Spoken
from carat.features.description import Description, TranscriptSettings, describe
from carat.features.extraction import Problems, Work
from carat.features.transcript_files import READERS, Transcript, read_transcript, text_transcript
from carat.features.words import Word, spread_over, words_between
from carat.utils.errors import DataError
from carat.utils.progress import track
from carat.utils.wording import count

KEPT = 8
"""Number of files whose transcripts are kept in memory."""


@dataclass(frozen=True)
class RowTranscript:
    """What is said in a table row: its text, and its words with times if they are needed."""

    text: str = ""
    words: Sequence[Word] = ()


class TranscriptSource:
    """The transcript of each table row.

    Args:
        folder: folder of the media files and transcripts.
        settings: parameters of speech recognition.
        files: name of the media file of each row; empty where there is none.
        given: text, or name of a transcript file, of each row; empty where speech is to be recognized.
        places: where each of them is, for messages.
        parts: start and end of each row in seconds; None takes whole files.
        timed: whether times of words are needed.

    Raises:
        DataError: the folder or a transcript does not exist, or a package or a model is not installed.
    """

    def __init__(
        self,
        folder: Path,
        settings: TranscriptSettings,
        files: Sequence[str],
        given: Sequence[str],
        places: Sequence[str],
        parts: Parts | None,
        *,
        timed: bool,
    ) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        self._folder, self._files, self._parts, self._timed = folder, files, parts, timed
        self._given = [self._read_given(cell, place) for cell, place in zip(given, places, strict=True)]
        recognized = [bool(file) and x is None for file, x in zip(files, self._given, strict=True)]
        self.extraction: Description | None = describe(settings) if any(recognized) else None
        """How speech was recognized; None if all transcripts were given."""
        self.alignment = self.extraction or describe(settings.speech)
        """How words got their times."""
        self._media = list(dict.fromkeys(folder / file for file in files if file)) if timed else []
        self._recognize = list(
            dict.fromkeys(folder / file for file, x in zip(files, recognized, strict=True) if x)
        )
        self._reader: ClipReader | None = None
        if self._media or self._recognize:
            self._reader = ClipReader({}, self.extraction or self.alignment)
        self._problems: Mapping[Path, str] = {}
        self._kept: dict[tuple[Path, int], Spoken] = {}

    def work(self) -> Work:
        """List the extractions that `read` needs in the cache."""
        if self._reader is None:
            return []
        files = list(dict.fromkeys([*self._media, *self._recognize]))
        return self._reader.work(files, recognize=self._recognize)

    def accept(self, problems: Problems) -> None:
        """Receive the problems of files that could not be decoded."""
        wanted = [problems.get(description.id, {}) for description, _ in self.work()]
        self._problems = {file: problem for found in wanted for file, problem in found.items()}

    def read(self) -> list[RowTranscript]:
        """Return what is said in each row."""
        rows = track(range(len(self._files)), "Reading transcripts", total=len(self._files))
        return [self._read_row(row) for row in rows]

    def report(self) -> list[str]:
        """Say where the transcripts come from, and name the files with problems."""
        given = sum(x is not None for x in self._given)
        lines = [f"transcripts of {count(given, 'sample')} were given"] if given else []
        if recognized := [file for file in self._recognize if file not in self._problems]:
            lines.append(f"the speech of {count(len(recognized), 'file')} was recognized")
        if self._timed and any(x is not None and not x.has_times for x in self._given):
            lines.append("words of transcripts without times are spread over the speech by length")
        problems = describe_problems(self._folder, self._problems)
        return [*lines, problems] if problems else lines

    def _read_given(self, cell: str, place: str) -> Transcript | None:
        """Read a cell: a text, or the name of a file; None if it is empty."""
        if not cell.strip():
            return None
        suffix = Path(cell).suffix.lower()
        if suffix in READERS and len(cell.split()) == 1:
            try:
                return read_transcript(self._folder / cell)
            except DataError as error:
                raise DataError(f"{place}: {error}") from error
        file = self._folder / cell if len(cell) < 256 and "\0" not in cell else None
        return (
            read_transcript(file) if suffix in READERS and file and file.is_file() else text_transcript(cell)
        )

    def _read_row(self, row: int) -> RowTranscript:
        given = self._given[row]
        part = None if self._parts is None else self._parts[row]
        text = "" if given is None else " ".join(x.text for x in given.utterances)
        is_cut = given is not None and given.has_times and part is not None
        if given is not None and not self._timed and not is_cut:
            return RowTranscript(" ".join(text.split()))
        if is_cut and given is not None:
            assert part is not None
            words = words_between(given.words, *part)
            return RowTranscript(" ".join(word.text for word in words), words)
        file = self._folder / self._files[row]
        if not self._files[row] or file in self._problems:
            return RowTranscript(" ".join(text.split()))
        spoken = self._listen(file, given)
        if part is None:
            words = list(spoken.words)
        elif given is None:
            words = words_between(spoken.words, *part)
        else:  # the text of this part, spread over its speech
            spans = [(max(x.start, part[0]), min(x.end, part[1])) for x in spoken.speech]
            words = spread_over(text, [(a, b) for a, b in spans if a < b] or [part])
        return RowTranscript(" ".join(word.text for word in words), words)

    def _listen(self, file: Path, given: Transcript | None) -> Spoken:
        """Find what is said in a file; that of the last ones is kept for further rows."""
        assert self._reader is not None
        key = file, id(given)
        if key not in self._kept:
            if len(self._kept) == KEPT:
                self._kept.clear()
            self._kept[key] = self._reader.listen(file, given)
        return self._kept[key]
