"""Arguments and options that several verbs share, each declared once: the same thing has the same name everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def complete_settings(incomplete: str) -> list[str]:
    """Return keys of the config, as --set takes them."""
    from mllmrec.config import keys

    return [f"{key}=" for key in keys() if key.startswith(incomplete)]


def complete_models(incomplete: str) -> list[str]:
    """Return names of models to compare, after the last comma."""
    from mllmrec.experiments.entries import GROUPS, all_entries

    before, comma, last = incomplete.rpartition(",")
    names = [*(entry.name for entry in all_entries()), *GROUPS]
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


Dataset = Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder, made by mllmrec prepare.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, made by mllmrec run.")]
RunOut = Annotated[
    Path, typer.Option("--out", "-o", metavar="RUN", help="Run folder; an interrupted run goes on there.")
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to write.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="TOML file of settings; see mllmrec config.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="One setting, such as graph.threshold=0.5. May be repeated.",
        autocompletion=complete_settings,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="FILE", help="Generation cache; by default $MLLMREC_CACHE, or the user's own for all runs."
    ),
]
On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="ENGINE",
        help="Compute in blocks of rows: local (processes here), ray, or ray://HOST:PORT. Default: in this process.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of what is drawn at random.")]
Page = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="The page's path. Default: in RUN/inspect.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables.")]
