"""Each kernel beside what a user would otherwise pick, one file an op.

A peer does the same work on the same input, prepared as its own users would have it (an index built, a matrix
converted), and returns what it found; where its result is not the same thing, `differs` says so.
"""

from mllmrec_bench.peers.case import Case, Peer
from mllmrec_bench.peers.cooccurrence import cooccurrence_topk
from mllmrec_bench.peers.neighbours import topk_cosine
from mllmrec_bench.peers.propagation import one_layer, propagate, with_gradient
from mllmrec_bench.peers.ranking import rank_heldout, topk_dot
from mllmrec_bench.peers.ridge import ridge_weights
from mllmrec_bench.peers.sampling import sample_negatives

__all__ = [
    "Case",
    "Peer",
    "cooccurrence_topk",
    "one_layer",
    "propagate",
    "rank_heldout",
    "ridge_weights",
    "sample_negatives",
    "topk_cosine",
    "topk_dot",
    "with_gradient",
]
