"""Faulty and hostile media files: each ends in one line that says what is wrong, none in a traceback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from carat.features import decoder, decoder_process
from carat.features.media import Media
from carat.utils.errors import DataError
from tests.features.files import RED, corners, flat, tone, write_media

pytest.importorskip("av")


def video(folder: Path, seconds: float = 4, name: str = "clip.mp4") -> Path:
    pictures = [(i / 10, corners()) for i in range(round(seconds * 10))]
    return write_media(folder / name, sound=tone(seconds, 16_000), pictures=pictures)


def read_all(file: Path) -> tuple[int, int]:
    """Decode everything: numbers of samples and of pictures."""
    with Media(file) as media:
        samples = sum(map(len, media.audio(16_000))) if media.info.audio else 0
        pictures = sum(1 for _ in media.pictures(10)) if media.info.video else 0
    return samples, pictures


def missing(folder: Path) -> Path:
    return folder / "clip.mp4"


def empty(folder: Path) -> Path:
    (folder / "clip.mp4").touch()
    return folder / "clip.mp4"


def folder_instead(folder: Path) -> Path:
    (folder / "clip.mp4").mkdir()
    return folder / "clip.mp4"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "clip.mp4")
    return folder / "clip.mp4"


def noise(folder: Path) -> Path:
    (folder / "clip.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    return folder / "clip.mp4"


def zeros(folder: Path) -> Path:
    (folder / "clip.mp4").write_bytes(bytes(50_000))
    return folder / "clip.mp4"


def text(folder: Path) -> Path:
    (folder / "clip.mp4").write_text("time,emotion\n0,joy\n" * 50)
    return folder / "clip.mp4"


def web_page(folder: Path) -> Path:
    (folder / "clip.mp4").write_text("<!DOCTYPE html><html><body>Please log in</body></html>")
    return folder / "clip.mp4"


def lfs_pointer(folder: Path) -> Path:
    (folder / "clip.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    return folder / "clip.mp4"


def image(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray(corners()).save(folder / "clip.png")
    return (folder / "clip.png").rename(folder / "clip.mp4")


def playlist(folder: Path) -> Path:
    """A playlist would make FFmpeg open other files, or addresses."""
    video(folder, name="secret.mp4")
    (folder / "clip.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nsecret.mp4\n#EXT-X-ENDLIST\n"
    )
    return folder / "clip.mp4"


def concat_list(folder: Path) -> Path:
    video(folder, name="secret.mp4")
    (folder / "clip.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    return folder / "clip.mp4"


def only_the_head(folder: Path) -> Path:
    """As an interrupted download leaves it: the index at the end of the file is missing."""
    file = video(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def index_first_then_cut(folder: Path) -> Path:
    import av

    whole = video(folder, name="whole.mkv")
    with (
        av.open(str(whole)) as source,
        av.open(str(folder / "clip.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        streams = {stream: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                target.mux(packet)
    file = folder / "clip.mp4"
    file.write_bytes(file.read_bytes()[: round(file.stat().st_size * 0.6)])
    return file


def cut_matroska(folder: Path) -> Path:
    file = video(folder, name="clip.mkv")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def cut_wav(folder: Path) -> Path:
    file = write_media(folder / "clip.wav", sound=tone(10, 16_000), audio_codec="pcm_s16le")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def cut_flac(folder: Path) -> Path:
    file = write_media(folder / "clip.flac", sound=tone(10, 16_000), audio_codec="flac")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def damaged_sound(folder: Path) -> Path:
    """Valid headers, but noise in place of most of the packets."""
    file = write_media(folder / "clip.mkv", sound=tone(10, 16_000), audio_codec="flac")
    content = bytearray(file.read_bytes())
    third = len(content) // 4
    content[third:-third] = np.random.default_rng(1).bytes(len(content) - 2 * third)
    file.write_bytes(content)
    return file


def not_finite(folder: Path) -> Path:
    sound = tone(1, 16_000)
    sound[100] = np.nan
    return write_media(folder / "clip.wav", sound=sound, audio_codec="pcm_f32le")


def subtitles_only(folder: Path) -> Path:
    (folder / "clip.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n")
    return (folder / "clip.srt").rename(folder / "clip.mp4")


def header_without_samples(folder: Path) -> Path:
    with wave.open(str(folder / "clip.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    return folder / "clip.wav"


FAULTS: list[tuple[Callable[[Path], Path], str]] = [
    (missing, "no such file"),
    (empty, r"is empty \(0 bytes\)"),
    (folder_instead, "is a folder, expected a file"),
    (pipe, "is a named pipe, expected a file"),
    (noise, "cannot be decoded"),
    (zeros, "cannot be decoded"),
    (text, "cannot be decoded"),
    (web_page, "is a web page, not the file"),
    (lfs_pointer, "is a Git LFS pointer"),
    (image, "cannot be decoded"),
    (playlist, "cannot be decoded"),
    (concat_list, "cannot be decoded"),
    (only_the_head, "cannot be decoded"),
    (index_first_then_cut, "the file is truncated"),
    (cut_matroska, "the file is truncated"),
    (cut_wav, "the file is truncated"),
    (cut_flac, "the file is truncated"),
    (damaged_sound, "damaged"),
    (not_finite, "has samples that are not finite numbers"),
    (subtitles_only, "cannot be decoded"),
    (header_without_samples, "has no sound that can be decoded"),
]


@pytest.mark.parametrize(("make", "message"), FAULTS, ids=[make.__name__ for make, _ in FAULTS])
def test_a_faulty_file_ends_in_one_line(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    file = make(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        read_all(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_few_damaged_packets_are_left_out(tmp_path: Path) -> None:
    file = video(tmp_path, 10)
    whole = read_all(file)
    content = bytearray(file.read_bytes())
    middle = content.index(b"mdat") + len(content) // 3
    content[middle : middle + 40] = bytes(40)
    file.write_bytes(content)
    samples, pictures = read_all(file)
    assert samples == pytest.approx(whole[0], abs=16_000)
    assert pictures == pytest.approx(whole[1], abs=10)


def test_cover_pictures_are_no_video(tmp_path: Path) -> None:
    import av

    file = tmp_path / "song.mp3"
    with av.open(str(file), "w") as container:
        audio = container.add_stream("libmp3lame", rate=16_000, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(flat(RED), format="rgb24")))
        container.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(tone(1, 16_000)[None, :], "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    with Media(file) as media:
        assert media.info.video is None
        assert sum(map(len, media.audio(16_000))) == pytest.approx(16_000, abs=3_000)


def test_a_stream_without_codec_is_ignored(shared: Path) -> None:
    files = sorted((shared / "data" / "clips").glob("*.mp4"))
    if not files:
        pytest.skip("needs the clips of the shared folder")
    for file in files:
        with Media(file) as media:
            assert media.info.audio is not None
            assert media.info.video is not None


def test_a_name_is_never_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(video(tmp_path), tmp_path / "concat:a|b.mp4")
    assert read_all(Path("concat:a|b.mp4"))[1] == 40
    with pytest.raises(DataError, match="no such file"):
        Media("http://localhost/clip.mp4")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})", "the decoder crashes on it"),
        ("import sys; sys.exit(3)", "the decoder crashes on it"),
        ("import time; time.sleep(60)", "the decoder does not go on"),
        (
            "from carat.utils.limits import limit_resources; limit_resources(0, 1 << 32)\nwhile True: pass",
            "takes too much time or memory",
        ),
    ],
    ids=["crash", "exit", "stall", "loop"],
)
def test_a_decoder_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    file = video(tmp_path)
    server = (
        "from carat.features import decoder, decoder_server\n"
        f"decoder.main = lambda: exec({code!r}, {{}})\n"
        "decoder_server.main()"
    )
    monkeypatch.setattr(decoder_process, "COMMAND", [sys.executable, "-c", server])
    monkeypatch.setattr(decoder_process, "STALL_SECONDS", 2.5 if "sleep" in code else 60)
    decoder_process.end_server()
    try:
        with pytest.raises(DataError, match=message):
            Media(file)
    finally:
        decoder_process.end_server()


def test_a_server_that_ended_is_started_again(tmp_path: Path) -> None:
    file = video(tmp_path)
    with Media(file) as media:
        server = decoder_process.running_server()._process
        server.kill()
        server.wait()
        assert sum(1 for _ in media.pictures(10)) == 40  # its decoders go on
    assert read_all(file)[1] == 40


def test_decoders_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = video(tmp_path)
    monkeypatch.setattr(decoder_process, "COMMAND", [sys.executable, "-c", "import sys; sys.exit(1)"])
    decoder_process.end_server()
    try:
        with pytest.raises(DataError, match=r"clip\.mp4: no decoder can be started"):
            Media(file)
    finally:
        decoder_process.end_server()


def test_memory_of_the_decoder_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [(i / 10, corners(3840, 2160)) for i in range(3)]
    file = write_media(tmp_path / "a.mp4", pictures=pictures)
    assert read_all(file)[1] == 3
    monkeypatch.setattr(decoder, "MEMORY", 160 << 20)
    with pytest.raises(DataError, match="cannot be decoded"):
        read_all(file)


def test_time_of_the_decoder_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [(i / 100, corners(640, 360)) for i in range(20)]
    file = write_media(tmp_path / "a.mkv", pictures=pictures)
    monkeypatch.setattr(decoder, "CPU_SECONDS", 0)
    with Media(file) as media, pytest.raises(DataError, match="takes too much time or memory"):
        sum(1 for _ in range(1000) for _ in media.pictures(100))


def test_no_decoder_outlives_its_parent(tmp_path: Path) -> None:
    file = write_media(tmp_path / "a.wav", sound=tone(60, 16_000), audio_codec="pcm_s16le")
    code = (
        "import os, sys; from carat.features.media import Media\n"
        f"media = Media({str(file)!r}); stream = media.audio(16_000); next(stream)\n"
        "print(media._decoder._pid, flush=True); os._exit(0)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    deadline = time.monotonic() + 10
    while (status := Path(f"/proc/{pid}/stat")).exists() and " Z " not in status.read_text():
        assert time.monotonic() < deadline, "the decoder is still running"
        time.sleep(0.1)
