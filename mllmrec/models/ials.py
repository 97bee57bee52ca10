"""iALS: two tables of factors by alternating least squares.

Rendle et al., Revisiting the Performance of iALS on Item Recommendation Benchmarks, RecSys 2022, equations 3-5. With
p_u, q_i of width r, n_u items of user u, n_i users of item i, and a = w |R| / (U I), so that all pairs together weigh
w times what the observed ones do, it minimizes

    sum over R of (1 - p_u q_i)² + a sum over all (u, i) of (p_u q_i)²
        + lambda (sum over u of (n_u + a I) |p_u|² + sum over i of (n_i + a U) |q_i|²);   score_ui = p_u q_i.

Given one table, each row of the other is one r x r system (als_factors). Memory: (U + I) r.

With more than `block` factors, the columns of a table are solved a block after another, all others fixed (Rendle et
al., iALS++: Speeding up Matrix Factorization with Subspace Optimization, 2021). A wide table then costs r / block
systems of block x block a row, not one of r x r. The predictions of the observed pairs are kept: |R| numbers.

As a part of the ensemble, |q_i|² becomes |q_i - m_i|², where m_i is what q_i should be by its vector and the other
items' factors (content.py, solved anew each iteration): regression-based latent factors (Agarwal and Chen,
KDD 2009) for implicit data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from mllmrec_kernels import CSR, als_factors
from mllmrec_kernels.base.parallel import ROW_TILE
from numpy.typing import NDArray
from pydantic import Field

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Table, Work, rows_a_block
from mllmrec.config import ModelConfig, Positive
from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors
from mllmrec.foundation import storage
from mllmrec.foundation.environment import find_gpu
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.base import FilePath, FitData, check_histories
from mllmrec.models.content import LeaveOneOutRegression
from mllmrec.models.new_users import HalfSweep
from mllmrec.models.scorer_model import EmbeddingModel
from mllmrec.models.scoring import VectorScorer

if TYPE_CHECKING:
    import torch

_ROWS, _PARTS = 85, 8  # tiles that a worker solves at once, parts of few: many sweeps wait for their last block
_START = 0.1  # standard deviation of the first item factors, over sqrt(r)
_PAYS, _PAIRS = 20_000, 1 << 14  # rows that a GPU is worth its start for; pairs whose factors are gathered at once
WARM_ITERATIONS = 3  # of a fit that goes on from an earlier one's factors
_STRENGTHS = tuple((w, lam) for lam in (0.05, 0.03, 0.02) for w in (1, 3, 10))


class IALSConfig(ModelConfig):
    """Settings of iALS."""

    kind: Literal["ials"] = "ials"
    factors: Positive = 64  # r
    unobserved_weight: Annotated[float, Field(ge=0)] = 1.0  # w, of all pairs together, over that of the observed
    regularization: Annotated[float, Field(gt=0)] = 0.05  # lambda
    iterations: Positive = 16  # how often both tables are solved
    block: Positive = 64  # columns that are solved together


class IALS(EmbeddingModel):
    """See the module."""

    Config = IALSConfig
    config: IALSConfig
    title = "iALS"
    reads = frozenset()
    is_random = goes_on = True
    candidates = tuple((f"model.unobserved_weight={w}", f"model.regularization={lam}") for w, lam in _STRENGTHS)
    share: float | None = None  # a; None before a fit, and of files that do not have it

    def _fit(self, data: FitData) -> None:
        """Fit both tables."""
        config, earlier = self.config, self.context.earlier
        self.share = pair_weight(data.user_items, config.unobserved_weight)
        start = earlier.items if isinstance(earlier, IALS) and earlier.config == config else None
        self.vectors = alternate(
            data.user_items,
            factors=config.factors,
            unobserved_weight=config.unobserved_weight,
            regularization=config.regularization,
            iterations=config.iterations if start is None else min(WARM_ITERATIONS, config.iterations),
            seed=data.seed,
            block=config.block,
            start=start,
            progress=self.context.progress,
            blocks=self.context.blocks,
            device=find_gpu(self.context.train.device, "train.device"),
        )

    def _fold_in(self, histories: CSR) -> VectorScorer:
        check_histories(histories, len(self.items))
        if self.share is None:
            raise InputError("this model's files do not have the weight of all pairs; fit it again to place new users")
        return VectorScorer(HalfSweep(self.items, self.share, self.config.regularization)(histories), self.items)

    @property
    def summary(self) -> str:
        """One line about the fitted model."""
        return f"iALS, {self.items.shape[1]} factors"

    def write_files(self, path: FilePath) -> list[str]:
        """Write user_factors.npy, item_factors.npy and factors.json."""
        storage.write_array(path("user_factors.npy"), self.users)
        storage.write_array(path("item_factors.npy"), self.items)
        storage.write_json(path("factors.json"), {"histories": self.context.digest, "pair_weight": self.share})
        return ["user_factors.npy", "item_factors.npy", "factors.json"]

    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote."""
        users, items = (np.array(storage.read_array(path(f"{side}_factors.npy"))) for side in ("user", "item"))
        self.vectors = VectorScorer(users, items)
        share = storage.read_json(path("factors.json")).get("pair_weight")
        self.share = None if share is None else float(share)
        return self


def pair_weight(user_items: CSR, unobserved_weight: float) -> float:
    """Return a = w |R| / (U I), the weight of every pair."""
    return unobserved_weight * user_items.nnz / max(1, user_items.n_rows * user_items.n_columns)


def alternate(
    user_items: CSR,
    *,
    factors: int,
    unobserved_weight: float,
    regularization: float,
    iterations: int,
    seed: int,
    block: int | None = None,
    content: LeaveOneOutRegression | None = None,
    start: Vectors | None = None,
    progress: Progress = silent,
    label: str = "fit iALS",
    blocks: Blocks | None = None,
    device: torch.device | None = None,
) -> VectorScorer:
    """Solve both tables in turn.

    Args:
        user_items: R, binary [U, I].
        factors: r.
        unobserved_weight: w >= 0.
        regularization: lambda > 0.
        iterations: how often both tables are solved.
        seed: of the first item factors.
        block: columns that are solved together; None: all.
        content: predicts item factors from vectors of the items; None: they shrink to 0.
        start: item factors to begin with, float32 [J, r], of the first J items; those of the others are predicted by
            `content`, or drawn. None: all are drawn.
        progress: called after each iteration.
        label: name of the work to `progress`.
        blocks: workers that solve rows instead, on their processors.
        device: the GPU that solves the rows of both tables, unless in blocks of columns; None: the CPU does.

    Returns:
        p, float32 [U, r], and q, float32 [I, r].
    """
    by_user, by_item = user_items, user_items.transpose()
    share = pair_weight(by_user, unobserved_weight)
    items = _draw(by_user.n_columns, factors, seed)
    if start is not None:
        items[: len(start)] = start
        items[len(start) :] = content.predict(items)[len(start) :] if content else items[len(start) :]
    users = np.zeros((by_user.n_rows, factors), np.float32)
    prior = None
    progress(label, 0, iterations)
    for n in range(iterations):
        if block is None or block >= factors:
            users = solve_side(by_user, items, share, regularization, blocks=blocks, device=device)
            items = solve_side(by_item, users, share, regularization, prior, blocks=blocks, device=device)
        else:
            users = _solve_blocks(by_user, items, users, share, regularization, block)
            items = _solve_blocks(by_item, users, items, share, regularization, block, prior)
        prior = content.predict(items) if content else None
        progress(label, n + 1, iterations)
    return VectorScorer(users, items)


def _draw(n_items: int, factors: int, seed: int) -> Vectors:
    import torch

    drawn = torch.randn(n_items, factors, generator=torch.Generator().manual_seed(seed))
    return np.asarray((drawn * (_START / factors**0.5)).numpy())


def solve_side(
    rows: CSR,
    factors: Vectors,
    share: float,
    regularization: float,
    prior: Vectors | None = None,
    *,
    blocks: Blocks | None = None,
    device: torch.device | None = None,
) -> Vectors:
    """Return the best row factors, float32 [R, r], given the other side's.

    Args:
        rows: binary [R, C].
        factors: float32 [C, r].
        share: weight of every pair.
        regularization: lambda.
        prior: float32 [R, r], what the factors shrink to; None: to 0.
        blocks: workers that solve instead, on their processors.
        device: the GPU that solves many rows; None: the CPU does.
    """
    shrink = regularization * (np.diff(rows.indptr) + share * rows.n_columns)
    if blocks and rows.n_rows:
        tables: dict[str, Table] = {"entries": rows, "shrink": shrink, **({} if prior is None else {"prior": prior})}
        shared: dict[str, Table] = {"factors": factors, "gram": factors.T @ factors}
        size = ROW_TILE * rows_a_block(-(-rows.n_rows // ROW_TILE), _ROWS, least=1, parts=_PARTS)
        found = blocks.run(Work(solve_block, "solve factors", rows.n_rows, size, tables, shared, {"share": share}))
        return found["factors"]
    if device is None or rows.n_rows < _PAYS:
        return als_factors(rows, factors, unobserved_weight=share, regularization=shrink, prior=prior)
    import torch

    Q = torch.from_numpy(factors).to(device)
    return np.asarray(als_factors(rows, Q, unobserved_weight=share, regularization=shrink, prior=prior).cpu())


def _solve_blocks(
    rows: CSR,
    factors: Vectors,
    own: Vectors,
    share: float,
    regularization: float,
    block: int,
    prior: Vectors | None = None,
) -> Vectors:
    """Return better row factors [R, r], each block of columns the best beside the others.

    With p the row's factors, e = p Q_S - 1 the errors of its entries S, and Q' the columns of a block, it moves by

        d = -(Q'_S^T Q'_S + a Q'^T Q' + l I)^-1 (Q'_S^T e + a Q'^T Q p + l (p' - m')),

    as als_factors has it for a row that is drawn to (-Q'_S^T (e + 1) - a Q'^T Q p) / l - p' + m'.

    Args:
        rows: binary [R, C].
        factors: Q, float32 [C, r], of the other side.
        own: p, float32 [R, r].
        share: a.
        regularization: lambda.
        block: columns that are solved together.
        prior: m, what rows shrink to [R, r]; None: 0.
    """
    shrink = (regularization * (np.diff(rows.indptr) + share * rows.n_columns)).astype(np.float32)
    solved, owners = own.copy(), rows.rows()
    predicted = _inner_products(owners, rows.indices, solved, factors)
    for start in range(0, factors.shape[1], block):
        part = slice(start, start + block)
        Q = np.ascontiguousarray(factors[:, part])
        pull = CSR(rows.indptr, rows.indices, predicted, rows.n_columns).to_scipy() @ Q
        pull += share * (solved @ (factors.T @ Q))
        toward = solved[:, part] if prior is None else solved[:, part] - prior[:, part]
        mean = np.asarray(-pull / shrink[:, None] - toward, np.float32)
        step = als_factors(rows, Q, unobserved_weight=share, regularization=shrink, prior=mean)
        solved[:, part] += step
        predicted += _inner_products(owners, rows.indices, step, Q)
    return solved


def _inner_products(
    rows: NDArray[np.int64], columns: NDArray[np.int32], own: Vectors, other: Vectors
) -> NDArray[np.float32]:
    """Return the inner product of each pair of rows of two tables, float32 [n].

    Args:
        rows: int64 [n], of `own`.
        columns: int32 [n], of `other`.
        own: float32 [R, r].
        other: float32 [C, r].
    """
    products = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _PAIRS):
        at = slice(start, start + _PAIRS)
        products[at] = np.einsum("nr,nr->n", own[rows[at]], other[columns[at]])
    return products


def solve_block(block: Block) -> Arrays:
    """Return the factors of the block's rows, given the other side's and their Gram matrix."""
    solved = als_factors(
        block.matrix("entries"),
        block.array("factors"),
        unobserved_weight=block.settings["share"],
        regularization=block.array("shrink"),
        prior=block.array("prior") if "prior" in block.rows else None,
        gram=block.array("gram"),
    )
    return {"factors": solved}
