"""The server as an application of Ray Serve: replicas on many machines, behind Ray's HTTP proxies.

from ray import serve

serve.run(ray_app(["/shared/my-run"], replicas=4))
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carat.serve.settings import Settings
from carat.utils.errors import RunError


def ray_app(
    runs: Sequence[str | os.PathLike[str]],
    settings: Settings | None = None,
    *,
    replicas: int = 1,
    cpus: float = 1.0,
    gpus: float = 0.0,
) -> Any:
    """Make an application of Ray Serve with the page and the API of `carat serve`, without clips.

    Ray's proxies listen where `serve.start` says, by default on 127.0.0.1 of every machine. Without a token,
    and unless `insecure` is set, requests from other machines are refused wherever the proxies listen.

    Args:
        runs: finished runs, see `carat.load`; the first one is the default. Every machine of the cluster
            reads them: folders must be on a shared file system, and runs on the hub are downloaded by each.
        settings: settings of the server. Limits of what waits hold for every replica; the port is Ray's.
        replicas: number of processes, each with its own copy of the runs.
        cpus: cores of a replica.
        gpus: GPUs of a replica; may be a fraction.

    Returns:
        Application for `ray.serve.run`.

    Raises:
        ConfigError: the settings are unsafe, or no run is given.
        RunError: a run does not exist, or an extra is not installed.
    """
    from carat.serve.server import require_extra

    settings = settings or Settings()
    settings.check()
    require_extra()
    from carat.serve.replica import make_builder
    from carat.serve.served_run import find_runs

    try:
        from ray import serve
    except ImportError as error:
        raise RunError("Ray Serve is not installed: pip install 'carat-emotion[ray,serve]'") from error
    sources = resolve_runs(runs)
    find_runs(sources)

    deployment = serve.deployment(
        name="carat",
        num_replicas=replicas,
        max_ongoing_requests=settings.limits.max_waiting,
        max_queued_requests=settings.limits.max_waiting,
        graceful_shutdown_timeout_s=settings.limits.shutdown_seconds,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        logging_config={"enable_access_log": False},
    )
    return deployment(serve.ingress(make_builder(sources, settings))(Replica)).bind()


class Replica:
    """A process that scores requests, to which Ray adds the application."""


def resolve_runs(runs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Names of runs that mean the same on other machines: absolute folders, and names as they are.

    Raises:
        RunError: a folder has no finished run.
    """
    from carat.runs.folder import CARD
    from carat.runs.hub import parse_name
    from carat.runs.locating import shipped_runs

    names = []
    for run in runs:
        folder = Path(run)
        if parse_name(run) is not None or (str(run) in shipped_runs() and not folder.exists()):
            names.append(str(run))
            continue
        if not (folder / CARD).is_file():
            raise RunError(f"{folder}: no finished run")
        names.append(str(folder.absolute()))
    return names
