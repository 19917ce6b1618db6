"""The application, and what its commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import App, Parameter

from carat.config.base import merge, read_yaml
from carat.config.baselines import METHOD_SECTIONS
from carat.config.experiment import Experiment, SharedSettings, experiment_with, load_experiment
from carat.config.renamed import RENAMED
from carat.utils.errors import ConfigError
from carat.utils.version import version

app = App(
    name="carat",
    help="""Which emotions, several at once, does a person show in speech, face and words?

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
Options = Annotated[Experiment | None, Parameter(name="*")]
"""Every field of an experiment as an option; `offer` says of which method."""

Shared = Annotated[SharedSettings | None, Parameter(name="*")]
"""What several methods can have in common, as options."""

F = TypeVar("F", bound=Callable[..., None])
_COMMANDS: list[Callable[..., None]] = []


def takes_experiment(command: F) -> F:
    """Marks a command whose parameter `experiment` is `Options`."""
    _COMMANDS.append(command)
    return command


def named_method(arguments: Sequence[str]) -> str:
    """The method that a command line or its experiment file names, CARAT otherwise; an unknown one too."""
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
        except ConfigError:  # said again where the file is read in earnest
            return "carat"
        named = section if isinstance(section, str) else (section or {}).get("name", "")
    return named if named in METHOD_SECTIONS else "carat"


def offer(method: str) -> None:
    """Give the commands that take an experiment the options of this method."""
    for command in _COMMANDS:
        options = Annotated[experiment_with(method) | None, Parameter(name="*")]  # type: ignore[valid-type]
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
