"""The application, and what its commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

from carat.config.base import merge, read_yaml
from carat.config.experiment import Experiment, SharedSettings, experiment_with, load_experiment
from carat.config.methods import METHODS, method_names
from carat.config.renamed import RENAMED
from carat.utils.errors import ConfigError
from carat.utils.logging import logger
from carat.utils.version import version

app = App(
    name="carat",
    help="""Multimodal, multi-label emotion recognition from text, audio and video.

    Start: `carat data synth demo-store`, then `carat train --preset small --data demo-store --out demo-run`,
    then `carat evaluate demo-run --data demo-store`.

    Errors are one line; `--debug` with any command shows the traceback too.
    """,
    version=f"carat {version()}",
    help_format="markdown",
    default_parameter=Parameter(consume_multiple=True),
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command()

Overwrite = Annotated[bool, Parameter(help="Replace what is there.", negative=())]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON instead of tables.", negative=())]
Workers = Annotated[int | None, Parameter(validator=Number(gte=1))]
"""A number of processes; see `cores`."""

EXPERIMENT = Group(
    "Experiment", sort_key=9, help="Keys of an experiment file; options take precedence over it."
)
Options = Annotated[Experiment | None, Parameter(name="*", group=EXPERIMENT)]
"""Every field of an experiment as an option; `offer` sets the method."""

Shared = Annotated[SharedSettings | None, Parameter(name="*", group=EXPERIMENT)]
"""Settings that all methods have, as options."""

RENAMED_OPTIONS = {"convert": {"--layout": "--trained-on"}}
"""By command, options of carat 0.1 under their current names; they work until the next release."""

F = TypeVar("F", bound=Callable[..., None])
_COMMANDS: list[Callable[..., None]] = []


def takes_experiment(command: F) -> F:
    """Marks a command whose parameter `experiment` is `Options`."""
    _COMMANDS.append(command)
    return command


def named_method(arguments: Sequence[str]) -> str:
    """The method that a command line or its experiment file names; CARAT if none or an unknown one."""
    named, file = "", ""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        key, _, value = argument.partition("=")
        if key in ("--method", "--method.name"):
            named = value or following
        elif not argument.startswith("-") and argument.endswith((".yaml", ".yml")):
            file = argument
    if not named and file:
        try:
            section = read_yaml(file).get("method")
        except ConfigError:  # raised again where the file is read in earnest
            return "carat"
        named = section if isinstance(section, str) else (section or {}).get("name", "")
    return named if named in METHODS or (named and named in method_names()) else "carat"


def offer(method: str) -> None:
    """Give the commands that take an experiment the options of this method.

    Raises:
        ConfigError: the package that offers the method fails.
    """
    for command in _COMMANDS:
        fields = experiment_with(method)
        options = Annotated[fields | None, Parameter(name="*", group=EXPERIMENT)]  # type: ignore[valid-type]
        command.__annotations__["experiment"] = options


def refuse_renamed(arguments: Sequence[str]) -> None:
    """Name the current option for one of an earlier version.

    Raises:
        ConfigError: an option was renamed.
    """
    for argument in arguments:
        key = argument.partition("=")[0].removeprefix("--")
        if argument.startswith("--") and key in RENAMED and RENAMED[key].key != key:
            raise ConfigError(f"--{key} is now --{RENAMED[key].key}")


def rename_options(arguments: Sequence[str]) -> list[str]:
    """Replace options of an earlier version by their current names, each with a notice."""
    names = RENAMED_OPTIONS.get(arguments[0], {}) if arguments else {}
    renamed = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key in names:
            logger.warning(f"note: {key} is now {names[key]}; the earlier name works until the next release")
        renamed.append(names.get(key, key) + equals + value)
    return renamed


def resolve(
    file: Path | None,
    preset: str | None,
    options: Experiment | None,
    default: str = "",
    method: str | None = None,
) -> Experiment:
    """Preset, experiment file and command line; `default` is the preset where none of them names one."""
    overrides = options.model_dump(exclude_unset=True) if options else {}
    if method is not None:
        overrides = merge(overrides, {"method": {"name": method}})
    named = file is not None and "preset" in read_yaml(file)
    return load_experiment(file, preset=preset or (None if named else default), overrides=overrides)


def cores(workers: int | None) -> int:
    """The number of worker processes: as many as there are cores, unless it was given."""
    return workers or os.cpu_count() or 1
