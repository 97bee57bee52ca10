"""How many users an item's regression meets, which says what memory it takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR


def members(degrees: NDArray[np.int64], support: CSR) -> NDArray[np.int64]:
    """Users of an item and of its neighbours, one who is in several counted in each; int64 [I].

    Args:
        degrees: users of each item, [I].
        support: [I, I].
    """
    before = np.concatenate([[0], np.cumsum(degrees[support.indices])])
    return np.asarray(np.diff(before[support.indptr]) + degrees)
