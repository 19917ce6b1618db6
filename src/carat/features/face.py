"""Facial expression and head pose by MediaPipe's Face Landmarker (extra `clip`).

A face is searched in the whole picture, then in overlapping squares. What is found is looked at again in a
square around it, by the detector and by the landmark model: patterns such as a wall clock do not pass both.
The same face is then followed from square to square; another one takes its place only when it is lost.
"""

from __future__ import annotations

import weakref
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from math import radians, tan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.features.boxes import SHARES, Box, Crop, around, squares
from carat.features.description import FaceSettings
from carat.features.extractor import FeatureSequence
from carat.features.media import Media
from carat.features.models import FoundModel, find_model
from carat.utils.errors import DataError
from carat.utils.quiet import quiet

POSE = ("yaw", "pitch", "roll", "x", "y", "z")
"""Head pose: angles in degrees, and the position in cm in front of the camera."""
FOCAL_LENGTH = 1 / (2 * tan(radians(63 / 2)))
"""Focal length of the model's virtual camera, in heights of a picture; it sees 63° from top to bottom."""
DETECTOR = "face_detector.tflite"
MIN_CANDIDATE = 0.3
"""Score from which a detection in a square is looked at again."""
PATIENCE = 5
"""Pictures without a face after which it is lost, and squares are searched in every fifth picture only."""


@dataclass(frozen=True)
class Face:
    """A face in one picture."""

    box: Box
    score: float
    values: NDArray[np.float32]


class FaceExtractor:
    """52 blendshapes and six numbers of head pose per time step with a face.

    `extra` of the result has `score` (T,) of the detector, `box` (T, 4) with x, y, width and height as shares
    of the picture, and `track` (T,), which counts the faces that were followed.

    Args:
        settings: parameters.

    Raises:
        DataError: MediaPipe or its model is not installed.
    """

    def __init__(self, settings: FaceSettings) -> None:
        self._settings = settings
        self.rate = settings.rate
        self._finder = _Finder(find_model("face_landmarker"))
        self.names = (*self._finder.names, *POSE)

    def extract(self, media: Media) -> FeatureSequence | None:
        """Follow the most prominent face of a video; None if there are no pictures."""
        if media.info.video is None:
            return None
        tracker = _Tracker(self._finder, self._settings)
        rows, steps = [], 0
        shown: NDArray[np.uint8] | None = None
        face: Face | None = None
        for picture in media.pictures(self.rate, self._settings.size):
            if picture.pixels is not shown:
                shown, face = picture.pixels, tracker.next(picture.pixels)
            steps += 1
            if face is not None:
                height, width = shown.shape[:2]
                box = face.box
                share = (box.x / width, box.y / height, box.width / width, box.height / height)
                rows.append((picture.time, face.values, face.score, share, tracker.track))
        times, values, scores, boxes, tracks = zip(*rows, strict=True) if rows else ((),) * 5
        return FeatureSequence(
            np.array(values, np.float32).reshape(len(rows), len(self.names)),
            np.array(times, np.float64),
            self.rate,
            steps,
            {
                "score": np.array(scores, np.float32),
                "box": np.array(boxes, np.float32).reshape(len(rows), 4),
                "track": np.array(tracks, np.int64),
            },
        )


class _Tracker:
    """Follows one face through the pictures of a video."""

    def __init__(self, finder: _Finder, settings: FaceSettings) -> None:
        self._finder, self._settings = finder, settings
        self._last: Face | None = None
        self._without = 0
        self.track = -1

    def next(self, pixels: NDArray[np.uint8]) -> Face | None:
        """The face of the next picture, None if there is none."""
        face = None
        if self._last is not None:
            face = self._finder.look(pixels, self._last.box, self._settings.keep_score)
            if face is not None and not face.box.continues(self._last.box):
                face = None
        if face is None:
            face = self._search(pixels)
            if face is not None and not (self._last and face.box.continues(self._last.box)):
                self.track += 1
        if face is not None:
            self._last, self._without = face, 0
        else:
            self._without += 1
            if self._without > PATIENCE:
                self._last = None
        return face

    def _search(self, pixels: NDArray[np.uint8]) -> Face | None:
        """The largest face in the whole picture, else in its squares, of which the largest come first."""
        found = self._largest(pixels, [Crop(0, 0, pixels)])
        in_squares = self._without < PATIENCE or self._without % PATIENCE == 0
        if self._settings.squares and in_squares:
            for share in SHARES:
                found = found or self._largest(pixels, squares(pixels, share))
        return found

    def _largest(self, pixels: NDArray[np.uint8], places: Iterable[Crop]) -> Face | None:
        """The largest detection in parts of a picture that passes a second look."""
        seen: list[Box] = []
        candidates = [box for place in places for box in self._finder.detect(place)]
        for box in sorted(candidates, key=lambda box: -box.size):
            if any(box.overlaps(other) for other in seen):  # the same one, from another part
                continue
            seen.append(box)
            face = self._finder.look(pixels, box, self._settings.start_score)
            if face is not None:
                return face
        return None


class _Finder:
    """MediaPipe's face detector and landmark model.

    Args:
        model: the bundle that has both.
    """

    def __init__(self, model: FoundModel) -> None:
        try:
            with quiet():
                import mediapipe
                from mediapipe.tasks.python import BaseOptions, vision
                from mediapipe.tasks.python.vision.face_landmarker import Blendshapes
        except ImportError as error:
            raise DataError("faces need the extra: pip install 'carat-emotion[clip]'") from error
        try:
            with zipfile.ZipFile(model.file) as bundle:
                detector = bundle.read(DETECTOR)
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise DataError(f"{model.file}: cannot be read ({error})") from error
        self.names = ("_neutral", *(_camel_case(shape.name) for shape in Blendshapes if shape.value))
        self._mediapipe = mediapipe
        with quiet():
            self._detector = vision.FaceDetector.create_from_options(
                vision.FaceDetectorOptions(
                    base_options=BaseOptions(model_asset_buffer=detector),
                    min_detection_confidence=MIN_CANDIDATE,
                )
            )
            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=BaseOptions(model_asset_path=str(model.file)),
                    output_face_blendshapes=True,
                    output_facial_transformation_matrixes=True,
                    min_face_detection_confidence=MIN_CANDIDATE,
                )
            )
            weakref.finalize(self, _close, self._detector, self._landmarker)
            blank = self._image(Crop(0, 0, np.zeros((64, 64, 3), np.uint8)))
            self._detector.detect(blank)  # the first call logs warnings
            self._landmarker.detect(blank)

    def detect(self, place: Crop) -> list[Box]:
        """Boxes in the picture that may be faces."""
        found = self._detector.detect(self._image(place)).detections
        boxes = [detection.bounding_box for detection in found]
        return [
            Box(box.origin_x, box.origin_y, box.width, box.height).shifted(place.x, place.y) for box in boxes
        ]

    def look(self, pixels: NDArray[np.uint8], box: Box, score: float) -> Face | None:
        """The face around a box, if detector and landmark model agree on it.

        Args:
            pixels: picture (H, W, 3).
            box: where a face is expected.
            score: minimum score of the detector.
        """
        place = around(pixels, box)
        image = self._image(place)
        detections = self._detector.detect(image).detections
        if not any(detection.categories[0].score >= score for detection in detections):
            return None
        result = self._landmarker.detect(image)
        if not result.face_landmarks:
            return None
        side = place.pixels.shape[0]
        points = np.array([(point.x, point.y) for point in result.face_landmarks[0]]) * side
        low, high = points.min(0), points.max(0)
        inside = Box(low[0], low[1], high[0] - low[0], high[1] - low[1])
        scores = [
            detection.categories[0].score
            for detection in detections
            if _matches(detection.bounding_box, inside)
        ]
        if not inside.is_plausible() or not scores or max(scores) < score:
            return None
        shapes = [shape.score for shape in result.face_blendshapes[0]]
        pose = _pose(np.asarray(result.facial_transformation_matrixes[0]), place, pixels.shape[:2])
        values = np.array([*shapes, *pose], np.float32)
        return Face(inside.shifted(place.x, place.y), max(scores), values)

    def _image(self, place: Crop) -> Any:
        return self._mediapipe.Image(self._mediapipe.ImageFormat.SRGB, place.pixels)


def _close(*tasks: Any) -> None:
    """Close MediaPipe's tasks before the interpreter takes their library away."""
    for task in tasks:
        try:
            task.close()
        except RuntimeError:  # at exit, MediaPipe's threads have ended before
            task._handle = None


def _camel_case(name: str) -> str:
    """
    >>> _camel_case("BROW_DOWN_LEFT")
    'browDownLeft'
    """
    first, *rest = name.lower().split("_")
    return first + "".join(map(str.capitalize, rest))


def _matches(found: Any, box: Box) -> bool:
    """Whether the detector's box and the landmarks' box show the same face."""
    return Box(found.origin_x, found.origin_y, found.width, found.height).continues(box)


def _pose(matrix: NDArray[np.float64], place: Crop, shape: tuple[int, ...]) -> tuple[float, ...]:
    """Angles and position of a head.

    The model sees a square of the picture as if it were the whole, by a camera of its own; the position is
    converted to the camera of the whole picture, the angles stay relative to the line of sight.

    Args:
        matrix: 4×4 pose in the square's camera, in cm; x to the right, y up, z towards the viewer.
        place: the square.
        shape: height and width of the picture.

    Returns:
        yaw, pitch, roll in degrees; x, y, z in cm.
    """
    rotation, (x, y, z) = matrix[:3, :3], matrix[:3, 3]
    yaw = np.degrees(np.arctan2(-rotation[2, 0], np.hypot(rotation[2, 1], rotation[2, 2])))
    pitch = np.degrees(np.arctan2(rotation[2, 1], rotation[2, 2]))
    roll = np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0]))
    height, width = shape[:2]
    side = place.pixels.shape[0]
    depth = -z * height / side
    right = place.x + side / 2 - width / 2
    down = place.y + side / 2 - height / 2
    across = depth * (x / -z * side / height + right / (height * FOCAL_LENGTH))
    up = depth * (y / -z * side / height - down / (height * FOCAL_LENGTH))
    return float(yaw), float(pitch), float(roll), float(across), float(up), float(-depth)
