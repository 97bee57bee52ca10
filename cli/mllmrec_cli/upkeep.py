"""Verbs about the installation: config, doctor."""

from __future__ import annotations

from dataclasses import asdict

import typer

from mllmrec_cli import console
from mllmrec_cli.options import Assignments, ConfigFile, Json


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (config, doctor):
        app.command(rich_help_panel=console.UPKEEP)(verb)


def config(
    file: ConfigFile = None,
    assignments: Assignments = None,
    json: Json = False,
) -> None:
    """Print every setting as TOML: the defaults, overlaid by a file and by --set.

    Example: mllmrec config --set model.kind=ridge > mine.toml
    """
    from mllmrec.config import load_config, to_toml

    resolved = load_config(file, assignments or [])
    if json:
        console.print_json(resolved.model_dump(mode="json"))
    else:
        typer.echo(to_toml(resolved), nl=False)


def doctor(json: Json = False) -> None:
    """Print versions, devices, backends, and what is missing or broken, with the fix.

    A bug report wants this. Exit code 1 where something is broken.

    Example: mllmrec doctor --json
    """
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
