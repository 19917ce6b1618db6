"""The application, and what its commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from carat import __version__
from carat.config import Experiment, load_experiment
from carat.sections import read_yaml

app = App(
    name="carat",
    help="""Which emotions, several at once, does a person show in speech, face and words?

    Start: `carat data synth demo-store`, then `carat train --preset small --data demo-store --out demo-run`,
    then `carat evaluate demo-run --data demo-store`.

    Errors are one line; `--debug` with any command shows the traceback too.
    """,
    version=f"carat {__version__}",
    help_format="markdown",
    default_parameter=Parameter(consume_multiple=True),
)
app.register_install_completion_command()

Overwrite = Annotated[bool, Parameter(help="Replace what is there.", negative=())]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON instead of tables.", negative=())]
Options = Annotated[Experiment | None, Parameter(name="*")]
"""Every field of an experiment as an option."""


def resolve(
    file: Path | None, preset: str | None, options: Experiment | None, default: str = ""
) -> Experiment:
    """Preset, experiment file and command line; `default` is the preset where none of them names one."""
    overrides = options.model_dump(exclude_unset=True) if options else {}
    named = file is not None and "preset" in read_yaml(file)
    return load_experiment(file, preset=preset or (None if named else default), overrides=overrides)


def say(message: str) -> None:
    """A line for the person, beside what the command prints."""
    print(message, file=sys.stderr)
