"""Faults of a small model. SmolLM2-135M-Instruct wrote the texts named in capitals; the others are made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mllmrec.engine_config import ChatServerConfig
from mllmrec.reason.answer_checks import CUT, LIST, REPEATS, check_reply, salvage, without_repeated_sentences
from mllmrec.reason.answer_grounds import EXAMPLE, STRAY
from mllmrec.reason.chat import to_answer
from mllmrec.reason.engine import ChatRequest, Reply
from mllmrec.reason.engines.openai_format import chat_body
from mllmrec.reason.prompts import load_template

PROMPT = """One customer of a shop for Home chose these items, oldest first:

- Gladstone Everyday Puzzle; Play / Toys; Puzzle of the Everyday line. Sanded smooth for small hands
- Brightwell Atelier Mug; Kitchen / Tableware; Mug of the Atelier line. Glazed stoneware for every day

Say in two or three short sentences what this customer likes."""
CLASSIC = (
    "The customer is a classic, classic, and classic. They're a classic, classic, and classic. They're a classic, "
    "classic, and classic."
)
MASTER = (
    "The customer is a classic, classic, classic. They're a master of their craft, with a love for the classics. "
    "They're a master of their craft, with a love for the classics."
)
LOYAL = (
    "This customer is a loyal customer who appreciates the unique and high-end items available at the store. They're a "
    "dedicated customer who always looks for the best, and they're willing to spend a bit of extra to try something "
    "new and"
)


@pytest.mark.parametrize(
    ("text", "finish", "fault"),
    [
        (CLASSIC, "stop", REPEATS),
        (LOYAL, "length", CUT),
        # The rest is written by hand.
        ("This customer likes:\n- red mugs\n- striped cloth\n- wooden toys", "stop", LIST),
        ("Mugs. As an AI language model, I do not know what the customer likes.", "stop", "the model speaks of itself"),
        ("Likes mugs.\n1. Mug\n2. Mug\n3. Mug\n4. Mug\n5. Mug\n6. Mug\n7. Mug", "stop", "looping answer"),
        ("这位顾客喜欢红色的杯子和木制玩具。", "stop", "another script than the prompt"),
        (PROMPT.split("\n")[2], "stop", "copy of the prompt"),
    ],
)
def test_each_fault_has_its_reason(text: str, finish: str, fault: str) -> None:
    assert check_reply(Reply(text, finish), PROMPT, sentences=9)[1] == fault  # type: ignore[arg-type]


def test_faults_that_leave_something_to_use_keep_it() -> None:
    request = ChatRequest(PROMPT)
    cut = to_answer(Reply(LOYAL, "length"), request)
    assert cut.status == "flagged" and cut.text.endswith("available at the store.")  # whole sentences alone
    few = to_answer(Reply(CLASSIC), request, attempt=1)
    assert (few.status, few.reason) == ("flagged", "repeats itself (attempt 2)") and few.text
    assert to_answer(Reply("As an AI, I cannot."), request).text == ""


def test_a_sentence_that_comes_again_is_said_once() -> None:
    answer = to_answer(Reply(MASTER), ChatRequest(PROMPT))
    assert answer.status == "ok" and answer.text.count("master of their craft") == 1
    assert without_repeated_sentences("Red mugs.  And cloth.") == "Red mugs.  And cloth."


def test_a_cut_is_at_a_sentence_and_a_number_of_a_list_ends_none() -> None:
    assert salvage("Likes red mugs. And blue pla") == "Likes red mugs."
    assert salvage("Likes these:\n1. Red mugs of stonew") == "Likes these:\n1. Red mugs of\N{HORIZONTAL ELLIPSIS}"
    assert salvage("It costs 12.") == "It costs 12."


@pytest.mark.parametrize(
    "text",
    [
        "This customer likes red and white mugs with dots, and smooth wooden toys for small hands.",
        "Likes plain stoneware. Next: a bowl of the same line, or a puzzle with stripes.",
        "Mag rote Becher aus Steinzeug mit Punkten und glattes Holzspielzeug; als Nächstes passt eine Schale.",
    ],
)
def test_good_answers_pass(text: str) -> None:
    assert check_reply(Reply(text), PROMPT) == (text, "")


def test_a_request_for_sentences_keeps_so_many() -> None:
    text = "Likes mugs. Likes dots! Next: a bowl? And then ano"
    request = ChatRequest(PROMPT, sentences=2)
    assert to_answer(Reply(text, "length"), request) == to_answer(Reply("Likes mugs. Likes dots!"), request)
    longer = to_answer(Reply(text, "length"), ChatRequest(PROMPT, sentences=4))
    assert (longer.status, longer.text) == ("flagged", "Likes mugs. Likes dots! Next: a bowl?")


def test_examples_are_earlier_turns_of_a_server_too() -> None:
    request = ChatRequest("c?", "s", examples=(("a?", "b"),))
    messages = chat_body(request, ChatServerConfig(model="m"))["messages"]
    assert [(message["role"], message["content"]) for message in messages] == [
        ("system", "s"),
        ("user", "a?"),
        ("assistant", "b"),
        ("user", "c?"),
    ]
    copied = "A customer who likes warm winter clothing of wool."
    answer = to_answer(Reply(copied), replace(request, examples=(("a?", copied),)))
    assert (answer.text, answer.reason) == ("", "copy of the prompt")


# What the first wording of the template brought: its second example, in the place of the customer.
COFFEE = "This customer likes making coffee at home with plain tools, and reading now and often. A milk jug would fit."
COFFEE_EXAMPLE = (
    "This customer likes making coffee at home with plain tools in black and white, and reads now and then. A milk jug "
    "would fit."
)
WOOL_EXAMPLE = (
    "This customer likes warm winter clothing of wool, plain or striped and in quiet colors such as grey and brown. "
    "Mittens or a knitted sweater would fit."
)
SCOTCH = (
    "This customer likes a glass of fine scotch, a glass of wine, and a glass of beer. A glass of scotch would fit."
)
TEA = (
    "This customer likes making a cup of tea with a glass of water, and the tea is made with a glass of water. A cup "
    "of tea is made with a glass of water."
)
VARIETY = (
    "This customer likes a variety of products, including a variety of products, a variety of products, and a variety "
    "of products."
)
JAPANESE = (
    "This customer likes a variety of Japanese-inspired items, including a variety of Japanese-style food, a variety "
    "of Japanese-style clothing, and a variety of Japanese-style accessories."
)
PERFECTIONIST = (
    "This customer likes to be seen as a unique and stylish individual, with a variety of personal touches that "
    "reflect their personality."
)
LINING = (
    "This customer likes bathrooms and towels, red, triangular, dots, muted, and a double lining. The last purchases "
    "were a double lining and a double lining."
)
EXAMPLES = (("Wool Hat; Knitted Scarf", WOOL_EXAMPLE), ("Drip Kettle; Hand Grinder", COFFEE_EXAMPLE))
FIRST = ChatRequest("Casserole (Cookware, red and white); Tote (Bags, striped)", examples=EXAMPLES)


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        (COFFEE_EXAMPLE, "unusable", "copy of the prompt"),
        (COFFEE, "unusable", EXAMPLE),
        (SCOTCH, "flagged", f"{STRAY}: glass, fine, scotch"),
        (TEA, "flagged", REPEATS),
        (VARIETY, "flagged", REPEATS),
        (JAPANESE, "flagged", REPEATS),
        (LINING, "flagged", REPEATS),
        (PERFECTIONIST, "flagged", f"{STRAY}: seen, unique, stylish"),
    ],
)
def test_answers_that_speak_of_something_else_are_seen(text: str, status: str, reason: str) -> None:
    answer = to_answer(Reply(text), FIRST)
    assert (answer.status, answer.reason) == (status, reason)
    assert bool(answer.text) == (status != "unusable")


# What the present wording brings, each with the kinds, looks and titles of its customer.
PLAIN = load_template("plain", "profile")
CALENDAR = (
    "This customer likes bathrooms and towels, mostly red, triangular, dots, and has chosen a Nordic calendar, a "
    "compact window box."
)
TUXEDO = (
    "This customer likes bags, travel, play, and has chosen a Nordic puzzle, a weekend backpack, and a studio tuxedo."
)
WHISKY = (
    "This customer likes kitchen and tableware, mostly yellow, and has chosen a Nordic teapot, a original soup bowl, "
    "and a glass of scotch."
)
ONCE = "This customer likes bathrooms, towels, and the things they buy, each once."
VINTAGE = (
    "This customer likes bathrooms and towels, mostly vertical stripes, yellow, blue, and has chosen a classic hand "
    "towel, a vintage hand towel, and a vintage hand towel."
)
# Closed: made of the words of its facts alone.
PENCIL = (
    "This customer likes office and stationery, mostly green, yellow, and horizontal stripes, and has chosen a classic "
    "pencil case, a studio calendar, and a classic pencil case."
)
GARDEN = (
    "This customer likes garden and planters, office, and has chosen a compact flower pot, a weekend kettle, and a "
    "garden."
)
TBO = "This customer likes play, toys, cookware, and has chosen a family Casserole, a original tbo, and a weekend tbo."


@pytest.mark.parametrize(
    ("text", "kinds", "looks", "titles", "reason"),
    [
        (
            CALENDAR,
            "bathroom, towels",
            "red, triangular, dots",
            "Nordic Calendar, Compact Wok, Original Window Box",
            "",
        ),
        (TUXEDO, "bags, travel, play", "purple", "Nordic Puzzle, Weekend Backpack, Studio Tote", f"{STRAY}: tuxedo"),
        (WHISKY, "kitchen, tableware", "yellow", "Original Soup Bowl, Nordic Teapot", f"{STRAY}: glass, scotch, of"),
        (ONCE, "bathroom, towels", "red, pink", "Nordic Watering Can, Atelier Puzzle", f"{STRAY}: things, they, each"),
        (VINTAGE, "bathroom, towels", "vertical stripes, yellow, blue", "Classic Hand Towel", REPEATS),
        (
            PENCIL,
            "office, stationery",
            "green, yellow, horizontal stripes",
            "Studio Calendar, Classic Pencil Case",
            REPEATS,
        ),
        # A kind as a thing is not seen.
        (GARDEN, "garden, planters, office", "pink", "Weekend Kettle, Compact Flower Pot", ""),
        (
            TBO,
            "play, toys, cookware",
            "pink",
            "Family Casserole, Original Tote, Weekend Tote",
            f"{STRAY}: tbo",
        ),
    ],
)
def test_each_telling_word_is_one_of_the_facts(text: str, kinds: str, looks: str, titles: str, reason: str) -> None:
    line = f"Kinds: {kinds}. Looks: {looks}. Bought: {titles}."
    request = PLAIN.request({"items": line, "order": "oldest first", "category": "Home", "words": "100"})
    answer = to_answer(Reply(text), request)
    assert (answer.text, answer.status, answer.reason) == (text, "flagged" if reason else "ok", reason)
    assert to_answer(Reply(TUXEDO), ChatRequest(line)).status == "ok"  # without examples nothing is compared


def test_the_words_of_another_attempt_are_no_facts() -> None:
    values = {"items": "Kinds: towels. Bought: Atelier Puzzle.", "order": "", "category": "", "words": ""}
    request = PLAIN.request(values)
    again = replace(request, text=f"{request.text}\n\nUse these notes.")
    echo = Reply("This customer likes towels, mostly an atelier puzzle, and these notes.")
    assert to_answer(echo, again, 1, request).reason == f"{STRAY}: these, notes (attempt 2)"
    assert to_answer(echo, again, 1).status == "ok"
