"""The features of a clip: what is seen, heard and said in a media file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carat.features.cache import FeatureCache, extract
from carat.features.description import (
    Description,
    FaceSettings,
    LevelSettings,
    OpenSmileSettings,
    Settings,
    SpeechSettings,
    TranscriptSettings,
    VoiceSettings,
    WhisperSettings,
    describe,
)
from carat.features.extraction import Work, extract_all
from carat.features.extractor import FeatureSequence, match_installed, open_extractor
from carat.features.level import describe_level
from carat.features.media import Media, MediaInfo
from carat.features.speech import Segment, read_segments
from carat.features.transcript import read_words
from carat.features.transcript_files import Transcript, read_transcript
from carat.features.utterances import Utterance, group_words
from carat.features.words import Word
from carat.utils.errors import DataError
from carat.utils.parallel.tasks import Engine

EXTRACTORS: Mapping[str, type[Settings]] = {
    "face": FaceSettings,
    "voice": VoiceSettings,
    "whisper": WhisperSettings,
    "opensmile": OpenSmileSettings,
}
"""Settings of the extractors of feature sequences, by name."""


@dataclass(frozen=True)
class Clip:
    """What is seen, heard and said in a media file; all times are seconds from its start.

    Args:
        file: the media file.
        info: what it says about itself.
        duration: its length in seconds.
        features: features by name; what the file does not have, such as pictures, is left out.
        speech: speech segments, sorted.
        utterances: parts of the transcript with times, sorted; none if nothing is said.
        words: words with times, sorted.
        notes: what the user should know, such as a transcript without times.
        levels: level of the sound, see `carat.features.level`; None if there is none.
    """

    file: Path
    info: MediaInfo
    duration: float
    features: Mapping[str, FeatureSequence]
    speech: Sequence[Segment] = ()
    utterances: Sequence[Utterance] = ()
    words: Sequence[Word] = ()
    notes: Sequence[str] = ()
    levels: FeatureSequence | None = None


@dataclass(frozen=True)
class Spoken:
    """What is said in a media file.

    Args:
        duration: length of the sound in seconds; 0 if there is none.
        speech, utterances, words, notes: see `Clip`.
    """

    duration: float
    speech: Sequence[Segment]
    utterances: Sequence[Utterance]
    words: Sequence[Word]
    notes: Sequence[str] = ()


class ClipReader:
    """Reads clips by descriptions of extraction; one instance serves many files.

    Extractors are loaded when they are first needed, and not at all for clips that are in the cache.

    Args:
        features: description of the extraction of each feature sequence, by name.
        transcript: description of speech recognition; None recognizes nothing.
        cache: keep what is extracted in `$CARAT_CACHE`, and take it from there.

    Raises:
        DataError: a package or a model is not installed, or is another one than described.
    """

    def __init__(
        self,
        features: Mapping[str, Description],
        transcript: Description | None = None,
        *,
        cache: bool = True,
    ) -> None:
        settings = SpeechSettings() if transcript is None else transcript.settings
        assert isinstance(settings, SpeechSettings | TranscriptSettings)
        speech = settings.speech if isinstance(settings, TranscriptSettings) else settings
        self._features = {name: match_installed(description) for name, description in features.items()}
        self._speech, self._level = describe(speech), describe(LevelSettings())
        self._transcript = None if transcript is None else match_installed(transcript)
        self._cache = cache

    def work(self, files: Sequence[Path], *, recognize: Sequence[Path] = ()) -> Work:
        """List the extractions that `read` needs.

        Args:
            files: media files.
            recognize: those without a transcript.
        """
        work: list[tuple[Description, Sequence[Path]]] = [(self._speech, files), (self._level, files)]
        if self._transcript is not None:
            work.append((self._transcript, recognize))
        return [*work, *((description, files) for description in self._features.values())]

    def prepare(
        self,
        files: Sequence[Path],
        *,
        recognize: Sequence[Path] = (),
        workers: int = 1,
        engine: Engine = "local",
        address: str | None = None,
    ) -> Mapping[Path, str]:
        """Extract what `read` needs of many files into the cache, in parallel.

        Args:
            files, recognize: see `work`.
            workers: number of files at a time.
            engine: processes of this machine, or Ray.
            address: address of a Ray cluster.

        Returns:
            One-line problems of the files that cannot be decoded.
        """
        work = self.work(files, recognize=recognize)
        problems = extract_all(work, workers=workers, engine=engine, address=address)
        return {file: problem for found in problems.values() for file, problem in found.items()}

    def read(self, file: str | os.PathLike[str], transcript: Transcript | None = None) -> Clip:
        """Read a clip.

        Args:
            file: audio or video file.
            transcript: what is said; by default, it is recognized if the reader has a description for it.

        Raises:
            DataError: the file cannot be decoded.
        """
        path = Path(file)
        with Media(path) as media:  # one decoder for all extractors
            info, spoken = media.info, self.listen(media, transcript)
            levels = self._extract(self._level, media)
            sequences = {name: self._extract(x, media) for name, x in self._features.items()}
        features = {name: sequence for name, sequence in sequences.items() if sequence is not None}
        looked = [spoken.duration, *(x.steps / x.rate for x in features.values())]
        duration = max(info.duration, spoken.duration) if info.duration else max(looked)
        notes = [*spoken.notes, *describe_level(levels)]
        words = spoken.words
        if transcript is not None and transcript.has_times and words and words[-1].start > duration + 1:
            notes.append(f"the transcript ends at {words[-1].end:.0f} s, the file at {duration:.0f} s")
        return Clip(path, info, duration, features, spoken.speech, spoken.utterances, words, notes, levels)

    def listen(self, file: Path | Media, transcript: Transcript | None = None) -> Spoken:
        """Find what is said in a file.

        Args:
            file: audio or video file, which may be open.
            transcript: see `read`.

        Raises:
            DataError: the file cannot be decoded.
        """
        sequence = self._extract(self._speech, file)
        speech = read_segments(sequence)
        duration = 0.0 if sequence is None else sequence.steps / sequence.rate
        if transcript is not None and transcript.has_times:
            return Spoken(duration, speech, transcript.utterances, transcript.words)
        notes: list[str] = []
        words: list[Word] = []
        if transcript is not None:
            words = transcript.timed_words(speech, duration)
            notes.append("the transcript has no times: its words are spread over the speech by length")
        elif self._transcript is not None:
            words = read_words(self._extract(self._transcript, file))
        return Spoken(duration, speech, group_words(words), words, notes)

    def _extract(self, description: Description, file: Path | Media) -> FeatureSequence | None:
        cache = FeatureCache(description)
        if self._cache:
            try:
                return cache.read(file.file if isinstance(file, Media) else file)
            except KeyError:
                pass
        extractor = open_extractor(description)
        return (
            cache.extract(extractor, file) if self._cache else extract(extractor, description.extractor, file)
        )


def read_clip(
    file: str | os.PathLike[str],
    features: Mapping[str, Settings] | Sequence[str] = ("face", "voice"),
    *,
    transcript: str | os.PathLike[str] | Transcript | None = None,
    recognize: TranscriptSettings | bool = True,
    cache: bool = True,
) -> Clip:
    """Extract the features, speech segments and words of an audio or video file.

    Args:
        file: audio or video file.
        features: what to extract: names of extractors with default settings, or settings by name, see
            `carat.features.description`.
        transcript: transcript or file of it, see `read_transcript`.
        recognize: settings of speech recognition if there is no transcript; False recognizes nothing.
        cache: keep what is extracted in `$CARAT_CACHE`, and take it from there.

    Returns:
        Features (T, D) with times by name, speech segments, and words with times.

    Raises:
        DataError: the file cannot be decoded, or a package or a model is not installed.

    Example:
        clip = carat.read_clip("interview.mp4", ["face"])
        clip.features["face"].values.shape, [word.text for word in clip.words]
    """
    if not isinstance(features, Mapping):
        if unknown := [name for name in features if name not in EXTRACTORS]:
            raise DataError(f"unknown features '{unknown[0]}', expected {', '.join(EXTRACTORS)}")
        features = {name: EXTRACTORS[name]() for name in features}
    given = read_transcript(transcript) if isinstance(transcript, str | os.PathLike) else transcript
    settings = TranscriptSettings() if recognize is True else recognize
    description = describe(settings) if given is None and isinstance(settings, TranscriptSettings) else None
    descriptions = {name: describe(x) for name, x in features.items()}
    return ClipReader(descriptions, description, cache=cache).read(file, given)
