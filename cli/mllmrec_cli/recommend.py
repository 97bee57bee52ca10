"""The verb `recommend`: the last stage of a run, and lists for users and items that a finished run does not know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllmrec_cli import console
from mllmrec_cli.options import Assignments, Cache, ConfigFile, Json, Quiet
from mllmrec_cli.stages import report_run, run_stages

if TYPE_CHECKING:
    from polars import DataFrame

    from mllmrec.recommend import Recommendations
    from mllmrec.serving.new_items import PlacedItems

_SHOWN = 10  # rows of a table that the terminal shows
_Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FOLDER", help="Run folder of DATASET; or the folder that lists go to."),
]
_Users = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Interactions of users whom RUN does not know: lists for them.")
]
_About = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What is known of users without history: user, and text or categories."),
]
_Items = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Items that RUN does not know: whom to show them to, and similar items."),
]
_Columns = Annotated[
    list[str] | None,
    typer.Option(metavar="ROLE=COLUMN", help="Name a column of FILE: user=customer. May be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="recommend", rich_help_panel=console.METHOD)(_recommend)


def _recommend(
    source: Annotated[
        Path, typer.Argument(metavar="DATASET|RUN", help="A dataset folder; or, for --users, a finished run's.")
    ],
    out: _Out = None,
    users: _Users = None,
    about: _About = None,
    items: _Items = None,
    column: _Columns = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    cache: Cache = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write top-N lists for users, and similar items.

    Of a DATASET: for all its users, after the earlier stages.
    Of a RUN with --users: for the users of a file, at once; nothing is trained.
    Of a RUN with --about: for users without history, by a text or categories.
    Of a RUN with --items: the items of a file are described and encoded, and
    placed among its own.

    Example: mllmrec recommend run --users new.csv --out lists
    """
    for_users = users is not None or about is not None
    if not for_users and items is None:
        if out is None:
            raise typer.BadParameter("DATASET needs --out RUN; a RUN needs --users, --about or --items FILE")
        artefacts = run_stages(source, out, config, assignments or [], cache, "recommend", quiet=quiet or json)
        report_run(artefacts, out, "recommend", json=json, quiet=quiet)
        return
    if out is None or (for_users and items):
        raise typer.BadParameter("name the folder of the lists, --out FOLDER, and files of users or of items, not both")
    from mllmrec.dataset import parse_columns
    from mllmrec.runs import Run
    from mllmrec.serving import run_config, save_lists
    from mllmrec.serving.new_items import serve_new_items
    from mllmrec.serving.new_users import serve_new_users

    run, columns = Run(source), parse_columns(column or [])
    settings = run_config(run, config, assignments or [])
    lists: Recommendations | PlacedItems
    with console.progress(quiet=quiet or json) as hook:
        if for_users:
            lists, notes = serve_new_users(run, users, about, columns, settings, hook)
        else:
            assert items is not None
            lists, notes = serve_new_items(run, items, columns, settings, cache, hook)
    files = save_lists(lists, out, leaky=run.leaky)
    if json:
        console.print_json({"files": [str(file) for file in files], "notes": notes})
    else:
        _print(files, notes, None if quiet else lists.users)


def _print(files: Sequence[Path], notes: Sequence[str], table: DataFrame | None) -> None:
    """Print the notes, the first rows of a table if there is one, and the files."""
    for note in notes:
        console.say(note)
    if table is not None:
        rows = [
            [f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row]
            for row in table.head(_SHOWN).iter_rows()
        ]
        title = f"the first {len(rows)} of {len(table):,} rows"
        console.out.print(console.table(title, table.columns, rows))
    for file in files:
        console.say(str(file))
