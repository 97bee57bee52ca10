"""The verbs `inspect profiles`, `inspect graph` and `audit leak`."""

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
    from mllmrec.report.audits import ItemNeighbors
    from mllmrec.report.sections.cards import UserCard

_inspect = typer.Typer(no_args_is_help=True, help="Measure the profiles or the item graph of a run, and write a page.")
_MEASURES = ("measure", "value", "how to read it")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(_inspect, name="inspect", rich_help_panel=console.JUDGE)
    app.add_typer(_audit, name="audit", rich_help_panel=console.JUDGE)


@_inspect.command(name="profiles")
def _profiles(
    run: Run,
    users: Annotated[int, typer.Option(min=0, help="Users to draw at random.")] = 20,
    html: Page = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure a run's profiles: distinct, specific, grounded; the generic ones by name.

    Example: mllmrec inspect profiles run --users 50
    """
    from mllmrec.report import audits

    with console.progress(quiet=json) as hook:
        result = audits.inspect_profiles(run, users=users, seed=seed, page=html, progress=hook)
    if json:
        console.print_json(result.quality.as_dict() | {"warning": result.warning, "page": str(result.page)})
        return
    console.out.print(*map(_user_panel, result.sampled), sep="\n")
    console.out.print(console.table("profiles", _MEASURES, result.measures, words=3))
    if result.worst:
        rows = [(console.short(user.id, 20), _telling(user), console.short(user.profile, 160)) for user in result.worst]
        heading = f"generic profiles, worst first ({len(rows)} of {len(result.quality.words.generic):,})"
        console.out.print(console.table(heading, ("user", "telling", "profile"), rows, words=3))
    if result.warning:
        console.warn(result.warning)
    console.say(f"page: {result.page}")


@_inspect.command(name="graph")
def _graph(
    run: Run,
    item: Annotated[
        list[str] | None, typer.Option("--item", metavar="ID", help="Show this item's neighbors. May be repeated.")
    ] = None,
    html: Page = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure a run's item graph: its connectivity, and the sources of its edges.

    Example: mllmrec inspect graph run --item mug-0007
    """
    from mllmrec.report import audits

    with console.progress(quiet=json) as hook:
        result = audits.inspect_graph(run, items=item or (), seed=seed, page=html, progress=hook)
    if json:
        items = {
            shown.item.id: [{"id": other.id} | asdict(edge) for other, edge in shown.edges] for shown in result.items
        }
        console.print_json(result.health.as_dict() | {"neighbors": items, "page": str(result.page)})
        return
    console.out.print(*map(_neighbors_panel, result.items), sep="\n")
    console.out.print(console.table("item graph", _MEASURES, result.measures, words=3))
    _print_histograms(result.health)
    for warning in result.health.warnings:
        console.warn(warning)
    console.say(f"page: {result.page}")


def _print_histograms(health: GraphHealth) -> None:
    degrees = health.degree_histogram()
    most = max(1, *(count for _, count in degrees))
    rows = [(f"{low:,}", f"{count:,}", "█" * round(40 * count / most)) for low, count in degrees]
    console.out.print(console.table("degrees", ("edges, from", "items", ""), rows, words=3))
    cosines = [(f"{low:.2f}", *(f"{n:,}" for n in counts.values())) for low, counts in health.cosine_histogram()]
    console.out.print(console.table("similarity of the edges", ("cosine, from", *health.sources), cosines))


def _telling(user: UserCard) -> str:
    return f"{len(user.finding.telling)} of {user.finding.words}" if user.finding else ""


def _user_panel(user: UserCard) -> Panel:
    titles = "; ".join(console.short(item.title or item.id, 60) for item in user.history)
    lines = [
        console.plain(console.short(user.profile, 600)),
        Text.assemble(("items: ", "bold"), console.plain(titles), f" and {user.more:,} older" if user.more else ""),
    ]
    if user.finding:
        found = user.finding
        measures = (
            f"{found.words} words, {found.genericness:.0%} common; in own items {found.grounding:.0%}, "
            f"by chance {found.chance:.0%}; telling: {', '.join(found.telling[:8]) or 'none'}"
        )
        lines.append(Text.assemble(("measured: ", "bold"), console.plain(measures)))
    for item in [item for item in user.history if item.pictures][:2]:
        name = console.plain(f"{console.short(item.title or item.id, 30)}: ", "bold")
        lines.append(Text.assemble(name, console.plain(console.short(item.pictures, 200))))
    tags = [console.plain(f" {console.short(tag, 120)}", "red") for tag in user.tags]
    title = Text.assemble(("user ", "bold"), console.plain(console.short(user.id, 40)), *tags)
    return Panel(Group(*lines), title=title, title_align="left")


def _neighbors_panel(shown: ItemNeighbors) -> Panel:
    rows = [
        console.plain(
            f"{edge.weight:6.2f} {edge.cosine:6.2f} {edge.shared_users:6,}  {edge.source:<13}  "
            f"{console.short(other.title or other.id, 36)}"
        )
        for other, edge in shown.edges[:10]
    ]
    heading = Text("weight cosine  users  source         neighbor", style="bold")
    names = (console.plain(console.short(shown.item.id, 30)), " ", console.plain(console.short(shown.item.title, 40)))
    title = Text.assemble(("item ", "bold"), *names)
    return Panel(Group(*([heading, *rows] if rows else [Text("no edge")])), title=title, title_align="left")


_audit = typer.Typer(no_args_is_help=True, help="Check a run for leaks of held-out items.")


@_audit.command(name="leak")
def _leak(run: Run, seed: Seed = 0, json: Json = False) -> None:
    """Report whether a run's profiles contain held-out items; exit code 1 if they do.

    Example: mllmrec audit leak run
    """
    from mllmrec.report import audits

    with console.progress(quiet=json) as hook:
        result = audits.audit_run(run, seed=seed, progress=hook)
    if json:
        console.print_json(asdict(result) | {"leaking": result.leaking, "sentence": result.sentence})
    else:
        _print_leak(result)
    if result.leaking:
        console.err.print(console.plain(f"leak: {result.sentence}"), style="red", soft_wrap=True)
        raise typer.Exit(1)


def _print_leak(result: LeakAudit) -> None:
    rows = [
        (
            known.name,
            f"{known.users:,}",
            f"{known.margin:.4f}",
            f"{known.reference:.4f}",
            f"{known.surplus:.4f}",
            str(known.index or ""),
        )
        for known in result.splits
    ]
    columns = ("split", "users", "margin", "leak-free", "surplus", "leak index")
    console.out.print(console.table("cosines over never-seen items as popular", columns, rows))
    if not result.leaking:
        style = "green" if result.measured == "leak-free" else "yellow"
        console.out.print(console.plain(result.sentence, style))
