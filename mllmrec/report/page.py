"""Self-contained HTML pages: templates of the package, everything from data escaped, pictures embedded."""

from __future__ import annotations

import base64
import io
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mllmrec.evaluation.metrics import decimals, written
from mllmrec.foundation.environment import VERSION
from mllmrec.foundation.images import ImageRefusedError, open_image

_SIDE = 88  # pixels of a thumbnail's longer side: twice what is shown, for dense screens
Measure = tuple[str, str, str]  # measure, value, reading: a line of a table
_JOINERS = "\u200c\u200d"  # scripts and emoji need them, and they reorder nothing


def render(template: str, **values: Any) -> str:
    """Return a page from a template of this package; an unknown name in it is an error."""
    return _environment().get_template(template).render(version=VERSION, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mllmrec.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "decimals": decimals, "written": written}
    return environment


def shown(text: str, most: int = 300) -> str:
    """Return text from data, cut to a length, without characters that steer what a reader sees."""
    kept = "".join(
        c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}"
        for c in text[: most + 1]
    )
    return kept if len(kept) <= most else f"{kept[:most].rstrip()}…"


@lru_cache(maxsize=4096)
def thumbnail(path: Path) -> str | None:
    """Return a small JPEG of a picture as a data URL; None if the picture cannot be used."""
    try:
        image = open_image(path, side=2 * _SIDE)
    except ImageRefusedError:
        return None
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=70, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
