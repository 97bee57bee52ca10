"""Notes of SmolLM2-135M-Instruct on real titles, which are full of codes, sizes and years."""

from __future__ import annotations

import pytest

from mllmrec.reason.answer_checks import REPEATS
from mllmrec.reason.answer_grounds import SAYS_NOTHING, STRAY
from mllmrec.reason.chat import to_answer
from mllmrec.reason.engine import Reply
from mllmrec.reason.prompts import load_template

PLAIN = load_template("plain", "profile")
STRIP = (
    "This customer likes food service equipment and supplies, professional medical supplies, and janitorial and "
    "sanitation supplies, and has chosen a 3M Steri-Strip Reinforced, Kimberly-Clark, Black Advance Nitrile "
    "Examination Powder Free."
)
RESISTORS = (
    "This customer likes brad nails, a 1/4w resistors pack, a 1/4w electrical connectors, and has chosen a 5, 480PCS "
    "electrical connectors."
)
TEFLON = (
    "This customer likes industrial lubricants, pipe fittings, and 17000 workbench caster kit, 15505 white aluminum "
    "oxide, and 11000 Teflon silicone lubricant."
)
MALLRATS = (
    "This customer likes thriller, animation, adventure, and has chosen a Mallrats, a1995, a1990, and a Philadelphia, "
    "a1993."
)
TREKKIES = (
    "This customer likes sci-fi, horror, mystery, and has chosen a Trekkies (1997) and Sixth Sense, the (1999) and has "
    "chosen a Trekkies (1997) and has chosen a Trekkies (1997) and has chosen a…"
)
ONE = "This customer likes 1."


@pytest.mark.parametrize(
    ("text", "kinds", "titles", "reason"),
    [
        (
            STRIP,
            "food service equipment & supplies, professional medical supplies, janitorial & sanitation supplies",
            "3M Steri-Strip Reinforced, Kimberly-Clark, Black Advance Nitrile Examination Powder Free",
            "",
        ),
        (
            RESISTORS,
            "brad nails, butt terminals, terminals",
            "1/4w Resistors Pack, Fluoride Scissor, Black, 5, 480PCS Electrical Connectors",
            "",
        ),
        (
            TEFLON,
            "industrial lubricants, pipe fittings, fittings",
            "17000 Workbench Caster Kit, 15505 White Aluminum Oxide, Teflon Silicone Lubricant",
            f"{STRAY}: 11000",
        ),
        (
            MALLRATS,
            "thriller, animation, adventure",
            "Mallrats (1995), Home Alone (1990), Philadelphia (1993)",
            f"{STRAY}: a1995, a1990, a1993",
        ),
        (
            TREKKIES,
            "sci-fi, horror, mystery",
            "Trekkies (1997), Stir of Echoes (1999), Sixth Sense, The (1999)",
            REPEATS,
        ),
        (
            ONE,
            "3d printing filament, 3d printing supplies, additive manufacturing products",
            "1.75mm Orange PLA PRO, Mercurry GT2 Timing Belt Torsion, F015084 - 1",
            SAYS_NOTHING,
        ),
    ],
)
def test_codes_sizes_and_years_are_compared_as_written(text: str, kinds: str, titles: str, reason: str) -> None:
    line = f"Kinds: {kinds}. Bought: {titles}."
    request = PLAIN.request({"items": line, "order": "oldest first", "category": "", "words": "100"})
    answer = to_answer(Reply(text), request)
    assert (answer.text, answer.status, answer.reason) == (text, "flagged" if reason else "ok", reason)
