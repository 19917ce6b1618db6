"""The cyclopts application and helpers shared by its commands."""

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

    Errors are one line; add `--debug` to any command for the traceback.
    """,
    version=f"carat {version()}",
    help_format="markdown",
    default_parameter=Parameter(consume_multiple=True),
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command()

Overwrite = Annotated[bool, Parameter(help="Replace existing output.", negative=())]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON instead of tables.", negative=())]
Workers = Annotated[int | None, Parameter(validator=Number(gte=1, lte=1024))]
"""Number of processes; see `cores`."""

EXPERIMENT = Group(
    "Experiment", sort_key=9, help="Keys of an experiment file; options take precedence over it."
)
Options = Annotated[Experiment | None, Parameter(name="*", group=EXPERIMENT)]
"""Every field of an experiment as an option; `offer` sets the method."""

Shared = Annotated[SharedSettings | None, Parameter(name="*", group=EXPERIMENT)]
"""Settings shared by all methods, as options."""

RENAMED_OPTIONS = {"convert": {"--layout": "--trained-on"}}
"""By command, current names of renamed options of carat 0.1, which work until the next release."""

F = TypeVar("F", bound=Callable[..., None])
_COMMANDS: list[Callable[..., None]] = []


def takes_experiment(command: F) -> F:
    """Register a command whose parameter `experiment` has the type `Options`."""
    _COMMANDS.append(command)
    return command


def named_method(arguments: Sequence[str]) -> str:
    """Find the method of a command line or its experiment file; "carat" if none or unknown."""
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
        except ConfigError:  # raised again by the command
            return "carat"
        name = section.get("name") if isinstance(section, dict) else section
        named = name if isinstance(name, str) else ""  # anything else is refused by the command
    return named if named in METHODS or (named and named in method_names()) else "carat"


def offer(method: str) -> None:
    """Set the experiment options of all registered commands to those of a method.

    Raises:
        ConfigError: the package of the method cannot be imported.
    """
    for command in _COMMANDS:
        fields = experiment_with(method)
        options = Annotated[fields | None, Parameter(name="*", group=EXPERIMENT)]  # type: ignore[valid-type]
        command.__annotations__["experiment"] = options


def refuse_renamed(arguments: Sequence[str]) -> None:
    """Reject options that were renamed since an earlier version.

    Raises:
        ConfigError: an option was renamed; the message has its current name.
    """
    for argument in arguments:
        key = argument.partition("=")[0].removeprefix("--")
        if argument.startswith("--") and key in RENAMED and RENAMED[key].key != key:
            raise ConfigError(f"--{key} is now --{RENAMED[key].key}")


def rename_options(arguments: Sequence[str]) -> list[str]:
    """Replace deprecated options by their current names, and log each."""
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
    """Merge preset, experiment file and command line; `default` is the preset if none is given."""
    overrides = options.model_dump(exclude_unset=True) if options else {}
    if method is not None:
        overrides = merge(overrides, {"method": {"name": method}})
    file_has_preset = file is not None and "preset" in read_yaml(file)
    return load_experiment(file, preset=preset or (None if file_has_preset else default), overrides=overrides)


def cores(workers: int | None) -> int:
    """Number of worker processes; defaults to the number of cores."""
    return workers or os.cpu_count() or 1
