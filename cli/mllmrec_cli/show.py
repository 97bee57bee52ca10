"""The verb that only looks: show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from mllmrec_cli import console
from mllmrec_cli.options import Json, Run
from mllmrec_cli.stages import print_results

if TYPE_CHECKING:
    from mllmrec.views import ItemView, Shown, UserView

_LONGEST = 2000  # characters of a description or profile that are shown


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(rich_help_panel=console.JUDGE)(show)


def show(
    run: Run,
    user: Annotated[list[str] | None, typer.Option(metavar="ID", help="Show this user. May be repeated.")] = None,
    item: Annotated[list[str] | None, typer.Option(metavar="ID", help="Show this item. May be repeated.")] = None,
    users: Annotated[int, typer.Option(min=0, help="Without --user and --item: so many users.")] = 2,
    items: Annotated[int, typer.Option(min=0, help="Without --user and --item: so many items.")] = 2,
    json: Json = False,
) -> None:
    """Look at a run: descriptions, profiles, recommendations, and the table of results.

    Example: mllmrec show run --user u0017
    """
    from mllmrec.views import RunView

    view = RunView(run)
    named = bool(user or item)
    shown_items = [view.item(name) for name in (item or [] if named else view.sample_items(items))]
    shown_users = [view.user(name) for name in (user or [] if named else view.sample_users(users))]
    if json:
        console.print_json(
            {
                "leaky": view.leaky,
                "items": [asdict(one) for one in shown_items],
                "users": [asdict(one) for one in shown_users],
            }
        )
        return
    if view.leaky:
        console.out.print("LEAKY: the profiles of this run saw held-out items", style="bold red")
    console.out.print(*map(_item_panel, shown_items), *map(_user_panel, shown_users), sep="\n")
    if not named:
        print_results(view.evaluation)


def _item_panel(item: ItemView) -> Panel:
    facts = " | ".join(part for part in (item.brand, " > ".join(item.categories)) if part)
    lines = [
        *([console.plain(console.short(facts, 300))] if facts else []),
        console.plain(console.short(item.description, 300)),
        _labelled("pictures", item.pictures or f"none ({item.status})"),
        *_listed("similar", item.similar),
    ]
    return Panel(Group(*lines), title=_title("item", item.id, item.title), title_align="left")


def _user_panel(user: UserView) -> Panel:
    history = "; ".join(console.short(shown.title or shown.id, 62) for shown in user.history[-8:])
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


def _listed(label: str, shown: Iterable[Shown], most: int = 5) -> list[Text]:
    rows = [Text.assemble((f"{label}:", "bold"))]
    for one in list(shown)[:most]:
        score = f"{one.score:8.3f}  " if one.score is not None else ""
        rows.append(console.plain(f"{score}{console.short(one.title or one.id, 62)}"))
    return rows
