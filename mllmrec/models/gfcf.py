"""GF-CF: a linear filter of the user-item graph plus an ideal low-pass filter.

Shen et al., How Powerful is Graph Convolution for Recommendation?, CIKM 2021, equation 13. With
R~ = D_U^-1/2 R D_I^-1/2 and V [I, r] its leading right singular vectors,

    score_u = R_u (R~^T R~ + w D_I^-1/2 V V^T D_I^1/2),   w = 0.3 and r = 256 in the paper.

The first term keeps its `neighbors` largest entries per item; the second is graph_filter.py. Memory: I x neighbors and
(U + I) x r.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from mllmrec.config import ModelConfig, Positive
from mllmrec.foundation import storage
from mllmrec.models.base import FilePath, FitData
from mllmrec.models.graph_filter import graph_filter
from mllmrec.models.item_filter import as_weights, similar_by_users
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.weight_scorers import SumScorer


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
            InputError: the model is not fitted.
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
