"""The app: its verbs, and what becomes of an error.

Exit codes: 0 done; 1 the input, the config or the machine does not allow it (one line says why), or a check found
what it looks for; 2 the command line itself cannot be read; 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mllmrec.errors import MllmrecError
from mllmrec_cli import (
    compare,
    console,
    data,
    diagnose,
    export,
    generations,
    interrupts,
    measure,
    report,
    show,
    stages,
    study,
    upkeep,
)

EXIT_CODES = (
    "Exit codes: 0 done; 1 refused, one line says why and what to do, or a check (audit, doctor, cache verify) found "
    "what it looks for; 2 the command line cannot be read; 130 interrupted.\n\n"
    "Example: mllmrec prepare shop --out dataset && mllmrec run dataset --out run && mllmrec show run"
)

app = typer.Typer(
    name="mllmrec",
    help="Multimodal recommendation by MLLM reasoning: catalogue in, recommendations out.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
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


data.register(app)
export.register(app)
stages.register(app)
compare.register(app)
study.register(app)
show.register(app)
diagnose.register(app)
report.register(app)
measure.register(app)
upkeep.register(app)
generations.register(app)


def main() -> None:
    """Entry point of the `mllmrec` command."""
    interrupts.listen()
    console.never_fail_to_print()
    try:
        app(prog_name="mllmrec")
    except interrupts.Interrupted as interrupted:
        console.err.print(console.plain(": ".join(["interrupted", *map(str, interrupted.args)])), soft_wrap=True)
        sys.exit(130)
    except Exception as error:
        if not _expected(error):
            raise
        console.err.print(console.plain(f"error: {console.one_line(str(error))}"), style="red", soft_wrap=True)
        sys.exit(1)


def _expected(error: Exception) -> bool:
    """Whether the error was raised on purpose."""
    if isinstance(error, MllmrecError):
        return True
    from mllmrec_kernels.base.errors import KernelError  # the kernels load for seconds: not before they are needed

    return isinstance(error, KernelError)
