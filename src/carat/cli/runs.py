"""`carat list` and `carat push`: runs on this machine and on the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from carat.cli.app import AsJson, app
from carat.utils.logging import logger


@app.command(name="list")
def list_(folder: Path = Path(), /, *, as_json: AsJson = False) -> None:
    """List finished runs: those in a folder, those that carat comes with, and downloaded ones.

    **Examples**

        carat list

        carat list experiments --json

    Parameters
    ----------
    folder
        Folder to search, three levels deep; the current one by default.
    """
    from carat.cli.tables import show_json
    from carat.runs.listing import list_runs
    from carat.utils.errors import shorten
    from carat.utils.tables import Table

    runs = list_runs(folder)
    if as_json:
        show_json([asdict(run) for run in runs])
        return
    if not runs:
        logger.info(f"no runs in {folder.resolve()}; train one with `carat train`")
        return
    rows = [
        [
            run.name,
            run.method or shorten(run.problem, 60),
            ", ".join(run.modalities),
            shorten(", ".join(run.labels), 60),
            run.micro_f1,
        ]
        for run in runs
    ]
    columns = ["run", "method", "modalities", "labels", "valid micro-F1"]
    Table(columns, rows, digits=3).show(align="left")


@app.command
def push(
    run: Path,
    to: str,
    /,
    *,
    public: Annotated[bool, Parameter(negative=())] = False,
    message: str = "Upload a run of carat",
) -> None:
    """Upload a finished run to the Hugging Face Hub: weights, card, experiment and documents, nothing else.

    Others use it by its name: `carat predict hf://owner/name …`. The access token is that of `hf auth login`
    or of HF_TOKEN. Needs `pip install 'carat-emotion[hub]'`.

    **Examples**

        carat push demo-run hf://me/demo-run

        carat push demo-run hf://me/demo-run --public --message "First version"

    Parameters
    ----------
    run
        Folder of the run.
    to
        Name on the hub, `hf://owner/name`; with `@branch`, an existing branch.
    public
        Create a public repository; a new one is private by default.
    message
        Message of the commit.
    """
    from carat.runs.hub import push as upload

    logger.info(f"run → {upload(run, to, private=not public, message=message)}")
