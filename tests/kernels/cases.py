"""Cases as data, shared by the kernel tests and the benches: shapes, contents, tolerances.

A case is (rows, columns, d, k and a recipe); `make` turns its recipe into arrays, the same for everyone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mllmrec_kernels.base.csr import CSR
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

# ---------------------------------------------------------------------------------------------- vectors


@dataclass(frozen=True)
class VectorCase:
    """Queries (Q, d) against items (N, d), k asked for; `recipe` names how the rows are drawn."""

    name: str
    n: int
    d: int
    k: int
    q: int = 9
    recipe: str = "gaussian"
    threshold: float | None = None

    def rng(self) -> np.random.Generator:
        """The case's own generator: neighbours in the table do not shift it."""
        return np.random.default_rng(zlib.crc32(self.name.encode()))

    def items(self) -> Vectors:
        """float32, shape (n, d)."""
        return RECIPES[self.recipe](self.rng(), self.n, self.d)

    def queries(self) -> Vectors:
        """float32, shape (q, d): rows drawn like the items, some of them equal to items."""
        drawn = RECIPES[self.recipe](np.random.default_rng(self.q), self.q, self.d)
        if self.n:
            drawn[::3] = self.items()[np.arange(len(drawn[::3])) % self.n]
        return drawn


def gaussian(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Isotropic rows."""
    return rng.normal(size=(n, d)).astype(np.float32)


def duplicates(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Few distinct rows, each many times: every list is decided by the tie rule."""
    return gaussian(rng, max(1, n // 7), d)[rng.integers(0, max(1, n // 7), n)]


def all_equal(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """One row, n times."""
    return np.repeat(gaussian(rng, 1, d), n, axis=0)


def zeros_among(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Every third row zero."""
    x = gaussian(rng, n, d)
    x[::3] = 0
    return x


def all_zero(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Nothing but zero rows."""
    return np.zeros((n, d), dtype=np.float32)


def wide_norms(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Norms from 1e-12 to 1e12, products still within float32."""
    return (gaussian(rng, n, d) * 10.0 ** rng.uniform(-12, 12, (n, 1))).astype(np.float32)


def subnormal(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Components at and below the smallest normal float32: products vanish in float32."""
    return (gaussian(rng, n, d) * 1e-39).astype(np.float32)


def one_direction(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Near-ties everywhere: rows that differ by a few float32 steps, cosines by less than any fast bound."""
    base = gaussian(rng, 1, d)
    return (base * (1 + rng.integers(-4, 5, (n, d)) * 2.0**-23)).astype(np.float32)


def low_rank(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Rank 3."""
    return (gaussian(rng, n, 3) @ gaussian(rng, 3, d)).astype(np.float32)


def clustered(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Tight groups around centres of a decaying spectrum, a common direction in all: like text embeddings."""
    spectrum = 1.0 / np.sqrt(1.0 + np.arange(d))
    centres = gaussian(rng, max(1, n // 10), d) * spectrum + 0.5 * spectrum
    x = centres[rng.integers(0, len(centres), n)] + 0.4 * gaussian(rng, n, d) * spectrum
    return x.astype(np.float32)


def one_hot(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Cosines of exactly 0 and 1: thousands of ties, thresholds met exactly."""
    return np.eye(d, dtype=np.float32)[rng.integers(0, d, n)]


def signs(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Rows of +-1: few distinct cosines, each a multiple of 2 / d, so every k-th place is tied."""
    return rng.choice(np.array([-1, 1], dtype=np.float32), (n, d))


def outlier(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """One row a million times longer than the rest, one component that carries it."""
    x = gaussian(rng, n, d)
    x[: min(1, n)] *= 1e6
    x[:, 0] += 20
    return x


RECIPES: dict[str, Callable[[np.random.Generator, int, int], Vectors]] = {
    recipe.__name__: recipe
    for recipe in (
        gaussian, duplicates, all_equal, zeros_among, all_zero, wide_norms, subnormal, one_direction,
        low_rank, clustered, one_hot, signs, outlier,
    )
}  # fmt: skip

VECTOR_CASES = (
    VectorCase("no_rows", 0, 8, 3),
    VectorCase("one_row", 1, 8, 3),
    VectorCase("one_column", 17, 1, 4),
    VectorCase("two_rows", 2, 3, 1),
    VectorCase("no_queries", 10, 4, 2, q=0),
    VectorCase("odd", 33, 17, 5),
    VectorCase("prime", 211, 31, 7, q=13),
    VectorCase("past_a_block", 129, 65, 10, q=65),
    VectorCase("k_is_n", 40, 16, 40),
    VectorCase("k_beyond_n", 40, 16, 55),
    VectorCase("k_is_one", 200, 24, 1),
    VectorCase("several_tiles", 700, 48, 10, q=300),
    VectorCase("deep", 150, 384, 10),
    VectorCase("clusters", 600, 96, 10, recipe="clustered"),
    VectorCase("clusters_cut", 600, 96, 10, recipe="clustered", threshold=0.7),
    VectorCase("deep_clusters", 500, 384, 10, recipe="clustered", threshold=0.5),
    VectorCase("nothing_passes", 90, 64, 5, threshold=0.99),
    VectorCase("low_threshold", 90, 16, 5, threshold=-2.0),
    VectorCase("at_threshold", 120, 8, 40, recipe="one_hot", threshold=1.0),
    VectorCase("at_zero", 120, 8, 200, recipe="one_hot", threshold=0.0),
    *(
        VectorCase(f"{name}_{k}", 301, 40, k, q=21, recipe=name)
        for name in RECIPES if name not in ("gaussian", "clustered") for k in (7, 320)
    ),
)  # fmt: skip


def random_pairs(rng: np.random.Generator, shape: tuple[int, int], share: float) -> CSR:
    """Each cell stored with probability `share`; the first row full, the last empty."""
    cells = rng.random(shape) < share
    cells[:1], cells[1:][-1:] = True, False
    return CSR.from_pairs(*np.nonzero(cells), shape)


def split_pairs(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[CSR, CSR]:
    """(exclude, heldout), disjoint: a fifth and a tenth of the cells; the last row holds nothing out."""
    drawn = rng.random(shape)
    drawn[1:][-1:] = 0.5
    return tuple(CSR.from_pairs(*np.nonzero(m), shape) for m in (drawn < 0.2, drawn > 0.9))  # type: ignore[return-value]
