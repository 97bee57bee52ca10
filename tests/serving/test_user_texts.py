"""Lists for users without history, by what the shop knows of them."""

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
from mllmrec.runs import Run
from mllmrec.serving import run_config
from mllmrec.serving.new_users import encode_user_texts, join_texts, read_new_users, read_user_texts, serve_new_users


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_text_gets_the_items_nearest_to_it(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    run = Run(finished)
    item = dataset.items.row(7, named=True)
    rows: list[dict[str, object]] = [
        {"user": "reader", "text": item["title"], "categories": item["categories"]},
        {"user": "browser", "categories": item["categories"]},
        {"user": "reader", "text": "repeated"},
    ]
    about = write_rows(tmp_path / "about.jsonl", rows)
    lists, notes = serve_new_users(run, None, about, {}, run_config(run, None, []))
    assert set(lists.users["source"]) == {"text"} and lists.users["user"].unique(maintain_order=True).to_list() == [
        "reader",
        "browser",
    ]
    assert lists.users["item"][0] == dataset.item_ids[7]
    words = f"{item['title']}. {', '.join(item['categories'])}"
    vector = encode_user_texts([words], run_config(run, None, []).encode)[0]
    cosines = run.features.items @ vector
    best = np.argsort(-cosines, kind="stable")[:5]
    assert lists.users["item"].to_list()[:5] == [dataset.item_ids[int(i)] for i in best]
    np.testing.assert_allclose(lists.users["score"].to_numpy()[:5], cosines[best], atol=1e-5)  # float32 sums
    assert notes == (
        "2 users with a text in about.jsonl",
        "1 rows repeat a user; the first of each is kept",
        "0 users by the model; 2 users without a known item get the items nearest to their text",
    )


def test_a_history_comes_before_a_text_and_a_text_before_popularity(
    finished: Path, dataset: Dataset, tmp_path: Path
) -> None:
    histories = tmp_path / "new.csv"
    histories.write_text(f"user,item\nbuyer,{dataset.item_ids[3]}\nlost,never-sold\nsilent,never-sold\n")
    about = write_rows(tmp_path / "about.jsonl", [{"user": who, "text": "a warm lamp"} for who in ("buyer", "lost")])
    run = Run(finished)
    lists, _ = serve_new_users(run, histories, about, {}, run_config(run, None, []))
    sources = dict(lists.users.group_by("user").agg(pl.col("source").first()).iter_rows())
    assert sources == {"buyer": "model", "lost": "text", "silent": "popularity"}
    only, _ = serve_new_users(run, histories, None, {}, run_config(run, None, []))
    buyer = pl.col("user") == "buyer"
    assert lists.users.filter(buyer).equals(only.users.filter(buyer))


def test_join_keeps_histories_and_adds_users_at_the_end(dataset: Dataset, tmp_path: Path) -> None:
    histories = tmp_path / "new.csv"
    histories.write_text(f"user,item\nb,{dataset.item_ids[3]}\n")
    texts = read_user_texts(write_rows(tmp_path / "t.jsonl", [{"user": "a", "text": "x"}, {"user": "b", "text": "y"}]))
    users, words = join_texts(read_new_users(histories, dataset), texts, dataset.n_items)
    assert users.ids.to_list() == ["b", "a"] and words == ["y", "x"]
    assert users.histories.to_scipy().toarray()[:, 3].tolist() == [1, 0] and users.histories.n_rows == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "who,text\nu,lamp\n",
            "has no user with a text; columns 'who', 'text'; wanted 'user', and 'text' or 'categories'",
        ),
        ("user,note\nu,lamp\n", "has no user with a text; columns 'user', 'note'"),
        (
            "user,text\nu,lamp\n,lamp\nv,\n",
            "2 of 3 rows of about.csv cannot be read, the first at about.csv:3: no user",
        ),
    ],
)
def test_files_without_texts_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "about.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_user_texts(file)


def test_named_columns_and_losses_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "about.csv"
    file.write_text("who,text\nu,<b>warm</b> lamp\n,lamp\n")
    read = read_user_texts(file, {"user": "who"}, max_rejected=0.5)
    assert read.table.rows() == [("u", "warm lamp")]
    assert read.notes[-1] == "1 rows were left out, the first at about.csv:3: no user"


def test_the_verb_takes_texts(finished: Path, tmp_path: Path) -> None:
    about = write_rows(tmp_path / "about.jsonl", [{"user": "n", "text": "a warm lamp"}])
    words = ["recommend", str(finished), "--about", str(about), "--out", str(tmp_path / "lists"), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["notes"][-1].endswith(
        "1 users without a known item get the items nearest to their text"
    )
    assert CliRunner().invoke(app, [*words, "--items", str(about)]).exit_code == 2
