"""Find the columns that play a role, by the names that shops use, or by the name that the user gives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mllmrec.dataset.readers.source import TableName
from mllmrec.errors import ConfigError, InputError, near_miss

_ITEM = "item item_id itemid parent_asin asin product product_id productid sku movieid movie_id article_id iid"
_NAMES: dict[TableName, dict[str, str]] = {
    "interactions": {
        "user": "user user_id userid reviewerid customer customer_id customerid client_id visitor_id visitorid uid "
        "session_id",
        "item": _ITEM,
        "rating": "rating overall score stars",
        "timestamp": "timestamp time unixreviewtime unix_time position order ts datetime event_time created_at "
        "date order_date purchase_date",
        "split": "split x_label",
    },
    "items": {
        "item": f"{_ITEM} id",
        "title": "title name product_name item_name product_title movie_title",
        "brand": "brand store manufacturer",
        "categories": "categories category genres genre tags main_category",
        "description": "description text body",
        "features": "features feature",
        "price": "price",
        "images": "images image image_path imageurlhighres imageurl imurl image_url image_urls imageurls img img_url "
        "picture pictures picture_url photo poster poster_url main_image main_image_url image_link image_file image_1 "
        "cover cover_url thumbnail thumbnail_url",
    },
}
_ALIASES = {table: {role: tuple(names.split()) for role, names in roles.items()} for table, roles in _NAMES.items()}
_ROLES = tuple(dict.fromkeys(role for roles in _ALIASES.values() for role in roles))
_IDS = ("user", "item")
_NUMBER = re.compile(r"\d+(?:\.\d*)?")
_KNOWN_HEADERS = 10_000  # objects may have any keys; more than this are not remembered


def parse_columns(assignments: Iterable[str]) -> dict[str, str]:
    """Return `--column` flags, `role=name` or `table.role=name`, as a mapping; an empty name leaves a role out.

    Raises:
        ConfigError: one cannot be read, or names a role that does not exist.
    """
    columns = {}
    for assignment in assignments:
        key, equals, name = assignment.partition("=")
        table, dot, role = key.rpartition(".")
        roles = _ALIASES.get(table, {}) if dot else _ROLES  # type: ignore[call-overload]
        if not equals or (not name and role in _IDS):
            raise ConfigError(f"cannot read --column {assignment!r}; write it as user=customer_no or items.item=id")
        if role not in roles:
            raise ConfigError(
                f"--column {assignment!r}: no role {key!r}{near_miss(role, roles)}; roles are {', '.join(_ROLES)}, "
                "each also as interactions.ROLE or items.ROLE"
            )
        columns[key] = name
    return columns


@dataclass
class TableColumns:
    """Find the columns of one table by role.

    Attributes:
        table: "interactions" or "items".
        where: file:line of the header, for messages.
        assignments: names chosen by the user, of `parse_columns`.
        used: names that played a role so far, by role.
        header: all names so far.
    """

    table: TableName
    where: str
    assignments: Mapping[str, str]
    used: dict[str, dict[str, None]] = field(default_factory=dict)
    header: dict[str, None] = field(default_factory=dict)
    _known: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = field(default_factory=dict)

    def roles(self, header: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the columns of a header for each role, the preferred one first; for an id there is at most one.

        Raises:
            InputError: a name that plays a role stands twice.
        """
        key = tuple(header)
        if key not in self._known:
            if len(self._known) > _KNOWN_HEADERS:
                self._known.clear()
            self.header |= dict.fromkeys(key)
            self._known[key] = {role: self._find(role, key) for role in _ALIASES[self.table]}
        return self._known[key]

    def _find(self, role: str, header: Sequence[str]) -> tuple[str, ...]:
        chosen = self.assignments.get(f"{self.table}.{role}", self.assignments.get(role))
        if chosen is not None and (chosen in header or f"{self.table}.{role}" in self.assignments or not chosen):
            names = [name for name in header if name == chosen]
        elif chosen is not None and chosen in self.header:
            names = []
        else:
            by_alias = {_joined(alias): n for n, alias in reversed([*enumerate(_ALIASES[self.table][role])])}
            known = (name for name in header if _joined(name) in by_alias)
            names = sorted(known, key=lambda name: by_alias[_joined(name)])
        twice = [name for name, count in Counter(map(_plain, names)).items() if count > 1]
        if twice:
            raise InputError(f"{self.where}: the column {twice[0]!r} stands twice in the header; rename one of them")
        if role in _IDS:
            names = names[:1]
        self.used.setdefault(role, {}).update(dict.fromkeys(names))
        return tuple(names)

    def check(self) -> None:
        """Refuse a table that lacks an id, or a column that was named for this table.

        Raises:
            InputError: it does; the text names the near miss and the fix.
        """
        names = list(self.header)
        there = f"there are: {', '.join(names)[:500]}"
        own = {role: self.assignments.get(f"{self.table}.{role}") for role in _ALIASES[self.table]}
        missing = [role for role in _IDS if role in own and not self.used.get(role)]
        chosen = [name for name in own.values() if name and name not in self.header]
        chosen += [name for role in missing if (name := self.assignments.get(role))]
        if chosen:
            raise InputError(f"{self.where}: no column {chosen[0]!r}{near_miss(chosen[0], names)}; {there}")
        if missing:
            close = {role: self._near(role) for role in missing}
            flags = " ".join(f"--column {role}={name or 'NAME'}" for role, name in close.items())
            hint = " and ".join(f"(is it {name!r}?)" for name in close.values() if name)
            if any(map(_NUMBER.fullmatch, names)):
                hint += f"{' ' if hint else ''}(the first line looks like data: add one with the names of the columns)"
            raise InputError(
                f"{self.where}: no column for the {' and the '.join(missing)}{' ' if hint else ''}{hint}; {there}; "
                f"name it with {flags} (or {self.table}.{missing[0]}=... for this table alone)"
            )

    def _near(self, role: str) -> str | None:
        return next((name for name in self.header if near_miss(name, _ALIASES[self.table][role])), None)

    def used_names(self) -> dict[str, str]:
        """Return the names that played each role, for a message."""
        return {role: ", ".join(names) for role, names in self.used.items() if names}


def check_assignments(assignments: Mapping[str, str], tables: Sequence[TableColumns]) -> None:
    """Refuse a column that was named for a role but is in no table.

    Raises:
        InputError: there is one.
    """
    for role, name in assignments.items():
        if name and "." not in role and not any(name in table.used.get(role, {}) for table in tables):
            names = [column for table in tables for column in table.header]
            raise InputError(f"no column {name!r}{near_miss(name, names)}; there are: {', '.join(names)[:500]}")


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _joined(name: str) -> str:
    """Return a name as camel case joins it: `eventTime` is `event_time`."""
    return _plain(name).replace("_", "")
