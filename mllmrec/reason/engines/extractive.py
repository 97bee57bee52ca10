"""Descriptions without weights: what can be measured of a picture, in sentences, and nothing beyond that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mllmrec.foundation.images import ImageRefusedError, open_image
from mllmrec.reason.engine import Answer, Item
from mllmrec.reason.vision.colours import NAMES
from mllmrec.reason.vision.measure import SIDE, Measurements, measure

_VERSION = "extractive-description 2"
_LOOKS = ("very dark", "dark", "bright", "muted", "vivid", "colourless", "stark", "soft", "busy", "calm")
_OUTLINES = ("round", "square", "rectangular", "triangular", "star-shaped", "ring-shaped", "diamond-shaped")
_PATTERNS = ("horizontal stripes", "vertical stripes", "diagonal stripes", "checks", "dots")
_TERM = re.compile(
    "|".join(re.escape(term) for term in sorted((*NAMES, *_LOOKS, *_OUTLINES, *_PATTERNS), key=len, reverse=True))
)


class ExtractiveDescriber:
    """The Describer that needs no weights: colours, light, texture, shape and layout of real pixels."""

    batch_size = 64
    fingerprint = _VERSION

    def material(self, item: Item) -> dict[str, Any]:
        """The whole item."""
        return {
            "title": item.title,
            "brand": item.brand,
            "categories": item.categories,
            "description": item.description,
            "price": item.price,
        }

    def pictures(self, item: Item) -> tuple[Path, ...]:
        """All of them."""
        return item.images

    def describe(self, items: Sequence[Item]) -> list[Answer]:
        """One answer an item; a picture that cannot be used leaves the item its text, and the reason."""
        return [_describe(item) for item in items]


def _describe(item: Item) -> Answer:
    seen, reasons = [], []
    for path in item.images:
        try:
            seen.append(measure(open_image(path, side=2 * SIDE)))
        except ImageRefusedError as error:
            reasons.append(str(error))
    if not seen:
        return Answer("", "text-only", "; ".join(reasons))
    return Answer(" ".join(_sentences(seen)), "ok", "; ".join(reasons))


def attributes(description: str) -> tuple[str, ...]:
    """The colours, looks, outlines and patterns that a description of this engine names, each once."""
    return tuple(dict.fromkeys(match.group() for match in _TERM.finditer(description)))


def _sentences(seen: Sequence[Measurements]) -> Iterator[str]:
    first = seen[0]
    yield from _on_plain_ground(first) if first.outline else _full_bleed(first)
    named = {colour for colour, _ in first.palette}
    for number, other in enumerate(seen[1:], start=2):
        new = [colour for colour, _ in other.palette if colour not in named]
        named.update(new)
        if new:
            yield f"Picture {number} also shows {_join(new)}."


def _on_plain_ground(m: Measurements) -> Iterator[str]:
    colours = _join([colour for colour, _ in m.thing])
    outline = "irregularly shaped" if m.outline == "irregular" else m.outline
    pattern = f" with {m.pattern}" if m.pattern != "plain" else " in plain colour"
    size = "fills most of" if m.share > 0.5 else "stands in" if m.share > 0.15 else "is small in"
    article = "An" if outline[0] in "aeiou" else "A"
    yield f"{article} {outline} {colours} object{pattern} {size} the picture, on a {m.ground} ground."
    yield f"The look is {_join(_looks(m))}."


def _full_bleed(m: Measurements) -> Iterator[str]:
    looks = _looks(m)
    yield f"The picture is {_join(looks)}: {_join([f'{colour} ({share:.0%})' for colour, share in m.palette])}."
    if m.accents:
        touches = [f"{name} ({share:.0%}{f', {third}' if third else ''})" for name, share, third in m.accents]
        yield f"Touches of {_join(touches)} stand out."
    top, middle, bottom = m.bands
    if len({top, middle, bottom}) == 1:
        layout = [f"{top} from top to bottom"]
    else:
        layout = [f"{top} at the top, {middle} in the middle, {bottom} at the bottom"]
    if m.ground:
        layout.append(f"plain {m.ground} along the edges")
    if m.detail:
        layout.append(f"most detail in the {m.detail} third")
    if m.symmetric:
        layout.append("left mirrors right")
    if m.direction:
        layout.append(f"{m.direction} lines prevail")
    yield f"It is {'; '.join(layout)}."


def _looks(m: Measurements) -> list[str]:
    """Plain words for where the measurements are far from the middle."""
    scale = (
        ("very dark", m.brightness < 18),
        ("dark", 18 <= m.brightness < 38),
        ("bright", m.brightness > 68),
        ("colourless", m.colourfulness < 5),
        ("muted", 5 <= m.colourfulness < 13),
        ("vivid", m.colourfulness > 32),
        ("stark in contrast", m.contrast > 30),
        ("soft in contrast", m.contrast < 13),
        ("busy", m.busyness > 0.42),
        ("calm", m.busyness < 0.12),
    )
    return [word for word, holds in scale if holds] or ["even in light and colour"]


def _join(parts: Sequence[str]) -> str:
    *head, last = parts
    return f"{', '.join(head)} and {last}" if head else last
