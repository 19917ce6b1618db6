"""`carat serve`: a web page and an HTTP API for finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from carat.cli.app import app
from carat.cli.scores import ScoreArguments
from carat.serve.settings import Limits, Settings


@Parameter(name="*", group=Group("Access", sort_key=1))
@dataclass(frozen=True)
class Access:
    """Where the server listens, and who may use it."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all networks of this machine, which needs a token."""
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))] = 8000
    """TCP port; 0 for a free one."""
    token: Annotated[str, Parameter(env_var="CARAT_TOKEN")] = ""
    """What clients must send as a bearer token, 16 characters or more; better given as CARAT_TOKEN than on
    the command line, which other users of the machine can see."""
    insecure: Annotated[bool, Parameter(negative=())] = False
    """Let other machines use the server without a token."""
    allow_host: Annotated[list[str] | None, Parameter(negative=())] = None
    """Further names by which clients may address the server, such as that of a proxy."""


LIMITS = Group("Limits", sort_key=2)


@app.command
def serve(
    *runs: Path,
    access: Access | None = None,
    workers: Annotated[int, Parameter(validator=Number(gte=1, lte=64))] = 1,
    limits: Annotated[Limits | None, Parameter(name="*", group=LIMITS)] = None,
    scores: ScoreArguments | None = None,
) -> None:
    """Serve runs on a web page and as an HTTP API, on this machine only unless told otherwise.

    Open the address in a browser: type text, drop a recording, or record one; see every emotion's score.
    Nothing leaves this machine, and uploads are deleted after they are scored. The API is described at
    /openapi.json, and `carat.Client` uses it from Python. Needs: pip install 'carat-emotion[serve]'.

    **Examples**

        carat serve

        carat serve my-run

        carat serve my-run other-run --port 8080

        CARAT_TOKEN=$(openssl rand -hex 16) carat serve my-run --host 0.0.0.0

        carat serve my-run --risk .1

        carat serve my-run --workers 4 --max-clip-mb 100

    Parameters
    ----------
    runs
        Folders created by `carat train`, or names (english-text, hf://owner/name@revision); the first one is
        the default. Without any, the run that carat comes with is served.
    workers
        Number of server processes, each with its own copy of the runs.
    """
    from carat.serve.server import serve as run_server

    access, options = access or Access(), (scores or ScoreArguments()).options
    names = tuple(access.allow_host or ())
    settings = Settings(
        access.host, access.port, access.token, access.insecure, names, limits or Limits(), options
    )
    run_server(runs, settings, workers=workers)
