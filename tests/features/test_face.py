"""Boxes of faces, and videos without a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carat.features.boxes import CONTEXT, SHARES, Box, Crop, around, squares
from carat.features.extractor import Extractor
from carat.features.face import FOCAL_LENGTH, POSE, _pose
from carat.features.media import Media
from tests.features.files import flat, tone, write_media


@pytest.mark.parametrize("shape", [(72, 128), (128, 72), (90, 90), (11, 97)])
def test_squares_cover_a_picture(shape: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    for share in SHARES:
        covered = np.zeros(shape, int)
        for place in squares(pixels, share):
            height, width = place.pixels.shape[:2]
            assert height == width == round(share * min(shape))
            covered[place.y : place.y + height, place.x : place.x + width] += 1
        assert covered.min() >= 1


def test_boxes_that_overlap() -> None:
    box = Box(10, 20, 30, 40)
    assert box.overlaps(box)
    assert box.overlaps(Box(15, 22, 30, 40))
    assert not box.overlaps(Box(25, 20, 30, 40))
    assert not box.overlaps(Box(100, 20, 30, 40))


def test_the_square_around_a_face_stays_inside() -> None:
    pixels = np.arange(60 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(60, 80, 3)
    for box in (Box(0, 0, 10, 12), Box(70, 50, 10, 10), Box(30, 20, 5, 5), Box(10, 10, 50, 50)):
        place = around(pixels, box)
        side = place.pixels.shape[0]
        assert place.pixels.shape == (side, side, 3)
        assert side == min(round(CONTEXT * box.size), 60)
        assert (place.pixels == pixels[place.y : place.y + side, place.x : place.x + side]).all()
        assert place.x <= box.center[0] <= place.x + side
        assert place.y <= box.center[1] <= place.y + side


@pytest.mark.parametrize(
    ("box", "plausible"),
    [
        (Box(0, 0, 100, 130), True),
        (Box(0, 0, 10, 13), False),  # too small
        (Box(0, 0, 193, 135), False),  # too wide
        (Box(0, 0, 30, 100), False),  # too narrow
        (Box(0, 0, 30, 0), False),
    ],
)
def test_size_and_shape_of_a_face(box: Box, plausible: bool) -> None:
    assert box.is_plausible() is plausible


@pytest.mark.parametrize(
    ("after", "same"),
    [
        (Box(110, 100, 50, 60), True),
        (Box(140, 100, 50, 60), True),
        (Box(300, 100, 50, 60), False),  # far away
        (Box(100, 100, 90, 110), False),  # much larger
        (Box(110, 115, 25, 30), False),  # much smaller
    ],
)
def test_a_face_goes_on(after: Box, same: bool) -> None:
    assert after.continues(Box(100, 100, 50, 60)) is same


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation by roll about z, then yaw about y, then pitch about x, as factors from left to right."""
    a, b, c = np.radians([roll, yaw, pitch])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    return np.asarray(about_z @ about_y @ about_x)


def test_angles_of_a_head() -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(20, -10, 5)
    matrix[:3, 3] = (0, 0, -50)
    whole = Crop(0, 0, np.zeros((100, 100, 3), np.uint8))
    assert _pose(matrix, whole, (100, 100))[:3] == pytest.approx((20, -10, 5))
    assert _pose(matrix, whole, (100, 100))[3:] == pytest.approx((0, 0, -50))
    assert POSE[:3] == ("yaw", "pitch", "roll")


def test_position_is_that_in_front_of_the_whole_pictures_camera() -> None:
    """A point in space is projected into the picture, looked at in a square, and comes out again."""
    height, width = 720, 1280
    point = np.array([-12.0, 7.0, -80.0])
    pixel_x = width / 2 + height * FOCAL_LENGTH * point[0] / -point[2]
    pixel_y = height / 2 - height * FOCAL_LENGTH * point[1] / -point[2]
    place = Crop(300, 100, np.zeros((240, 240, 3), np.uint8))
    depth = -point[2] * 240 / height  # the same size in a picture of 240 pixels is nearer
    matrix = np.eye(4)
    matrix[:3, 3] = (
        depth * (pixel_x - 420) / (240 * FOCAL_LENGTH),
        -depth * (pixel_y - 220) / (240 * FOCAL_LENGTH),
        -depth,
    )
    assert _pose(matrix, place, (height, width))[3:] == pytest.approx(point)


def test_pictures_without_a_face_are_absent(tmp_path: Path, face: Extractor) -> None:
    rng = np.random.default_rng(0)
    pictures = [(i / 10, rng.integers(0, 255, (90, 160, 3), np.uint8)) for i in range(10)]
    file = write_media(tmp_path / "a.mp4", pictures=pictures)
    with Media(file) as media:
        sequence = face.extract(media)
    assert sequence is not None
    assert sequence.steps == 10
    assert sequence.values.shape == (0, 58)
    assert sequence.extra["box"].shape == (0, 4)
    assert len(face.names) == 58
    assert face.names[:2] == ("_neutral", "browDownLeft")


def test_sound_without_pictures(tmp_path: Path, face: Extractor) -> None:
    file = write_media(tmp_path / "a.wav", sound=tone(1, 16_000), audio_codec="pcm_s16le")
    with Media(file) as media:
        assert face.extract(media) is None


def test_tiny_pictures(tmp_path: Path, face: Extractor) -> None:
    file = write_media(tmp_path / "a.mp4", pictures=[(i / 10, flat((90, 90, 90), 16, 16)) for i in range(3)])
    with Media(file) as media:
        sequence = face.extract(media)
    assert sequence is not None
    assert len(sequence.times) == 0
