"""What a reasoning engine is: it turns items into descriptions, and histories into profiles.

The stages know engines by these two protocols only. An engine answers in the order it was asked; it never
raises for one bad item but says in that item's answer what went wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Item:
    """One item as the catalogue has it; every text is data, never an instruction.

    Attributes:
        title, brand, description: empty where unknown.
        categories: from general to special.
        price: in the shop's currency, None where unknown.
        images: local files, unchecked: whatever opens them must treat them as hostile.
    """

    title: str
    brand: str
    categories: tuple[str, ...]
    description: str
    price: float | None
    images: tuple[Path, ...]

    @property
    def text(self) -> str:
        """All that the catalogue says of it in words."""
        return " ".join(part for part in (self.title, self.brand, *self.categories, self.description) if part)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine says of one request.

    Attributes:
        text: the generated text, empty where there is none.
        status: "ok"; "text-only" (the item has no usable image, and `reason` says why where it should
            have had one); "flagged" (cut off to the last attempt, its whole sentences are kept); "doubtful" (it
            seems not to depend on its request, see `reason.dependence`; its text is kept); "unusable" (every
            attempt brought something that cannot be used: empty, looping, refusing, copying; asking again
            would bring the same); "failed" (the engine could not answer). `reason` says why.
        reason: one line, empty where all went well.
    """

    text: str
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One item of a user's history, as a profiler sees it.

    Attributes:
        item: index in the catalogue.
        description: what the describer said of the item's pictures.
        time: when the user touched it, None where unknown.
    """

    item: int
    description: str
    time: int | None


class Describer(Protocol):
    """Item images -> text (D_s of paper section 3.1)."""

    @property
    def fingerprint(self) -> str:
        """Everything beside the item that shapes an answer: engine, version, prompt, parameters."""
        ...

    @property
    def batch_size(self) -> int:
        """How many items one call should hold."""
        ...

    def material(self, item: Item) -> dict[str, Any]:
        """What of an item shapes its answer, pictures aside, JSON-like; equal material is asked once."""
        ...

    def pictures(self, item: Item) -> tuple[Path, ...]:
        """The pictures that are looked at."""
        ...

    def describe(self, items: Sequence[Item]) -> list[Answer]:
        """One answer an item, in order."""
        ...


class Profiler(Protocol):
    """A user's history -> a preference profile (P_u of paper section 3.1)."""

    @property
    def fingerprint(self) -> str:
        """Everything beside the history that shapes an answer."""
        ...

    @property
    def batch_size(self) -> int:
        """How many histories one call should hold."""
        ...

    def material(self, history: Sequence[HistoryItem]) -> dict[str, Any]:
        """What of a history shapes its answer, JSON-like; equal material is asked once."""
        ...

    def profile(self, histories: Sequence[Sequence[HistoryItem]]) -> list[Answer]:
        """One answer a history, in order; histories are oldest first."""
        ...
