"""Kernels of mllmrec: arrays in, arrays out.

| verb | does |
|---|---|
| topk_cosine | exact top-k neighbors by cosine, above a threshold |
| topk_dot | exact top-k of inner products, some items of each query excluded |
| cooccurrence_topk | items that share the most users, by Jaccard, cosine or count |
| normalize, propagate | graph normalization, and weight-free propagation of features |
| sample_negatives | uniform negatives, rejected against the user's own items |
| unique_rows | the distinct ids of a batch, and the place of each of its ids among them |
| mlp | a perceptron over rows of a constant table, differentiable |
| bpr_loss | the BPR loss of looked-up rows, differentiable |
| als_factors | one side's factors of a least squares factorization, given the other's |
| ridge_weights, ridge_path | a graph's edge weights, each row by ridge regression on its neighbors |
| RidgeSystems | the same for several tables of vectors, checked once and solved some items at a time |
| rank_heldout | the rank of each held-out item among all items |
| rank_mixed, topk_mixed, score_mixed | the same, lists and scores for a sparse part plus an inner product |
| MixedItems | items of the same, checked and encoded once for block after block of users |
| MixedIndex | lists of the same scores for one user at a time, from items encoded once |
| row_spread | the standard deviation of each user's sparse part |
| sum_pairs | the sparse parts of chosen pairs of users and items |

Dense arguments are NumPy arrays or torch tensors, on the CPU or a CUDA device. Sparse ones are scipy, torch or cupyx
matrices, or a CSR. Results are in the library and on the device of the first dense argument. Every verb takes
`backend="auto"`, or a backend's name, which then runs or raises.
"""

from mllmrec_kernels.als import als_factors
from mllmrec_kernels.base.backend import available
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import BackendUnavailableError, KernelError, KernelInputError
from mllmrec_kernels.base.unique_rows import unique_rows
from mllmrec_kernels.bpr import bpr_loss
from mllmrec_kernels.cooccurrence import cooccurrence_topk
from mllmrec_kernels.mixed import (
    MixedIndex,
    MixedItems,
    MixedScores,
    rank_mixed,
    row_spread,
    score_mixed,
    sum_pairs,
    topk_mixed,
)
from mllmrec_kernels.mlp import mlp
from mllmrec_kernels.propagate import normalize, propagate
from mllmrec_kernels.rank import rank_heldout
from mllmrec_kernels.ridge import RidgeSystems, ridge_path, ridge_weights
from mllmrec_kernels.sample import sample_negatives
from mllmrec_kernels.topk import topk_cosine, topk_dot

__all__ = [
    "CSR",
    "BackendUnavailableError",
    "KernelError",
    "KernelInputError",
    "MixedIndex",
    "MixedItems",
    "MixedScores",
    "RidgeSystems",
    "als_factors",
    "available",
    "bpr_loss",
    "cooccurrence_topk",
    "mlp",
    "normalize",
    "propagate",
    "rank_heldout",
    "rank_mixed",
    "ridge_path",
    "ridge_weights",
    "row_spread",
    "sample_negatives",
    "score_mixed",
    "sum_pairs",
    "topk_cosine",
    "topk_dot",
    "topk_mixed",
    "unique_rows",
]
