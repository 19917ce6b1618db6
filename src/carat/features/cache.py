"""Extracted features on disk, by content of the media file and description of the extractor."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from math import ceil
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from carat.features.description import Description
from carat.features.extractor import Extractor, FeatureSequence, open_extractor
from carat.features.media import Media
from carat.utils.errors import DataError
from carat.utils.files import replace_file
from carat.utils.parallel.pool import run_tasks
from carat.utils.parallel.tasks import Engine, Report, TaskFunction
from carat.utils.progress import progress, track
from carat.utils.reading import hash_unchanged

FOLDER = "CARAT_CACHE"
"""Environment variable with the folder of the cache; defaults to `~/.cache/carat`."""
EXTRA = "extra/"
"""Prefix of further arrays of a sequence."""


class FeatureCache:
    """Features of media files, each extracted once.

    Args:
        description: extractor and parameters.
        folder: folder of the cache; defaults to `$CARAT_CACHE` or `~/.cache/carat`.
    """

    def __init__(self, description: Description, folder: Path | None = None) -> None:
        self.description = description
        root = folder or Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "carat")
        self.folder = root / "features" / description.id.replace(":", "-")

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

    def extract_all(
        self,
        files: Sequence[Path],
        *,
        workers: int = 1,
        engine: Engine = "local",
        address: str | None = None,
    ) -> Mapping[Path, str]:
        """Extract the features of the files that are not in the cache, in parallel.

        A file that cannot be decoded does not stop the others. After an interruption, what is extracted is
        kept.

        Args:
            files: media files.
            workers: number of files at a time.
            engine: processes of this machine, or Ray.
            address: address of a Ray cluster.

        Returns:
            One-line problems of the files that failed.
        """
        problems: dict[Path, str] = {}
        pending = []
        for file in dict.fromkeys(files):
            try:
                self.read(file)
            except KeyError:
                pending.append(file)
            except DataError as error:
                problems[file] = str(error)
        if not pending:
            return problems
        root = self.folder.parent.parent
        results = run_tasks(
            prepare_worker, (self.description, root), pending, workers, engine=engine, address=address
        )
        with closing(results):
            name = f"Extracting {self.description.extractor}"
            for result in track(results, name, total=len(pending)):
                if result.problem:
                    problems[pending[result.index]] = result.problem
        return problems

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


def prepare_worker(description: Description, root: Path) -> TaskFunction:
    """Load the extractor once per worker process; the returned function extracts one file."""
    extractor, cache = open_extractor(description), FeatureCache(description, root)

    def work(file: Path, report: Report) -> None:
        cache.extract(extractor, file)

    return work
