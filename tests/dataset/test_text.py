"""Text, categories, prices and ids from cells of every kind."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest

from mllmrec.dataset.readers import text
from mllmrec.dataset.readers.text import strip_html
from mllmrec.dataset.readers.values import parse_literal, parse_price, read_id, unpack_cell

PAGE = "var aPageStart = (new Date()).getTime();"


@pytest.mark.parametrize(
    ("cell", "price"),
    [
        ("19.9900", 19.99),
        ("0.125", 0.125),
        ("0.999", 0.999),
        ("1.299", 1.299),  # as programs write numbers
        ("1e3", 1000.0),
        ("99", 99.0),
        ("5.", 5.0),
        (".99", 0.99),
        ("1,299.00", 1299.0),
        ("1.299,00", 1299.0),
        ("€ 1.234.567,89", 1234567.89),
        ("1 299,00 €", 1299.0),
        ("1\xa0299,00 €", 1299.0),
        ("1\u202f299,00 €", 1299.0),
        ("1'299.00", 1299.0),
        ("CHF 1’299.50", 1299.5),  # noqa: RUF001
        ("1,299,000", 1299000.0),
        ("1,29,900", 129900.0),
        ("Rs. 1,29,900.50", 129900.5),
        ("₹1,00,000", 100000.0),
        ("1,299", 1299.0),
        ("12,345", 12345.0),
        ("$1,299", 1299.0),
        ("1.299 €", 1299.0),
        ("0,125", 0.125),
        ("1299,125", 1299.125),
        ("1,29", 1.29),
        ("1299,5", 1299.5),
        ("19,9900", 19.99),
        ("$3.99 - $5.99", 3.99),
        ("9,99–12,50 €", 9.99),  # noqa: RUF001
        ("HK$5.50", 5.5),
        ("USD 3.5", 3.5),
        ("12 kr.", 12.0),
        ("129:-", 129.0),
        ("19,-", 19.0),
        ("Price: $5", 5.0),
        ("１２.５", 12.5),  # noqa: RUF001
        ("0", 0.0),
        (12, 12.0),
        (Decimal("1.50"), 1.5),
        (["$5"], 5.0),
    ],
)
def test_prices_are_read_by_their_value(cell: Any, price: float) -> None:
    assert parse_price(cell) == price


@pytest.mark.parametrize(
    "cell",
    [
        *(None, True, float("nan"), float("inf"), -1.0, 10**400, 1e13, {"amount": 5}, b"5", [], ["5", "6"]),
        *("", "-", ".", ",", "free", "N/A", "nan", "inf", "-5", "(5)", "19.99-", "1e400", "5 -", "$5-$10-$15"),
        *("from 2 for $5", "3 for 4", "10 kg", "6px", "12 34", "1,299,00", "1,2345,00", "1.2.3", "5" * 200),
        ".a-box-inner{padding:14px 18px 18px}",
        ".a-section.a-spacing-mini{margin-bottom:6px!important}",
        "#alohaBuyBoxWidget .selected{border-color:#e77600}",
    ],
)
def test_what_is_no_single_price_is_null(cell: Any) -> None:
    assert parse_price(cell) is None


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("<p>A <b>bright</b> lamp&nbsp;for you.</p><br />", "A bright lamp for you."),
        ("Lamp &quot;Oak&quot; &amp; more", 'Lamp "Oak" & more'),
        ("Lamp &amp;quot;Oak&amp;quot;", 'Lamp "Oak"'),
        ("&lt;b&gt;Oak&lt;/b&gt;", "Oak"),
        ("<ul><li>One</li><li>Two</li></ul>", "One Two"),
        ("H<sub>2</sub>O", "H2O"),
        ("<img src='x.png' alt='Home'/>", "Home"),
        ("a<script>alert(1)</script>b<STYLE type='x'>p{}</STYLE >c<!-- d -->e", "a b c e"),
        ("a <script>if (x) {", "a"),
        (f'{PAGE} <span id="productTitle" class="a-size-large">Oak</span>', "Oak"),
        (
            f"{PAGE} <html><b class='x'>No</b><span class='a' id='productTitle'>\n Oak &amp; ash</span>",
            "Oak & ash",
        ),
        (f"{PAGE} <span class='a'>Oak</span>", "Oak"),
        (f"{PAGE}\nvar ue_t0 = 1;", None),
        (f"{PAGE} {'x' * 50_000}<span id=productTitle>Oak</span>", "Oak"),
        # no markup
        ("I <3 you & me", "I <3 you & me"),
        ("List<String>, x < y > z", "List<String>, x < y > z"),
        ("AT&T; R&D <br", "AT&T; R&D <br"),
        ("x <!-- y", "x <!-- y"),
        (float("nan"), None),
        (float("inf"), None),
        (b"bytes", None),
        ({"a": 1}, None),
        (True, None),
        (7, "7"),
        (["a", None, "b"], "a b"),
        ("['Bright', 'small']", "Bright small"),
        ("[]", None),
        ("[1]", "[1]"),
        ("[NEW]", "[NEW]"),
        ("\ud800a\x00b\u202e", "a b"),
    ],
)
def test_text_becomes_plain(raw: Any, plain: str | None) -> None:
    assert text.clean(raw, text.TITLE_LENGTH) == plain


@pytest.mark.parametrize(
    ("cell", "categories"),
    [
        ("['Home', 'Shades']", ["Home", "Shades"]),
        ('["Home", "Shades"]', ["Home", "Shades"]),
        ("['Home' 'Shades']", ["Home", "Shades"]),  # as NumPy prints a list
        ("['Home'\n 'Shades']", ["Home", "Shades"]),
        ("[['Home', 'Shades'], ['Home', None]]", ["Home", "Shades"]),
        ("('Home', 'Shades')", ["Home", "Shades"]),
        ("[Home]", ["[Home]"]),
        ("[__import__('os').system('true')]", ["[__import__('os').system('true')]"]),
        ("Home &amp; Kitchen > Lamps", ["Home & Kitchen", "Lamps"]),
        ("Home &gt; Lamps|Oak;Ash", ["Home", "Lamps", "Oak", "Ash"]),
        (["Home &amp; Kitchen", ["Lamps", ["Oak"]]], ["Home & Kitchen", "Lamps", "Oak"]),
        ("[]", []),
        (None, []),
        (5, []),
    ],
)
def test_categories_are_a_list(cell: Any, categories: list[str]) -> None:
    assert text.parts(cell) == categories


@pytest.mark.parametrize("literal", ["[" * 40 + "]" * 40, "[" + "1," * 600_000 + "]", "[1", "f(1)", "{1: [}", "x"])
def test_a_literal_is_limited_in_size_and_depth(literal: str) -> None:
    with pytest.raises(ValueError, match=r"literal|nested"):
        parse_literal(literal)
    assert unpack_cell(literal) is literal


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("007", "007"),
        (" p1 ", "p1"),
        (7, "7"),
        (2**70, "1180591620717411303424"),
        *((value, None) for value in ("", " ", None, True, 7.0, "a\x00b", "\ud800", "x" * 1001, ["a"], b"a")),
    ],
)
def test_an_id_is_text_that_a_file_can_hold(value: Any, name: str | None) -> None:
    assert read_id(value) == name


@pytest.mark.parametrize(
    "piece",
    ["<b ", "<script>", "<!--", "&", "<img alt='", "<a<", "id=productTitle<", "'a' ", "&amp;", "[("],
)
def test_hostile_markup_takes_linear_time(piece: str) -> None:
    hostile = piece * (200_000 // len(piece))
    started = time.process_time()
    strip_html(hostile)
    text.clean(hostile, text.DESCRIPTION_LENGTH)
    text.parts(f"[{hostile}]")
    assert time.process_time() - started < 5
