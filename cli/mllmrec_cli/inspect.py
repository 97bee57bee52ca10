"""Verbs that only look: show, doctor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from mllmrec_cli import console
from mllmrec_cli.stages import Json, print_results

if TYPE_CHECKING:
    from mllmrec.views import ItemView, Shown, UserView


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(show)
    app.command()(doctor)


def show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    user: Annotated[list[str] | None, typer.Option(help="Show this user. May be repeated.")] = None,
    item: Annotated[list[str] | None, typer.Option(help="Show this item. May be repeated.")] = None,
    users: Annotated[int, typer.Option(help="Without --user and --item: so many users.")] = 2,
    items: Annotated[int, typer.Option(help="Without --user and --item: so many items.")] = 2,
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
        *([console.plain(facts)] if facts else []),
        console.plain(_short(item.description, 300)),
        _labelled("pictures", item.pictures or f"none ({item.status})"),
        *_listed("similar", item.similar),
    ]
    return Panel(Group(*lines), title=_title("item", item.id, item.title), title_align="left")


def _user_panel(user: UserView) -> Panel:
    history = "; ".join(shown.title or shown.id for shown in user.history[-8:])
    more = f" (the last 8 of {len(user.history)})" if len(user.history) > 8 else ""
    lines = [
        _labelled(f"history{more}", history),
        _labelled("profile", user.profile or "none"),
        *_listed("recommended", user.recommended),
    ]
    return Panel(Group(*lines), title=_title("user", user.id, ""), title_align="left")


def _title(what: str, name: str, title: str) -> Text:
    return Text.assemble((f"{what} ", "bold"), console.plain(name), "  ", console.plain(_short(title, 50)))


def _labelled(label: str, text: str) -> Text:
    return Text.assemble((f"{label}: ", "bold"), console.plain(text))


def _listed(label: str, shown: Iterable[Shown], most: int = 5) -> list[Text]:
    rows = [Text.assemble((f"{label}:", "bold"))]
    for one in list(shown)[:most]:
        score = f"{one.score:8.3f}  " if one.score is not None else ""
        rows.append(console.plain(f"{score}{_short(one.title or one.id, 62)}"))
    return rows


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def doctor(json: Json = False) -> None:
    """Print versions, devices, backends, and what is missing or broken, with the fix.

    Exit code 1 where something is broken. Example: mllmrec doctor
    """
    from mllmrec.machine import describe_machine, examine

    findings = examine()
    machine = describe_machine()
    broken = any(finding.state == "broken" for finding in findings)
    if json:
        console.print_json({"machine": machine, "findings": [asdict(finding) for finding in findings]})
    else:
        facts = [(key.replace("_", " "), "", str(value)) for key, value in machine.items()]
        rows = facts + [(finding.what, finding.state, finding.detail) for finding in findings]
        console.out.print(console.table("mllmrec doctor", ("", "state", "detail"), rows, words=3))
    if broken:
        raise typer.Exit(1)
