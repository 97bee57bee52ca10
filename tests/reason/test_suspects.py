"""Refusals and set phrases show in a run as a whole, in languages of which no word is known here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mllmrec.config import DescribeConfig
from mllmrec.dataset import Dataset
from mllmrec.reason.answer_checks import check_reply
from mllmrec.reason.answer_suspects import mark_suspects, suspicions
from mllmrec.reason.cache import open_cache
from mllmrec.reason.describe import describe_items
from mllmrec.reason.engine import Answer, Item, Reply, Report, no_report

ITEMS = 80
REFUSALS = {
    "Polish": "Przykro mi, ale nie mog\u0119 pom\u00f3c w opisaniu tego zdj\u0119cia.",
    "Turkish": "\u00dczg\u00fcn\u00fcm, bu g\u00f6rseli a\u00e7\u0131klamama izin verilmiyor.",
    "Finnish": "Valitettavasti en pysty auttamaan t\u00e4m\u00e4n kuvan kanssa.",
    "Swahili": "Samahani, siwezi kusaidia na picha hii.",
    "Hindi": "\u0915\u094d\u0937\u092e\u093e \u0915\u0930\u0947\u0902,"
    " \u0935\u0930\u094d\u0923\u0928 \u0938\u0902\u092d\u0935 \u0928\u0939\u0940\u0902\u0964",
    "Chinese": "\u8fd9\u5f20\u56fe\u7247\u7684\u5185\u5bb9\u4e0d\u4fbf\u63cf\u8ff0\u3002",
    "English": "This content goes against what this assistant may discuss.",
}
COLOURS = ["red", "blue", "green", "amber", "black", "white", "teal", "grey", "pink", "brown"]
THINGS = [
    "kettle",
    "drill",
    "lamp",
    "scarf",
    "mug",
    "clamp",
    "rope",
    "brush",
    "shelf",
    "glove",
    "tripod",
    "funnel",
    "beaker",
]
EXTRAS = [
    "handle",
    "lid",
    "strap",
    "zip",
    "pocket",
    "spout",
    "hinge",
    "cord",
    "seam",
    "rim",
    "knob",
    "buckle",
    "lining",
    "clasp",
    "spring",
    "wheel",
]


@pytest.fixture(scope="module")
def run() -> tuple[list[str], list[str]]:
    """Titles of items, and a paragraph on each; the paragraphs share their turns of phrase, as a model's do."""
    drawn = np.random.default_rng(1)
    titles, texts = [], []
    for n in range(ITEMS):
        colour, second, thing = drawn.choice(COLOURS), drawn.choice(COLOURS), drawn.choice(THINGS)
        first, other, last = drawn.choice(EXTRAS, size=3, replace=False)
        titles.append(f"Model{n:03d} {thing} with {first}, {colour}")
        texts.append(
            f"The item is a {colour} {thing} with a {second} {first} and a sturdy {other}. It is made of durable "
            f"material and would suit {drawn.choice(THINGS)} buyers; the {last} is finished in {drawn.choice(COLOURS)}."
        )
    return titles, texts


def suspected(titles: Sequence[str], texts: Sequence[str]) -> set[int]:
    return {n for n, why in enumerate(suspicions(titles, texts)) if why}


def test_a_run_without_refusals_is_not_suspected(run: tuple[list[str], list[str]]) -> None:
    titles, texts = run
    assert suspected(titles, texts) == set()
    # Answers in another language than the catalogue's share no word with it, and are no refusals for that.
    foreign = ["\u7ea2\u8272\u68c9\u886c\u886b" * (1 + n % 3) + chr(0x4E00 + n) * 9 for n in range(ITEMS)]
    assert suspected(titles, foreign) == set()
    assert suspected([""] * ITEMS, texts) == set()


@pytest.mark.parametrize("language", REFUSALS)
def test_refusals_are_seen_whether_many_or_one(language: str, run: tuple[list[str], list[str]]) -> None:
    titles, texts = run
    said = REFUSALS[language]
    assert check_reply(Reply(said), "Describe the item.")[1] == "" or language == "Finnish"  # no phrase list knows them
    assert suspected(titles, [said] * ITEMS) == set(range(ITEMS))
    few = {3, 41, 77}
    assert suspected(titles, [said if n in few else text for n, text in enumerate(texts)]) == few
    assert suspected(titles, [said if n == 12 else text for n, text in enumerate(texts)]) == {12}


def test_set_phrases_with_a_word_of_their_item_are_seen(run: tuple[list[str], list[str]]) -> None:
    titles, texts = run
    phrase = "Tuotteesta {} on valitettavasti mahdotonta sanoa kuvan perusteella mit\u00e4\u00e4n varmaa."
    some = set(range(0, ITEMS, 10))
    planted = [phrase.format(titles[n].split()[0]) if n in some else text for n, text in enumerate(texts)]
    assert suspected(titles, planted) == some


def test_equal_requests_count_once_and_only_usable_answers_are_judged(run: tuple[list[str], list[str]]) -> None:
    titles, texts = run
    keys = [str(n) for n in range(ITEMS)]
    answers = [Answer(text) for text in texts]
    # The same pictures in five items: one request, one answer, which is no set phrase.
    keys[:5], titles, answers[:5] = ["0"] * 5, [titles[0]] * 5 + titles[5:], [answers[0]] * 5
    assert mark_suspects(keys, titles, answers) == answers
    answers[9:13] = [Answer("", "unusable", "refusal")] + [Answer("Haiwezekani kabisa.")] * 3
    judged = mark_suspects(keys, titles, answers)
    assert {n for n, answer in enumerate(judged) if answer.status == "suspect"} == {10, 11, 12}
    assert judged[10] == Answer("Haiwezekani kabisa.", "suspect", "the same answer as to 2 other requests")
    assert [judged[n] for n in range(ITEMS) if n not in (10, 11, 12)] == answers[:10] + answers[13:]


def test_a_stage_counts_what_is_suspect_and_keeps_its_text(dataset: Dataset, tmp_path: Path) -> None:
    class Refusing:
        fingerprint, batch_size = "refusing", 16

        def material(self, item: Item) -> dict[str, str]:
            return {"title": item.title}

        def pictures(self, item: Item) -> tuple[Path, ...]:
            return item.images

        def describe(self, items: Sequence[Item], report: Report = no_report) -> list[Answer]:
            return [Answer(REFUSALS["Swahili"]) for _ in items]

    with open_cache(tmp_path / "c.sqlite") as cache:
        made = describe_items(dataset, DescribeConfig(engine="openai"), cache, engine=Refusing())
    assert set(made.texts) == {REFUSALS["Swahili"]} and set(made.table["status"]) == {"suspect"}
    assert f"{dataset.n_items} items described ({dataset.n_items} of them suspect)" in made.summary
