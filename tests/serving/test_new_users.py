"""Lists for users of a file: in the shop's ids, by any format, with every loss counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mllmrec_cli.main import app
from typer.testing import CliRunner

from mllmrec.dataset import Dataset
from mllmrec.errors import InputError
from mllmrec.models.baselines import popularity
from mllmrec.runs import Run
from mllmrec.serving import run_config
from mllmrec.serving.new_users import read_new_users, recommend_to_new_users


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    pl.DataFrame(rows, schema=["customer_id", "sku"], orient="row").write_csv(path)
    return path


def test_a_new_user_with_a_known_history_gets_the_lists_of_the_model(
    finished: Path, dataset: Dataset, tmp_path: Path
) -> None:
    run = Run(finished)
    items = dataset.item_ids.to_list()
    rows = [("nobody", items[i]) for i in (3, 8, 11)]
    users = read_new_users(write_csv(tmp_path / "new.csv", [*rows, rows[0]]), dataset)
    lists = recommend_to_new_users(run.fitted, dataset, users, run_config(run, None, []))
    assert lists.users["user"].to_list() == ["nobody"] * 5 and lists.users["rank"].to_list() == [1, 2, 3, 4, 5]
    assert set(lists.users["source"]) == {"model"}
    expected, scores = run.fitted.recommend(users.histories, 5)
    assert lists.users["item"].to_list() == [items[i] for i in expected[0]]
    np.testing.assert_array_equal(lists.users["score"].to_numpy(), scores[0])
    assert not {items[i] for i in (3, 8, 11)} & set(lists.users["item"])
    assert users.notes == ("4 interactions of 1 users in new.csv",)


def test_known_users_bring_what_the_run_has_of_them(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    user, item = dataset.users[2], dataset.item_ids[0]
    whole = dataset.histories("all").user_items()
    assert 0 not in whole.row(2)
    users = read_new_users(write_csv(tmp_path / "new.csv", [(user, item)]), dataset)
    assert set(users.histories.row(0)) == {0, *dataset.train.row(2)}
    assert set(users.owned.row(0)) == {0, *whole.row(2)}  # held-out items are left out, and used for nothing else
    assert users.notes[-1] == "1 users are known to the run: what it has of them was added"
    lists = recommend_to_new_users(Run(finished).fitted, dataset, users, run_config(Run(finished), None, []))
    assert not set(lists.users["item"]) & {dataset.item_ids[int(i)] for i in users.owned.row(0)}


def test_losses_are_counted_and_empty_histories_get_popularity(
    finished: Path, dataset: Dataset, tmp_path: Path
) -> None:
    rows = [("a", "never-sold"), ("a", "gone"), ("b", dataset.item_ids[1]), ("", dataset.item_ids[1])]
    file = write_csv(tmp_path / "new.csv", rows)
    users = read_new_users(file, dataset, max_rejected=0.5)
    assert users.notes == (
        "3 interactions of 2 users in new.csv",
        "1 rows were left out, the first at new.csv:5: no user",
        "2 interactions with 2 items that the run does not know, such as 'never-sold', 'gone'",
    )
    run = Run(finished)
    lists = recommend_to_new_users(run.fitted, dataset, users, run_config(run, None, ["recommend.top=3"]))
    assert lists.users.filter(pl.col("user") == "a")["source"].unique().to_list() == ["popularity"]
    popular = popularity(dataset.train).items[:, 0]
    best = np.argsort(-popular, kind="stable")[:3]
    assert lists.users.filter(pl.col("user") == "a")["item"].to_list() == [dataset.item_ids[int(i)] for i in best]
    assert lists.sources == "1 users by the model; 1 users without a known item get the most popular ones"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("new.csv", "a,b\n1,2\n", "no column for the user and the item"),
        ("new.xlsx", "PK", "are not read; save the sheet as .csv"),
        ("new.parquet", "PAR1 nothing", "cannot be read as parquet"),
        ("new.csv", "user,item\n,x\n,y\n", "2 of 2 rows of new.csv cannot be read"),
    ],
)
def test_files_that_are_refused(dataset: Dataset, tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_new_users(tmp_path / name, dataset)
    with pytest.raises(InputError, match="is no file"):
        read_new_users(tmp_path / "missing.csv", dataset)


def test_the_verb_writes_lists_and_says_what_it_did(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    file.write_text("".join(json.dumps({"who": "n1", "item": dataset.item_ids[i]}) + "\n" for i in (1, 2)))
    words = ["recommend", str(finished), "--users", str(file), "--column", "user=who", "--out", str(tmp_path / "lists")]
    done = CliRunner().invoke(app, [*words, "--set", "recommend.format=jsonl", "--set", "recommend.top=2"])
    assert done.exit_code == 0, done.output
    assert "2 interactions of 1 users in new.jsonl" in done.output and "1 users by the model" in done.output
    rows = [json.loads(line) for line in (tmp_path / "lists" / "recommendations.jsonl").read_text().splitlines()]
    assert [(row["user"], row["rank"], row["source"]) for row in rows] == [("n1", 1, "model"), ("n1", 2, "model")]
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert document["notes"][-1] == "1 users by the model" and len(document["files"]) == 2
    assert CliRunner().invoke(app, ["recommend", str(finished)]).exit_code == 2
    assert CliRunner().invoke(app, words[:4]).exit_code == 2
