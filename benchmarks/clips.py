"""Cost and quality of features of clips, and of scoring them; writes results/clips.md.

python -m benchmarks.clips ../shared/data/clips
"""

from __future__ import annotations

import csv
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cyclopts
import yaml

from benchmarks.measure import finish, machine, table
from carat.data.recipes.build import build_store
from carat.features.decoder_process import end_server
from carat.features.description import (
    FaceSettings,
    SpeechSettings,
    TranscriptSettings,
    VoiceSettings,
    describe,
)
from carat.features.extractor import Extractor, open_extractor
from carat.features.media import Media
from carat.features.models import find_model
from carat.features.transcript import read_words
from carat.inference.clips.folder import ClipOptions, score_clips
from carat.inference.loading import load
from carat.training.train import train

OTHER_WORDS = {"dia110_utt8.mp4", "dia111_utt9.mp4", "dia42_utt1.mp4", "dia77_utt3.mp4"}
"""Clips in which something else is said than their transcript."""
COPIES = 4
"""Copies of the clips with which building is timed."""
ROOT = Path(__file__).parents[1]


def cpu_seconds() -> float:
    """CPU time of this process and of its children, whose decoders end here."""
    end_server()
    return sum(os.times()[:4])


def cost(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall-clock seconds of a call."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    call()
    return cpu_seconds() - cpu, time.perf_counter() - wall


def decode(file: Path, *, pictures: bool) -> None:
    with Media(file) as media:
        for _ in media.pictures(10, 1280) if pictures else media.audio(16_000):
            pass


def extract(extractor: Extractor, file: Path) -> Any:
    with Media(file) as media:
        return extractor.extract(media)


def words_of(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9' ]", "", text.lower().replace("’", "'").replace("-", " ")).split()


def edits(a: list[str], b: list[str]) -> int:
    """Smallest number of words to replace, insert or delete."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def write_recipe(folder: Path, files: list[Path], encoder: Path, copies: int) -> Path:
    """Write a recipe of copies of the clips, which differ in an unused part of the file."""
    lines = ["file,joy,fold"]
    for copy in range(copies):
        for i, file in enumerate(files):
            name = f"{copy}_{file.name}"
            unused = (12).to_bytes(4, "big") + b"free" + copy.to_bytes(4, "big")
            (folder / name).write_bytes(file.read_bytes() + unused)
            lines.append(f"{name},{i % 2},{('train', 'train', 'valid', 'test')[(i // 2 + copy) % 4]}")
    (folder / "table.csv").write_text("\n".join(lines))
    clips = {"folder": ".", "column": "file"}
    recipe = {
        "name": "clips",
        "table": "table.csv",
        "id": "file",
        "split": "fold",
        "labels": {"columns": ["joy"]},
        "transcript": clips,
        "modalities": {
            "face": {"source": "face", **clips, "standardise": True},
            "voice": {"source": "voice", **clips, "standardise": True},
            "text": {"source": "tokens", "folder": str(encoder), "column": "transcript"},
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def quality(
    files: list[Path], spoken: dict[str, str], face: Extractor, words: Extractor
) -> tuple[float, float]:
    """Share of pictures with a face, and word error on the clips whose transcript is what is said."""
    steps = found = wrong = total = 0
    for file in files:
        faces = extract(face, file)
        steps, found = steps + faces.steps, found + len(faces.times)
        if file.name in spoken and file.name not in OTHER_WORDS:
            expected = words_of(spoken[file.name])
            said = " ".join(word.text for word in read_words(extract(words, file)))
            wrong, total = wrong + edits(expected, words_of(said)), total + len(expected)
    return found / steps, wrong / max(total, 1)


def main(
    folder: Path,
    /,
    *,
    encoder: Path | None = None,
    copies: int = COPIES,
    out: Path = ROOT / "results" / "clips.md",
) -> None:
    """Measure on the clips of a folder with `transcripts.csv` (columns file, text).

    Parameters
    ----------
    folder
        Folder of mp4 files.
    encoder
        Text encoder; defaults to all-MiniLM-L6-v2 of an installed package.
    copies
        Copies of the clips with which building is timed.
    out
        Page to write.
    """
    files = sorted(folder.glob("*.mp4"))
    with (folder / "transcripts.csv").open(encoding="utf-8") as opened:
        spoken = {row["file"]: row["text"] for row in csv.DictReader(opened)}
    encoder = encoder or find_model("all-minilm-l6-v2").folder
    seconds = 0.0
    for file in files:
        with Media(file) as media:
            seconds += media.info.duration or 0.0
    settings = {
        "face": FaceSettings(),
        "voice": VoiceSettings(),
        "speech": SpeechSettings(),
        "transcript": TranscriptSettings(),
    }
    extractors = {name: open_extractor(describe(x)) for name, x in settings.items()}
    calls: dict[str, Callable[[Path], object]] = {
        "decoding of the sound": lambda file: decode(file, pictures=False),
        "decoding of pictures, 10 per second": lambda file: decode(file, pictures=True),
        **{name: lambda file, x=x: extract(x, file) for name, x in extractors.items()},
    }
    rows = []
    for name, call in calls.items():
        cpu, wall = cost(lambda: [call(file) for file in files])  # noqa: B023  called at once
        rows.append([name, cpu / seconds, wall / seconds])
    faces, error = quality(files, spoken, extractors["face"], extractors["transcript"])
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["CARAT_CACHE"] = f"{temporary}/cache"
        recipe = write_recipe(Path(temporary), files, encoder, copies)
        walls: dict[str, float] = {}
        for name, workers in (("one worker", 1), ("two workers", 2), ("again, from the cache", 2)):
            if workers != 2 or name == "two workers":
                os.environ["CARAT_CACHE"] = f"{temporary}/cache-{workers}"
            store = recipe.with_name("store")
            started = time.perf_counter()
            build_store(recipe, store, overwrite=True, workers=workers)
            walls[name] = time.perf_counter() - started
        experiment = {
            "method": "linear",
            "encoders": {"text": {"folder": str(encoder)}},
            "training": {"epochs": 1, "accelerator": "cpu"},
        }
        run = train(experiment, recipe.with_name("store"), recipe.with_name("run"))
        predictor = load(run.folder, device="cpu")
        options = ClipOptions(cache=False)
        score_clips(predictor, files[:1], f"{temporary}/first", options=options)  # loads what is used once
        cpu, wall = cost(lambda: score_clips(predictor, files, f"{temporary}/out", options=options))
    rows.append(["whole path: extract, score, explain, write", cpu / seconds, wall / seconds])
    gain = walls["one worker"] / walls["two workers"]
    again = walls["two workers"] / walls["again, from the cache"]
    built = [[name, x] for name, x in walls.items()]
    text = (
        f"{len(files)} clips, {seconds:.1f} seconds in all. An extractor's cost includes decoding in a child "
        f"process.\n\n"
        + table(["", "CPU-seconds per second of clip", "seconds per second of clip"], rows)
        + f"\n\nFaces in {faces:.3f} of the pictures; word error {error:.3f} on the clips whose transcript "
        "is what is said.\n\n"
        f"Building a store of {copies * len(files)} clips ({copies * seconds:.0f} seconds; face, voice, "
        "transcript):\n\n"
        + table(["", "seconds"], built)
        + f"\n\nTwo workers: {gain:.2f} times as fast as one. From the cache: {again:.0f} times as fast.\n"
    )
    values = {
        "cpu": {row[0]: round(row[1], 3) for row in rows},
        "faces": faces,
        "word_error": error,
        "two_workers": gain,
        "from_cache": again,
    }
    finish(text, values)
    where = machine()
    remarks = (ROOT / "results" / "clips_remarks.md").read_text(encoding="utf-8")
    out.write_text(
        "# Features of clips: cost and quality\n\nMade by `python -m benchmarks.clips`; do not edit: remarks "
        "stand in `results/clips_remarks.md`.\n\n"
        f"Commit {where['commit']}; {where['processor']}, {where['threads']} threads. {text}\n{remarks}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    cyclopts.run(main)
