"""`carat serve`: a web page and an HTTP API for finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from carat.cli.app import app
from carat.serve.settings import Limits, Settings

LIMITS = Group("Limits", sort_key=2)


@app.command
def serve(
    *runs: Path,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))] = 8000,
    token: Annotated[str, Parameter(env_var="CARAT_TOKEN")] = "",
    insecure: Annotated[bool, Parameter(negative=())] = False,
    allow_host: Annotated[list[str] | None, Parameter(negative=())] = None,
    workers: Annotated[int, Parameter(validator=Number(gte=1, lte=64))] = 1,
    limits: Annotated[Limits | None, Parameter(name="*", group=LIMITS)] = None,
) -> None:
    """Serve runs on a web page and as an HTTP API, on this machine only unless told otherwise.

    Open the address in a browser: type text, drop a recording, or record one; see every emotion's score.
    Nothing leaves this machine, and uploads are deleted after they are scored. The API is described at
    /openapi.json, and `carat.Client` uses it from Python. Needs: pip install 'carat-emotion[serve]'.

    **Examples**

        carat serve my-run

        carat serve my-run other-run --port 8080

        CARAT_TOKEN=$(openssl rand -hex 16) carat serve my-run --host 0.0.0.0

        carat serve my-run --workers 4 --max-clip-mb 100

    Parameters
    ----------
    runs
        Folders created by `carat train`; the first one is the default.
    host
        Address to listen on; 0.0.0.0 for all networks of this machine, which needs a token.
    port
        TCP port; 0 for a free one.
    token
        What clients must send as a bearer token, 16 characters or more; better given as CARAT_TOKEN than on
        the command line, which other users of the machine can see.
    insecure
        Let other machines use the server without a token.
    allow_host
        Further names by which clients may address the server, such as that of a proxy.
    workers
        Number of server processes, each with its own copy of the runs.
    """
    from carat.serve.server import serve as run_server

    settings = Settings(host, port, token, insecure, tuple(allow_host or ()), limits or Limits())
    run_server(runs, settings, workers=workers)
