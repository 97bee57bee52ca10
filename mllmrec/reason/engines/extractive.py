"""Descriptions and profiles without weights.

A description puts into sentences what can be measured of an item's pictures. A profile says what sets a history apart
from the catalogue, counted. Neither has a model of language, and neither claims one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mllmrec.dataset.vocabulary import Vocabulary, standouts, words
from mllmrec.foundation import digests
from mllmrec.foundation.images import ImageRefusedError, open_image
from mllmrec.reason.engine import Answer, HistoryItem, Item, Material, Report, no_report
from mllmrec.reason.vision.measure import NAMES, SIDE, Measurements, measure

_DESCRIPTION_VERSION = "extractive-description 2"
PROFILE_VERSION = "extractive-profile 3"
_LOOKS = ("very dark", "dark", "bright", "muted", "vivid", "colourless", "stark", "soft", "busy", "calm")
_OUTLINES = ("round", "square", "rectangular", "triangular", "star-shaped", "ring-shaped", "diamond-shaped")
_PATTERNS = ("horizontal stripes", "vertical stripes", "diagonal stripes", "checks", "dots")
_TERM = re.compile(
    "|".join(re.escape(term) for term in sorted((*NAMES, *_LOOKS, *_OUTLINES, *_PATTERNS), key=len, reverse=True))
)
_TURN = 6  # the shortest history in which the last third says something of its own
_NAMED = 5  # titles a profile names


class ExtractiveDescriber:
    """The Describer that needs no weights: colors, light, texture, shape and layout of real pixels."""

    batch_size = 64
    fingerprint = _DESCRIPTION_VERSION

    def material(self, item: Item) -> Material:
        """Return the whole item."""
        return {
            "title": item.title,
            "brand": item.brand,
            "categories": item.categories,
            "description": item.description,
            "price": item.price,
        }

    def pictures(self, item: Item) -> tuple[Path, ...]:
        """Return all of them."""
        return item.images

    def describe(self, items: Sequence[Item], report: Report[Answer] = no_report) -> list[Answer]:
        """Return one answer an item; a picture that cannot be used leaves the item its text, and the reason."""
        answers = []
        for item in items:
            answers.append(_describe(item))
            report(len(answers))
        return answers


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
    """Return the colors, looks, outlines and patterns that a description of this engine names, each once."""
    return tuple(dict.fromkeys(match.group() for match in _TERM.finditer(description)))


def _sentences(seen: Sequence[Measurements]) -> Iterator[str]:
    first = seen[0]
    yield from _on_plain_ground(first) if first.outline else _full_bleed(first)
    named = {color for color, _ in first.palette}
    for number, other in enumerate(seen[1:], start=2):
        new = [color for color, _ in other.palette if color not in named]
        named.update(new)
        if new:
            yield f"Picture {number} also shows {_join(new)}."


def _on_plain_ground(m: Measurements) -> Iterator[str]:
    colors = _join([color for color, _ in m.thing])
    outline = "irregularly shaped" if m.outline == "irregular" else m.outline
    pattern = f" with {m.pattern}" if m.pattern != "plain" else " in plain colour"
    size = "fills most of" if m.share > 0.5 else "stands in" if m.share > 0.15 else "is small in"
    article = "An" if outline[0] in "aeiou" else "A"
    yield f"{article} {outline} {colors} object{pattern} {size} the picture, on a {m.ground} ground."
    yield f"The look is {_join(_looks(m))}."


def _full_bleed(m: Measurements) -> Iterator[str]:
    looks = _looks(m)
    yield f"The picture is {_join(looks)}: {_join([f'{color} ({share:.0%})' for color, share in m.palette])}."
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
    """Return plain words for the measurements that are far from the middle."""
    scale = (
        ("very dark", m.brightness < 18),
        ("dark", 18 <= m.brightness < 38),
        ("bright", m.brightness > 68),
        ("colourless", m.colorfulness < 5),
        ("muted", 5 <= m.colorfulness < 13),
        ("vivid", m.colorfulness > 32),
        ("stark in contrast", m.contrast > 30),
        ("soft in contrast", m.contrast < 13),
        ("busy", m.busyness > 0.42),
        ("calm", m.busyness < 0.12),
    )
    return [word for word, holds in scale if holds] or ["even in light and colour"]


@dataclass(frozen=True, slots=True)
class _Labels:
    """One kind of label (category, brand, look) an item can carry, and how often the catalogue does."""

    of: tuple[tuple[str, ...], ...]  # [I]
    counts: Counter[str]

    @staticmethod
    def build(labels: Iterable[Iterable[str]]) -> _Labels:
        """Count the labels of each item."""
        rows = tuple(tuple(dict.fromkeys(row)) for row in labels)
        return _Labels(rows, Counter(label for row in rows for label in row))

    def standouts(self, items: Sequence[int], *, most: int) -> list[tuple[str, int]]:
        """Return the labels that are commoner in a history than in the catalogue, with their counts."""
        chosen = Counter(label for i in items for label in self.of[i])
        least = 2 if len(items) > 3 else 1
        return standouts(chosen, len(items), self.counts, len(self.of), most=most, least=least)


class ExtractiveProfiler:
    """The Profiler that needs no weights.

    Args:
        items: [I] the catalogue.
        descriptions: [I] the describer's text on each item's pictures.
        terms: how many of a user's own words a profile names.
    """

    batch_size = 256

    def __init__(self, items: Sequence[Item], descriptions: Sequence[str], *, terms: int) -> None:
        self._titles = [item.title for item in items]
        self._terms = terms
        self._categories = _Labels.build(item.categories for item in items)
        self._brands = _Labels.build([item.brand] if item.brand else [] for item in items)
        self._looks = _Labels.build(attributes(text) for text in descriptions)
        self._vocabulary = Vocabulary.of([_item_words(item) for item in items])
        self._statistics = digests.hash_value(
            {
                "categories": sorted(self._categories.counts.items()),
                "brands": sorted(self._brands.counts.items()),
                "looks": sorted(self._looks.counts.items()),
                "terms": list(zip(self._vocabulary.terms, self._vocabulary.idf.tolist(), strict=True)),
                "items": [(item.title, item.brand, item.categories, item.description) for item in items],
            }
        )

    @property
    def fingerprint(self) -> str:
        """Return version, wording and the statistics of the whole catalogue, which a profile is set against."""
        return f"{PROFILE_VERSION} terms={self._terms} catalogue={self._statistics}"

    def material(self, history: Sequence[HistoryItem]) -> Material:
        """Return the items in order; the clock does not count, only whether there is one."""
        timed = bool(history) and history[0].time is not None
        return {"timed": timed, "items": [(entry.item, entry.description) for entry in history]}

    def profile(self, histories: Sequence[Sequence[HistoryItem]], report: Report[Answer] = no_report) -> list[Answer]:
        """Return one profile a history."""
        answers = []
        for history in histories:
            answers.append(Answer(self._write(history)))
            report(len(answers))
        return answers

    def _write(self, history: Sequence[HistoryItem]) -> str:
        items = [entry.item for entry in history]
        sentences = [
            self._taste(items),
            self._words(items),
            self._brand(items),
            self._look(items),
            self._turn(history),
            self._examples(items),
        ]
        return " ".join(sentence for sentence in sentences if sentence)

    def _taste(self, items: Sequence[int]) -> str:
        labels = self._categories.standouts(items, most=4)
        if not labels:
            return ""
        total = len(items)
        return f"Chooses {_join(f'{label} ({count} of {total})' for label, count in labels)}."

    def _words(self, items: Sequence[int]) -> str:
        terms = self._vocabulary.distinctive(items, self._terms)
        return f"Words that set this taste apart: {', '.join(terms)}." if terms else ""

    def _brand(self, items: Sequence[int]) -> str:
        brands = self._brands.standouts(items, most=3)
        repeated, single = ([label for label, count in brands if (count > 1) is many] for many in (True, False))
        comeback = f"Comes back to {_join(repeated)}." if repeated else ""
        trial = f"Has tried {_join(single)}." if single else ""
        return " ".join(sentence for sentence in (comeback, trial) if sentence)

    def _look(self, items: Sequence[int]) -> str:
        looks = self._looks.standouts(items, most=5)
        return f"Picks pictures that are {_join(label for label, _ in looks)}." if looks else ""

    def _turn(self, history: Sequence[HistoryItem]) -> str:
        if len(history) < _TURN or history[0].time is None:
            return ""
        items = [entry.item for entry in history]
        cut = len(items) - len(items) // 3
        before = {label for label, _ in self._categories.standouts(items[:cut], most=4)}
        lately = [label for label, _ in self._categories.standouts(items[cut:], most=3) if label not in before]
        return f"Lately turns to {_join(lately)}." if lately else ""

    def _examples(self, items: Sequence[int]) -> str:
        titles = [self._titles[i].rstrip(" .") for i in reversed(items) if self._titles[i]][:_NAMED]
        return f"Chose last: {'; '.join(titles)}." if titles else ""


def _item_words(item: Item) -> list[str]:
    # Brands and categories have sentences of their own.
    own = {word for text in (item.brand, *item.categories) for word in words(text)}
    return [word for word in words(f"{item.title} {item.description}") if word not in own]


def _join(parts: Iterable[str]) -> str:
    *head, last = parts
    return f"{', '.join(head)} and {last}" if head else last
