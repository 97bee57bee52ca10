"""Verbs that judge a run: inspect profiles, inspect graph, audit leak."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from mllmrec_cli import console
from mllmrec_cli.options import Json, Page, Run, Seed

if TYPE_CHECKING:
    from mllmrec.audit.graph import GraphHealth
    from mllmrec.audit.leak import LeakAudit
    from mllmrec.report.audits import ItemNeighbours
    from mllmrec.report.profile_page import UserShown

_inspect = typer.Typer(no_args_is_help=True, help="Look into a run: profiles, graph. Measured, with a page to read.")
_audit = typer.Typer(no_args_is_help=True, help="Check a run for what must not be: leak.")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(_inspect, name="inspect", rich_help_panel=console.JUDGE)
    app.add_typer(_audit, name="audit", rich_help_panel=console.JUDGE)


@_inspect.command(name="profiles")
def inspect_profiles(
    run: Run,
    users: Annotated[int, typer.Option(min=0, help="So many users, drawn at random.")] = 20,
    html: Page = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Say whether a run's profiles are any good: distinct, specific, grounded; the generic ones by name.

    Example: mllmrec inspect profiles run --users 50
    """
    from mllmrec.report import audits as runs

    made = runs.inspect_profiles(run, users=users, seed=seed, page=html)
    if json:
        console.print_json(made.quality.as_dict() | {"warning": made.warning, "page": str(made.page)})
        return
    console.out.print(*map(_user_panel, made.sampled), sep="\n")
    console.out.print(console.table("profiles", ("measure", "value", "how to read it"), made.quality.rows(), words=3))
    if made.worst:
        rows = [
            (
                console.short(user.id, 20),
                f"{len(user.finding.telling)} of {user.finding.words}",
                console.short(user.profile, 160),
            )
            for user in made.worst
        ]
        heading = f"generic profiles, worst first ({len(rows)} of {len(made.quality.words.generic):,})"
        console.out.print(console.table(heading, ("user", "telling", "profile"), rows, words=3))
    if made.warning:
        console.warn(made.warning)
    console.say(f"page: {made.page}")


@_inspect.command(name="graph")
def inspect_graph(
    run: Run,
    item: Annotated[
        list[str] | None, typer.Option("--item", metavar="ID", help="Show this item's neighbours. May be repeated.")
    ] = None,
    html: Page = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Say whether a run's item graph holds together, and what its edges are made of.

    Example: mllmrec inspect graph run --item mug-0007
    """
    from mllmrec.report import audits as runs

    made = runs.inspect_graph(run, items=item or (), seed=seed, page=html)
    if json:
        items = {shown.id: [{"id": other} | asdict(edge) for other, _, edge in shown.edges] for shown in made.items}
        console.print_json(made.health.as_dict() | {"neighbours": items, "page": str(made.page)})
        return
    console.out.print(*map(_neighbours_panel, made.items), sep="\n")
    console.out.print(console.table("item graph", ("measure", "value", "how to read it"), made.health.rows(), words=3))
    _print_histograms(made.health)
    for warning in made.health.warnings:
        console.warn(warning)
    console.say(f"page: {made.page}")


def _print_histograms(health: GraphHealth) -> None:
    degrees = health.degree_bars()
    most = max(1, *(count for _, count in degrees))
    rows = [(f"{low:,}", f"{count:,}", "█" * round(40 * count / most)) for low, count in degrees]
    console.out.print(console.table("degrees", ("edges, from", "items", ""), rows, words=3))
    similar = [(f"{low:.2f}", *(f"{count:,}" for count in counts.values())) for low, counts in health.cosine_bars()]
    console.out.print(console.table("similarity of the edges", ("cosine, from", *health.sources), similar))


@_audit.command(name="leak")
def audit_leak(run: Run, seed: Seed = 0, json: Json = False) -> None:
    """Say whether a run's profiles know held-out items; exit code 1 where they do.

    Example: mllmrec audit leak run
    """
    from mllmrec.report.audits import audit_run

    made = audit_run(run, seed=seed)
    if json:
        console.print_json(asdict(made) | {"leaking": made.leaking, "sentence": made.sentence})
    else:
        _print_audit(made)
    if made.leaking:
        console.err.print(console.plain(f"leak: {made.sentence}"), style="red", soft_wrap=True)
        raise typer.Exit(1)


def _print_audit(made: LeakAudit) -> None:
    rows = [
        (
            known.split,
            f"{known.users:,}",
            f"{known.margin:.4f}",
            f"{known.reference:.4f}",
            f"{known.surplus:.4f}",
            str(known.index or ""),
        )
        for known in made.splits
    ]
    columns = ("split", "users", "margin", "honest", "surplus", "leak index")
    console.out.print(console.table("cosines over never-seen items as popular", columns, rows))
    if not made.leaking:
        console.out.print(console.plain(made.sentence, "green" if made.measured == "honest" else "yellow"))


def _user_panel(user: UserShown) -> Panel:
    found = user.finding
    titles = "; ".join(console.short(item.title or item.id, 60) for item in user.items)
    measured = (
        f"{found.words} words, {found.genericness:.0%} common; in own items {found.grounding:.0%}, "
        f"by chance {found.chance:.0%}; telling: {', '.join(found.telling[:8]) or 'none'}"
    )
    lines = [
        console.plain(console.short(user.profile, 600)),
        Text.assemble(("items: ", "bold"), console.plain(titles), f" and {user.more:,} older" if user.more else ""),
        Text.assemble(("measured: ", "bold"), console.plain(measured)),
    ]
    seen = [item for item in user.items if item.said][:2]
    lines += [
        Text.assemble(
            console.plain(f"{console.short(item.title or item.id, 30)}: ", "bold"),
            console.plain(console.short(item.said, 200)),
        )
        for item in seen
    ]
    title = Text.assemble(
        ("user ", "bold"), console.plain(console.short(user.id, 40)), *((f" {tag}", "red") for tag in user.tags)
    )
    return Panel(Group(*lines), title=title, title_align="left")


def _neighbours_panel(item: ItemNeighbours) -> Panel:
    rows = [
        console.plain(
            f"{edge.weight:6.2f} {edge.cosine:6.2f} {edge.shared_users:6,}  {edge.source:<13}  "
            f"{console.short(title or name, 36)}"
        )
        for name, title, edge in item.edges[:10]
    ]
    heading = Text("weight cosine  users  source         neighbour", style="bold")
    title = Text.assemble(
        ("item ", "bold"), console.plain(console.short(item.id, 30)), " ", console.plain(console.short(item.title, 40))
    )
    return Panel(Group(*([heading, *rows] if rows else [Text("no edge")])), title=title, title_align="left")
