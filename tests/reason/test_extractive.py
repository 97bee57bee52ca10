"""What the extractive engine says of pictures is true of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mllmrec.dataset.synthetic_shop import COLORS, MOTIFS, PATTERNS, draw
from mllmrec.reason.engine import Item
from mllmrec.reason.engines.extractive import ExtractiveDescriber
from mllmrec.reason.history_facts import attributes
from mllmrec.reason.vision.measure import measure


def item(*images: Path) -> Item:
    return Item("t", "b", ("c",), "d", None, images)


def describe(*images: Path) -> str:
    return ExtractiveDescriber().describe([item(*images)])[0].text


@pytest.mark.parametrize("motif", MOTIFS)
def test_drawn_things_are_named_by_outline_colour_and_pattern(motif: str) -> None:
    generator = np.random.default_rng(1)
    seen = [(c, p, measure(draw(motif, c, p, "Acme", generator))) for c in COLORS for p in PATTERNS]
    right = [(m.outline == motif) + (m.pattern == p) + any(c in name for name, _ in m.thing) for c, p, m in seen]
    # A pale colour with white dots may be taken for one on the ground; nine of ten must be right in all three.
    assert np.mean([n == 3 for n in right]) >= 0.9


def test_a_full_picture_is_told_by_colours_from_top_to_bottom(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = np.zeros((300, 200, 3), np.float64)
    pixels[:150], pixels[150:] = (20, 28, 80), (245, 130, 20)
    noisy = np.clip(pixels + generator.normal(0, 25, pixels.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "x.png")
    text = describe(tmp_path / "x.png")
    assert "navy at the top" in text and "orange at the bottom" in text
    assert "object" not in text


def test_a_black_picture_is_dark_and_claims_no_object(tmp_path: Path) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "x.png")
    text = describe(tmp_path / "x.png")
    assert "very dark" in text and "black (100%)" in text and "object" not in text


def test_items_without_a_usable_picture_go_on_with_their_text(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("<html>")
    Image.new("RGB", (50, 50), "red").save(tmp_path / "good.png")
    answers = ExtractiveDescriber().describe(
        [item(), item(tmp_path / "bad.jpg"), item(tmp_path / "bad.jpg", tmp_path / "good.png")]
    )
    assert [answer.status for answer in answers] == ["text-only", "text-only", "ok"]
    assert answers[0].reason == "" and "not a JPEG" in answers[1].reason and "not a JPEG" in answers[2].reason


def test_further_pictures_add_what_the_first_does_not_show(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        Image.new("RGB", (50, 50), name).save(tmp_path / f"{name}.png")
    assert "Picture 2 also shows blue." in describe(tmp_path / "red.png", tmp_path / "blue.png")


def test_attributes_are_read_back_from_the_wording(tmp_path: Path) -> None:
    draw("round", "teal", "horizontal stripes", "x", np.random.default_rng(0)).save(tmp_path / "x.png")
    found = attributes(describe(tmp_path / "x.png"))
    assert {"round", "teal", "horizontal stripes"} <= set(found)
    assert attributes("") == ()


def test_real_posters_are_all_described_and_tell_themselves_apart(real) -> None:
    files = sorted((real("movielens-posters") / "images").glob("*.jpg"))[:60]
    answers = ExtractiveDescriber().describe([item(file) for file in files])
    assert all(answer.status == "ok" for answer in answers)
    assert len({answer.text for answer in answers}) == len(files)
