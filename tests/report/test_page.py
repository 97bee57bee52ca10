"""The page as a person meets it: in a browser, with hostile data, of runs that are not whole, and large ones."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mllmrec_cli.main import app
from typer.testing import CliRunner

from mllmrec.config import load_config
from mllmrec.dataset import prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.errors import InputError
from mllmrec.pipeline import run
from mllmrec.report import write_report
from mllmrec.report.sections.cards import Cards, Thumbnails
from mllmrec.report.sections.stages import stage_status
from mllmrec.runs import Run
from tests.browser import chromium
from tests.report.conftest import Variant
from tests.report.large_run import make_large_run

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
MOST_BYTES = 5 << 20
_ALL_DECODED = """Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth > 0, () => false)))
    .then(shown => [shown.length, shown.filter(one => !one).length])"""
_OVERFLOWING = """[...document.querySelectorAll('main *')]
    .filter(e => !e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.wide'))
    .map(e => e.outerHTML.slice(0, 100))"""


def look_at(pages: list[Path], profile: Path) -> None:
    """Each page at two widths and in both schemes: silent, fetching nothing, with every picture, within its width."""
    with chromium(profile) as browser:
        for page in pages:
            assert page.stat().st_size < MOST_BYTES
            grounds = set()
            for width in (1280, 390):
                for scheme in ("light", "dark"):
                    browser.open(page, width=width, scheme=scheme)
                    pictures, broken = browser.evaluate(_ALL_DECODED)
                    assert pictures > 20 and broken == 0, (page, width, scheme)
                    assert browser.evaluate("document.documentElement.scrollWidth") <= width, (page, scheme)
                    assert browser.evaluate(_OVERFLOWING) == [], (page, width, scheme)
                    assert browser.complaints() == []
                    grounds.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert len(grounds) == 2


def test_the_pages_in_a_browser(hostile: Path, variant: Variant, tmp_path: Path) -> None:
    other = variant("other", "train.dim=4")
    pages = [write_report([hostile]), write_report([hostile, other], page=tmp_path / "both.html")]
    look_at(pages, tmp_path / "profile")


def test_hostile_text_is_shown_harmless(hostile: Path, tmp_path: Path) -> None:
    text = write_report([hostile], page=tmp_path / "page.html").read_text()
    tags = set(re.findall(r"<([a-zA-Z]+)", text))
    assert not tags & {"script", "iframe", "object", "embed", "link", "form", "base"}
    assert not re.search(r"<[^>]*\son\w+=", text) and not STEERING.search(text)
    assert "&lt;script&gt;alert(1)" in text and "{{ 7*7 }}" in text and "=cmd()&lt;b&gt;" in text
    assert {len(title) for title in re.findall("<strong>(x+)…</strong>", text)} == {100}
    assert 'title="no usable picture"' in text
    assert all(f'id="{section}"' in text for section in ("results", "flow", "data", "reasoning", "graph", "training"))


def test_a_run_that_is_not_whole_says_what_is_missing(hostile: Path, variant: Variant, tmp_path: Path) -> None:
    changed = variant("changed", "graph.threshold=0.5", until="graph")
    status = stage_status(Run(changed))
    assert [status[stage] for stage in ("graph", "train", "evaluate", "recommend")] == ["done"] + ["outdated"] * 3
    text = write_report([changed]).read_text()
    assert "evaluate was made under other settings" in text and "Some stages were made under other settings" in text
    (changed / "train" / "stage.json").unlink()
    (changed / "profile" / "profiles.parquet").write_bytes(b"cut")
    status = stage_status(Run(changed))
    assert (status["train"], status["profile"], status["graph"]) == ("missing", "damaged", "outdated")
    text = write_report([changed, hostile], page=tmp_path / "both.html").read_text()
    assert "not evaluated" in text and "A: not evaluated" in text and "B: ensemble" in text
    assert "changed after it was written" in write_report([changed]).read_text()


def test_runs_of_one_split_are_paired_and_differences_named(hostile: Path, variant: Variant) -> None:
    same, leaky = variant("same"), hostile.parent / "leaky"
    config = load_config(None, ["train.epochs=1", "profile.kind=mean", "profile.history=all", "encode.max_pieces=48"])
    run(Run(hostile).dataset, leaky, config, cache=hostile.parent / "c.sqlite")
    made = write_report([same, hostile])
    assert made.name == "comparison.html" and "+0.0000 <span" in made.read_text()
    assert "The runs have the same settings" in made.read_text()
    text = write_report([leaky]).read_text()
    assert (
        "<strong>LEAKY:</strong>" in text
        and "has no profile texts" in text
        and "is behind" not in text
        and "the baseline that validation puts first" not in text
    )
    made = write_report([hostile, leaky])
    assert made.name == "comparison.LEAKY.html" and "Run B is LEAKY" in made.read_text()
    with pytest.raises(InputError, match="a run is named twice"):
        write_report([hostile, hostile])


def test_pictures_end_with_their_budget(hostile: Path) -> None:
    view = Run(hostile)
    cards = Cards(view, Thumbnails(budget=5_000), ())
    shown = cards.users(view.dataset.users[:10].to_list())
    pictures = [item.thumbnail for user in shown for item in user.history]
    assert sum(len(picture or "") for picture in pictures) < 10_000 and pictures[-1] is None


def test_the_verb_says_where_the_page_is(hostile: Path, tmp_path: Path) -> None:
    cli = CliRunner(env={"COLUMNS": "80"})
    done = cli.invoke(app, ["report", str(hostile), "--html", str(tmp_path / "page.html")])
    assert done.exit_code == 0 and done.stdout.strip() == f"page: {tmp_path / 'page.html'}"
    told = cli.invoke(app, ["report", "--help"]).output
    assert "mllmrec report run" in told and all(len(line) <= 80 for line in told.splitlines())
    with pytest.raises(InputError, match="is not a run"):
        write_report([tmp_path])


@pytest.mark.slow
def test_the_page_of_the_demo_in_a_browser(tmp_path: Path) -> None:
    generate_catalogue(tmp_path / "shop", CatalogueOptions())
    dataset = prepare(tmp_path / "shop", tmp_path / "dataset")
    run(dataset, tmp_path / "run", load_config(None, ["train.epochs=30"]), cache=tmp_path / "c.sqlite")
    look_at([write_report([tmp_path / "run"])], tmp_path / "profile")


@pytest.mark.slow
def test_the_page_of_real_posters_in_a_browser(real: Callable[[str], Path], tmp_path: Path) -> None:
    dataset = prepare(real("movielens-posters"), tmp_path / "dataset")
    run(dataset, tmp_path / "run", load_config(None, ["train.epochs=30"]), cache=tmp_path / "c.sqlite")
    look_at([write_report([tmp_path / "run"])], tmp_path / "profile")


@pytest.mark.slow
def test_a_run_of_a_hundred_thousand_items_is_reported_in_seconds(tmp_path: Path) -> None:
    made = make_large_run(tmp_path, items=100_000, users=100_000, interactions=1_200_000)
    write_report([made], page=tmp_path / "warm.html")  # kernels are compiled once a machine
    began = time.perf_counter()
    page = write_report([made])
    assert time.perf_counter() - began < 20
    assert page.stat().st_size < MOST_BYTES
