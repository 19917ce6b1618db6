"""Scores of clips: the features of training, segments, words, and what the user is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import carat
from carat.data.recipes.build import build_store
from carat.data.store import Store
from carat.features.clip import read_clip
from carat.features.description import describe
from carat.inference.clips.folder import score_clips
from carat.inference.clips.options import ANNOTATIONS, FORMATS, ClipOptions
from carat.inference.predictor import Predictor
from carat.training.train import TrainedRun, train
from carat.utils.errors import CaratError, DataError, RunError
from tests.features import fakes
from tests.features.files import flat, tone, write_media
from tests.models.encoders.conftest import text_encoder, text_run, text_store

__all__ = ["text_encoder", "text_run", "text_store"]  # fixtures

pytest.importorskip("av")
pytest.importorskip("transformers")
Command = Callable[..., tuple[int, str, str]]
RECIPE = """
name: clips
table: table.csv
id: clip
split: fold
labels: {{columns: [high, low]}}
transcript: {{folder: ., column: clip}}
modalities:
  voice: {{source: voice, folder: ., column: clip, standardise: true}}
  said: {{source: voice, folder: ., column: clip, align: words}}
  text: {{source: tokens, folder: "{encoder}", column: transcript}}
  audio: {{source: waveform, folder: ., column: clip, rate: 1000}}
"""


def write_clip(file: Path, *spans: tuple[float, float], seconds: float = 2.0, hertz: float = 220.0) -> Path:
    """Write a tone that sounds in spans of seconds."""
    sound = tone(seconds, 16_000, hertz)
    audible = np.zeros(len(sound), bool)
    for start, end in spans:
        audible[round(start * 16_000) : round(end * 16_000)] = True
    return write_media(file, sound=np.where(audible, sound, 0).astype(np.float32), audio_codec="pcm_s16le")


@pytest.fixture(scope="module")
def clip_run(text_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, TrainedRun, Path]:
    """A run on voice, voice by words, recognized words and sound; with its store and clips."""
    from tests.models.encoders.folders import make_speech_encoder

    folder = tmp_path_factory.mktemp("clips")
    speech_encoder = make_speech_encoder(tmp_path_factory.mktemp("speech") / "encoder")
    lines = ["clip,fold,high,low"]
    for i in range(12):
        write_clip(folder / f"c{i}.wav", (0.5, 1.5), hertz=300.0 if i % 2 else 150.0)
        lines.append(f"c{i}.wav,{('train', 'valid', 'test')[i // 2 % 3]},{i % 2},{1 - i % 2}")
    (folder / "table.csv").write_text("\n".join(lines))
    (folder / "recipe.yaml").write_text(RECIPE.format(encoder=text_encoder))
    with pytest.MonkeyPatch.context() as patch:
        fakes.use_fakes(patch, folder)
        store = build_store(folder / "recipe.yaml", folder / "store")
    experiment = {
        "method": "linear",
        "encoders": {"text": {"folder": str(text_encoder)}, "audio": {"folder": str(speech_encoder)}},
        "training": {"epochs": 1, "accelerator": "cpu"},
    }
    return store, train(experiment, store, folder / "run"), folder


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    return fakes.use_fakes(monkeypatch, tmp_path)


@pytest.fixture
def predictor(clip_run: tuple[Store, TrainedRun, Path], extracted: list[Path]) -> Predictor:
    return carat.load(clip_run[1].folder, device="cpu")


def test_a_clip_gets_the_features_of_training(
    clip_run: tuple[Store, TrainedRun, Path], predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, folder = clip_run
    seen: list[dict[str, np.ndarray]] = []
    check = Predictor.check

    def log(
        self: Predictor, sample: dict[str, np.ndarray], name: str, raw: bool | None
    ) -> dict[str, np.ndarray]:
        seen.append(check(self, sample, name, raw))
        return seen[-1]

    monkeypatch.setattr(Predictor, "check", log)
    timeline = predictor.predict_clip(folder / "c3.wav", segments="whole", words=0)
    trained_on = store[3].features
    assert set(seen[-1]) == set(trained_on) == {"voice", "said", "text", "audio"}
    for m, array in trained_on.items():
        assert seen[-1][m].tobytes() == np.asarray(array, seen[-1][m].dtype).tobytes(), m
    (segment,) = timeline.segments
    assert segment.prediction.scores == predictor.predict(trained_on, raw=False).scores
    assert timeline.modalities == ["voice", "said", "text", "audio"]
    assert segment.text == "so glad"
    assert timeline.notes == []


def test_segments_have_words_and_drops(predictor: Predictor, tmp_path: Path) -> None:
    file = write_clip(tmp_path / "a.wav", (0.5, 2.0), (4.0, 4.5), seconds=6.0)
    timeline = predictor.predict_clip(file)
    assert [(x.start, x.end, x.text) for x in timeline.segments] == [
        (0.5, 2.0, "so glad to"),
        (4.0, 4.5, "see"),
    ]
    first = timeline.segments[0]
    assert first.drops is not None
    assert {name: len(x) for name, x in first.drops.items()} == {"high": 3, "low": 3}
    occluded = predictor.predict_clip(
        file, transcript=write(tmp_path / "a.srt", "so to"), segments="seconds=3"
    )
    assert [x.text for x in occluded.segments] == ["so to", ""]
    assert "recognized" not in " ".join(occluded.notes)
    rows = list(timeline.rows())
    assert list(rows[0])[:6] == ["id", "start", "end", "speaker", "text", "labels"]
    assert (rows[1]["id"], rows[1]["start"], rows[1]["text"]) == ("a.wav#2", 4.0, "see")


def write(file: Path, text: str, start: float = 0.5, end: float = 2.0) -> Path:
    pytest.importorskip("webvtt")
    file.write_text(f"1\n00:00:{start:06.3f} --> 00:00:{end:06.3f}\n{text}\n".replace(".", ","))
    return file


def test_a_word_drop_is_the_score_without_it(predictor: Predictor, tmp_path: Path) -> None:
    file = write_clip(tmp_path / "a.wav", (0.0, 2.0))
    with_it = predictor.predict_clip(file, transcript=write(tmp_path / "a.srt", "so glad"), segments="vad")
    without = predictor.predict_clip(file, transcript=write(tmp_path / "b.srt", "so"), segments="vad")
    segment = with_it.segments[0]
    assert segment.drops is not None
    # the modality `said` is averaged over words, so it differs between both transcripts
    alone = predictor.predict_text(["so glad"], words=1)[0]
    assert set(alone.scores) == set(segment.drops)
    assert abs(segment.drops["high"][1]) <= 1
    assert without.segments[0].text == "so"


def test_absent_modalities_are_named(predictor: Predictor, tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.wav", seconds=3.0)
    timeline = predictor.predict_clip(silent)
    assert [(x.start, x.end) for x in timeline.segments] == [(0.0, 3.0)]  # only the sound itself
    assert {"voice is absent from the whole clip", "text is absent from the whole clip"} <= set(
        timeline.notes
    )
    pictures = [(i / 10, flat((9, 9, 9))) for i in range(20)]
    mute = predictor.predict_clip(write_media(tmp_path / "mute.mp4", pictures=pictures))
    assert mute.segments == []
    assert any("none of the run's modalities" in note for note in mute.notes)
    assert mute.summary()["segments"] == 0


def test_a_transcript_without_times_is_spread(predictor: Predictor, tmp_path: Path) -> None:
    file = write_clip(tmp_path / "a.wav", (0.5, 1.0), (3.0, 3.5), seconds=4.0)
    (tmp_path / "a.txt").write_text("yes no")
    timeline = predictor.predict_clip(file, transcript=tmp_path / "a.txt")
    assert [x.text for x in timeline.segments] == ["yes", "no"]
    assert any("has no times" in note for note in timeline.notes)
    with pytest.raises(DataError, match=r"a.txt: has no times; use segments vad, whole or seconds=N"):
        predictor.predict_clip(file, transcript=tmp_path / "a.txt", segments="transcript")


def test_a_transcript_of_another_recording_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    file = write_clip(tmp_path / "a.wav", (0.5, 1.0))
    other = write(tmp_path / "a.srt", "hello there", start=30.0, end=32.0)
    with pytest.raises(
        DataError, match=r"no part of the transcript is within its 2.0 s; is it the transcript"
    ):
        predictor.predict_clip(file, transcript=other)


def test_text_runs_read_what_is_recognized(
    text_run: TrainedRun, extracted: list[Path], tmp_path: Path
) -> None:
    file = write_clip(tmp_path / "a.wav", (0.0, 1.0))
    timeline = carat.load(text_run.folder, device="cpu").predict_clip(file)
    (segment,) = timeline.segments
    expected = carat.load(text_run.folder, device="cpu").predict_text(["so glad"], words=3)[0]
    assert segment.prediction.scores == expected.scores
    assert segment.prediction.words == expected.words
    assert segment.drops is not None
    assert timeline.notes == [
        "the run was trained on transcripts that were given; recognized speech has other errors"
    ]


def test_without_speech_recognition(
    text_run: TrainedRun, extracted: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from carat.inference.clips import scoring

    def refuse(settings: object) -> None:
        raise DataError("extractor 'transcript' needs faster-whisper: pip install 'carat-emotion[clip]'")

    monkeypatch.setattr(scoring, "describe", refuse)
    predictor = carat.load(text_run.folder, device="cpu")
    file = write_clip(tmp_path / "a.wav", (0.0, 1.0))
    with pytest.raises(DataError, match=r"pip install 'carat-emotion\[clip\]'; or give a transcript"):
        predictor.predict_clip(file)
    (tmp_path / "a.txt").write_text("so glad")
    assert predictor.predict_clip(file, transcript=tmp_path / "a.txt").segments[0].text == "so glad"


def test_runs_on_other_features_are_refused(
    trained: TrainedRun, extracted: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(
        RunError, match="which cannot be extracted from a clip; train on a store whose recipe"
    ):
        carat.load(trained.folder, device="cpu").predict_clip(write_clip(tmp_path / "a.wav"))


def test_a_folder_of_clips(predictor: Predictor, tmp_path: Path) -> None:
    first = write_clip(tmp_path / "a.wav", (0.5, 1.5))
    (tmp_path / "more").mkdir()
    second = write_clip(tmp_path / "more" / "a.wav", (0.0, 0.5), (1.0, 1.5), hertz=90.0)
    (tmp_path / "bad.mp4").write_bytes(b"no film at all" * 99)
    report = score_clips(predictor, [first, tmp_path / "bad.mp4", second], tmp_path / "out")
    assert [entry.get("segments") for entry in report["clips"]] == [1, None, 2]
    assert "cannot be decoded" in report["clips"][1]["problem"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    names = {file.name for file in (tmp_path / "out").iterdir()} - {".carat.lock"}
    each = {f"{stem}.{suffix}" for stem in ("a", "a.wav") for suffix in ("eaf", "TextGrid", "vtt", "html")}
    assert names == {"report.json", "segments.csv", "segments.jsonl", "segments.parquet", *each}
    table = pq.read_table(tmp_path / "out" / "segments.parquet").to_pylist()
    assert [(row["file"], row["start"]) for row in table] == [
        (str(first), 0.5),
        (str(second), 0.0),
        (str(second), 1.0),
    ]
    with pytest.raises(RunError, match="holds a clip report already; --overwrite replaces it"):
        score_clips(predictor, [first], tmp_path / "out")


def test_formats_and_only_bad_files(predictor: Predictor, tmp_path: Path) -> None:
    file = write_clip(tmp_path / "a.wav", (0.5, 1.5))
    score_clips(predictor, [file], tmp_path / "out", options=ClipOptions(formats=["csv", "vtt"]))
    names = {x.suffix for x in (tmp_path / "out").iterdir()}
    assert {".csv", ".vtt"} <= names
    assert not names & {".html", ".eaf", ".jsonl"}
    with pytest.raises(DataError, match=r"unknown format 'pdf', expected csv, parquet, jsonl, eaf"):
        score_clips(predictor, [file], tmp_path / "other", options=ClipOptions(formats=["pdf"]))
    (tmp_path / "bad.mp4").write_bytes(b"no film at all" * 99)
    with pytest.raises(CaratError, match=r"bad.mp4: cannot be decoded"):
        score_clips(predictor, [tmp_path / "bad.mp4"], tmp_path / "other")
    assert set(FORMATS) == {"csv", "parquet", "jsonl", *(suffix[1:] for suffix in ANNOTATIONS)}


def test_command(
    clip_run: tuple[Store, TrainedRun, Path], extracted: list[Path], tmp_path: Path, run: Command
) -> None:
    folder = clip_run[1].folder
    write_clip(tmp_path / "clips.wav", (0.5, 1.5))
    (tmp_path / "calls").mkdir()
    for name in ("a", "b"):
        write_clip(tmp_path / "calls" / f"{name}.wav", (0.5, 1.5))
    (tmp_path / "calls" / "b.txt").write_text("well well")
    code, out, err = run("predict", folder, "--clip", tmp_path / "clips.wav", "--out", tmp_path / "one")
    assert code == 0, err
    assert "so glad" in out
    assert "1 segment of 1 clip →" in err
    calls = tmp_path / "calls"
    code, out, err = run(
        "predict", folder, "--clip", calls, "--transcript", calls, "--out", tmp_path / "two", "--no-media"
    )
    assert code == 0, err
    lines = (tmp_path / "two" / "segments.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["so glad", "well well"]
    (calls / "c.mp3").write_bytes(b"")
    code, _, err = run("predict", folder, "--clip", calls, "--out", tmp_path / "three")
    assert code == 2
    assert "1 of 3 clips could not be scored" in err
    assert len((tmp_path / "three" / "segments.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clip", "a.wav"], "--clip needs --out with a folder"),
        (["--clip", "a.wav", "--out", "x.csv"], "--clip needs --out with a folder"),
        (["--clip", "a.wav", "--out", "x", "--segments", "words"], "expected vad, transcript, whole"),
        (["--clip", "none.wav", "--out", "x"], "none.wav: no such file"),
        (["--clip", "a.wav", "--out", "x", "--transcript", "a", "b"], "2 transcripts for 1 clip;"),
        (["--clip", "a.wav", "--out", "x", "--transcript", "empty"], "no transcript with the name of a clip"),
        (["--clip", "empty", "--out", "x"], "the folder has no audio or video files"),
        (["--clip", "a.wav", "--out", "x", "--split", "test"], "are not for --clip"),
        (["--text", "so", "--segments", "vad"], "need --clip"),
        (["--clip", "a.wav", "--out", "x", "--formats", "doc"], "unknown format 'doc'"),
        (["--clip", "a.wav", "--out", "x", "--language", "English"], "--language"),
        (["--clip", "a.wav", "--out", "x", "--language", "de"], "knows only English, not 'de'"),
    ],
)
def test_mistakes(
    clip_run: tuple[Store, TrainedRun, Path],
    extracted: list[Path],
    run: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.wav", (0.5, 1.5))
    (tmp_path / "empty").mkdir()
    code, _, err = run("predict", clip_run[1].folder, *arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists() or not list((tmp_path / "x").glob("segments*"))


def test_features_alone(extracted: list[Path], tmp_path: Path) -> None:
    clip = read_clip(write_clip(tmp_path / "a.wav", (0.5, 1.5)), ["voice"])
    assert clip.features["voice"].values.shape == (10, 2)
    assert [word.text for word in clip.words] == ["so", "glad"]
    assert (clip.speech[0].start, clip.speech[0].end, clip.duration) == (0.5, 1.5, 2.0)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 4
    uncached = read_clip(write_clip(tmp_path / "b.wav", (0.5, 1.5)), ["voice"], recognize=False, cache=False)
    assert uncached.words == []
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 4
    with pytest.raises(DataError, match="unknown features 'smell', expected face, voice"):
        read_clip(tmp_path / "a.wav", ["smell"])
    assert describe.__module__ == "carat.features.description"
