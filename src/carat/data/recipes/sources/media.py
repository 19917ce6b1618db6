"""Features of media files, extracted while a store is built (extra `clip`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from carat.features.cache import FeatureCache
from carat.features.description import Settings, describe
from carat.features.extraction import Problems, Work
from carat.features.words import Word, per_word
from carat.utils.errors import DataError
from carat.utils.wording import count

SHOWN = 3
"""Number of files named in a report."""
Parts = Sequence[tuple[float, float]]
"""Start and end of each table row in its file, in seconds."""


class MediaSource:
    """Extract features from media files, or from parts of them; they are cached by content.

    A file that is missing or cannot be decoded lacks the modality, and is named in the report.

    Args:
        folder: folder of the media files.
        settings: extractor and parameters.
        files: name of the file of each table row, relative to the folder; empty where there is none.
        parts: start and end of each table row in seconds; None takes whole files.

    Raises:
        DataError: the folder does not exist, or a package or a model is not installed.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        files: Sequence[str],
        parts: Parts | None = None,
    ) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        self.folder = folder
        self.extraction = describe(settings)
        self.id = self.extraction.id
        self.keys = list(files)
        """Key of each table row: its file and its part; also its number, if averaged over words."""
        if parts is not None:
            self.keys = [
                f"{file} {start:g}–{end:g} s" for file, (start, end) in zip(files, parts, strict=True)
            ]
        self._parts = {} if parts is None else dict(zip(self.keys, parts, strict=True))
        self._words: dict[str, Sequence[Word]] = {}
        self._file_of = dict(zip(self.keys, files, strict=True))
        self._cache = FeatureCache(self.extraction)
        self._problems: Mapping[Path, str] = {}
        self._looked: dict[str, tuple[int, int]] = {}

    def average_over(self, words: Sequence[Sequence[Word]]) -> None:
        """Average features over the words of each table row."""
        files, parts = [self._file_of[key] for key in self.keys], [self._parts.get(key) for key in self.keys]
        self.keys = [f"{key}, data row {row}" for row, key in enumerate(self.keys, start=1)]
        self._file_of = dict(zip(self.keys, files, strict=True))
        self._parts = {key: part for key, part in zip(self.keys, parts, strict=True) if part is not None}
        self._words = dict(zip(self.keys, words, strict=True))

    def work(self) -> Work:
        """List the extractions that `read` needs in the cache."""
        return [(self.extraction, [self.folder / file for file in self._file_of.values() if file])]

    def accept(self, problems: Problems) -> None:
        """Receive the problems of files that could not be decoded."""
        self._problems = problems.get(self.id, {})

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]:
        """Read features (T, d) by key; None for rows without a file, and files without the modality."""
        return [self._read_one(key) if self._file_of[key] else None for key in keys]

    def report(self) -> list[str]:
        """Count the steps with features, and the files with problems."""
        steps, present = (sum(x[i] for x in self._looked.values()) for i in (0, 1))
        lines = [f"{present} of {steps} steps of {count(len(self._looked), 'clip')} have features"]
        return [*lines, missing] if (missing := self.describe_missing()) else lines

    def describe_missing(self) -> str:
        """Describe the files with problems; empty if there are none."""
        return describe_problems(self.folder, self._problems)

    def _read_one(self, key: str) -> NDArray[Any] | None:
        file = self.folder / self._file_of[key]
        if file in self._problems:
            return None
        features = self._cache.read(file)
        if features is not None and key in self._parts:
            features = features.between(*self._parts[key])
        if features is not None and key in self._words:
            features = per_word(features, self._words[key])
        if features is None:
            return None
        self._looked[key] = features.steps, len(features.values)
        return features.values if len(features.values) else None


def describe_problems(folder: Path, problems: Mapping[Path, str]) -> str:
    """Describe the files of a folder that could not be read; empty if there are none.

    Args:
        folder: folder, which is left out of the messages.
        problems: message by file.
    """
    if not problems:
        return ""
    shown = [problem.replace(f"{folder}/", "") for problem in list(problems.values())[:SHOWN]]
    more = " …" if len(problems) > SHOWN else ""
    return f"{count(len(problems), 'file')} could not be read: {'; '.join(shown)}{more}"
