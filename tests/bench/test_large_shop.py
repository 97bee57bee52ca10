"""A generated large shop has its sizes, its tails and its clusters, and is a folder that `prepare` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mllmrec_bench import large_shop
from mllmrec_bench.large_shop import LargeShop, ShopSize, main, write_shop

from mllmrec.dataset import prepare
from mllmrec.errors import InputError

SIZE = ShopSize(users=600, items=1_000, interactions=6_000, width=24, seed=3)


def test_the_shop_is_prepared_with_its_vectors_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_shop, "_USERS", 100)
    monkeypatch.setattr(large_shop, "_ROWS", 300)
    write_shop(SIZE, tmp_path / "shop")
    dataset = prepare(tmp_path / "shop", tmp_path / "dataset")
    assert (dataset.n_users, dataset.n_items, len(dataset.interactions)) == (600, 1_000, 6_000)
    vectors = np.load(dataset.features["item_feat"])
    assert vectors.shape == (1_000, 24) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    counts = dataset.interactions.group_by("user").len()["len"]
    assert counts.min() == 5
    held = [dataset.matrix(split).nnz for split in ("valid", "test")]
    assert 0.08 < held[0] / 6_000 < 0.2 and 0.08 < held[1] / 6_000 < 0.2


def test_popularity_has_a_tail_and_users_keep_to_their_clusters() -> None:
    shop = LargeShop(ShopSize(2_000, 2_000, 30_000, width=8))
    rows = pl.concat(list(shop.interactions()))
    assert len(rows.unique()) == len(rows) == 30_000
    popular = np.sort(rows.group_by("itemID").len()["len"].to_numpy())[::-1]
    assert popular[:200].sum() > 0.45 * 30_000  # Zipf: a tenth of the items; 0.1 of equal ones
    clusters = pl.DataFrame({"itemID": np.arange(2_000), "cluster": shop._cluster_of})
    by_user = rows.join(clusters, on="itemID").group_by("userID", "cluster").len().sort("len", descending=True)
    best_three = by_user.group_by("userID").head(3)["len"].sum()
    assert best_three > 0.75 * 30_000  # of ten clusters


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shop(SIZE, tmp_path / name)
    write_shop(ShopSize(600, 1_000, 6_000, 24, seed=4), tmp_path / "c")
    for file in ("shop.inter", "item_feat.npy"):
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b != c


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="cannot draw 29 interactions of 6 users with 30 items; from 30 to 45"):
        ShopSize(6, 30, 29)
    arguments = ["--users", "6", "--items", "30", "--interactions", "46", "--out", str(tmp_path)]
    assert main(arguments) == 1 and "from 30 to 45" in capsys.readouterr().err
    assert main([*arguments[:5], "45", *arguments[6:]]) == 0
    assert "6 users, 30 items, 45 interactions" in capsys.readouterr().out
