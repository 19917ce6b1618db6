"""Extraction from ten real clips: faces, words, equal numbers twice, and no network."""

from __future__ import annotations

import itertools
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.clips import OTHER_WORDS, edits, words_of

from carat.features.extractor import Extractor
from carat.features.media import Media
from carat.features.speech import SpeechDetector
from carat.features.transcript import Transcriber

CLOCK = (40 / 1280, 140 / 720, 200 / 1280, 320 / 720)
"""Where a wall clock hangs in the second half of dia169_utt6.mp4: left, top, right, bottom."""


@pytest.mark.slow
def test_faces_are_found_in_nearly_all_pictures(clips: Path, face: Extractor) -> None:
    steps = found = 0
    for file in sorted(clips.glob("*.mp4")):
        with Media(file) as media:
            sequence = face.extract(media)
        assert sequence is not None
        steps, found = steps + sequence.steps, found + len(sequence.times)
        assert np.isfinite(sequence.values).all()
        blendshapes, pose = sequence.values[:, :52], sequence.values[:, 52:]
        assert ((blendshapes >= 0) & (blendshapes <= 1)).all()
        assert (np.abs(pose[:, :3]) < 90).all()
        assert ((pose[:, 5] < -20) & (pose[:, 5] > -300)).all()
        assert (sequence.extra["score"] >= 0.5).all()
        assert (np.diff(sequence.times) > 0).all()
    assert found / steps >= 0.95


def test_a_wall_clock_is_no_face(clips: Path, face: Extractor) -> None:
    with Media(clips / "dia169_utt6.mp4") as media:
        sequence = face.extract(media)
    assert sequence is not None
    assert len(sequence.times) >= 15
    x, y, width, height = sequence.extra["box"].T
    center_x, center_y = x + width / 2, y + height / 2
    on_clock = (center_x > CLOCK[0]) & (center_x < CLOCK[2]) & (center_y > CLOCK[1]) & (center_y < CLOCK[3])
    assert not on_clock.any()


def test_the_same_face_goes_on(clips: Path, face: Extractor) -> None:
    """In dia279_utt14.mp4, one person walks about."""
    with Media(clips / "dia279_utt14.mp4") as media:
        sequence = face.extract(media)
    assert sequence is not None
    assert set(sequence.extra["track"]) == {0}
    assert np.abs(np.diff(sequence.extra["box"][:, 0])).max() < 0.1


def test_words_are_recognized(clips: Path, spoken: dict[str, str], transcriber: Transcriber) -> None:
    wrong = total = 0
    for file, text in spoken.items():
        if file in OTHER_WORDS:
            continue
        with Media(clips / file) as media:
            words = transcriber.words(media)
            duration = media.info.duration
        assert duration is not None
        starts = [word.start for word in words]
        assert starts == sorted(starts)
        assert all(0 <= word.start <= word.end <= duration + 0.1 for word in words)
        assert all(type(word.start) is float and word.confidence is not None for word in words)
        expected = words_of(text)
        wrong += edits(expected, words_of(" ".join(word.text for word in words)))
        total += len(expected)
    assert wrong / total <= 0.15


def test_speech_is_found(clips: Path, speech: SpeechDetector) -> None:
    for file in sorted(clips.glob("*.mp4")):
        with Media(file) as media:
            segments = speech.segments(media)
            duration = media.info.duration
        assert duration is not None
        assert 0.2 < sum(segment.duration for segment in segments) <= duration + 0.1
        assert all(a.end <= b.start for a, b in itertools.pairwise(segments))


def test_features_are_equal_twice(clips: Path, face: Extractor, voice: Extractor) -> None:
    for extractor in (face, voice):
        results = []
        for other in ("dia12_utt12.mp4", "dia29_utt4.mp4"):  # whatever was read before
            with Media(clips / other) as media:
                extractor.extract(media)
            with Media(clips / "dia12_utt12.mp4") as media:
                results.append(extractor.extract(media))
        first, second = results
        assert first is not None
        assert second is not None
        assert first.values.tobytes() == second.values.tobytes()
        assert first.times.tobytes() == second.times.tobytes()


def test_descriptors_of_opensmile(clips: Path, smile: Extractor) -> None:
    assert len(smile.names) == 25
    assert smile.names[0] == "Loudness_sma3"
    with Media(clips / "dia12_utt12.mp4") as media:
        sequence = smile.extract(media)
    assert sequence is not None
    assert sequence.values.shape == (96, 25)
    assert np.isfinite(sequence.values).all()
    assert sequence.values[:, 0].max() > 0.1


NO_NETWORK = """
import ctypes, struct, sys
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
# Kill the process at socket() for IPv4 or IPv6: load the number, compare, load the family, compare.
code = [(0x20, 0, 0, 0), (0x15, 0, 3, 41), (0x20, 0, 0, 16), (0x15, 2, 0, 2), (0x15, 1, 0, 10),
        (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x80000000)]
program = b"".join(struct.pack("HBBI", *line) for line in code)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(code), program)), 0, 0) == 0
if sys.argv[1] == "socket":
    import socket
    socket.socket()
else:
    import carat
    from carat.features.description import FaceSettings, VoiceSettings
    settings = {"face": FaceSettings(rate=2), "voice": VoiceSettings()}
    clip = carat.read_clip(sys.argv[1], settings, cache=False)
    assert len(clip.features["face"].times) and len(clip.features["voice"].times) and clip.words
print("done")
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="uses Linux's filter of system calls"
)
def test_no_socket_is_opened(
    clips: Path, face: Extractor, voice: Extractor, transcriber: Transcriber
) -> None:
    def run(argument: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", NO_NETWORK, argument], capture_output=True, text=True)

    probe = run("socket")
    if probe.returncode == 1:
        pytest.skip("system calls cannot be filtered here")
    assert probe.returncode == -31  # killed by SIGSYS: the filter works
    outcome = run(str(clips / "dia12_utt12.mp4"))
    assert (outcome.returncode, outcome.stdout) == (0, "done\n"), outcome.stderr[-500:]


EXTRACTION = """
import hashlib, sys
from carat.features.description import *
from carat.features.extractor import open_extractor
from carat.features.media import Media
with Media(sys.argv[1]) as media:
    for settings in (FaceSettings(rate=5), VoiceSettings(), WhisperSettings()):
        values = open_extractor(describe(settings)).extract(media).values
        print(settings.extractor, hashlib.sha256(values.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_features_do_not_depend_on_the_number_of_threads(
    clips: Path, face: Extractor, voice: Extractor, transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of a pool computes with one thread, a process of its own with all."""
    outputs = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        command = [sys.executable, "-c", EXTRACTION, str(clips / "dia12_utt12.mp4")]
        outputs.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 3
