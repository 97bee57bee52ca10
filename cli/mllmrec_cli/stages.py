"""Verbs of the method: run, and each stage by itself."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.panel import Panel

from mllmrec_cli import console, generations
from mllmrec_cli.console import command_line, resumable
from mllmrec_cli.options import Assignments, Cache, ConfigFile, Dataset, Json, On, Quiet, RunOut

if TYPE_CHECKING:
    from mllmrec.evaluation.evaluate import Evaluation
    from mllmrec.pipeline import Artefacts, Stage
    from mllmrec.reason.generate import GenerationLimits

_COLUMNS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")

RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Repeat requests of items or users whose answers could not be used.")
]
Limit = Annotated[
    int,
    typer.Option("--limit", min=0, help="Stop the stage after so many requests, show some answers; 0: no limit."),
]
BatchOut = Annotated[
    Path | None,
    typer.Option(
        "--batch-out",
        metavar="FILE",
        help="Write the requests that are left to an OpenAI batch file, .jsonl; stop.",
    ),
]
BatchIn = Annotated[
    Path | None,
    typer.Option("--batch-in", metavar="FILE", help="Take the results of such a batch into the cache, then go on."),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="RUN",
        help="Go on from this run of the dataset before mllmrec update: only what is new is made. Its settings hold "
        "where --config is not given.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Generate nothing; print calls, tokens, cache hits, time and memory.")
]

_STAGES = {
    "describe": "Turn item pictures into descriptions.",
    "profile": "Turn each user's training history into a preference profile.",
    "encode": "Turn texts into vectors.",
    "graph": "Build the item graph.",
    "train": "Fit the model.",
    "evaluate": "Evaluate the model beside its baselines, by full ranking.",
}

_GENERATING = ("run", "describe", "profile")  # verbs that may call a model


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    verb = _verb("run", "recommend", "Run all stages, or go on with an interrupted run.")
    app.command(name="run", rich_help_panel=console.METHOD)(verb)
    for stage, purpose in _STAGES.items():
        verb = _verb(stage, stage, f"{purpose}\n\nEarlier stages that are not done yet are run first.")
        app.command(name=stage, rich_help_panel=console.METHOD)(verb)


def _verb(name: str, until: Any, purpose: str) -> Any:
    def _verb_of_stage(
        dataset: Dataset,
        out: RunOut,
        config: ConfigFile = None,
        assignments: Assignments = None,
        cache: Cache = None,
        on: On = "",
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        artefacts = run_stages(dataset, out, config, assignments or [], cache, until, quiet=quiet or json, on=on)
        report_run(artefacts, out, until, json=json, quiet=quiet)

    def _generating_verb(
        dataset: Dataset,
        out: RunOut,
        config: ConfigFile = None,
        assignments: Assignments = None,
        cache: Cache = None,
        retry_failed: RetryFailed = False,
        limit: Limit = 0,
        dry_run: DryRun = False,
        batch_out: BatchOut = None,
        batch_in: BatchIn = None,
        earlier: From = None,
        on: On = "",
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from mllmrec.config import load_config
        from mllmrec.reason.generate import GenerationLimits, LimitReached

        if dry_run:
            generations.dry_run(dataset, load_config(config, assignments or []), cache, until, json=json)
            return
        if batch_out or batch_in:
            resolved = load_config(config, assignments or [])
            if generations.batch_files(
                dataset, out, resolved, cache, until, batch_out, batch_in, retry_failed=retry_failed, json=json
            ):
                return
        limits = GenerationLimits(retry_failed=retry_failed, limit=limit, stage="" if name == "run" else name)
        try:
            artefacts = run_stages(
                dataset,
                out,
                config,
                assignments or [],
                cache,
                until,
                quiet=quiet or json,
                limits=limits,
                earlier=earlier,
                on=on,
            )
        except LimitReached as reached:
            generations.print_limit(reached, json=json)
        else:
            report_run(artefacts, out, until, json=json, quiet=quiet)

    chosen = _generating_verb if name in _GENERATING else _verb_of_stage
    chosen.__doc__ = f"{purpose}\n\nExample: mllmrec {name} dataset --out run"
    return chosen


def report_run(artefacts: Artefacts, out: Path, until: str, *, json: bool, quiet: bool) -> None:
    """Print what the stages of a run made, and a warning if its profiles look wrong.

    Args:
        artefacts: of the run.
        out: its folder.
        until: the last stage.
        json: print JSON.
        quiet: print nothing but warnings.
    """
    if json:
        console.print_json(_summary(artefacts, out))
    elif not quiet:
        _print(artefacts, out, until)
    if until in ("recommend", "profile"):
        _warn_of_profiles(out)


def run_stages(
    dataset: Path,
    out: Path,
    config: Path | None,
    assignments: list[str],
    cache: Path | None,
    until: Stage,
    *,
    quiet: bool,
    limits: GenerationLimits | None = None,
    earlier: Path | None = None,
    on: str = "",
) -> Artefacts:
    """Run the stages up to one; see pipeline.run.

    Args:
        dataset: its folder.
        out: the run folder.
        config: file of settings.
        assignments: settings of the command line.
        cache: of generations.
        until: the last stage.
        quiet: no progress.
        limits: limits and retries.
        earlier: run to go on from.
        on: engine of blocks; empty: none.
    """
    from mllmrec.config import load_config
    from mllmrec.foundation.addresses import local_path, parse_address
    from mllmrec.foundation.storage import make_folder

    if earlier is None:
        resolved = load_config(config, assignments)
    else:
        from mllmrec.runs import Run
        from mllmrec.serving import run_config

        resolved = run_config(Run(earlier), config, assignments)
    if not parse_address(out):
        make_folder(local_path(out))  # before anything heavy is imported or loaded
    from mllmrec.pipeline import follow, run
    from mllmrec.training import ranks

    if ranks.own():
        follow(dataset, out, resolved)
        raise typer.Exit
    with resumable(), console.progress(quiet=quiet) as hook:
        return run(
            dataset,
            out,
            resolved,
            until=until,
            cache=cache,
            command=command_line(),
            progress=hook,
            limits=limits,
            earlier=earlier,
            on=on,
        )


def _warn_of_profiles(out: Path) -> None:
    from mllmrec.foundation.addresses import local_path, parse_address
    from mllmrec.report.audits import run_warning

    if not parse_address(out) and (warning := run_warning(local_path(out))):
        console.warn(f"{warning}; look at them with mllmrec inspect profiles {shlex.quote(str(out))}")


def _summary(artefacts: Artefacts, out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = {"run": str(out), "leaky": artefacts.leaky, "stages": artefacts.stages}
    if artefacts.notes:
        summary["notes"] = artefacts.notes
    if artefacts.evaluated:
        evaluated = artefacts.evaluated
        summary |= {"users": evaluated.users, "metrics": evaluated.means, "groups": evaluated.groups.as_dict()}
    return summary


def _print(artefacts: Artefacts, out: Path, until: str) -> None:
    if artefacts.leaky:
        console.out.print(
            Panel(
                "LEAKY: the profiles come from validation and test items too (profile.history = "
                '"all"). No number of this run says how well the model recommends.',
                style="bold red",
            )
        )
    rows = [
        (stage, f"{done['seconds']:,.1f} s{' (earlier)' if done['reused'] else ''}", done["summary"])
        for stage, done in artefacts.stages.items()
    ]
    console.out.print(console.table(str(out), ("stage", "took", "made"), rows, words=3))
    for note in artefacts.notes:
        console.say(note)
    if artefacts.evaluated:
        print_results(artefacts.evaluated)
    if until == "recommend":
        console.say(f"look at it: mllmrec show {shlex.quote(str(out))}")


def print_results(evaluation: Evaluation) -> None:
    """Print the test table: the model beside its baselines."""
    from mllmrec.evaluation.evaluate import title
    from mllmrec.evaluation.metrics import decimals

    shown = evaluation.means["test"]
    names = [name for name in _COLUMNS if name in next(iter(shown.values()))]
    rows = [(model, *(decimals(means[name]) for name in names)) for model, means in shown.items()]
    users = evaluation.judged if evaluation.drawn_from else f"{evaluation.users['test']:,} users"
    heading = f"{title('test', leaky=evaluation.leaky)}, {users}"
    console.out.print(console.table(heading, ("model", *names), rows))
    if evaluation.unjudged:
        console.warn(f"{evaluation.unjudged}; prepare with another split to have metrics")
    _print_groups(evaluation)


def _print_groups(evaluation: Evaluation) -> None:
    """Print the NDCG of each group of items and users; a line if the split has none but warm items."""
    from mllmrec.evaluation.groups import GROUPS, NEW
    from mllmrec.evaluation.metrics import short, written
    from mllmrec.report.sections.results import shown_metrics

    groups = evaluation.groups
    if not groups.means:
        return  # of an earlier version, which judged none
    if not groups.apart:
        console.say("every held-out item has training interactions, and no user is new: - for cold items and new users")
        return
    metric, test = shown_metrics(evaluation)[-1], groups.means["test"]
    rows = [
        (name, *(f"{counts['test'][group]:,}" for group in GROUPS))
        for name, counts in (("users", groups.users), ("held-out items", groups.heldout))
    ]
    rows += [(model, *(short(test[group][model][metric]) for group in GROUPS)) for model in evaluation.means["test"]]
    console.out.print(console.table(f"{written(metric)} by group", ("", *GROUPS), rows))
    if groups.users["test"][NEW]:
        console.say("new users have no training item: popularity ranks for them, whatever the model, as in their lists")
