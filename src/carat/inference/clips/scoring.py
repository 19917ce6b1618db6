"""Scoring of audio and video files by the features that a run was trained on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carat.data.tokenizer import NO_CONTEXT, Context
from carat.features.clip import Clip, ClipReader
from carat.features.description import Description, TranscriptSettings, describe
from carat.features.level import describe_level
from carat.features.media import Media
from carat.features.segments import Part, divide, parse_segmentation
from carat.features.transcript_files import Transcript, read_transcript
from carat.features.windows import cut
from carat.features.words import per_word
from carat.inference.clips.timeline import ScoredSegment, Timeline
from carat.inference.features import AbsentError
from carat.inference.prediction import Prediction
from carat.inference.text import LETTER, WORD, score_texts
from carat.inference.word_vectors import PREFIX
from carat.utils.errors import DataError, RunError
from carat.utils.progress import track

if TYPE_CHECKING:
    from carat.inference.predictor import Predictor

CHUNK = 64
"""Segments that are scored at a time."""
Features = dict[str, NDArray[Any]]
"""Features of a segment (T, d) by modality."""


class ClipScorer:
    """Scores audio and video files with a run; one instance serves many files.

    Args:
        predictor: the run.
        recognition: settings of speech recognition; defaults to those that the run was trained on, if any.
        cache: keep what is extracted in `$CARAT_CACHE`, and take it from there.

    Raises:
        RunError: none of the modalities of the run can be extracted from a clip.
        DataError: a package or a model is not installed, or is another one than the run was trained on.
    """

    def __init__(
        self, predictor: Predictor, recognition: TranscriptSettings | None = None, *, cache: bool = True
    ) -> None:
        self.predictor = predictor
        cards = predictor.card.modalities
        self._text = _text_modality(predictor)
        self._sounds = {m: card.waveform.rate for m, card in cards.items() if card.waveform is not None}
        extractions = {
            m: card.extraction
            for m, card in cards.items()
            if card.extraction is not None and card.tokens is None and not card.source.startswith(PREFIX)
        }
        self._aligned = {m for m in extractions if cards[m].alignment is not None}
        self._missing = [m for m in cards if m not in (*extractions, *self._sounds, self._text)]
        if len(self._missing) == len(cards):
            described = ", ".join(f"{m} ({cards[m].source})" for m in self._missing)
            raise RunError(
                f"{predictor.folder}: the run was trained on {described}, which cannot be extracted from a "
                "clip; train on a store whose recipe has the sources face, voice, whisper, opensmile, "
                "waveform, or a transcript"
            )
        self._unrecognized = ""
        """Why speech cannot be recognized."""
        self._recognition_notes: list[str] = []
        """What the user should know where speech is recognized."""
        self._transcript = self._describe_recognition(recognition)
        self.reader = ClipReader(extractions, self._transcript, cache=cache)

    def _describe_recognition(self, settings: TranscriptSettings | None) -> Description | None:
        """Describe how speech is recognized; None if it cannot be."""
        cards = self.predictor.card.modalities
        trained = next(
            (
                x
                for card in cards.values()
                for x in (card.extraction, card.alignment)
                if x is not None and x.extractor == "transcript"
            ),
            None,
        )
        reads_words = bool(self._text or self._aligned)
        if settings is None and trained is not None:
            return trained
        if reads_words and trained is None:
            self._recognition_notes.append(
                "the run was trained on transcripts that were given; recognized speech has other errors"
            )
        try:
            description = describe(settings or TranscriptSettings())
        except DataError as error:
            if settings is not None:
                raise
            self._unrecognized = str(error)
            return None
        if trained is not None:
            self._recognition_notes += [
                f"speech recognition in training and here: {x}" for x in trained.differences(description)
            ]
        return description

    def score(
        self,
        file: str | os.PathLike[str],
        transcript: str | os.PathLike[str] | Transcript | None = None,
        *,
        segments: str = "auto",
        words: int = 3,
    ) -> Timeline:
        """Score a file over time, see `Predictor.predict_clip`."""
        segmentation = parse_segmentation(segments)
        given = read_transcript(transcript) if isinstance(transcript, str | os.PathLike) else transcript
        if given is not None and segmentation.by == "transcript" and not given.has_times:
            raise DataError(f"{transcript}: has no times; use segments vad, whole or seconds=N")
        cards = self.predictor.card.modalities
        notes = [f"{m} is absent: {cards[m].source} cannot be extracted from a clip" for m in self._missing]
        notes += self._recognition_notes if given is None else []
        if given is None and self._unrecognized:
            if self._text or self._aligned:
                raise DataError(f"{self._unrecognized}; or give a transcript")
            notes.append(f"no transcript: {self._unrecognized}")
        clip = self.reader.read(file, given)
        if given is not None and given.has_times and all(x.start > clip.duration for x in clip.words):
            raise DataError(
                f"{clip.file}: no part of the transcript is within its {clip.duration:.1f} s; is it the "
                "transcript of another recording?"
            )
        parts = divide(clip, segmentation, has_given_times=given is not None and given.has_times)
        samples = self._features(clip, parts)
        scored = list(self._score(clip, parts, samples, words))
        used = {m for _, features in scored for m in features}
        if self._text and any(part.text for part in parts):
            used.add(self._text)
        notes += [*clip.notes, *self._truncations(samples)]
        if skipped := len(parts) - len(scored):
            notes.append(f"{skipped} of {len(parts)} segments have none of the run's modalities")
        if not parts:
            notes.append("there are no segments: no speech was found; use segments whole or seconds=N")
        absent = [m for m in cards if m not in used and m not in self._missing]
        notes += [f"{m} is absent from the whole clip" for m in absent if parts]
        for what, stream in (("sound", clip.info.audio), ("pictures", clip.info.video)):
            if stream is None and absent:
                notes.append(f"the file has no {what}")
        return Timeline(
            clip,
            self.predictor.folder.name,
            self.predictor.thresholds,
            [m for m in cards if m in used],
            [segment for segment, _ in scored],
            notes,
            "given" if given is not None else "none" if self._transcript is None else "recognized",
            self.predictor.card.validation.get("micro_f1"),
        )

    def _features(self, clip: Clip, parts: Sequence[Part]) -> list[Features]:
        """Features of every part, without the text."""
        samples: list[Features] = []
        for part in parts:
            sequences = {m: part.of(sequence) for m, sequence in clip.features.items()}
            sequences |= {m: per_word(x, part.words) for m, x in sequences.items() if m in self._aligned}
            samples.append({m: x.values for m, x in sequences.items() if len(x.values)})
        for m, rate in self._sounds.items():
            if clip.info.audio is None:
                continue
            for sample, sound in zip(samples, read_sounds(clip, parts, rate), strict=True):
                if len(sound):
                    sample[m] = sound[:, None]
        return samples

    def _score(
        self, clip: Clip, parts: Sequence[Part], samples: Sequence[Features], words: int
    ) -> Iterator[tuple[ScoredSegment, Features]]:
        """Score the parts that have a modality; with the features that were used."""
        usable = []
        for part, sample, context in zip(parts, samples, self._contexts(parts), strict=True):
            try:
                kept = self.predictor.check(sample, str(clip.file), raw=True)
            except AbsentError:
                kept = {}
            if kept or (self._text and part.text):
                usable.append((part, {m: sample[m] for m in kept}, context))
        starts = range(0, len(usable), CHUNK)
        for start in track(starts, f"Scoring {clip.file.name}", total=len(starts)):
            chunk = usable[start : start + CHUNK]
            spoken = [x for x in chunk if self._text and x[0].text]
            silent = [x for x in chunk if not (self._text and x[0].text)]
            texts, contexts = [part.text for part, _, _ in spoken], [context for _, _, context in spoken]
            others = [sample for _, sample, _ in spoken]
            results: dict[int, tuple[Prediction, Mapping[str, Sequence[float]] | None]] = {}
            if spoken:
                scored = score_texts(self.predictor, texts, contexts, words, others)
                for (part, _, _), (prediction, occluded) in zip(spoken, scored, strict=True):
                    results[id(part)] = prediction, find_drops(part, prediction, occluded)
            if silent:
                predictions = self.predictor.predict_batch([sample for _, sample, _ in silent], raw=True)
                for (part, _, _), prediction in zip(silent, predictions, strict=True):
                    results[id(part)] = prediction, None
            for part, sample, _ in chunk:
                prediction, drops = results[id(part)]
                if clip.levels is not None and (heard := describe_level(part.of(clip.levels))):
                    prediction = replace(prediction, notes=[*(prediction.notes or []), *heard])
                yield (
                    ScoredSegment(
                        part.start, part.end, part.text, part.speaker, prediction, part.words, drops
                    ),
                    sample,
                )

    def _contexts(self, parts: Sequence[Part]) -> list[Context]:
        """Context of every part: what is said before and after it."""
        contexts = [NO_CONTEXT] * len(parts)
        if self._text and self.predictor.reader.context_tokens:
            spoken = [i for i, part in enumerate(parts) if part.text]
            for i, context in zip(
                spoken, self.predictor.reader.contexts([parts[i].text for i in spoken]), strict=True
            ):
                contexts[i] = context
        return contexts

    def _truncations(self, samples: Sequence[Features]) -> list[str]:
        """Say how many segments are longer than what the model reads."""
        notes = []
        for m, limit in self.predictor.model.max_length.items():
            count = sum(len(sample[m]) > limit for sample in samples if m in sample)
            if count:
                notes.append(
                    f"{m}: {count} of {len(samples)} segments have more than the {limit} steps that the run "
                    "reads; the rest of them is not used"
                )
        return notes


def _text_modality(predictor: Predictor) -> str:
    """Modality that can be computed from the transcript; empty if there is none."""
    cards = predictor.card.modalities.items()
    tokens = [m for m, card in cards if card.tokens is not None]
    vectors = [m for m, card in cards if card.source.startswith(PREFIX)]
    if len(tokens) == 1 or (not tokens and len(vectors) == 1 and predictor.vectors is not None):
        return predictor.reader.modality
    return ""


def find_drops(
    part: Part, prediction: Prediction, occluded: Sequence[tuple[str, Mapping[str, float]]]
) -> dict[str, list[float]] | None:
    """Drop of every label's score without each word of a part; 0 for words that the model does not read.

    Args:
        part: the part.
        prediction: its prediction.
        occluded: scores without each word that the model reads, in order.
    """
    if not occluded:
        return None
    owners = [
        i for i, word in enumerate(part.words) for token in WORD.findall(word.text) if LETTER.search(token)
    ]
    drops = {name: [0.0] * len(part.words) for name in prediction.scores}
    for i, (_, without) in zip(owners, occluded, strict=False):
        for name, score in prediction.scores.items():
            drop = score - without[name]
            drops[name][i] = max(drops[name][i], drop, key=abs)
    return drops


def read_sounds(clip: Clip, parts: Sequence[Part], rate: int) -> list[NDArray[np.float32]]:
    """Cut the sound of every part, at a sampling rate in Hz; parts may overlap."""
    sounds = [np.zeros(0, np.float32)] * len(parts)
    pending = sorted(range(len(parts)), key=lambda i: parts[i].start)
    while pending:
        chosen: list[int] = []
        for i in pending:
            if not chosen or parts[chosen[-1]].end <= parts[i].start:
                chosen.append(i)
        pending = [i for i in pending if i not in chosen]
        spans = [(parts[i].start, clip.duration + 1 if parts[i].whole else parts[i].end) for i in chosen]
        with Media(Path(clip.file)) as media:
            for i, (_, sound) in zip(chosen, cut(media.audio(rate), rate, spans), strict=False):
                sounds[i] = sound
    return sounds
