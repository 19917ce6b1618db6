"""The command-line interface."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import CycloptsError, MissingArgumentError, UnusedCliTokensError
from pydantic import ValidationError

from carat.cli import (  # noqa: F401  each registers its commands
    calibrate,
    data,
    ensemble,
    explain,
    export,
    models,
    monitor,
    predict,
    runs,
    serve,
    studies,
    train,
)
from carat.cli.app import app, named_method, offer, refuse_renamed, rename_options
from carat.cli.predict_clips import media_files
from carat.config.base import explain as explain_invalid
from carat.config.experiment import experiment_with
from carat.training.launched import forget_launcher, rendezvous_address, started_by_launcher
from carat.utils.errors import CaratError, ConfigError, Interrupted, is_out_of_memory, printable, shorten
from carat.utils.logging import drop_output, show_progress
from carat.utils.threads import wait_passively

offer("carat")  # the default; `main` repeats it for the method of the command line


def main() -> None:
    """Run the command line. Invalid input ends with a one-line error and exit code 2."""
    _prepare_environment()
    show_progress(force=True)
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    method = "carat"
    try:
        _check_arguments(arguments)
        _check_launcher()
        method = named_method(arguments)
        offer(method)
        refuse_renamed(arguments)
        app(rename_options(arguments), exit_on_error=False, print_error=False)
        _finish_output()
    except Interrupted as stop:
        print("carat: interrupted: the state is saved; the same command resumes", file=sys.stderr)
        sys.exit(128 + stop.number)
    except KeyboardInterrupt as stop:
        hint = ", ".join(map(str, stop.args)) or "the same command continues with what is not finished"
        print(f"carat: interrupted: {hint}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except (CaratError, CycloptsError, ValidationError, OSError) as error:
        if debug:
            traceback.print_exc()
        _fail(_one_line(error, method))
    except Exception as error:
        if debug:
            traceback.print_exc()
        if is_out_of_memory(error):
            _fail("out of memory; use a smaller model, smaller batches or fewer workers")
        _fail(
            f"unexpected {type(error).__name__}: {' '.join(str(error).split())}",
            more="; please report this fault of carat, with the output of the same command and --debug",
        )


def _prepare_environment() -> None:
    """Set what must not depend on the terminal: encoding errors, the backend of figures."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # another encoding than UTF-8 lacks characters
            stream.reconfigure(errors="backslashreplace")
    wait_passively()
    os.environ["MPLBACKEND"] = "agg"  # matplotlib refuses to be imported if it does not know the backend


def _finish_output() -> None:
    """Write what is buffered of the output, so that an error is reported.

    Raises:
        OSError: it cannot be written.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output(sys.stdout)
        raise
    except OSError as error:
        drop_output(sys.stdout)
        raise OSError(error.errno, error.strerror, "standard output") from error


def _check_launcher() -> None:
    """Raise ConfigError if torchrun or Slurm is said to have started this process, but not how."""
    if started_by_launcher() is None:
        forget_launcher()
    else:
        rendezvous_address()
        # PyTorch warns if a modality is absent in one of several processes
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raise ConfigError if an argument is not text."""
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"argument {number} is not valid UTF-8: {shorten(argument, 60)}") from error
        if "\0" in argument:
            raise ConfigError(f"argument {number} contains a NUL: {shorten(argument, 60)}")


def _fail(message: str, more: str = "") -> NoReturn:
    """Print an error as one line without control characters, and exit with code 2."""
    try:
        print(f"carat: error: {shorten(printable(message))}{more}", file=sys.stderr, flush=True)
    except OSError:  # the exit code still tells
        drop_output(sys.stderr)
    sys.exit(2)


def _one_line(error: Exception, method: str) -> str:
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.argument.name} is missing; see --help"
    if isinstance(error, UnusedCliTokensError) and (found := media_files(error.unused_tokens or ())):
        return f"{found[0]}: recordings are scored with --clip, e.g. --clip {found[0]} --out timelines"
    if isinstance(error, OSError):
        return f"{error.filename or 'system'}: {error.strerror or error}"
    cause: BaseException | None = None if isinstance(error, CaratError) else error
    while cause is not None:  # cyclopts wraps the errors of pydantic
        if isinstance(cause, ValidationError):
            return explain_invalid(cause, experiment_with(method))
        cause = cause.__cause__
    return " ".join(str(error).split())
