"""How clips are scored and written, and the folder of the results; imported without PyTorch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from carat.features.description import TranscriptSettings
from carat.features.segments import parse_segmentation
from carat.inference.clips.annotations import ANNOTATION_WRITERS
from carat.inference.clips.page import write_page
from carat.inference.writers import WRITERS
from carat.utils.errors import DataError
from carat.utils.output_folder import FolderKind, has_key
from carat.utils.reading import read_json

REPORT = "report.json"
TABLE = "segments"
"""Name of the tables without extension."""
ANNOTATIONS = {**ANNOTATION_WRITERS, ".html": write_page}
"""Writers of the files of a clip, by extension."""
FORMATS = tuple(suffix.removeprefix(".") for suffix in (*WRITERS, *ANNOTATIONS))
"""Names of the formats."""

CLIPS = FolderKind(
    name="clip report",
    markers=(REPORT,),
    patterns=(*(f"{TABLE}{suffix}" for suffix in WRITERS), *(f"*{suffix}" for suffix in ANNOTATIONS)),
    recognizes=lambda folder: has_key(folder / REPORT, "clips"),
    has_results=lambda folder: any("output" in entry for entry in read_json(folder / REPORT)["clips"]),
)
"""A folder of scored clips."""


@dataclass(frozen=True)
class ClipOptions:
    """How clips are scored and written.

    Args:
        segments: see `Predictor.predict_clip`.
        words: see `Predictor.predict_text`.
        formats: names of the files to write, of `FORMATS`.
        media: include pictures, waveform and player in pages, and a link to the clip in annotations.
        recognition: settings of speech recognition; defaults to those that the run was trained on.
        cache: keep what is extracted in `$CARAT_CACHE`, and take it from there.
    """

    segments: str = "auto"
    words: int = 3
    formats: Collection[str] = FORMATS
    media: bool = True
    recognition: TranscriptSettings | None = None
    cache: bool = True

    def check(self) -> None:
        """Check the options.

        Raises:
            DataError: an unknown format or segmentation, or a negative number of words.
        """
        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise DataError(f"unknown format '{unknown[0]}', expected {', '.join(FORMATS)}")
        if self.words < 0:
            raise DataError(f"words must not be negative, found {self.words}")
        parse_segmentation(self.segments)
