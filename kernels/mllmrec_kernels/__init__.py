"""Arrays in, arrays out: the verbs that mllmrec computes with.

| verb | does |
|---|---|
| topk_cosine | exact top-k neighbours by cosine, above a threshold |
| topk_dot | exact top-k of inner products, some items of each query excluded |
| cooccurrence_topk | items that share the most users, by Jaccard, cosine or count |
| normalise, propagate | graph normalisation, and weight-free propagation of features |
| sample_negatives | uniform negatives, rejected against the user's own items |
| distinct | the distinct ids of a batch, and where each of its ids is among them |
| project | rows of a constant table through a perceptron, differentiable |
| bpr_loss | the BPR loss of looked-up rows, differentiable |
| als_factors | one side's factors of a least squares factorisation, given the other's |
| ridge_weights, ridge_path | a graph's edge weights, each row by ridge regression on its neighbours |
| rank_heldout | the rank of each held-out item among all items |

Arrays are NumPy or torch, on the CPU or a CUDA device; results live where the input lives. Every verb takes
`backend="auto"`, or a backend's name, which then runs or raises.
"""

from mllmrec_kernels.als import als_factors
from mllmrec_kernels.base.backend import available
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import BackendUnavailableError, KernelError, KernelInputError
from mllmrec_kernels.base.unique_rows import distinct
from mllmrec_kernels.bpr import bpr_loss
from mllmrec_kernels.cooccurrence import cooccurrence_topk
from mllmrec_kernels.mlp import project
from mllmrec_kernels.propagate import normalise, propagate
from mllmrec_kernels.rank import rank_heldout
from mllmrec_kernels.ridge import ridge_path, ridge_weights
from mllmrec_kernels.sample import sample_negatives
from mllmrec_kernels.topk import topk_cosine, topk_dot

__all__ = [
    "CSR",
    "BackendUnavailableError",
    "KernelError",
    "KernelInputError",
    "als_factors",
    "available",
    "bpr_loss",
    "cooccurrence_topk",
    "distinct",
    "normalise",
    "project",
    "propagate",
    "rank_heldout",
    "ridge_path",
    "ridge_weights",
    "sample_negatives",
    "topk_cosine",
    "topk_dot",
]
