"""The verb `audit`, with its sub-verb `leak`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from mllmrec_cli import console
from mllmrec_cli.options import Json, Run, Seed

if TYPE_CHECKING:
    from mllmrec.audit.leak import LeakAudit

_audit = typer.Typer(no_args_is_help=True, help="Check a run for leaks of held-out items.")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(_audit, name="audit", rich_help_panel=console.JUDGE)


@_audit.command(name="leak")
def _leak(run: Run, seed: Seed = 0, json: Json = False) -> None:
    """Report whether a run's profiles contain held-out items; exit code 1 if they do.

    Example: mllmrec audit leak run
    """
    from mllmrec.report import audits

    with console.progress(quiet=json) as hook:
        result = audits.audit_run(run, seed=seed, progress=hook)
    if json:
        console.print_json(asdict(result) | {"leaking": result.leaking, "sentence": result.sentence})
    else:
        _print(result)
    if result.leaking:
        console.err.print(console.plain(f"leak: {result.sentence}"), style="red", soft_wrap=True)
        raise typer.Exit(1)


def _print(result: LeakAudit) -> None:
    rows = [
        (
            known.name,
            f"{known.users:,}",
            f"{known.margin:.4f}",
            f"{known.reference:.4f}",
            f"{known.surplus:.4f}",
            str(known.index or ""),
        )
        for known in result.splits
    ]
    columns = ("split", "users", "margin", "leak-free", "surplus", "leak index")
    console.out.print(console.table("cosines over never-seen items as popular", columns, rows))
    if not result.leaking:
        style = "green" if result.measured == "leak-free" else "yellow"
        console.out.print(console.plain(result.sentence, style))
