"""The verbs `compare` and `study`; study has one sub-verb per study: mllmrec study alpha, neighbors, window, ..."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mllmrec_cli import console
from mllmrec_cli.console import resumable
from mllmrec_cli.options import Assignments, Cache, ConfigFile, Dataset, Json, Quiet, complete_models

if TYPE_CHECKING:
    from mllmrec.evaluation.metrics import Interval
    from mllmrec.experiments import Result, Row, SplitTable
    from mllmrec.experiments.draws import PooledRow

_COLUMNS = ("model", "R@20", "N@20 ± sd", "to rival, 95 %", "trials", "s", "MiB")
_Models = Annotated[
    str,
    typer.Option(
        metavar="NAME,NAME",
        help="Models to compare, separated by commas; `rivals` and `parts` stand for a group.",
        show_default="all but rivals and parts",
        autocompletion=complete_models,
    ),
]
_Splits = Annotated[
    str,
    typer.Option(
        metavar="RULE,RULE",
        help="Splits, a table each: random, user-time, leave-one-out, global-time, cold-items, given.",
        show_default="given, the dataset's own",
    ),
]
_STUDIES = {
    "alpha": "Vary the threshold alpha of the item graph, its connectivity beside it.",
    "neighbors": "Vary the item graph's neighbors by vectors (K_s) and by shared users (K_c).",
    "window": "Vary how far apart in time a user's items may be to count as a co-occurrence.",
    "ablation": "Leave out one part of MLLMRec at a time.",
    "prompts": "Vary the prompts of a multimodal model.",
    "leak": "Set profiles that saw held-out items (LEAKY) against leak-free ones.",
    "seeds": "Repeat one setting with several seeds: mean and spread.",
    "architecture": "Set user-item propagation against none, with profiles and without.",
}

_study = typer.Typer(
    no_args_is_help=True,
    help="Vary one setting of MLLMRec and compare on validation: alpha, neighbors, leak, seeds, ...",
)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(name="compare", rich_help_panel=console.JUDGE)(_compare)
    for name, help_text in _STUDIES.items():
        _study.command(name=name)(_verb(name, help_text))
    app.add_typer(_study, name="study", rich_help_panel=console.JUDGE)


def _compare(
    dataset: Dataset,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder; an interrupted comparison goes on there.")
    ],
    models: _Models = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each model that is trained.")] = 3,
    settings: Annotated[
        int | None,
        typer.Option(min=1, help="Settings tried of each model, the first of its grid.", show_default="all"),
    ] = None,
    split: _Splits = "",
    draws: Annotated[int, typer.Option(min=1, help="Draws of each split that is random; needs --split.")] = 1,
    cold_share: Annotated[
        float, typer.Option(min=0.001, max=0.499, help="Share of the items that cold-items hides for the test.")
    ] = 0.1,
    against: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Model that the others are set against.",
            show_default="the one that validation puts first",
            autocompletion=complete_models,
        ),
    ] = "",
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
    from mllmrec.experiments import choose_entries, compare_models, compare_splits, first_settings

    entries, rules = choose_entries(_names(models)), _names(split)
    if draws > 1 and not rules:
        raise InputError("--draws needs --split, such as --split random: a dataset's own split is one draw")
    data = load(dataset)
    with resumable(), console.progress(quiet=quiet or json) as hook:
        if settings:
            entries = first_settings(entries, settings, hook)
        if rules:
            tables = compare_splits(
                data, out, resolved, entries, rules,
                draws=draws, cold_share=cold_share, seeds=seeds, generations=cache, progress=hook,
                against=against,
            )  # fmt: skip
        else:
            result = compare_models(
                data, out, resolved, entries, seeds=seeds, generations=cache, progress=hook, against=against
            )
    if json:
        console.print_json([table.as_dict() for table in tables] if rules else result.as_dict())
        return
    if quiet:
        return
    if rules:
        for table in tables:
            _print_split(table, draws)
    else:
        _print_comparison(result, seeds)
    console.say(f"all of it: {out}")


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _print_groups(rows: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]]) -> None:
    """Print NDCG@20 by group if the split has a cold item or a new user."""
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

    n, rows = len(table.seeds), []
    for row in table.rows:
        spread = f" ± {short(row.spread['ndcg@20'])}" if n > 1 else ""
        rows.append(_cells(row, row.title, short(row.test["ndcg@20"]) + spread, row.intervals.get(ALL)))
    drawn = f"{n} draws" if n > 1 else "one draw" if draws == 1 else "nothing is drawn, so one split"
    title = f"{table.dataset}, {table.rule}: test split, full ranking, {drawn}; tuned on validation"
    console.out.print(console.table(title, _COLUMNS, rows))
    _print_groups([(row.title, row.groups) for row in table.rows])
    console.out.print(console.plain(table.sentence))


def _print_comparison(result: Result, seeds: int) -> None:
    """Print the table of a dataset's own split: means over seeds, and differences over users."""
    fitted = "1 seed" if seeds == 1 else f"{seeds} seeds"
    title = f"{result.dataset}: test split, full ranking, {fitted}; tuned on validation"
    rows = [_cells(row, row.point.title, score(row), row.interval if row.against else None) for row in result.rows]
    console.out.print(console.table(title, _COLUMNS, rows))
    _print_groups([(row.point.title, row.groups) for row in result.rows])
    console.out.print(console.plain(result.sentence))


def _cells(row: Row | PooledRow, title: str, ndcg: str, gap: Interval | None) -> tuple[str, ...]:
    from mllmrec.evaluation.metrics import short

    return (
        title,
        short(row.test["recall@20"]),
        ndcg,
        f"{short(gap.low, signed=True)} {short(gap.high, signed=True)}" if gap else "",
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


def _verb(name: str, help_text: str) -> Any:
    def _run(
        dataset: Dataset,
        out: Annotated[
            Path | None,
            typer.Option(
                "--out", "-o", metavar="FOLDER", help="Folder of all studies of a dataset. Default: DATASET-studies."
            ),
        ] = None,
        seeds: Annotated[
            int | None, typer.Option(min=1, help="Seeds of each setting; by default 3, of neighbors 1, of seeds 5.")
        ] = None,
        config: ConfigFile = None,
        assignments: Assignments = None,
        cache: Cache = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from mllmrec.config import load_config
        from mllmrec.dataset import load

        resolved, data = load_config(config, assignments or []), load(dataset)
        from mllmrec.experiments import find_study, run_study

        folder = out or dataset.resolve().with_name(f"{dataset.resolve().name}-studies")
        with resumable(), console.progress(quiet=quiet or json) as hook:
            result = run_study(find_study(name), data, folder, resolved, seeds=seeds, generations=cache, progress=hook)
        if json:
            console.print_json(result.as_dict())
        elif not quiet:
            _print_study(result, folder)

    _run.__doc__ = (
        f"{help_text} Judged on validation; an interrupted study goes on.\n\nExample: mllmrec study {name} dataset"
    )
    return _run


def _print_study(result: Result, out: Path) -> None:
    of_graph = result.rows[0].graph is not None
    seeds = result.rows[0].seeds
    measured = ("edges", "largest", "alone") if of_graph else ("R@20", "s")
    columns = ("setting", f"N@20{' ± sd' if seeds > 1 else ''}", "difference ± se", *measured)
    reference = f"; differences to {result.reference.point.name}" if result.reference else ""
    title = f"{result.name}, {result.dataset}: validation, {seeds} seed{'s' if seeds > 1 else ''} a setting{reference}"
    console.out.print(console.table(title, columns, [_study_cells(row, result) for row in result.rows]))
    if of_graph:
        console.out.print("largest: share of the items in the graph's largest component; alone: items without an edge")
    console.out.print(console.plain(result.sentence))
    console.say(f"all of it: {out / result.stem}.csv, .json, .svg, .png")


def _study_cells(row: Row, result: Result) -> tuple[str, ...]:
    from mllmrec.evaluation.metrics import short

    line = (row.point.name, score(row), difference(row, result))
    if row.graph is None:
        return (*line, short(row.valid["recall@20"]), f"{row.seconds:,.1f}")
    return (*line, f"{row.graph.edges:,}", f"{row.graph.largest:.1%}", f"{row.graph.isolated:,}")
