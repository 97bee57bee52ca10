"""SANSA: EASE by a sparse approximate inverse.

Spišák et al., Scalable Approximate NonSymmetric Autoencoder for Collaborative Filtering, RecSys 2023. The package
`sansa` factorizes R^T R + lambda I as L D L^T, all sparse, and inverts L approximately:

    score_u = (R_u W_1) W_2,   W_1 W_2 close to -P_ij / P_jj of EASE.

The two factors have a share `density` of I x I entries each. Multiplied out, W keeps its `neighbors` strongest entries
an item. The package needs SuiteSparse; the extra `sansa` brings it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from mllmrec.config import ModelConfig, Positive
from mllmrec.errors import require_extra
from mllmrec.models.base import FitData
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.scoring import block_rows
from mllmrec.models.turbo_cf import as_weights, strongest


class SANSAConfig(ModelConfig):
    """Settings of SANSA."""

    kind: Literal["sansa"] = "sansa"
    regularization: Annotated[float, Field(gt=0)] = 100.0  # lambda
    density: Annotated[float, Field(gt=0, le=1)] = 0.01  # of each factor
    neighbors: Positive = 1000  # entries of W kept an item


class SANSA(ItemWeightModel):
    """See the module."""

    Config = SANSAConfig
    config: SANSAConfig
    title = "SANSA"
    reads = frozenset()
    candidates = tuple(
        (f"model.density={density}", f"model.regularization={lam}")
        for density in (0.01, 0.003, 0.03)
        for lam in (100, 50, 200)
    )

    def _fit(self, data: FitData) -> None:
        """Factorize and invert by the package.

        Raises:
            ConfigError: the package is not installed.
        """
        require_extra("sansa", "sansa", "model.kind=sansa")
        import sansa

        settings = sansa.SANSAConfig(
            l2=self.config.regularization,
            weight_matrix_density=self.config.density,
            gramian_factorizer_config=sansa.CHOLMODGramianFactorizerConfig(),
            lower_triangle_inverter_config=sansa.UMRUnitLowerTriangleInverterConfig(),
        )
        R = data.user_items
        self.context.progress("fit SANSA", 0, 1)
        first, second = sansa.SANSA(settings).fit(sp.csr_matrix(R.to_scipy().astype(np.float32))).weights
        self.set_weights(R, as_weights(product(first, second, self.config.neighbors)))
        self.context.progress("fit SANSA", 1, 1)


def product(first: Any, second: Any, k: int) -> sp.csr_array:
    """Return W_1 W_2, its k strongest entries per row.

    Args:
        first: W_1, sparse [I, I].
        second: W_2, sparse [I, I].
        k: entries per row.
    """
    W_1, W_2 = sp.csr_array(first), sp.csr_array(second)
    n = W_1.shape[0]
    blocks = [strongest(sp.csr_array(W_1[at : at + block_rows(n)] @ W_2), k) for at in range(0, n, block_rows(n))]
    return sp.csr_array(sp.vstack(blocks))
