"""Extracted features on disk, by content of the media file and description of the extractor."""

from __future__ import annotations

import io
import os
from math import ceil
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from carat.features.description import Description
from carat.features.extractor import Extractor, FeatureSequence
from carat.features.media import Media
from carat.utils.files import replace_file
from carat.utils.progress import progress
from carat.utils.reading import hash_unchanged

FOLDER = "CARAT_CACHE"
"""Environment variable with the folder of the cache; defaults to `~/.cache/carat`."""
EXTRA = "extra/"
"""Prefix of further arrays of a sequence."""


def cache_folder() -> Path:
    """Folder of the cache: `$CARAT_CACHE` or `~/.cache/carat`."""
    return Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "carat")


class FeatureCache:
    """Features of media files, each extracted once.

    Args:
        description: extractor and parameters.
        folder: folder of the cache; defaults to `cache_folder()`.
    """

    def __init__(self, description: Description, folder: Path | None = None) -> None:
        self.description = description
        self.folder = (folder or cache_folder()) / "features" / description.id.replace(":", "-")

    def read(self, media: Path) -> FeatureSequence | None:
        """Read the features of a media file; None if it has no sound, or no pictures.

        Raises:
            KeyError: they are not in the cache.
            DataError: the media file cannot be read.
        """
        file = self._file(media)
        if not file.is_file():
            raise KeyError(str(media))
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
                arrays = dict(stored)
            if not arrays["present"]:
                return None
            return FeatureSequence(
                arrays["values"],
                arrays["times"],
                float(arrays["rate"]),
                int(arrays["steps"]),
                {name.removeprefix(EXTRA): x for name, x in arrays.items() if name.startswith(EXTRA)},
            )
        except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile) as error:
            # damaged: extracted again
            file.unlink(missing_ok=True)
            raise KeyError(str(media)) from error

    def extract(self, extractor: Extractor, media: Path | Media) -> FeatureSequence | None:
        """Return the features of a media file, which may be open, from the cache or extracted now.

        Raises:
            DataError: the file cannot be decoded.
        """
        file = media.file if isinstance(media, Media) else media
        try:
            return self.read(file)
        except KeyError:
            features = extract(extractor, self.description.extractor, media)
            self._write(file, features)
            return features

    def has(self, media: Path) -> bool:
        """Whether the features of a media file are in the cache, undamaged.

        Raises:
            DataError: the media file cannot be read.
        """
        try:
            self.read(media)
        except KeyError:
            return False
        return True

    def _file(self, media: Path) -> Path:
        digest = hash_unchanged(media)
        return self.folder / digest[:2] / f"{digest}.npz"

    def _write(self, media: Path, features: FeatureSequence | None) -> None:
        arrays: dict[str, object] = {"present": features is not None}
        if features is not None:
            arrays |= {"values": features.values, "times": features.times}
            arrays |= {"rate": features.rate, "steps": features.steps}
            arrays |= {f"{EXTRA}{name}": x for name, x in features.extra.items()}
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]  # numpy's stub is wrong
        replace_file(self._file(media), content.getbuffer())


def extract(extractor: Extractor, name: str, file: Path | Media) -> FeatureSequence | None:
    """Return the features of a media file, with progress in seconds; None if it lacks what they are made of.

    Args:
        extractor: makes the features.
        name: its name, for the progress bar.
        file: media file, which may be open.

    Raises:
        DataError: the file cannot be decoded.
    """
    if isinstance(file, Path):
        with Media(file) as opened:
            return extract(extractor, name, opened)
    total = file.info.duration
    with progress(f"{file.file.name}, {name}, seconds", None if total is None else ceil(total)) as update:
        file.on_time = lambda seconds: update(int(seconds))
        return extractor.extract(file)
