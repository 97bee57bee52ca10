"""Verbs about the installation: config, doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.options import Assignments, ConfigFile, Json


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(name="config", rich_help_panel=console.UPKEEP)(_config)
    app.command(name="doctor", rich_help_panel=console.UPKEEP)(_doctor)


def _config(
    file: ConfigFile = None,
    assignments: Assignments = None,
    json: Json = False,
) -> None:
    """Print every setting as TOML: the defaults, overlaid by a file and by --set.

    Example: mllmrec config --set model.kind=ridge > settings.toml
    """
    from mllmrec.config import load_config, to_toml

    resolved = load_config(file, assignments or [])
    if json:
        console.print_json(resolved.model_dump(mode="json"))
    else:
        typer.echo(to_toml(resolved), nl=False)


def _doctor(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|DATASET]", help="Check this folder instead, as one from somebody else."),
    ] = None,
    json: Json = False,
) -> None:
    """Print versions, devices, backends, and what is missing or broken, with the fix.

    Add this to a bug report. With a folder: print why it would be refused, and
    whether other users can read it. Exit code 1 if something is wrong.

    Example: mllmrec doctor --json
    """
    if folder is not None:
        _examine_folder(folder, json=json)
        return
    from mllmrec.foundation.environment import describe_machine, examine

    findings = examine()
    machine = describe_machine()
    broken = any(finding.state == "broken" for finding in findings)
    if json:
        console.print_json({"machine": machine, "findings": [asdict(finding) for finding in findings]})
    else:
        facts = [(key.replace("_", " "), "", str(value)) for key, value in machine.items()]
        rows = facts + [(finding.what, finding.state, finding.detail) for finding in findings]
        console.out.print(console.table("mllmrec doctor", ("", "state", "detail"), rows, words=3))
    if broken:
        raise typer.Exit(1)


def _examine_folder(folder: Path, *, json: bool) -> None:
    from mllmrec.report.audits import examine_folder

    problems = examine_folder(folder)
    if json:
        console.print_json({"folder": str(folder), "problems": problems})
    else:
        for problem in problems:
            console.say(f"{folder}: {console.one_line(problem)}")
        if not problems:
            console.say(f"{folder}: nothing to refuse")
    if problems:
        raise typer.Exit(1)
