"""Questions to a chat model until each has a usable answer, or the cap is reached.

Each attempt asks with the template's next added instruction, so a retry differs from what failed and is the
same in every run. The reason of the last failure stays with the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mllmrec.reason import answers
from mllmrec.reason.answers import fault, salvage, thought_through
from mllmrec.reason.chat import ChatModel, ChatRequest, Reply
from mllmrec.reason.engine import Answer
from mllmrec.reason.prompts import Template

FLAGGED, UNUSABLE, FAILED = "flagged", "unusable", "failed"


@dataclass(frozen=True, slots=True)
class Asker:
    """A chat model, a template, and how often to try.

    Attributes:
        model: who answers.
        template: what is asked.
        values: what fills the template's places beside the data: {category} and {words}.
        retries: attempts after the first.
    """

    model: ChatModel
    template: Template
    values: Mapping[str, str]
    retries: int

    @property
    def fingerprint(self) -> str:
        """Model, wording and checks; the data is in the request."""
        return f"{self.model.fingerprint} template={self.template.digest} retries={self.retries} {answers.VERSION}"

    def ask(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        """One answer a request, in order; no answer depends on the other requests of the call.

        Status "ok"; "flagged" (cut or looping to the last, what is left of it is kept); "unusable" (the model
        answered, but never with anything to use: asking the same again would bring the same); "failed" (the
        engine could not answer).
        """
        found: list[Answer] = [Answer("", FAILED)] * len(requests)
        pending = list(range(len(requests)))
        for attempt in range(self.retries + 1):
            asked = [self._attempt(requests[n], attempt) for n in pending]
            judged = [judge(r, q, attempt) for r, q in zip(self.model.complete(asked), asked, strict=True)]
            for n, answer in zip(pending, judged, strict=True):
                found[n] = _better(found[n], answer)
            pending = [n for n, answer in zip(pending, judged, strict=True) if answer.status in (FLAGGED, UNUSABLE)]
            if not pending:
                break
        return found

    def _attempt(self, request: ChatRequest, attempt: int) -> ChatRequest:
        return self.template.again(request, attempt, self.values) if attempt else request


def judge(reply: Reply, request: ChatRequest, attempt: int = 0) -> Answer:
    """What a reply is worth as an answer to a request; `attempt` counts from 0."""
    reply = replace(reply, text=thought_through(reply.text))
    why = fault(reply, request.text)
    if reply.finish == "failed":
        return Answer("", FAILED, why)
    tried = f" (attempt {attempt + 1})" if attempt else ""
    if not why:
        return Answer(reply.text, "ok")
    if why.startswith("cut"):
        return Answer(salvage(reply), FLAGGED, f"{why}{tried}")
    return Answer("", UNUSABLE, f"{why}{tried}")


def _better(before: Answer, after: Answer) -> Answer:
    """The later answer, but never nothing in the place of something."""
    return before if before.status == FLAGGED and after.status in (UNUSABLE, FAILED) else after
