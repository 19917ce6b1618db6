"""Sound and pictures of media files: right results for what phones, browsers and recorders write."""

from __future__ import annotations

import os
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from carat.features.media import Media
from tests.features.files import BLUE, GREEN, RED, corners, flat, rotate, tone, write_media

pytest.importorskip("av")


def sound(file: Path, rate: int = 16_000) -> np.ndarray:
    with Media(file) as media:
        return np.concatenate(list(media.audio(rate)))


def color(pixels: np.ndarray) -> str:
    """The strongest color of a patch."""
    return "rgb"[int(pixels.reshape(-1, 3).mean(0).argmax())]


def frequency(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax()) * rate / len(samples)


def test_info_of_a_video(tmp_path: Path) -> None:
    file = write_media(
        tmp_path / "a.mp4", sound=tone(1, 16_000), pictures=[(i / 10, flat(RED)) for i in range(10)]
    )
    with Media(file) as media:
        info = media.info
    assert info.audio is not None
    assert (info.audio.codec, info.audio.rate, info.audio.channels) == ("aac", 16_000, 1)
    assert info.video is not None
    assert (info.video.codec, info.video.width, info.video.height) == ("mpeg4", 64, 48)
    assert info.duration == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("a.wav", "pcm_s16le", 8_000, "mono"),
        ("a.wav", "pcm_f32le", 44_100, "stereo"),
        ("a.flac", "flac", 48_000, "stereo"),
        ("a.m4a", "aac", 48_000, "5.1"),
        ("a.webm", "libopus", 48_000, "mono"),
        ("a.ogg", "libopus", 48_000, "stereo"),
        ("a.mp3", "libmp3lame", 22_050, "mono"),
    ],
)
def test_sound_of_any_kind_is_resampled_to_mono(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str
) -> None:
    file = write_media(tmp_path / name, sound=tone(2, rate), rate=rate, layout=layout, audio_codec=codec)
    samples = sound(file)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(2 * 16_000, abs=0.1 * 16_000)
    middle = samples[8_000:24_000]
    assert frequency(middle, 16_000) == pytest.approx(220, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.1)


def test_blocks_have_equal_lengths(tmp_path: Path) -> None:
    file = write_media(tmp_path / "a.wav", sound=tone(1, 16_000), audio_codec="pcm_s16le")
    with Media(file) as media:
        lengths = [len(block) for block in media.audio(16_000, 7_000)]
    assert lengths == [7_000, 7_000, 2_000]


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path) -> None:
    pictures = [(i / 10, flat(RED)) for i in range(20)]
    file = write_media(
        tmp_path / "a.mkv", sound=tone(1, 16_000), pictures=pictures, audio_codec="pcm_s16le", audio_start=0.7
    )
    samples = sound(file)
    assert len(samples) == pytest.approx(1.7 * 16_000, abs=160)
    assert np.abs(samples[: round(0.69 * 16_000)]).max() == 0
    assert np.abs(samples[round(0.71 * 16_000) : 16_000]).max() > 0.4


def test_audio_only_has_no_pictures(tmp_path: Path) -> None:
    file = write_media(tmp_path / "a.m4a", sound=tone(1, 16_000))
    with Media(file) as media:
        assert media.info.video is None
        with pytest.raises(Exception, match=r"a\.m4a: has no pictures"):
            list(media.pictures(5))
        assert sum(map(len, media.audio(16_000))) >= 16_000  # goes on after an error


def test_video_only_has_no_sound(tmp_path: Path) -> None:
    file = write_media(tmp_path / "a.mp4", pictures=[(i / 10, flat(GREEN)) for i in range(10)])
    with Media(file) as media:
        assert media.info.audio is None
        with pytest.raises(Exception, match=r"a\.mp4: has no sound"):
            list(media.audio(16_000))
        assert color(next(media.pictures(5)).pixels) == "g"


def test_pictures_at_a_set_rate_follow_the_times_of_the_file(tmp_path: Path) -> None:
    """Variable frame rate: red from 0, green from 0.35, blue from 1.5 s on."""
    times = [(0.0, RED), (0.1, RED), (0.35, GREEN), (1.5, BLUE), (1.6, BLUE), (1.7, BLUE)]
    file = write_media(tmp_path / "a.mkv", pictures=[(t, flat(c)) for t, c in times])
    with Media(file) as media:
        pictures = list(media.pictures(5))
    found = {round(picture.time, 3): color(picture.pixels) for picture in pictures}
    assert found == {0.0: "r", 0.2: "r", **{t / 10: "g" for t in range(4, 15, 2)}, 1.6: "b"}
    shown = [picture.pixels for picture in pictures if color(picture.pixels) == "g"]
    assert all(pixels is shown[0] for pixels in shown)


def test_a_picture_is_not_held_for_ever(tmp_path: Path) -> None:
    file = write_media(tmp_path / "a.mkv", pictures=[(0, flat(RED)), (0.1, flat(RED)), (100, flat(BLUE))])
    with Media(file) as media:
        times = [picture.time for picture in media.pictures(1)]
    assert times == [*range(11), 100]


@pytest.mark.parametrize(("clockwise", "corner"), [(True, (0, -1)), (False, (-1, 0))])
def test_phone_video_is_turned_upright(tmp_path: Path, clockwise: bool, corner: tuple[int, int]) -> None:
    file = write_media(tmp_path / "a.mp4", pictures=[(i / 10, corners()) for i in range(10)])
    with Media(rotate(file, clockwise)) as media:
        pixels = next(media.pictures(5)).pixels
    assert pixels.shape == (64, 48, 3)
    quarter = pixels[:32] if corner[0] == 0 else pixels[32:]
    quarter = quarter[:, :24] if corner[1] == 0 else quarter[:, 24:]
    assert color(quarter[4:-4, 4:-4]) == "r"
    assert (pixels[..., 0] > 120).mean() == pytest.approx(0.25, abs=0.05)


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    file = write_media(tmp_path / "a.mp4", pictures=[(i / 10, corners(320, 180)) for i in range(5)])
    with Media(file) as media:
        assert next(media.pictures(5, size=160)).pixels.shape == (90, 160, 3)
        assert next(media.pictures(5, size=2000)).pixels.shape == (180, 320, 3)


def test_one_of_a_thousand_tracks_is_decoded(tmp_path: Path) -> None:
    file = write_media(
        tmp_path / "a.mkv", sound=tone(0.2, 8_000), rate=8_000, audio_codec="pcm_s16le", tracks=1000
    )
    assert len(sound(file)) == pytest.approx(0.2 * 16_000, abs=32)


def wait_for_end(pid: int | None) -> None:
    """Wait until a process does not exist anymore."""
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the decoder is still running"
        time.sleep(0.01)


def test_the_decoder_ends_with_the_media(tmp_path: Path) -> None:
    file = write_media(tmp_path / "a.wav", sound=tone(30, 16_000), audio_codec="pcm_s16le")
    media = Media(file)
    stream = media.audio(16_000)
    next(stream)
    assert media._decoder is not None
    pid = media._decoder._pid
    stream.close()  # the rest is not wanted
    wait_for_end(pid)
    assert sum(map(len, media.audio(16_000))) == 30 * 16_000
    media.close()


def test_webm_as_browsers_record_it(tmp_path: Path) -> None:
    """MediaRecorder streams VP8 and Opus, and never writes a duration."""
    import av

    pictures = [(i / 10, flat(RED)) for i in range(20)]
    whole = write_media(
        tmp_path / "whole.webm",
        sound=tone(2, 48_000),
        rate=48_000,
        audio_codec="libopus",
        pictures=pictures,
        video_codec="libvpx",
    )
    file = tmp_path / "a.webm"
    with av.open(str(whole)) as source, av.open(str(file), "w", options={"live": "1"}) as target:
        streams = {stream: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                target.mux(packet)
    with Media(file) as media:
        assert media.info.duration is None
        assert sum(map(len, media.audio(16_000))) == pytest.approx(32_000, abs=800)
        assert [color(picture.pixels) for picture in media.pictures(5)] == ["r"] * 10


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    import av

    file = tmp_path / "a.mkv"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(flat(RED), format="rgb24")))
        container.mux(stream.encode())
    with Media(file) as media:
        assert next(media.pictures(5)).pixels.shape == (48, 128, 3)


def test_names_of_any_bytes(tmp_path: Path) -> None:
    file = write_media(tmp_path / "a.wav", sound=tone(1, 16_000), audio_codec="pcm_s16le")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\nb%20c?.wav"))
    file.rename(odd)
    assert len(sound(odd)) == 16_000


@pytest.mark.parametrize("gop", [1, 12, 250])
def test_some_pictures_are_those_of_all(tmp_path: Path, gop: int) -> None:
    """Also in a file with frames that depend on later ones, and with few key frames."""
    import av

    file = tmp_path / "a.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", 12, options={"bf": "3", "g": str(gop), "b_strategy": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12 * 40):
            picture = np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3), np.uint8), 8, 0), 8, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    with Media(file) as media:
        every = list(media.pictures(12))
        steps = [0, 1, 7, 130, 131, 301, 479]
        some = list(media.pictures(12, wanted=steps))
        slower = list(media.pictures(5))
    assert [picture.index for picture in every] == list(range(480))
    assert [picture.index for picture in some] == steps
    for picture in some:
        assert (picture.pixels == every[picture.index].pixels).all()
    assert len(slower) == 200  # here frames are left out that no other depends on
    for picture in slower:
        assert (picture.pixels == every[picture.index * 12 // 5].pixels).all()
