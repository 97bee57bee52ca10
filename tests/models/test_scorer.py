"""Lists of models that score by blocks: the best, best first, ties to the lower id, whatever the users asked for."""

from __future__ import annotations

import numpy as np
import pytest
from mllmrec_kernels import CSR

from mllmrec.models import scoring
from mllmrec.models.scoring import top_by_user

N_USERS, N_ITEMS = 23, 17


class Table:
    """Scores that are written down; a block is a copy, as Scorer wants it."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.table = generator.integers(0, 5, (N_USERS, N_ITEMS)).astype(np.float32)  # many ties
        self.table[3] = 2.0

    def scores(self, users: np.ndarray) -> np.ndarray:
        return self.table[users].copy()


def excluded(users: np.ndarray) -> CSR:
    """Items not to list: for the second user all of them, for the others a few, for some none."""
    generator = np.random.default_rng(1)
    rows = [generator.choice(N_ITEMS, n % 4, replace=False) for n in range(len(users))]
    if len(rows) > 1:
        rows[1] = np.arange(N_ITEMS)
    counts = [len(row) for row in rows]
    return CSR.from_pairs(np.repeat(np.arange(len(rows)), counts), np.concatenate([*rows, []]).astype(int),
                          (len(users), N_ITEMS))  # fmt: skip


@pytest.mark.parametrize("users", [range(N_USERS), [4], [], [0, 1, 2, 7, 8, 3, 3, 22], [22, 21, 20]])
@pytest.mark.parametrize("k", [1, 5, N_ITEMS, N_ITEMS + 4])
@pytest.mark.parametrize("most", [1, 2, 1000])
def test_the_best_of_each(users, k: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "block_rows", lambda _: most)
    asked, model = np.array(users, np.int64), Table()
    exclude = excluded(asked)
    ids, values = top_by_user(model, asked, k, exclude)
    assert ids.shape == values.shape == (len(asked), k)
    for n, user in enumerate(asked):
        allowed = np.setdiff1d(np.arange(N_ITEMS), exclude.row(n))
        wanted = allowed[np.lexsort((allowed, -model.table[user, allowed]))][:k]
        found = ids[n] >= 0
        assert ids[n, found].tolist() == wanted.tolist() and not found[len(wanted) :].any()
        assert values[n, found].tolist() == model.table[user, wanted].tolist()
        assert np.isneginf(values[n, ~found]).all()
