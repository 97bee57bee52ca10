"""A shop is the same dataset in whatever form it is written."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mllmrec.dataset import PrepareOptions, prepare
from mllmrec.dataset.readers.values import read_id
from tests.dataset.shop_forms import ITEMS, TIMES, USERS, Form, Purchase, write_shop

_TEXT = st.text(
    st.one_of(
        st.sampled_from(" \",;|\t'<>&%=-#:/\\é漢🙂0123456789abcABC"),
        st.characters(codec="utf-8", exclude_categories=["C", "Z"]),
    ),
    min_size=1,
    max_size=12,
)
_IDS = st.one_of(
    _TEXT.map(lambda name: name.strip()),
    st.integers(0, 2**63 - 1).map(str),
    st.sampled_from(["007", "7", "1e5", "NA", "0x1"]),
)
_IDS = _IDS.filter(lambda name: read_id(name) == name)
# Milliseconds from 1990 to 2100: such times are dates of a shop's lifetime.
_TIMES = st.integers(631_152_000_000, 4_102_444_799_999)
_RATINGS = st.one_of(st.none(), st.integers(1, 5).map(float), st.floats(0, 10).map(lambda x: round(x, 3)))
_FORMS = st.builds(
    Form,
    kind=st.sampled_from(["csv", "tsv", "jsonl", "ndjson", "json", "parquet"]),
    packed=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    user=st.sampled_from(USERS),
    item=st.sampled_from(ITEMS),
    time=st.sampled_from(TIMES),
    clock=st.sampled_from(["s.f", "ms", "us", "ns", "iso", "digits", "datetime"]),
    integers=st.booleans(),
    shout=st.booleans(),
)


@st.composite
def _shops(draw: st.DrawFn) -> tuple[list[Purchase], dict[str, str]]:
    users = draw(st.lists(_IDS, min_size=1, max_size=4, unique=True))
    items = draw(st.lists(_IDS, min_size=1, max_size=8, unique=True))
    pairs = draw(
        st.lists(st.tuples(st.sampled_from(users), st.sampled_from(items)), min_size=1, max_size=20, unique=True)
    )
    times = st.one_of(st.none(), _TIMES) if draw(st.booleans()) else _TIMES
    purchases = [Purchase(user, item, draw(_RATINGS), draw(times)) for user, item in pairs]
    titles = {item: draw(st.text("abc \",'\t|", min_size=1, max_size=9)) for item in items}
    return purchases, titles


def _check(shop: tuple[list[Purchase], dict[str, str]], form: Form) -> None:
    purchases, titles = shop
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shop(folder, purchases, titles, form)
        made = prepare(folder, folder / "dataset", PrepareOptions(k_core=0, max_rejected=0))
        users, items = made.users.to_list(), made.item_ids.to_list()
        assert made.manifest["rejected"] == 0
        # A stable sort: rows without a time come first, and rows of one time in the order of the file.
        ordered = sorted(purchases, key=lambda row: -1 if row.time is None else row.time)
        assert users == list(dict.fromkeys(row.user for row in ordered))
        assert items == list(titles)
        assert made.items["title"].to_list() == [" ".join(title.split()) or None for title in titles.values()]
        ticks = made.ticks_per_second
        rows = [
            (users[user], items[item], rating, None if time is None else time * 1000 // ticks)
            for user, item, rating, time, _ in made.interactions.iter_rows()
        ]
        expected = sorted(ordered, key=lambda row: users.index(row.user))
        assert rows == [(row.user, row.item, row.rating, row.time) for row in expected]


@settings(max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(_shops(), _FORMS)
def test_a_hundred_shops_in_any_form(shop: tuple[list[Purchase], dict[str, str]], form: Form) -> None:
    _check(shop, form)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(_shops(), _FORMS)
def test_two_thousand_shops_in_any_form(shop: tuple[list[Purchase], dict[str, str]], form: Form) -> None:
    _check(shop, form)
