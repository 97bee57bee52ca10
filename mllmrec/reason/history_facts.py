"""Count what sets a history apart from its catalogue: kinds, brands, looks, words.

The extractive profiles are written from these counts. So are the prompts of small models, which put a few facts into a
sentence well enough and find none in a long text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mllmrec.dataset.summary import Vocabulary, standouts, words
from mllmrec.reason.engine import Item
from mllmrec.reason.prompts import neutralize
from mllmrec.reason.token_budget import Measure
from mllmrec.reason.vision.measure import NAMES

_LOOKS = ("very dark", "dark", "bright", "muted", "vivid", "colourless", "stark", "soft", "busy", "calm")
_OUTLINES = ("round", "square", "rectangular", "triangular", "star-shaped", "ring-shaped", "diamond-shaped")
_PATTERNS = ("horizontal stripes", "vertical stripes", "diagonal stripes", "checks", "dots")
_TERM = re.compile(
    "|".join(re.escape(term) for term in sorted((*NAMES, *_LOOKS, *_OUTLINES, *_PATTERNS), key=len, reverse=True))
)
_NAMED = 3  # kinds, looks and titles of a line of facts; a small model repeats itself over more


def attributes(description: str) -> tuple[str, ...]:
    """Return the colors, looks, outlines and patterns that a description of this engine names, each once."""
    return tuple(dict.fromkeys(match.group() for match in _TERM.finditer(description)))


@dataclass(frozen=True, slots=True)
class Labels:
    """One kind of label (category, brand, look) an item can carry, and how often the catalogue does."""

    of: tuple[tuple[str, ...], ...]  # [I]
    counts: Counter[str]

    @staticmethod
    def build(labels: Iterable[Iterable[str]]) -> Labels:
        """Count the labels of each item."""
        rows = tuple(tuple(dict.fromkeys(row)) for row in labels)
        return Labels(rows, Counter(label for row in rows for label in row))

    def standouts(self, items: Sequence[int], *, most: int) -> list[tuple[str, int]]:
        """Return the labels that are commoner in a history than in the catalogue, with their counts."""
        chosen = Counter(label for i in items for label in self.of[i])
        least = 2 if len(items) > 3 else 1
        return standouts(chosen, len(items), self.counts, len(self.of), most=most, least=least)


@dataclass(frozen=True, slots=True)
class CatalogueCounts:
    """The labels and the words of a catalogue's items, counted.

    Attributes:
        categories, brands, looks: labels of each item.
        vocabulary: words of titles and descriptions, those of brand and categories aside.
    """

    categories: Labels
    brands: Labels
    looks: Labels
    vocabulary: Vocabulary

    @staticmethod
    def of(items: Sequence[Item], descriptions: Sequence[str]) -> CatalogueCounts:
        """Count the items, and the looks that the descriptions of their pictures name."""
        return CatalogueCounts(
            Labels.build(item.categories for item in items),
            Labels.build([item.brand] if item.brand else [] for item in items),
            Labels.build(attributes(text) for text in descriptions),
            Vocabulary.of([_item_words(item) for item in items]),
        )


class HistoryFacts:
    """Write the facts on a history in one line, for the prompt of a small model.

    Args:
        items: [I] the catalogue.
        descriptions: [I] the describer's text on each item's pictures.
        measure: of tokens.
    """

    def __init__(self, items: Sequence[Item], descriptions: Sequence[str], measure: Measure) -> None:
        self._items, self._measure = items, measure
        self._counts = CatalogueCounts.of(items, descriptions)

    def line(self, history: Sequence[int], tokens: int, item_tokens: int) -> str:
        """Return kinds and looks that stand out, and the newest titles, as data that is neutralized.

        Args:
            history: items, oldest first.
            tokens: of the line, at most.
            item_tokens: of a title or a label, at most.
        """
        kinds = [label for label, _ in self._counts.categories.standouts(history, most=_NAMED)]
        looks = [label for label, _ in self._counts.looks.standouts(history, most=_NAMED)]
        named = kinds or self._counts.vocabulary.distinctive(history, _NAMED)
        titles = list(dict.fromkeys(self._title(item) for item in reversed(history)))[:_NAMED]
        facts = (("Kinds", [kind.lower() for kind in named]), ("Looks", looks), ("Bought", titles))
        parts = ((label, [self._short(text, item_tokens) for text in texts if text]) for label, texts in facts)
        line = " ".join(f"{label}: {', '.join(texts)}." for label, texts in parts if texts)
        return self._measure.shorten(line, tokens).rstrip(" ,;\u2026") or "(nothing is known)"

    def _title(self, item: int) -> str:
        """Return a title without the brand that it begins with."""
        title, brand = self._items[item].title, self._items[item].brand
        return (title.removeprefix(brand).strip() if brand else title) or title

    def _short(self, text: str, tokens: int) -> str:
        return self._measure.shorten(neutralize(text), tokens).strip(" .,;\u2026")


def _item_words(item: Item) -> list[str]:
    # Brands and categories have sentences of their own.
    own = {word for text in (item.brand, *item.categories) for word in words(text)}
    return [word for word in words(f"{item.title} {item.description}") if word not in own]
