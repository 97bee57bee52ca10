"""Descriptions and profiles without weights.

A description puts into sentences what can be measured of an item's pictures. A profile says what sets a history apart
from the catalogue, counted. Neither has a model of language, and neither claims one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mllmrec.foundation import digests
from mllmrec.foundation.images import ImageRefusedError, open_image
from mllmrec.reason.engine import Answer, HistoryItem, Item, Material, Report, no_report
from mllmrec.reason.history_facts import CatalogueCounts
from mllmrec.reason.vision.measure import SIDE, Measurements, measure

_DESCRIPTION_VERSION = "extractive-description 2"
PROFILE_VERSION = "extractive-profile 3"
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
        """Return one answer per item; a picture that cannot be used leaves the item its text, and the reason."""
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
        self.items, self.descriptions, self.terms = items, descriptions, terms
        self._counts = counts = CatalogueCounts.of(items, descriptions)
        self._statistics = digests.hash_value(
            {
                "categories": sorted(counts.categories.counts.items()),
                "brands": sorted(counts.brands.counts.items()),
                "looks": sorted(counts.looks.counts.items()),
                "terms": list(zip(counts.vocabulary.terms, counts.vocabulary.idf.tolist(), strict=True)),
                "items": [(item.title, item.brand, item.categories, item.description) for item in items],
            }
        )

    @property
    def fingerprint(self) -> str:
        """Return version, wording and the statistics of the whole catalogue, which a profile is set against."""
        return f"{PROFILE_VERSION} terms={self.terms} catalogue={self._statistics}"

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
        labels = self._counts.categories.standouts(items, most=4)
        if not labels:
            return ""
        total = len(items)
        return f"Chooses {_join(f'{label} ({count} of {total})' for label, count in labels)}."

    def _words(self, items: Sequence[int]) -> str:
        terms = self._counts.vocabulary.distinctive(items, self.terms)
        return f"Words that set this taste apart: {', '.join(terms)}." if terms else ""

    def _brand(self, items: Sequence[int]) -> str:
        brands = self._counts.brands.standouts(items, most=3)
        repeated, single = ([label for label, count in brands if (count > 1) is many] for many in (True, False))
        comeback = f"Comes back to {_join(repeated)}." if repeated else ""
        trial = f"Has tried {_join(single)}." if single else ""
        return " ".join(sentence for sentence in (comeback, trial) if sentence)

    def _look(self, items: Sequence[int]) -> str:
        looks = self._counts.looks.standouts(items, most=5)
        return f"Picks pictures that are {_join(label for label, _ in looks)}." if looks else ""

    def _turn(self, history: Sequence[HistoryItem]) -> str:
        if len(history) < _TURN or history[0].time is None:
            return ""
        items = [entry.item for entry in history]
        cut = len(items) - len(items) // 3
        before = {label for label, _ in self._counts.categories.standouts(items[:cut], most=4)}
        lately = [label for label, _ in self._counts.categories.standouts(items[cut:], most=3) if label not in before]
        return f"Lately turns to {_join(lately)}." if lately else ""

    def _examples(self, items: Sequence[int]) -> str:
        titles = [self._titles[i].rstrip(" .") for i in reversed(items) if self._titles[i]][:_NAMED]
        return f"Chose last: {'; '.join(titles)}." if titles else ""


def _join(parts: Iterable[str]) -> str:
    *head, last = parts
    return f"{', '.join(head)} and {last}" if head else last
