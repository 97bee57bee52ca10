"""Each kernel beside the libraries that do the same work.

A peer does the same work on the same input, prepared as in its own documentation (an index built, a matrix
converted), and returns its result; where that is not the same, `differs` says so.
"""

from mllmrec_bench.peers.case import Case, Peer
from mllmrec_bench.peers.graph import one_layer, propagate, ridge_weights, with_gradient
from mllmrec_bench.peers.neighbors import cooccurrence_topk, topk_cosine
from mllmrec_bench.peers.ranking import rank_heldout, rank_mixed, sample_negatives, topk_dot, topk_mixed

__all__ = [
    "Case",
    "Peer",
    "cooccurrence_topk",
    "one_layer",
    "propagate",
    "rank_heldout",
    "rank_mixed",
    "ridge_weights",
    "sample_negatives",
    "topk_cosine",
    "topk_dot",
    "topk_mixed",
    "with_gradient",
]
