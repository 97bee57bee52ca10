"""Models that read order: half-lives, transitions, SASRec. Order is of training interactions alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mllmrec_kernels import CSR

from mllmrec.config import TrainConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.errors import ConfigError, InputError
from mllmrec.models import EASE, FitContext, ItemGraphRidge, ItemKNN
from mllmrec.models.recency import ages, decayed
from mllmrec.models.sasrec import SASRec, SASRecConfig, SASRecNetwork
from mllmrec.models.transitions import Transitions, count_transitions
from mllmrec.models.validation import validation_ndcg
from mllmrec.training.trainer import train_network

# Users: 3 then 0 then 2 and 1 at once; nothing; 2 then 3.
SMALL = Histories(
    np.array([0, 4, 4, 6]), np.int32([3, 0, 2, 1, 2, 3]), np.array([10, 20, 30, 30, 5, 6]), n_items=4, scope="train"
)


def test_an_age_is_the_number_of_strictly_newer_training_items() -> None:
    by_item = [2, 0, 0, 3, 1, 0]  # of user 0's items 0, 1, 2, 3 and of user 2's items 2, 3
    assert ages(SMALL).tolist() == by_item
    rows = decayed(SMALL.user_items(), ages(SMALL), 2.0)
    np.testing.assert_allclose(rows.to_scipy().toarray()[0], [0.5, 1, 1, 2**-1.5])
    assert decayed(SMALL.user_items(), ages(SMALL), 0.0) is SMALL.user_items()


def test_the_first_user_may_start_at_the_moment_zero() -> None:
    assert ages(replace(SMALL, times=np.array([0, 0, 0, 1, 0, 0]))).tolist() == [1, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("kind", [EASE, ItemGraphRidge, ItemKNN])
def test_validation_chooses_the_half_life_and_scores_are_those_of_decayed_rows(
    dataset: Dataset, vectors: np.ndarray, tmp_path: Path, kind: type
) -> None:
    seen, valid = dataset.histories(), dataset.matrix("valid")
    choices, context = (0.0, 1.0, 4.0), FitContext(histories=seen)

    def fit(*half_lives: float):
        model = kind(half_lives=half_lives, context=context)
        return model.fit(seen.user_items(), item_features=vectors, valid=valid)

    alone = [validation_ndcg(fit(half_life), dataset.train, valid) for half_life in choices]
    model = fit(*choices)
    assert model.half_life == choices[int(np.argmax(alone))]
    aged = fit(4.0)
    rows = decayed(seen.user_items(), ages(seen), 4.0).to_scipy().toarray()
    plain = aged.sums.weights
    W = plain if isinstance(plain, np.ndarray) else plain.to_scipy().toarray()
    np.testing.assert_allclose(aged.scores(np.arange(len(rows))), rows @ W, rtol=1e-4, atol=1e-5)
    assert "half-life 4 items" in aged.summary
    ids, best = aged.recommend([5], 3)
    scores = (rows @ W)[5]
    scores[dataset.train.row(5)] = -np.inf
    assert ids[0].tolist() == np.argsort(-scores, kind="stable")[:3].tolist()
    aged.save(tmp_path / "model")
    again = kind.load(tmp_path / "model")
    np.testing.assert_array_equal(again.recommend([5], 3)[1], best)
    assert again.half_life == 4.0 and again.summary == aged.summary


def test_without_an_order_there_is_no_half_life(dataset: Dataset) -> None:
    valid = dataset.matrix("valid")
    assert EASE(half_lives=(0.0, 2.0)).fit(dataset.train, valid=valid).half_life == 0
    timeless = FitContext(histories=replace(dataset.histories(), times=None))
    assert EASE(half_lives=(0.0, 2.0), context=timeless).fit(dataset.train, valid=valid).half_life == 0
    with pytest.raises(InputError, match=r"half-life needs times or places.*add 0 to model\.half_lives"):
        EASE(half_lives=(2.0,)).fit(dataset.train, valid=valid)
    with pytest.raises(ConfigError, match="half_lives needs n_neighbors above 0"):
        ItemKNN(n_neighbors=0, half_lives=(2.0,))


def test_transitions_count_what_comes_strictly_later_within_the_window() -> None:
    expected = np.zeros((4, 4))
    expected[3, 0] = 1  # next to each other
    expected[3, 2] = 1 / 2  # two places on
    expected[0, 2] = 1
    expected[0, 1] = 1 / 2
    expected[2, 3] = 1  # of the third user; 2 and 1 come at once and do not follow each other
    np.testing.assert_allclose(count_transitions(SMALL, 2).toarray(), expected)
    expected[3, 1] = 1 / 3
    np.testing.assert_allclose(count_transitions(SMALL, 50).toarray(), expected)


def test_transitions_score_by_scaled_counts() -> None:
    model = Transitions(window=2, popularity_exponent=0.5, half_lives=(1.0,), context=FitContext(histories=SMALL))
    scores = model.fit(SMALL.user_items()).scores([2])[0]
    counts = np.array([1, 1, 2, 2])
    W = count_transitions(SMALL, 2).toarray() / np.sqrt(np.outer(counts, counts))
    np.testing.assert_allclose(scores, W[3] + W[2] / 2, rtol=1e-6)


@pytest.mark.parametrize("kind", [Transitions, SASRec])
def test_what_needs_an_order_says_so(dataset: Dataset, kind: type) -> None:
    with pytest.raises(InputError, match=r"needs times or places of the training interactions.*leave this model out"):
        kind().fit(dataset.train, valid=dataset.matrix("valid"))


def reference_hidden(network: SASRecNetwork, sequence: list[int]) -> np.ndarray:
    """H of one sequence, oldest first, without padding, in float64 NumPy."""
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centered = x - x.mean(axis=1, keepdims=True)
        unit = centered / np.sqrt((centered**2).mean(axis=1, keepdims=True) + 1e-5)
        return unit * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    n, dim = len(sequence), state["items"].shape[1]
    x = state["items"][sequence] * np.sqrt(dim) + state["places"][-n:]
    for block in ("blocks.0", "blocks.1"):
        q, k, v = np.split(linear(norm(x, f"{block}.first"), f"{block}.project"), 3, axis=1)
        weights = np.exp(q @ k.T / np.sqrt(dim)) * np.tri(n)
        x = x + linear(weights / weights.sum(axis=1, keepdims=True) @ v, f"{block}.out")
        inner = np.maximum(linear(norm(x, f"{block}.second"), f"{block}.inner"), 0)
        x = x + linear(inner, f"{block}.outer")
    return norm(x, "norm")


def sasrec(histories: Histories = SMALL) -> SASRecNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = SASRecNetwork(histories, 6, SASRecConfig(dropout=0.0))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return network


def test_sasrec_reads_a_sequence_and_predicts_what_comes_next() -> None:
    network = sasrec()
    users, items = (tensor.detach().double().numpy() for tensor in network.vectors())
    np.testing.assert_allclose(users[0], reference_hidden(network, [3, 0, 2, 1])[-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(users[2], reference_hidden(network, [2, 3])[-1], rtol=1e-4, atol=1e-5)
    assert not users[1].any()
    # (0, 3) and (2, 2) are first items and train nothing
    batch = torch.tensor([2, 0, 0, 2, 0]), torch.tensor([3, 2, 3, 2, 0]), torch.tensor([0, 1, 1, 1, 2])
    H, h = reference_hidden(network, [3, 0, 2, 1]), reference_hidden(network, [2, 3])
    pairs = [(h[0], 3, 0), (H[1], 2, 1), (H[0], 0, 2)]
    expected = np.mean([np.logaddexp(0, -x @ items[i]) + np.logaddexp(0, x @ items[j]) for x, i, j in pairs])
    assert float(network.loss(*batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_sasrec_encodes_users_of_different_lengths_as_if_they_were_alone() -> None:
    rows = [[4], [1, 6, 3], [0, 5, 2, 6, 4, 1, 3], [6, 0], [2, 1, 5, 0, 3]]
    seen = Histories(np.cumsum([0, *map(len, rows)]), np.concatenate(rows).astype(np.int32),
                     np.concatenate([np.arange(len(row)) for row in rows]), 7, "train")  # fmt: skip
    network = sasrec(seen)
    expected = [reference_hidden(network, row)[-1] for row in rows]
    np.testing.assert_allclose(network.vectors()[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_sasrec_learns_the_order() -> None:
    """Each user walks along a ring; the next item follows from the last alone."""
    n = 60
    walks = [(np.arange(6) + start) % n for start in range(n)]
    seen = Histories(np.arange(n + 1) * 5, np.concatenate([walk[:5] for walk in walks]).astype(np.int32),
                     np.tile(np.arange(5), n), n, "train")  # fmt: skip
    valid = CSR.from_pairs(np.arange(n), np.array([walk[5] for walk in walks]), (n, n))
    config = TrainConfig(dim=16, epochs=80, batch_size=512, learning_rate=1e-2, patience=80)
    model = SASRec(dropout=0.1, blocks=1, context=FitContext(config, histories=seen))
    model.fit(seen.user_items(), valid=valid, seed=2)
    assert model.curve[-1].loss < model.curve[0].loss / 2
    assert max(epoch.ndcg for epoch in model.curve) > 0.8


def test_sasrec_repeats_itself_whatever_torch_drew_before() -> None:
    valid = CSR.from_pairs(np.array([2]), np.array([0]), (3, 4))
    model = SASRec(dropout=0.5, context=FitContext(TrainConfig(dim=4, epochs=2), histories=SMALL))
    from mllmrec.models.base import FitData

    data = FitData(SMALL.user_items(), None, None, valid, 1)
    runs = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        runs.append(train_network(lambda: model.build(data), model.training(data)).users)
    np.testing.assert_array_equal(*runs)
