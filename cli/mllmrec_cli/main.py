"""The app: its verbs, and what becomes of an error.

Exit codes: 0 done; 1 the input, the config or the machine does not allow it (one line says why); 2 the
command line itself cannot be read; 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer
from mllmrec_kernels.errors import KernelError

from mllmrec.errors import MllmrecError
from mllmrec_cli import compare, data, diagnose, generations, inspect, measure, stages
from mllmrec_cli.console import err

app = typer.Typer(
    name="mllmrec",
    help="Multimodal recommendation by MLLM reasoning: catalogue in, recommendations out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        from mllmrec import __version__

        typer.echo(f"mllmrec {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


data.register(app)
stages.register(app)
compare.register(app)
inspect.register(app)
measure.register(app)
diagnose.register(app)
app.add_typer(generations.app)


class _InterruptedError(BaseException):
    """Ctrl-C; not a KeyboardInterrupt, which typer would swallow without a word."""


def _interrupt(*_: object) -> None:
    raise _InterruptedError


def main() -> None:
    """Entry point of the `mllmrec` command."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except (MllmrecError, KernelError) as error:
        err.print(f"error: {' '.join(str(error).split())}", markup=False, style="red", soft_wrap=True)
        sys.exit(1)
    except _InterruptedError:
        err.print("interrupted; the same command goes on where this one stopped", markup=False)
        sys.exit(130)
