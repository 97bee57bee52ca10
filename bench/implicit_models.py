"""The baselines of `implicit`, with the settings that they choose from, as our evaluation sees them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import scipy.sparse as sp
from mllmrec_bench.peers.case import library
from mllmrec_kernels import CSR

from mllmrec.dataset import Histories
from mllmrec.evaluation.groups import ItemRanker
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.weight_scorers import WeightsScorer

FACTORS, ALL, EPOCHS, LOOK_EVERY = 64, 1 << 30, 300, 10
Options = dict[str, float]
# In their ALS an observed pair weighs alpha, every other 1: what a regularisation does hangs on its ratio to alpha.
GRIDS: dict[str, list[tuple[str, Options]]] = {
    "item-knn": [(f"{name}Recommender", {"K": k}) for name in ("Cosine", "TFIDF", "BM25") for k in (ALL, 200, 50)],
    "ials": [
        ("AlternatingLeastSquares", {"alpha": alpha, "regularization": ratio * alpha})
        for alpha in (5, 20, 100)
        for ratio in (2, 3, 6)
    ],
    "bpr": [
        ("BayesianPersonalizedRanking", {"learning_rate": rate, "regularization": lam})
        for rate in (0.01, 0.03, 0.1)
        for lam in (0.01, 0.03, 0.1)
    ],
}


def fit_theirs(
    kind: str, options: Options, histories: Histories, validated: Callable[[ItemRanker], float], seed: int
) -> ItemRanker:
    """A fitted model.

    Args:
        kind: a class of implicit, one of GRIDS.
        options: of it.
        histories: training histories.
        validated: what a model reaches on validation; to stop by, where epochs are many.
        seed: of the first factors and of what is drawn.
    """
    user_items = sp.csr_matrix(histories.user_items().to_scipy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats that it makes itself, and of threads of BLAS
        match kind:
            case "AlternatingLeastSquares":
                return _least_squares(options, user_items, seed)
            case "BayesianPersonalizedRanking":
                return _pairwise(options, user_items, validated, seed)
            case _:
                return _neighbors(kind, options, user_items)


def _neighbors(kind: str, options: Options, user_items: sp.csr_matrix) -> WeightsScorer:
    """Row i of `similarity`, [I, I], is what owning item i adds; its K nearest have itself among them."""
    k = min(int(options["K"]), user_items.shape[1])
    model = getattr(library("implicit.nearest_neighbours"), kind)(K=k, num_threads=1)
    model.fit(user_items, show_progress=False)
    return WeightsScorer(*(CSR.from_scipy(sp.csr_array(matrix)) for matrix in (user_items, model.similarity)))


def _least_squares(options: Options, user_items: sp.csr_matrix, seed: int) -> VectorScorer:
    """With its own number of sweeps and its own solver."""
    model = _made("als", "AlternatingLeastSquares", options, seed)
    model.fit(user_items, show_progress=False)
    return VectorScorer(model.user_factors, model.item_factors)


def _pairwise(
    options: Options, user_items: sp.csr_matrix, validated: Callable[[ItemRanker], float], seed: int
) -> VectorScorer:
    """The best by validation of every tenth epoch, for our BPR-MF is stopped by validation as well.

    The last of an item's 65 numbers is its bias, the last of a user's is 1: inner products are whole scores.
    """
    model = _made("bpr", "BayesianPersonalizedRanking", options | {"iterations": EPOCHS}, seed)
    best: list[tuple[float, VectorScorer]] = []

    def look(epoch: int, *_: object) -> None:
        if (epoch + 1) % LOOK_EVERY == 0:
            scorer = VectorScorer(model.user_factors.copy(), model.item_factors.copy())
            best[:] = [max([*best, (validated(scorer), scorer)], key=lambda seen: seen[0])]

    model.fit(user_items, show_progress=False, callback=look)
    return best[0][1]


def _made(module: str, kind: str, options: Options, seed: int) -> Any:
    made = getattr(library(f"implicit.cpu.{module}"), kind)
    return made(factors=FACTORS, num_threads=1, random_state=seed, **options)
