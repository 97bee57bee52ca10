"""The verbs that look at runs: show, report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from mllmrec_cli import console
from mllmrec_cli.options import Json, Quiet, Run, Seed
from mllmrec_cli.stages import print_results

if TYPE_CHECKING:
    from mllmrec.report.sections.cards import ItemCard, UserCard

_LONGEST = 2000  # characters of a description or profile that are shown


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(name="show", rich_help_panel=console.JUDGE)(_show)
    app.command(name="report", rich_help_panel=console.JUDGE)(_report)


def _show(
    run: Run,
    user: Annotated[list[str] | None, typer.Option(metavar="ID", help="Show this user. May be repeated.")] = None,
    item: Annotated[list[str] | None, typer.Option(metavar="ID", help="Show this item. May be repeated.")] = None,
    users: Annotated[int, typer.Option(min=0, help="Users to show without --user and --item.")] = 2,
    items: Annotated[int, typer.Option(min=0, help="Items to show without --user and --item.")] = 2,
    json: Json = False,
) -> None:
    """Look at a run: descriptions, profiles, recommendations, and the table of results.

    Example: mllmrec show run --user u0017
    """
    from mllmrec import runs
    from mllmrec.report.sections.cards import Cards

    opened = runs.Run(run)
    cards, named = Cards(opened), bool(user or item)
    item_cards = [cards.item_by_id(name) for name in (item or [] if named else cards.spread_items(items))]
    user_cards = [cards.user_by_id(name) for name in (user or [] if named else cards.spread_users(users))]
    if json:
        console.print_json(
            {
                "leaky": opened.leaky,
                "items": [card.as_dict() for card in item_cards],
                "users": [card.as_dict() for card in user_cards],
            }
        )
        return
    if opened.leaky:
        console.out.print("LEAKY: the profiles of this run saw held-out items", style="bold red")
    console.out.print(*map(_item_panel, item_cards), *map(_user_panel, user_cards), sep="\n")
    if not named:
        print_results(opened.evaluation)


def _item_panel(item: ItemCard) -> Panel:
    facts = " | ".join(part for part in (item.brand, " > ".join(item.categories)) if part)
    lines = [
        *([console.plain(console.short(facts, 300))] if facts else []),
        console.plain(console.short(item.description, 300)),
        _labelled("pictures", item.pictures or f"none ({item.status})"),
        *_listed("similar", item.similar),
    ]
    return Panel(Group(*lines), title=_title("item", item.id, item.title), title_align="left")


def _user_panel(user: UserCard) -> Panel:
    history = "; ".join(console.short(item.title or item.id, 62) for item in reversed(user.history[:8]))
    more = f" (the last 8 of {len(user.history)})" if len(user.history) > 8 else ""
    lines = [
        _labelled(f"history{more}", history),
        _labelled("profile", user.profile or "none"),
        *_listed("recommended", user.recommended),
    ]
    return Panel(Group(*lines), title=_title("user", user.id, ""), title_align="left")


def _title(what: str, name: str, title: str) -> Text:
    return Text.assemble(
        (f"{what} ", "bold"), console.plain(console.short(name, 30)), "  ", console.plain(console.short(title, 50))
    )


def _labelled(label: str, text: str) -> Text:
    return Text.assemble((f"{label}: ", "bold"), console.plain(console.short(text, _LONGEST)))


def _listed(label: str, listed: Iterable[tuple[ItemCard, float]], most: int = 5) -> list[Text]:
    rows = [Text.assemble((f"{label}:", "bold"))]
    for item, score in list(listed)[:most]:
        rows.append(console.plain(f"{score:8.3f}  {console.short(item.title or item.id, 62)}"))
    return rows


def _report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders, made by mllmrec run; several are compared.")
    ],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="The page's path. Default: in the first run.")
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Write one page that shows a run, or compares several: results, data, profiles, graph, recommendations.

    Example: mllmrec report run
    """
    from mllmrec.report import write_report

    with console.progress(quiet=quiet) as hook:
        page = write_report(runs, page=html, seed=seed, progress=hook)
    console.out.print(f"page: {page}", markup=False, soft_wrap=True)
