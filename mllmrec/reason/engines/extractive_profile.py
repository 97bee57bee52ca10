"""Profiles without weights: what sets a history apart from the catalogue, counted and put in sentences.

It reads the history's items and the catalogue's texts; it has no model of language and claims none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mllmrec.foundation import storage
from mllmrec.reason.engine import Answer, HistoryItem, Item
from mllmrec.reason.engines.extractive import attributes
from mllmrec.reason.vocabulary import Vocabulary, standouts, words

VERSION = "extractive-profile 3"
_TURN = 6  # the shortest history in which the last third says something of its own
_NAMED = 5  # titles a profile names


@dataclass(frozen=True, slots=True)
class _Labels:
    """One kind of label (category, brand, look) an item can carry, and how often the catalogue does."""

    of: tuple[tuple[str, ...], ...]  # [I]
    counts: Counter[str]

    @staticmethod
    def build(labels: Iterable[Iterable[str]]) -> _Labels:
        rows = tuple(tuple(dict.fromkeys(row)) for row in labels)
        return _Labels(rows, Counter(label for row in rows for label in row))

    def standouts(self, items: Sequence[int], *, most: int) -> list[tuple[str, int]]:
        chosen = Counter(label for i in items for label in self.of[i])
        least = 2 if len(items) > 3 else 1
        return standouts(chosen, len(items), self.counts, len(self.of), most=most, least=least)


class ExtractiveProfiler:
    """The Profiler that needs no weights.

    Args:
        items: [I] the catalogue.
        descriptions: [I] what the describer said of each item's pictures.
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
        self._statistics = storage.hash_value(
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
        """Version, wording and the statistics of the whole catalogue, which a profile is set against."""
        return f"{VERSION} terms={self._terms} catalogue={self._statistics}"

    def material(self, history: Sequence[HistoryItem]) -> dict[str, Any]:
        """The items in order; the clock does not count, only whether there is one."""
        timed = bool(history) and history[0].time is not None
        return {"timed": timed, "items": [(entry.item, entry.description) for entry in history]}

    def profile(self, histories: Sequence[Sequence[HistoryItem]]) -> list[Answer]:
        """One profile a history."""
        return [Answer(self._write(history)) for history in histories]

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
        found = self._categories.standouts(items, most=4)
        if not found:
            return ""
        total = len(items)
        return f"Chooses {_join(f'{label} ({count} of {total})' for label, count in found)}."

    def _words(self, items: Sequence[int]) -> str:
        found = self._vocabulary.distinctive(items, self._terms)
        return f"Words that set this taste apart: {', '.join(found)}." if found else ""

    def _brand(self, items: Sequence[int]) -> str:
        found = self._brands.standouts(items, most=3)
        again, once = ([label for label, count in found if (count > 1) is many] for many in (True, False))
        said = [f"Comes back to {_join(again)}." if again else "", f"Has tried {_join(once)}." if once else ""]
        return " ".join(sentence for sentence in said if sentence)

    def _look(self, items: Sequence[int]) -> str:
        found = self._looks.standouts(items, most=5)
        return f"Picks pictures that are {_join(label for label, _ in found)}." if found else ""

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
