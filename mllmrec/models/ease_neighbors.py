"""EASE with neighbors' columns: a cold item is scored as the warm items of the nearest vectors are.

With B the weights of EASE on interactions and content (ease.py), N_c the 20 nearest warm items of a cold item c by
cosine, and s_cj these cosines, none below 0,

    B_:c = scale x (sum over j in N_c of s_cj B_:j) / (sum over j in N_c of s_cj).

A warm item has a training interaction, a cold one none. EASE itself gives a cold item only the weights of the content.
The scale weighs cold items against warm ones in one ranking: what they gain, warm ones lose.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mllmrec.evaluation.groups import is_warm
from mllmrec.models.base import FitData
from mllmrec.models.ease import EASE, EASEConfig
from mllmrec.models.new_items import place


class EASENeighborsConfig(EASEConfig):
    """Settings of EASE with neighbors' columns."""

    kind: Literal["ease-neighbors"] = "ease-neighbors"  # type: ignore[assignment]
    cold_scale: Annotated[float, Field(gt=0)] = 1.0  # scale


class EASENeighbors(EASE):
    """See the module; without item features, cold items stay at zero."""

    Config = EASENeighborsConfig
    config: EASENeighborsConfig
    title = "EASE + content, neighbors' columns"
    reads = frozenset({"items"})
    candidates = tuple(
        (f"model.content_weight={weight}", f"model.regularization={strength}", f"model.cold_scale={scale}")
        for weight, strength in ((20, 50), (20, 100), (40, 200))
        for scale in (1.0, 0.7, 1.3)
    )

    def _fit(self, data: FitData) -> None:
        """Fit B, then replace the columns of cold items; see EASE."""
        super()._fit(data)
        cold = np.flatnonzero(~is_warm(data.user_items))
        if data.items is None or not len(cold) or not isinstance(self.weights, np.ndarray):
            return
        shares = place(data.items, data.items[cold], data.user_items)
        B = self.weights.copy()
        B[:, cold] = self.config.cold_scale * (shares @ self.weights.T).T
        self.set_weights(data.user_items, B, self.rows, self.half_life)
