"""The app: its verbs, its errors, and its exit codes.

Exit codes: 0 done; 1 the input, the config or the machine does not allow it (one line says why), or a check found
what it looks for; 2 the command line itself cannot be read; 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from mllmrec.errors import ConfigError, InputError, MllmrecError
from mllmrec_cli import (
    bench,
    compare,
    console,
    data,
    generations,
    inspect,
    recommend,
    show,
    stages,
    upkeep,
)

EXIT_CODES = (
    "Exit codes: 0 done; 1 refused (one line says why and what to do), or a check (audit, doctor, cache verify) found "
    "a problem; 2 wrong command line; 130 interrupted.\n\n"
    "Example: mllmrec prepare shop --out dataset && mllmrec run dataset --out run && mllmrec show run"
)

_THREAD_VARIABLES = ("NUMBA_NUM_THREADS",)  # only Numba fails on what is no number; the others count it as unset

app = typer.Typer(
    name="mllmrec",
    help="Multimodal recommendation by MLLM reasoning: catalogue in, recommendations out.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(requested: bool) -> None:
    if requested:
        from mllmrec.foundation.environment import version_line

        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the versions and stop.")
    ] = False,
) -> None:
    pass


for verbs in (data, stages, recommend, compare, show, inspect, bench, upkeep, generations):
    verbs.register(app)


def main() -> None:
    """Run the `mllmrec` command and exit with its code."""
    console.listen()
    console.never_fail_to_print()
    sys.exit(_close_output(_run()))


def _run() -> int | str | None:
    try:
        _check_surroundings()
        app(prog_name="mllmrec")
    except SystemExit as ended:
        return ended.code
    except console.Interrupted as interrupted:
        console.err.print(console.plain(": ".join(["interrupted", *map(str, interrupted.args)])), soft_wrap=True)
        return 130
    except OSError as error:
        return _refuse(_explain(error))
    except Exception as error:
        if not _expected(error):
            raise
        return _refuse(str(error))
    return 0


def _refuse(reason: str) -> int:
    console.err.print(console.plain(f"error: {console.one_line(reason)}"), style="red", soft_wrap=True)
    return 1


def _output_error() -> OSError | None:
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def _close_output(code: int | str | None) -> int | str | None:
    """Flush what is printed; a full disk behind the standard output is one line, and exit code 1."""
    if error := _output_error():
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        if error.errno != errno.EPIPE and code in (0, None):
            return _refuse(f"cannot write to the standard output: {error.strerror}")
    return code


def _check_surroundings() -> None:
    """Refuse arguments and variables that no verb can work with.

    Raises:
        InputError: an argument is not UTF-8.
        ConfigError: a number of threads is not 1 or more.
    """
    for word in sys.argv[1:]:
        if any("\ud800" <= c <= "\udfff" for c in word):
            raise InputError(f"the argument {word!a} is not valid UTF-8; rename the file")
    for name in _THREAD_VARIABLES:
        value = os.environ.get(name, "").strip()
        if value and not (value.isascii() and value.isdigit() and int(value) > 0):
            raise ConfigError(f"{name}={value!r} is no number of threads; set it to 1 or more, or unset it")


def _expected(error: Exception) -> bool:
    """Tell whether the error was raised on purpose."""
    if isinstance(error, MllmrecError):
        return True
    from mllmrec_kernels import KernelError  # the kernels load for seconds: not before they are needed

    return isinstance(error, KernelError)


def _explain(error: OSError) -> str:
    where = error.filename or "cannot write to the standard output, or to a file"
    return f"{where}: {error.strerror or error}"
