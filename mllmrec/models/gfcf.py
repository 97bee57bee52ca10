"""GF-CF: a linear filter of the user-item graph plus an ideal low-pass filter.

Shen et al., How Powerful is Graph Convolution for Recommendation?, CIKM 2021, equation 13. With
R~ = D_U^-1/2 R D_I^-1/2 and V [I, r] its leading right singular vectors,

    score_u = R_u (R~^T R~ + w D_I^-1/2 V V^T D_I^1/2),   w = 0.3 and r = 256 in the paper.

The first term keeps its `neighbors` largest entries per item. The second is `graph_filter`, an inner product of
R_u D_I^-1/2 V and D_I^1/2 V: r numbers per user and per item. Memory: I x neighbors and (U + I) x r.

Of 20,000 items on V are found in blocks of vectors (leading_vectors.py), of fewer by ARPACK.
Of more than four million users, V are the leading eigenvectors of R~^T R~. ARPACK asks only for its products with a
vector, and these are sums over parts of the users, in one order whoever adds them.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import load_file, save_file
from scipy.sparse.linalg import LinearOperator, eigsh, svds

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Work
from mllmrec.config import ModelConfig, Positive
from mllmrec.foundation import storage
from mllmrec.models.base import FilePath, FitData
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.leading_vectors import leading_vectors
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.turbo_cf import as_weights, similar_by_users
from mllmrec.models.weight_scorers import SumScorer

_USERS = 1 << 22  # of a part
_MANY_ITEMS, _FEW = 20_000, 128  # of so many items on and up to so many factors, blocks of vectors are faster


def graph_filter(user_items: CSR, factors: int, blocks: Blocks | None = None) -> VectorScorer:
    """Return the filter of an interaction matrix; columns in falling order of their singular values.

    The start vector is fixed, and empty rows and columns are left out of the decomposition: where the matrix has fewer
    dimensions than factors, ARPACK goes on from random vectors. So the same interactions give the same filter.

    Args:
        user_items: R, binary [U, I].
        factors: r; lowered to what the matrix can have, a column of zeros where that is none.
        blocks: workers that multiply instead, where the users have parts.
    """
    R = user_items.to_scipy().astype(np.float64)
    scaled, by_item = normalize_bipartite(R)
    bought = np.diff(scaled.tocsc().indptr) > 0
    filled = scaled[np.diff(scaled.indptr) > 0][:, bought]
    factors = min(factors, min(filled.shape) - 1)
    if factors < 1:
        return VectorScorer(np.zeros((R.shape[0], 1), np.float32), np.zeros((R.shape[1], 1), np.float32))
    if filled.shape[0] > _USERS:
        basis, values = _leading(filled, factors, blocks)
    elif filled.shape[1] >= _MANY_ITEMS and factors <= _FEW:
        basis, values = leading_vectors(filled, factors)
    else:
        _, values, basis = svds(filled, k=factors, v0=np.ones(min(filled.shape)), return_singular_vectors="vh")
    V = np.zeros((R.shape[1], factors))
    V[bought] = basis[np.argsort(-values, kind="stable")].T
    users = np.ascontiguousarray(R @ (V / by_item[:, None] ** 0.5), np.float32)
    return VectorScorer(users, np.ascontiguousarray(V * by_item[:, None] ** 0.5, np.float32))


def _leading(
    scaled: sp.csr_array, factors: int, blocks: Blocks | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the leading eigenvectors of R~^T R~, [r, I], and their eigenvalues [r]."""
    n_users, n_items = scaled.shape
    users = CSR.from_scipy(scaled)
    rows = users.to_scipy()  # in float32, as workers get them

    def product(x: NDArray[np.float64]) -> NDArray[np.float64]:
        total, x = np.zeros(n_items), np.ascontiguousarray(x.ravel())
        if blocks:
            work = Work(product_block, "graph filter", n_users, _USERS, {"users": users}, {"x": x}, keep=False)
            parts = iter(blocks.run(work)["parts"])
        else:
            parts = (_part(rows[start : start + _USERS], x) for start in range(0, n_users, _USERS))
        for part in parts:
            total += part
        return total

    operator = LinearOperator((n_items, n_items), matvec=product, dtype=np.float64)
    values, vectors = eigsh(operator, k=factors, v0=np.ones(n_items))
    return vectors.T, values


def product_block(block: Block) -> Arrays:
    """Return S^T S x of the block's rows S of users, float64 [1, I]."""
    return {"parts": _part(block.matrix("users").to_scipy(), block.array("x"))[None]}


def _part(users: sp.csr_array, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(users.T @ (users @ x))


def normalize_bipartite(R: sp.csr_array) -> tuple[sp.csr_array, NDArray[np.floating]]:
    """Return R~ = D_U^-1/2 R D_I^-1/2 of a binary R [U, I], and D_I [I]; a degree of 0 counts as 1."""
    by_user, by_item = (np.maximum(np.asarray(R.sum(axis=axis)).ravel(), 1) for axis in (1, 0))
    return (sp.diags_array(by_user**-0.5) @ R @ sp.diags_array(by_item**-0.5)).tocsr(), by_item


def narrow(filtered: VectorScorer, factors: int) -> VectorScorer:
    """Return the filter with fewer factors."""
    users, items = (np.ascontiguousarray(side[:, :factors]) for side in (filtered.users, filtered.items))
    return VectorScorer(users, items)


class GFCFConfig(ModelConfig):
    """Settings of GF-CF."""

    kind: Literal["gf-cf"] = "gf-cf"
    factors: Positive = 256  # r
    filter_weight: Annotated[float, Field(ge=0)] = 0.3  # w
    neighbors: Positive = 1000  # entries of R~^T R~ kept an item


class GFCF(ItemWeightModel):
    """See the module.

    Attributes:
        low_pass: the second term, times w.
    """

    Config = GFCFConfig
    config: GFCFConfig
    title = "GF-CF"
    reads = frozenset()
    candidates = tuple(
        (f"model.factors={r}", f"model.filter_weight={w}") for r in (256, 128, 64) for w in (0.3, 0.1, 1.0)
    )
    low_pass: VectorScorer

    def _fit(self, data: FitData) -> None:
        """Compute both terms."""
        R, config = data.user_items, self.config
        self.context.progress("fit GF-CF", 0, 2)
        P = similar_by_users(R, 0.5, 1.0, config.neighbors)
        self.context.progress("fit GF-CF", 1, 2)
        smooth = graph_filter(R, config.factors)
        self.low_pass = VectorScorer(np.float32(config.filter_weight) * smooth.users, smooth.items)
        self.set_weights(R, as_weights(P))
        self.context.progress("fit GF-CF", 2, 2)

    @property
    def scorer(self) -> SumScorer:
        """Both terms.

        Raises:
            NotFittedError: there was no fit.
        """
        return SumScorer(self.sums, self.low_pass)

    def write_files(self, path: FilePath) -> list[str]:
        """Write the weights' files and filter.safetensors."""
        names = super().write_files(path)
        with storage.atomic(path("filter.safetensors")) as temporary:
            save_file({"users": self.low_pass.users, "items": self.low_pass.items}, temporary)
        return [*names, "filter.safetensors"]

    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote."""
        tensors = load_file(path("filter.safetensors"))
        self.low_pass = VectorScorer(tensors["users"], tensors["items"])
        return super().read_files(path)
