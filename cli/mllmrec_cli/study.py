"""The verb `study`, with one sub-verb a study: mllmrec study alpha, neighbors, window, ..."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mllmrec_cli import console
from mllmrec_cli.compare import difference, score
from mllmrec_cli.interrupts import resumable
from mllmrec_cli.options import Assignments, Cache, ConfigFile, Dataset, Json, Quiet

if TYPE_CHECKING:
    from mllmrec.experiments import Result, Row

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
    for name, help_text in _STUDIES.items():
        _study.command(name=name)(_verb(name, help_text))
    app.add_typer(_study, name="study", rich_help_panel=console.JUDGE)


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
            _print(result, folder)

    _run.__doc__ = (
        f"{help_text} Judged on validation; an interrupted study goes on.\n\nExample: mllmrec study {name} dataset"
    )
    return _run


def _print(result: Result, out: Path) -> None:
    of_graph = result.rows[0].graph is not None
    seeds = result.rows[0].seeds
    measured = ("edges", "largest", "alone") if of_graph else ("R@20", "s")
    columns = ("setting", f"N@20{' ± sd' if seeds > 1 else ''}", "difference ± se", *measured)
    reference = f"; differences to {result.reference.point.name}" if result.reference else ""
    title = f"{result.name}, {result.dataset}: validation, {seeds} seed{'s' if seeds > 1 else ''} a setting{reference}"
    console.out.print(console.table(title, columns, [_cells(row, result) for row in result.rows]))
    if of_graph:
        console.out.print("largest: share of the items in the graph's largest component; alone: items without an edge")
    console.out.print(console.plain(result.sentence))
    console.say(f"all of it: {out / result.stem}.csv, .json, .svg, .png")


def _cells(row: Row, result: Result) -> tuple[str, ...]:
    from mllmrec.evaluation.metrics import short

    line = (row.point.name, score(row), difference(row, result))
    if row.graph is None:
        return (*line, short(row.valid["recall@20"]), f"{row.seconds:,.1f}")
    return (*line, f"{row.graph.edges:,}", f"{row.graph.largest:.1%}", f"{row.graph.isolated:,}")
