"""A run that goes on from another: only what is new is made, and the rest is taken over as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mllmrec_cli.main import app
from typer.testing import CliRunner

from mllmrec import load_config
from mllmrec.dataset import Dataset, update
from mllmrec.errors import InputError, MismatchError
from mllmrec.graph.item_graph import build_graph
from mllmrec.pipeline import run
from mllmrec.runs import Run

QUICK = ("describe.images=false", "encode.max_pieces=16", "model.factors=8", "recommend.top=5")


@pytest.fixture(scope="module")
def grown(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and the dataset a day later: one item more, two orders of a known user, one of a new one."""
    folder = tmp_path_factory.mktemp("grown")
    run(dataset, folder / "run", load_config(assignments=QUICK), cache=folder / "c.sqlite")
    time = int(dataset.interactions["timestamp"].max() or 0) + 60
    owned = set(dataset.histories("all").of(4).tolist())
    free = [dataset.item_ids[i] for i in range(dataset.n_items) if i not in owned]
    rows = [(dataset.users[4], free[0], time), (dataset.users[4], "late", time + 1), ("guest", free[1], time)]
    (folder / "day").mkdir()
    pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").write_csv(folder / "day" / "orders.csv")
    (folder / "day" / "items.jsonl").write_text('{"id": "late", "title": "Striped Kettle", "brand": "Harrow"}\n')
    update(dataset, [folder / "day"], folder / "dataset2")
    return folder / "run", folder / "dataset2"


def test_only_what_is_new_is_made(grown: tuple[Path, Path], dataset: Dataset, tmp_path: Path) -> None:
    first, folder = grown
    made = run(folder, tmp_path / "run2", load_config(assignments=QUICK), cache=tmp_path / "c.sqlite", earlier=first)
    before, now = Run(first), Run(tmp_path / "run2")
    n_items, n_users = dataset.n_items, dataset.n_users
    assert now.stages["describe"]["counts"]["cache misses"] == 1
    assert now.stages["profile"]["counts"]["cache misses"] == 2  # the user of two orders, and the guest
    assert now.descriptions.table.head(n_items).equals(before.descriptions.table)
    same = [user for user in range(n_users) if user != 4]
    assert now.profiles.table[same].equals(before.profiles.table[same])
    assert now.profiles.texts[4] != before.profiles.texts[4] and now.profiles.texts[n_users]
    np.testing.assert_array_equal(now.features.items[:n_items], before.features.items)
    np.testing.assert_array_equal(now.features.users[same], before.features.users[same])
    assert now.features.items[n_items].any() and now.features.users[n_users].any()
    scratch = build_graph(now.features.items, now.dataset.histories("train"), load_config(assignments=QUICK).graph)
    assert now.graph.digest == scratch.digest
    assert now.fitted.weights == before.fitted.weights
    again = now.fitted.refitted
    assert again.users.tolist() == [4, n_users] and n_items in again.items
    fitted = (
        f"{len(again.items)} of {n_items + 1} items and 2 of {n_users + 1} users are fitted again, all else is kept"
    )
    assert fitted in now.stages["train"]["summary"]
    assert made.notes[0] == f"from {first.resolve()}: 1 new and 0 changed items, 1 new users and 1 with another history"
    assert "are those of the earlier run" in made.notes[1] and "evaluate.update_users=0" in made.notes[1]
    assert f"the others over {len(again.items)}" in now.stages["recommend"]["summary"]
    assert list(now.evaluation.means["test"]) == ["popularity", "ensemble"]
    assert set(now.recommendations.users["user"]) == {*dataset.users, "guest"}
    again = run(folder, tmp_path / "run2", load_config(assignments=QUICK), cache=tmp_path / "c.sqlite")
    assert all(stage["reused"] for stage in again.stages.values())  # the run remembers where it goes on from


def test_a_killed_update_goes_on_and_gives_the_same(grown: tuple[Path, Path], tmp_path: Path) -> None:
    first, folder = grown
    config, cache = load_config(assignments=QUICK), tmp_path / "c.sqlite"
    run(folder, tmp_path / "whole", config, cache=cache, earlier=first)
    run(folder, tmp_path / "cut", config, cache=cache, earlier=first, until="train")
    seals = {stage: (tmp_path / "cut" / stage / "stage.json").read_bytes() for stage in ("graph", "train")}
    made = run(folder, tmp_path / "cut", config, cache=cache)  # it remembers where it goes on from
    assert not made.stages["recommend"]["reused"] and "evaluate.update_users=0" in made.notes[1]
    for stage, seal in seals.items():
        assert (tmp_path / "cut" / stage / "stage.json").read_bytes() == seal
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    for stage in ("train", "evaluate", "recommend"):
        assert whole.digest(stage) == cut.digest(stage)


def test_an_update_is_judged_by_drawn_users_or_by_all(grown: tuple[Path, Path], tmp_path: Path) -> None:
    first, folder = grown
    cache = tmp_path / "c.sqlite"
    few = load_config(assignments=[*QUICK, "evaluate.update_users=12"])
    made = run(folder, tmp_path / "run2", few, cache=cache, earlier=first).evaluate
    assert made.users["test"] == 12 and "12 of " in made.judged and "standard error of NDCG@" in made.judged
    whole = run(folder, tmp_path / "run2", load_config(assignments=[*QUICK, "evaluate.update_users=0"]), cache=cache)
    assert all(whole.stages[stage]["reused"] for stage in ("train", "recommend"))
    assert len(whole.evaluate.means["test"]) == 4 and not whole.evaluate.drawn_from
    assert made.drawn_from["test"] == whole.evaluate.users["test"]
    own = whole.evaluate.per_user.filter(
        (pl.col("model") == "ensemble")
        & (pl.col("split") == "test")
        & pl.col("id").is_in(made.per_user["id"].implode())
    )
    assert made.means["test"]["ensemble"]["ndcg@20"] == pytest.approx(own["ndcg@20"].mean())


def test_other_settings_are_made_from_scratch_and_said(grown: tuple[Path, Path], tmp_path: Path) -> None:
    first, folder = grown
    config = load_config(assignments=[*QUICK, "graph.threshold=0.5"])
    made = run(folder, tmp_path / "run2", config, cache=tmp_path / "c.sqlite", earlier=first, until="graph")
    assert made.notes[0].endswith("from scratch, for settings differ or the model cannot go on: graph")
    scratch = build_graph(made.encode.items, Run(tmp_path / "run2").dataset.histories("train"), config.graph)
    assert made.graph.digest == scratch.digest


def test_what_is_refused(grown: tuple[Path, Path], dataset: Dataset, tmp_path: Path) -> None:
    first, folder = grown
    config = load_config(assignments=QUICK)
    with pytest.raises(InputError, match="cannot go on from itself"):
        run(folder, first, config, earlier=first)
    with pytest.raises(InputError, match="is not a run"):
        run(folder, tmp_path / "a", config, earlier=folder)
    leaky = load_config(assignments=[*QUICK, "profile.history=all"])
    with pytest.raises(MismatchError, match="is leak-free, and this run is not"):
        run(folder, tmp_path / "b", leaky, earlier=first)
    run(folder, tmp_path / "c", config, cache=tmp_path / "c.sqlite", earlier=first, until="describe")
    with pytest.raises(InputError, match="has not finished 'profile'"):
        run(folder, tmp_path / "d", config, earlier=tmp_path / "c")


def test_the_verb_goes_on_with_the_settings_of_the_run(grown: tuple[Path, Path], tmp_path: Path) -> None:
    first, folder = grown
    words = ["run", str(folder), "--out", str(tmp_path / "run2"), "--from", str(first), "--json"]
    done = CliRunner().invoke(app, [*words, "--cache", str(tmp_path / "c.sqlite"), "--set", "recommend.top=3"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert "1 new and 0 changed items" in document["notes"][0] and "from scratch" not in document["notes"][0]
    assert Run(tmp_path / "run2").record["config"]["encode"]["max_pieces"] == 16
    assert Run(tmp_path / "run2").recommendations.users["rank"].max() == 3
