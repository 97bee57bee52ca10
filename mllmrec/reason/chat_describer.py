"""The Describer over a chat model: an item's pictures and a template -> D_s (method 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllmrec.foundation.images import ImageRefusedError, open_image
from mllmrec.reason.asking import FAILED, Asker
from mllmrec.reason.chat import ChatRequest
from mllmrec.reason.engine import Answer, Item
from mllmrec.reason.quote import element

_CHECK_SIDE = 64  # a picture is decoded at a fraction of its size where only its soundness is in question


class ChatDescriber:
    """Asks a chat model what an item's pictures show.

    Args:
        asker: model, template and cap of retries.
        item_tokens: estimated tokens that the item's own text may take, where the template has it.
        max_images: pictures an item; of more (the frames of a video), so many spread evenly.
    """

    def __init__(self, asker: Asker, *, item_tokens: int, max_images: int) -> None:
        self._asker, self._item_tokens, self._max_images = asker, item_tokens, max_images

    @property
    def fingerprint(self) -> str:
        """Model, wording, checks and limits."""
        return f"chat-description 1 {self._asker.fingerprint} images={self._max_images}"

    @property
    def batch_size(self) -> int:
        """What the model takes at once."""
        return self._asker.model.batch_size

    def material(self, item: Item) -> dict[str, Any]:
        """The question, pictures aside: items with the same pictures and the same question get one answer."""
        request = self.request(item)
        return {"system": request.system, "text": request.text}

    def pictures(self, item: Item) -> tuple[Path, ...]:
        """The pictures that are looked at."""
        return spread(item.images, self._max_images)

    def describe(self, items: Sequence[Item]) -> list[Answer]:
        """One answer an item; an item without a usable picture is left its text, and the reason."""
        found: list[Answer] = [Answer("", "text-only")] * len(items)
        asked = {n: self.request(item) for n, item in enumerate(items) if item.images}
        for n, answer in zip(asked, self._asker.ask(list(asked.values())), strict=True):
            found[n] = answer
        self._without_bad_pictures(found, {n: asked[n] for n in asked if found[n].status == FAILED})
        return found

    def _without_bad_pictures(self, found: list[Answer], failed: dict[int, ChatRequest]) -> None:
        """Ask again with the pictures that open, where some do not: one bad picture is no reason to lose the rest."""
        again: dict[int, tuple[ChatRequest, str]] = {}
        for n, request in failed.items():
            good, reasons = sort_out(request.images)
            said = "; ".join(reasons)
            if reasons and good:
                again[n] = replace(request, images=good), said
            elif reasons:
                found[n] = Answer("", "text-only", said)
        if again:
            answers = self._asker.ask([request for request, _ in again.values()])
            for (n, (_, said)), answer in zip(again.items(), answers, strict=True):
                found[n] = replace(answer, reason="; ".join(part for part in (answer.reason, said) if part))

    def request(self, item: Item) -> ChatRequest:
        """The question, with the item's pictures."""
        values = dict(self._asker.values)
        if self._asker.template.wants_item:
            values["item"] = element("item", fields_of(item), self._item_tokens)
        return self._asker.template.request(values, self.pictures(item))


def fields_of(item: Item) -> list[tuple[str, str]]:
    """What the catalogue says of an item, as labelled fields."""
    return [
        ("title", item.title),
        ("brand", item.brand),
        ("category", " / ".join(item.categories)),
        ("description", item.description),
    ]


def spread(images: Sequence[Path], most: int) -> tuple[Path, ...]:
    """At most so many pictures, the first and others at even distances."""
    if len(images) <= most:
        return tuple(images)
    return tuple(images[n * len(images) // most] for n in range(most))


def sort_out(images: Sequence[Path]) -> tuple[tuple[Path, ...], list[str]]:
    """The pictures that open, and why the others do not."""
    good, reasons = [], []
    for path in images:
        try:
            open_image(path, side=_CHECK_SIDE)
            good.append(path)
        except ImageRefusedError as error:
            reasons.append(str(error))
    return tuple(good), reasons
