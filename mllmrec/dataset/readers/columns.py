"""Which column is which: the names that shops and datasets use, and an error that names the near miss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mllmrec.errors import ConfigError, InputError, near_miss

ALIASES: dict[str, tuple[str, ...]] = {
    "user": ("user", "user_id", "userid", "reviewerid", "customer", "customer_id", "uid", "session_id"),
    "item": (
        "item",
        "item_id",
        "itemid",
        "asin",
        "parent_asin",
        "product",
        "product_id",
        "sku",
        "movieid",
        "iid",
    ),
    "rating": ("rating", "overall", "score", "stars"),
    "timestamp": ("timestamp", "time", "unixreviewtime", "unix_time", "position", "order", "ts"),
    "split": ("split", "x_label"),
    "title": ("title", "name", "product_name"),
    "brand": ("brand", "store", "manufacturer"),
    "categories": ("categories", "category", "genres", "tags"),
    "description": ("description", "text", "body"),
    "price": ("price",),
    "images": ("images", "image", "image_path", "imurl", "imageurl", "imageurlhighres"),
}


def parse_columns(assignments: Iterable[str]) -> dict[str, str]:
    """`--column role=name` flags as a mapping.

    Raises:
        ConfigError: one cannot be read, or names a role that does not exist.
    """
    found = {}
    for assignment in assignments:
        role, equals, name = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"cannot read --column {assignment!r}; write it as user=customer_no")
        if role not in ALIASES:
            raise ConfigError(
                f"--column {assignment!r}: no role {role!r}{near_miss(role, ALIASES)}; roles are {', '.join(ALIASES)}"
            )
        found[role] = name
    return found


def find(role: str, names: Sequence[str], chosen: Mapping[str, str]) -> str | None:
    """The column that plays a role, or None.

    Raises:
        InputError: a column was named for the role, and there is none of that name.
    """
    if role in chosen:
        if chosen[role] not in names:
            raise InputError(
                f"no column {chosen[role]!r}{near_miss(chosen[role], names)}; there are: {', '.join(names)}"
            )
        return chosen[role]
    lower = {name.strip().lower(): name for name in names}
    return next((lower[alias] for alias in ALIASES[role] if alias in lower), None)


def require(role: str, names: Sequence[str], chosen: Mapping[str, str], where: str) -> str:
    """The column that plays a role.

    Raises:
        InputError: there is none; the text names the near miss and the fix.
    """
    found = find(role, names, chosen)
    if found is None:
        close = next((name for name in names if near_miss(name, ALIASES[role])), None)
        hint = f" (is it {close!r}?)" if close else ""
        raise InputError(
            f"{where}: no column for the {role}{hint}; there are: {', '.join(names)}; name it with "
            f"--column {role}={close or 'NAME'}"
        )
    return found
