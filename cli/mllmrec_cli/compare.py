"""The verb `compare`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllmrec_cli import completion, console
from mllmrec_cli.interrupts import resumable
from mllmrec_cli.options import Assignments, Cache, ConfigFile, Dataset, Json, Quiet

if TYPE_CHECKING:
    from mllmrec.experiments import Result, Row, SplitTable


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="compare", rich_help_panel=console.JUDGE)(_compare)


def _compare(
    dataset: Dataset,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder; an interrupted comparison goes on there.")
    ],
    models: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Models to compare, separated by commas.",
            show_default="all but rivals",
            autocompletion=completion.models,
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each model that is trained.")] = 3,
    split: Annotated[
        str,
        typer.Option(
            metavar="RULE,RULE",
            help="Splits, a table each: random, user-time, leave-one-out, global-time, cold-items, given.",
            show_default="given, the dataset's own",
        ),
    ] = "",
    draws: Annotated[int, typer.Option(min=1, help="Draws of each split that is random; needs --split.")] = 1,
    cold_share: Annotated[
        float, typer.Option(min=0.001, max=0.499, help="Share of the items that cold-items hides for the test.")
    ] = 0.1,
    config: ConfigFile = None,
    assignments: Assignments = None,
    cache: Cache = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare models in one protocol: tuned on validation, several seeds, several splits and draws of them.

    Example: mllmrec compare dataset --out comparison --models ridge,ease --split random,cold-items --draws 3
    """
    from mllmrec.config import load_config
    from mllmrec.dataset import load

    resolved = load_config(config, assignments or [])
    from mllmrec.errors import InputError
    from mllmrec.experiments import choose_entries, compare_models, compare_splits

    entries, rules = choose_entries(_names(models)), _names(split)
    if rules:
        data = load(dataset)
        with resumable(), console.progress(quiet=quiet or json) as hook:
            tables = compare_splits(
                data, out, resolved, entries, rules,
                draws=draws, cold_share=cold_share, seeds=seeds, generations=cache, progress=hook,
            )  # fmt: skip
        if json:
            console.print_json([table.as_dict() for table in tables])
        elif not quiet:
            for table in tables:
                _print_split(table, draws)
            console.say(f"all of it: {out}")
        return
    if draws > 1:
        raise InputError("--draws needs --split, such as --split random: a dataset's own split is one draw")
    with resumable(), console.progress(quiet=quiet or json) as hook:
        result = compare_models(load(dataset), out, resolved, entries, seeds=seeds, generations=cache, progress=hook)
    if json:
        console.print_json(result.as_dict())
    elif not quiet:
        columns = ("model", "R@20", "N@20 ± sd", "to rival, 95 %", "trials", "s", "MiB")
        fitted = "1 seed" if seeds == 1 else f"{seeds} seeds"
        title = f"{result.dataset}: test split, full ranking, {fitted}; tuned on validation"
        console.out.print(console.table(title, columns, [_cells(row) for row in result.rows]))
        _print_groups([(row.point.title, row.groups) for row in result.rows])
        console.out.print(console.plain(result.sentence))
        console.say(f"all of it: {out}")


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _print_groups(rows: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]]) -> None:
    """Print NDCG@20 by group where the split has a cold item or a new user."""
    from mllmrec.evaluation.groups import GROUPS, WARM
    from mllmrec.evaluation.metrics import short

    if not any(group != WARM for _, groups in rows for group in groups):
        return
    cells = [
        (title, *(short(groups[group]["ndcg@20"]) if group in groups else short(math.nan) for group in GROUPS))
        for title, groups in rows
    ]
    console.out.print(console.table("NDCG@20 by group", ("model", *GROUPS), cells))


def _print_split(table: SplitTable, draws: int) -> None:
    """Print the table of one split: means over draws, and differences over users and draws."""
    from mllmrec.evaluation.groups import ALL
    from mllmrec.evaluation.metrics import short

    rows = []
    for row in table.rows:
        gap = row.intervals.get(ALL)
        spread = f" ± {short(row.spread['ndcg@20'])}" if len(table.seeds) > 1 else ""
        rows.append(
            (
                row.title,
                short(row.test["recall@20"]),
                short(row.test["ndcg@20"]) + spread,
                f"{short(gap.low, signed=True)} {short(gap.high, signed=True)}" if gap else "",
                f"{row.trials:,}",
                f"{row.seconds:,.1f}",
                "" if row.mib is None else f"{row.mib:,.0f}",
            )
        )
    n = len(table.seeds)
    drawn = f"{n} draws" if n > 1 else "one draw" if draws == 1 else "nothing is drawn, so one split"
    columns = ("model", "R@20", "N@20 ± sd", "to rival, 95 %", "trials", "s", "MiB")
    title = f"{table.dataset}, {table.rule}: test split, full ranking, {drawn}; tuned on validation"
    console.out.print(console.table(title, columns, rows))
    _print_groups([(row.title, row.groups) for row in table.rows])
    console.out.print(console.plain(table.sentence))


def _cells(row: Row) -> tuple[str, ...]:
    from mllmrec.evaluation.metrics import short

    return (
        row.point.title,
        short(row.test["recall@20"]),
        score(row),
        f"{short(row.interval.low, signed=True)} {short(row.interval.high, signed=True)}" if row.against else "",
        f"{row.trials:,}",
        f"{row.seconds:,.1f}",
        "" if row.mib is None else f"{row.mib:,.0f}",
    )


def score(row: Row) -> str:
    """Return NDCG@20 of the judged split, with its standard deviation over seeds."""
    from mllmrec.evaluation.metrics import short

    spread = f" ± {short(row.spread['ndcg@20'])}" if row.seeds > 1 else ""
    return short(row.score) + spread


def difference(row: Row, result: Result) -> str:
    """Return the difference to the row that this one is set against, with its standard error."""
    other = result.row(row.against)
    return str(row.less(other)) if other else ""
