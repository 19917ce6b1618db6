"""Extractors without packages or models, for tests of what is built on extraction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carat.data.recipes.sources import media as media_source
from carat.data.recipes.sources import transcripts as transcript_source
from carat.features import clip, extraction, extractor
from carat.features.description import PACKAGES, Description, Settings
from carat.features.extraction import FileTask
from carat.features.extractor import Extractor, FeatureSequence
from carat.features.level import LevelExtractor
from carat.features.media import Media
from carat.inference.clips import scoring
from carat.utils.parallel import local
from tests.conftest import serially
from tests.features.files import tone, write_media

RATE = 16_000
WORDS = ("so", "glad", "to", "see", "you", "now,", "my", "friend")
"""Words that are recognized, one in every half of a second with sound."""


def sound_of(media: Media) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *media.audio(RATE)])


class Loudness:
    """Two numbers for every tenth of a second with sound."""

    names, rate = ("mean", "peak"), 10.0

    def extract(self, media: Media) -> FeatureSequence | None:
        if media.info.audio is None:
            return None
        samples = sound_of(media)
        steps = len(samples) // 1600
        frames = np.abs(samples[: steps * 1600].reshape(steps, 1600))
        values = np.stack([frames.mean(1), frames.max(1)], 1).astype(np.float32)
        heard = values[:, 1] > 0
        return FeatureSequence(values[heard], (np.arange(steps) / 10)[heard], 10.0, steps)


class Speech:
    """Stretches with sound."""

    names, rate = ("seconds",), 10.0

    def extract(self, media: Media) -> FeatureSequence | None:
        if media.info.audio is None:
            return None
        samples = sound_of(media)
        loud = np.abs(samples[: len(samples) // 1600 * 1600]).reshape(-1, 1600).max(1) > 0.01
        edges = np.flatnonzero(np.diff([0, *loud.astype(int), 0])) / 10
        start, end = edges[::2], edges[1::2]
        values = (end - start).astype(np.float32)[:, None]
        return FeatureSequence(values, start, 10.0, len(loud), {"end": end})


class Words:
    """A word in every half of a second with sound."""

    names, rate = ("confidence",), 50.0

    def extract(self, media: Media) -> FeatureSequence | None:
        speech = Speech().extract(media)
        if speech is None:
            return None
        spans = zip(speech.times, speech.extra["end"], strict=True)
        starts = np.concatenate([np.zeros(0), *(np.arange(a, b - 0.25, 0.5) for a, b in spans)])
        texts = [WORDS[i % len(WORDS)] for i in range(len(starts))]
        confidence = np.full((len(starts), 1), 0.5, np.float32)
        extra = {"end": starts + 0.5, "text": np.array(texts, "U")}
        return FeatureSequence(confidence, starts, 50.0, len(starts), extra)


def describe(settings: Settings) -> Description:
    packages = dict.fromkeys(PACKAGES[settings.extractor], "1")
    return Description(settings=settings, version=1, packages=packages, models={})


def open_extractor(description: Description) -> Extractor:
    extractors = {
        "level": LevelExtractor,
        "face": Loudness,
        "voice": Loudness,
        "speech": Speech,
        "transcript": Words,
    }
    return extractors[description.extractor]()


def use_fakes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[FileTask]:
    """Use these extractors, in this process; returns the tasks that are performed by pools."""
    tasks: list[FileTask] = []
    monkeypatch.setenv("CARAT_CACHE", str(folder / "cache"))
    for module in (clip, extractor, media_source, transcript_source, scoring):
        monkeypatch.setattr(module, "describe", describe)
    for module in (extraction, clip):
        monkeypatch.setattr(module, "open_extractor", open_extractor)
    monkeypatch.setattr(local, "run_tasks", serially(tasks))
    return tasks


def write_clips(folder: Path) -> None:
    """Recordings of two seconds, and their table."""
    pytest.importorskip("av")
    (folder / "clips").mkdir()
    lines = ["file,emotion,fold"]
    for i in range(1, 9):
        sound = np.concatenate([tone(1.2, 16_000, 100.0 + 30 * i), np.zeros(12_800)]).astype(np.float32)
        write_media(folder / "clips" / f"interview{i}.mp4", sound=sound)
        fold = ("train", "valid", "test", "train")[(i - 1) // 2]
        lines.append(f"interview{i}.mp4,{('joy', 'joy;anger')[i % 2]},{fold}")
    (folder / "clips.csv").write_text("\n".join(lines))
