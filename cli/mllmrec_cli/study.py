"""The verbs of the studies, one a study: mllmrec study alpha, neighbours, window, ..."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mllmrec_cli import console
from mllmrec_cli.interrupts import resumable
from mllmrec_cli.options import Assignments, Cache, ConfigFile, Dataset, Json, Quiet

if TYPE_CHECKING:
    from mllmrec.experiments import Result
    from mllmrec.experiments.study_result import Row

_STUDIES = {
    "alpha": "Vary the threshold alpha of the item graph, its connectivity beside it.",
    "neighbours": "Vary the item graph's neighbours by vectors (K_s) and by shared users (K_c).",
    "window": "Vary how far apart in time a user's items may be to count as a co-occurrence.",
    "ablation": "Leave out one part of MLLMRec at a time.",
    "prompts": "Vary the wordings that a multimodal model is asked with.",
    "leak": "Set profiles that saw held-out items (LEAKY) against honest ones.",
    "seeds": "Repeat one setting with several seeds: mean and spread.",
    "architecture": "Set user-item propagation against none, with profiles and without.",
}

_study = typer.Typer(
    no_args_is_help=True, help="Vary one thing of MLLMRec on validation: alpha, neighbours, leak, seeds, ..."
)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for name, said in _STUDIES.items():
        _study.command(name=name)(_verb(name, said))
    app.add_typer(_study, name="study", rich_help_panel=console.JUDGE)


def _verb(name: str, said: str) -> Any:
    def verb(
        dataset: Dataset,
        out: Annotated[
            Path | None,
            typer.Option(
                "--out", "-o", metavar="FOLDER", help="Folder of all studies of a dataset. Default: DATASET-studies."
            ),
        ] = None,
        seeds: Annotated[
            int | None, typer.Option(min=1, help="Seeds of each setting; by default 3, of neighbours 1, of seeds 5.")
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
            made = run_study(find_study(name), data, folder, resolved, seeds=seeds, generations=cache, progress=hook)
        if json:
            console.print_json(made.as_dict())
        elif not quiet:
            _print(made, folder)

    verb.__doc__ = (
        f"{said} Judged on validation; an interrupted study goes on.\n\nExample: mllmrec study {name} dataset"
    )
    return verb


def _print(made: Result, out: Path) -> None:
    of_graph = made.rows[0].graph is not None
    seeds = made.rows[0].seeds
    measured = ("edges", "largest", "alone") if of_graph else ("R@20", "s")
    columns = ("setting", f"N@20{' ± sd' if seeds > 1 else ''}", "difference ± se", *measured)
    title = (
        f"{made.study}, {made.dataset}: validation, {seeds} seed{'s' if seeds > 1 else ''} a setting; "
        f"differences to {made.reference.point.label}"
    )
    console.out.print(console.table(title, columns, [_cells(row, made) for row in made.rows]))
    if of_graph:
        console.out.print("largest: share of the items in the graph's largest component; alone: items without an edge")
    console.out.print(console.plain(made.sentence))
    console.say(f"all of it: {out / made.stem}.csv, .json, .svg, .png")


def _cells(row: Row, made: Result) -> tuple[str, ...]:
    from mllmrec.evaluation.metrics import short

    spread = f" ± {short(row.spread['ndcg@20'])}" if row.seeds > 1 else ""
    line = (
        row.point.label,
        short(row.score) + spread,
        "" if row is made.reference else str(row.less(made.reference)),
    )
    if row.graph is None:
        return (*line, short(row.means["recall@20"]), f"{row.seconds:,.1f}")
    return (*line, f"{row.graph.edges:,}", f"{row.graph.largest:.1%}", f"{row.graph.isolated:,}")
