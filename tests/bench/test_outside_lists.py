"""Lists made elsewhere are judged as the model that made them, and lists with training items are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.given_vectors import CUTOFF
from bench.outside_lists import Lists, judge_lists, read_lists, rows
from bench.validation_rows import fit
from mllmrec.config import load_config
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError
from mllmrec.evaluation.groups import ALL, Judged, SplitTask


@pytest.fixture
def task(dataset: Dataset) -> SplitTask:
    return SplitTask.of(dataset, "test", load_config().evaluate)


@pytest.fixture
def judged(dataset: Dataset, vectors: np.ndarray, task: SplitTask) -> tuple[Lists, Judged]:
    """Return the lists of a model of ours, and how it is judged."""
    model = fit(dataset, vectors, load_config(None, ["profile.kind=mean", "model.kind=ials"]))
    users = task.judged_users()
    scores = np.where(task.exclude.to_scipy()[users].toarray() > 0, -np.inf, model.scores(users))
    lists = Lists(users, np.argsort(-scores, axis=1, kind="stable")[:, : CUTOFF + 5])
    return lists, task.judge(model, (CUTOFF,))[1][ALL]


def test_lists_are_judged_as_the_model_that_made_them(task: SplitTask, judged: tuple[Lists, Judged]) -> None:
    lists, expected = judged
    order = np.random.default_rng(0).permutation(len(lists.users))
    found = judge_lists(task, Lists(lists.users[order], lists.items[order]))
    np.testing.assert_array_equal(found.users, expected.users)
    for name, values in found.values.items():
        np.testing.assert_allclose(values, expected.values[name])
    assert rows({"x": found}, expected)[0][2] == "+.0000 [+.0000, +.0000]"


def test_a_training_item_and_a_missing_user_are_refused(task: SplitTask, judged: tuple[Lists, Judged]) -> None:
    lists, _ = judged
    with pytest.raises(InputError, match="1 users with held-out items have no list"):
        judge_lists(task, Lists(lists.users[1:], lists.items[1:]))
    lists.items[0, 3] = task.exclude.indices[task.exclude.indptr[lists.users[0]]]
    with pytest.raises(InputError, match="training item"):
        judge_lists(task, lists)


def test_a_table_of_the_toolbox_is_read_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lists.csv"
    wide = pl.DataFrame({"id": [4, 2]} | {f"top_{n}": [n, n + 1] for n in range(CUTOFF)})
    wide.write_csv(path, separator="\t")
    lists = read_lists(path)
    assert lists.users.tolist() == [4, 2] and lists.items.shape == (2, CUTOFF) and lists.items[1, 0] == 1
    wide[:, :-1].write_csv(path, separator="\t")
    with pytest.raises(InputError, match="write longer lists"):
        read_lists(path)
    path.write_text("id\ttop_0\nx\ty\n")
    with pytest.raises(InputError, match="whole numbers"):
        read_lists(path)
