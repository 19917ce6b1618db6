"""`carat predict --clip`: score audio and video files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import Group, Parameter

from carat.cli.app import Workers, cores
from carat.cli.scores import ScoreArguments
from carat.utils.errors import CaratError, ConfigError
from carat.utils.logging import logger
from carat.utils.wording import count

if TYPE_CHECKING:
    from carat.inference.clips.options import ClipOptions

MEDIA = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".flv",
        ".ogv",
        ".3gp",
        ".wav",
        ".mp3",
        ".m4a",
        ".flac",
        ".ogg",
        ".opus",
        ".aac",
        ".wma",
    ]
)
"""Extensions of the files of a folder that are scored."""


@Parameter(name="*", group=Group("Clips", sort_key=2))
@dataclass(frozen=True)
class ClipArguments:
    """Options for audio and video files."""

    transcript: list[Path] | None = None
    """Transcripts (.txt, .srt, .vtt, .TextGrid, .eaf), one per clip and in the same order; or a folder, whose
    files with the name of a clip are used. By default, speech is recognized."""
    segments: str | None = None
    """What is scored: `vad` (speech segments), `transcript` (utterances), `whole` (the whole clip) or
    `seconds=5`. Defaults to the utterances of a transcript with times, otherwise speech segments, or 5 s if
    nobody speaks."""
    formats: list[str] | None = None
    """Files to write; defaults to all: csv, parquet, jsonl, eaf, TextGrid, vtt, html."""
    media: bool = True
    """Include pictures, waveform and player in pages, and a link to the clip in annotations."""
    speech_model: str | None = None
    """Folder of a Whisper model in CTranslate2's format, for speech recognition."""
    language: str | None = None
    """Language that is spoken, e.g. de; the model that comes with the extra knows only English."""
    cache: bool = True
    """Keep what is extracted in $CARAT_CACHE (~/.cache/carat), and take it from there."""

    @property
    def is_default(self) -> bool:
        """Whether no option is given."""
        return self == ClipArguments()

    def options(self, words: int | None) -> ClipOptions:
        """The options, checked.

        Args:
            words: number of words of each label.

        Raises:
            ConfigError: invalid settings of speech recognition.
            DataError: an unknown format or segmentation.
        """
        from carat.config.base import parse
        from carat.features.description import TranscriptSettings
        from carat.inference.clips.options import FORMATS, ClipOptions

        values = {"model": self.speech_model, "language": self.language}
        values = {key: value for key, value in values.items() if value is not None}
        options = ClipOptions(
            segments=self.segments or "auto",
            words=3 if words is None else words,
            formats=FORMATS if self.formats is None else [x for y in self.formats for x in y.split(",")],
            media=self.media,
            recognition=parse(TranscriptSettings, values, "--speech-model, --language") if values else None,
            cache=self.cache,
        )
        options.check()
        return options


def predict_clips(
    run: Path,
    clips: Sequence[Path],
    out: Path | None,
    arguments: ClipArguments,
    *,
    words: int | None,
    vectors: Path | None,
    workers: Workers,
    engine: Literal["local", "ray"],
    address: str | None,
    scores: ScoreArguments,
    overwrite: bool,
) -> None:
    """Score audio and video files, write a folder, and print the first segments.

    Raises:
        ConfigError: the options contradict each other.
        CaratError: a file could not be scored; the results of the others are written.
    """
    if out is None or out.suffix:
        found = "" if out is None else f", found {out}"
        raise ConfigError(f"--clip needs --out with a folder, e.g. --out timelines{found}")
    files = find_clips(clips)
    transcripts = match_transcripts(files, arguments.transcript)
    options = arguments.options(words)

    from carat.inference.clips.options import CLIPS, REPORT
    from carat.utils.output_folder import check_folder

    check_folder(CLIPS, out, overwrite=overwrite)
    if transcripts and (others := [file for file in files if file not in transcripts]):
        logger.warning(
            f"note: {len(others)} of {len(files)} clips have no transcript, so speech is recognized, e.g. "
            f"{others[0]}"
        )

    from carat.cli.tables import show_timeline
    from carat.inference.clips.folder import score_clips

    shown: list[str] = []

    def show(timeline: object) -> None:
        if not shown:
            show_timeline(timeline)  # type: ignore[arg-type]  # its class is imported late
        shown.append("")

    predictor = scores.load(run, vectors)
    report = score_clips(
        predictor,
        files,
        out,
        transcripts=transcripts,
        options=options,
        workers=min(cores(workers), len(files)),
        engine=engine,
        address=address,
        overwrite=overwrite,
        on_clip=show,
    )
    failed = [entry for entry in report["clips"] if "problem" in entry]
    notes = [x for entry in report["clips"] for x in entry.get("notes", ())]
    for note in dict.fromkeys([*notes, *predictor.scale.guarantee()]):
        logger.warning(f"note: {note}")
    done = [entry for entry in report["clips"] if "problem" not in entry]
    segments = sum(entry["segments"] for entry in done)
    logger.info(f"{count(segments, 'segment')} of {count(len(done), 'clip')} → {out}")
    if done and "html" in options.formats:
        logger.info(f"open {out / (done[0]['output'] + '.html')} in a browser")
    if failed:
        raise CaratError(
            f"{len(failed)} of {count(len(files), 'clip')} could not be scored, see {out / REPORT}"
        )


def media_files(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command line that are names of audio or video files.

    >>> media_files(["a.mp4", "b.csv", "c.WAV"])
    ['a.mp4', 'c.WAV']
    """
    return [argument for argument in arguments if Path(argument).suffix.lower() in MEDIA]


def find_clips(clips: Sequence[Path]) -> list[Path]:
    """Return the files, and the media files in folders.

    Raises:
        ConfigError: no file is given, or a folder has no media files.
    """
    files: list[Path] = []
    for clip in clips:
        if not clip.is_dir():
            files.append(clip)
            continue
        inside = sorted(x for x in clip.iterdir() if x.suffix.lower() in MEDIA and x.is_file())
        if not inside:
            raise ConfigError(f"{clip}: the folder has no audio or video files")
        files += inside
    if not files:
        raise ConfigError("--clip needs a file, e.g. --clip interview.mp4")
    if not any(file.exists() for file in files):
        raise ConfigError(f"{files[0]}: no such file")
    return list(dict.fromkeys(files))


def match_transcripts(files: Sequence[Path], transcripts: Sequence[Path] | None) -> Mapping[Path, Path]:
    """Assign transcripts to media files, in order or from a folder by name.

    Raises:
        ConfigError: their numbers differ, or no file of the folder has the name of a clip.
    """
    from carat.features.transcript_files import READERS

    if not transcripts:
        return {}
    if len(transcripts) == 1 and transcripts[0].is_dir():
        by_name: dict[str, Path] = {}
        for path in sorted(transcripts[0].iterdir()):
            if path.suffix.lower() in READERS:
                by_name.setdefault(path.stem, path)
        matched = {file: by_name[file.stem] for file in files if file.stem in by_name}
        if not matched:
            raise ConfigError(
                f"{transcripts[0]}: has no transcript with the name of a clip, e.g. {files[0].stem}.srt"
            )
        return matched
    if len(transcripts) != len(files):
        raise ConfigError(
            f"{count(len(transcripts), 'transcript')} for {count(len(files), 'clip')}; "
            "give one per clip, in order, or a folder"
        )
    return dict(zip(files, transcripts, strict=True))
