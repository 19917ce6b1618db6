"""The features of a clip: what is seen, heard and said in a media file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carat.features.extractor import FeatureSequence
from carat.features.media import MediaInfo
from carat.features.speech import Segment
from carat.features.utterances import Utterance
from carat.features.words import Word


@dataclass(frozen=True)
class Clip:
    """What is seen, heard and said in a media file; all times are seconds from its start.

    Args:
        file: the media file.
        info: what it says about itself.
        duration: its length in seconds.
        features: features by name; what the file does not have, such as faces, is left out.
        speech: speech segments, sorted.
        utterances: parts of the transcript with times, sorted; none if nothing is said.
        words: words with times, sorted.
        notes: what the user should know, such as a transcript without times.
    """

    file: Path
    info: MediaInfo
    duration: float
    features: Mapping[str, FeatureSequence]
    speech: Sequence[Segment] = ()
    utterances: Sequence[Utterance] = ()
    words: Sequence[Word] = ()
    notes: Sequence[str] = field(default_factory=list)
