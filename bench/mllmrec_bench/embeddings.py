"""Generate N unit rows like n given ones: the same spectrum, neighbors as near.

With mean mu, centered rows e_p = x_p - mu, m = |mu|^2 and covariance S, a new row with parent p is

    y = mu + a_p e_p + sqrt(1 - a_p^2) (sqrt(g_p) G + sqrt(t_p) T + sqrt(1 - g_p - t_p) O),    renormalized

where G is shared by eleven children of one parent, T by two of them, O by nobody, and all three are Gaussian
with the covariance that a_p^2 e_p e_p^T leaves of S. So E[y y^T] is that of the source, whatever a, g and t
are, and these are free to set how near siblings come: at the cosine of p's own nearest neighbor (T), at that
of its 10th (G), and at a share `parental` of the latter (a_p). Parents in dense places (10th neighbor above
0.7, and among the nearest fifth) keep their children closer, at their 3rd neighbor: else the pairs above 0.7
would thin out.

`parental`, and a correction of the nearest neighbor's cosine, are fitted on the rows themselves. Measured on
all-MiniLM-L6-v2 vectors of 4,344 real products, enlarged 2- to 35-fold: energy in 16 to 192 leading directions
within 0.01, median cosine of the 1st and of the 10th neighbor within 0.06, share of pairs >= 0.7 from a third
of the source's to all of it (the source has 7 such neighbors per row; at one share, 50,000 rows would have 80
each, and the median 10th neighbor could not stay where it is). `data_profile` measures a given set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors, normalize_rows

_GROUP = 11  # a row and its ten nearest
_CLOSE = 0.7
_DENSE_SHARE, _DENSE_NEIGHBOR = 0.2, 3
_PILOT_ROWS, _PILOT_STEPS = 50_000, 5
_SAMPLE = 512  # rows whose neighbors are looked at
_BLOCK = 65_536
_DIRECTIONS = (16, 64, 96, 128, 192)


@dataclass(frozen=True, slots=True)
class DataProfile:
    """Properties of vectors that make a nearest-neighbor search easy or hard.

    Attributes:
        rows: N.
        first, tenth: median cosine of the 1st and of the 10th neighbor.
        close: share of the pairs with a cosine of at least 0.7.
        energy: share of the second moment in the leading 16, 64, 96, 128 and 192 directions (those there are).
    """

    rows: int
    first: float
    tenth: float
    close: float
    energy: tuple[float, ...]

    @property
    def summary(self) -> str:
        """Return one line for a person."""
        energy = ", ".join(f"{share:.0%} in {n}" for n, share in zip(_DIRECTIONS, self.energy, strict=False))
        return (
            f"{self.rows:,} rows; median cosine {self.first:.2f} (1st) {self.tenth:.2f} (10th neighbor); "
            f"{self.close:.2%} of pairs >= 0.7; energy {energy}"
        )


def data_profile(rows: Vectors, *, sample: int = _SAMPLE, seed: int = 0) -> DataProfile:
    """Measure unit rows.

    Args:
        rows: float32 [N, d], unit rows.
        sample: random rows whose neighbors among all are searched.
        seed: of the sample.
    """
    best, close = _neighbors(rows, 10, sample, seed)
    moments = np.linalg.eigvalsh(_moment(rows, np.ones(len(rows))))[::-1]
    shares = np.cumsum(moments) / moments.sum()
    energy = tuple(float(shares[n - 1]) for n in _DIRECTIONS if n <= rows.shape[1])
    return DataProfile(len(rows), float(np.median(best[:, 0])), float(np.median(best[:, -1])), close, energy)


def enlarge(real: Vectors, n: int, *, seed: int = 0) -> Vectors:
    """Return unit rows like the given ones, float32 [n, d].

    For n = len(real) these are the real rows as they are; above, all of them among generated ones, in random order;
    below, a random n of them, whose neighbors are farther as in a smaller catalogue.

    Args:
        real: float32 [R, d], unit rows, none zero; R >= 50.
        n: number of rows, at least 1.
        seed: of everything drawn.

    Raises:
        InputError: too few rows, a zero row, or n < 1.
    """
    _check(real, n)
    if n == len(real):
        return real
    if n < len(real):
        chosen = np.sort(np.random.default_rng(seed).choice(len(real), n, replace=False))
        return np.ascontiguousarray(real[chosen])
    family = _Family(real)
    parental, nearer = family.fit(min(n, max(_PILOT_ROWS, 2 * len(real))), seed)
    rows = family.rows(n, parental, nearer, seed)
    return rows[np.random.default_rng(seed).permutation(n)]  # siblings side by side would be an order to exploit


def isotropic(n: int, d: int, *, seed: int = 0) -> Vectors:
    """Return unit rows without any structure, float32 [n, d]: nothing to prune by.

    Args:
        n: rows.
        d: dimensions.
        seed: of the draw.
    """
    drawn = np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)
    return normalize_rows(drawn)


def narrowed(real: Vectors, d: int) -> Vectors:
    """Return the rows in their d leading directions, rotated at random so that no axis stands out; float32 [R, d].

    Raises:
        InputError: the rows have fewer than d directions.
    """
    if d == real.shape[1]:
        return real
    if not 1 <= d <= real.shape[1]:
        raise InputError(f"the source has {real.shape[1]} dimensions; cannot make {d} of them")
    _, axes = np.linalg.eigh(_moment(real, np.ones(len(real))))
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))
    return normalize_rows(np.ascontiguousarray(real @ (axes[:, -d:] @ turn).astype(np.float32)))


class _Family:
    """The parents, and the shares of their noise."""

    def __init__(self, real: Vectors) -> None:
        self.real = real
        self.mean = real.mean(axis=0, dtype=np.float64)
        self.centered = real - self.mean.astype(np.float32)
        self.common = float(self.mean @ self.mean)
        self.sizes = np.einsum("ij,ij->i", self.centered, self.centered, dtype=np.float64)
        near, _ = _neighbors(real, 10, len(real), 0)
        self.first, self.tenth = near[:, 0].astype(np.float64), near[:, 9].astype(np.float64)
        self.dense = self.tenth >= max(_CLOSE, float(np.quantile(self.tenth, 1 - _DENSE_SHARE)))
        self.inner = np.where(self.dense, near[:, _DENSE_NEIGHBOR - 1], self.tenth).astype(np.float64)

    def fit(self, n: int, seed: int) -> tuple[float, float]:
        """Return `parental` and the correction of the 1st cosine with which the medians of n rows are the source's."""
        target_first, target_tenth = float(np.median(self.first)), float(np.median(self.tenth))
        low, high, parental, nearer = 0.3, 1.0, 0.85, 0.0
        for _ in range(_PILOT_STEPS):
            best, _ = _neighbors(self.rows(n, parental, nearer, seed), 10, _SAMPLE, seed)
            nearer = float(np.clip(nearer + target_first - np.median(best[:, 0]), -0.2, 0.2))
            if np.median(best[:, 9]) > target_tenth:
                high = parental
            else:
                low = parental
            parental = (low + high) / 2
        return parental, nearer

    def rows(self, n: int, parental: float, nearer: float, seed: int) -> Vectors:
        """Return float32 [n, d]: the real rows, then the children, those of one parent side by side.

        Args:
            n: rows.
            parental: share of a parent in its children.
            nearer: correction of the nearest neighbor's cosine.
            seed: of the draw.
        """
        rng = np.random.default_rng(seed)
        kept, group, twin = self._shares(parental, nearer)
        shape = self._noise(kept)
        rows = np.empty((n, self.real.shape[1]), dtype=np.float32)
        rows[: len(self.real)] = self.real
        children = rows[len(self.real) :]
        parents = np.sort(np.resize(rng.permutation(len(self.real)), len(children)))
        places = np.arange(len(parents)) - np.searchsorted(parents, parents)
        drawn_g, drawn_t = _Shared(rng, rows.shape[1]), _Shared(rng, rows.shape[1])
        for start in range(0, len(children), _BLOCK):
            own = slice(start, start + _BLOCK)
            p, place = parents[own], places[own]
            noise = rng.standard_normal((len(p), rows.shape[1]), dtype=np.float32)
            noise *= _column(np.sqrt(1 - group - twin)[p])
            noise += _column(np.sqrt(group)[p]) * drawn_g(place % _GROUP == 0)
            noise += _column(np.sqrt(twin)[p]) * drawn_t(place % _GROUP % 2 == 0)
            block = noise @ shape
            block *= _column(np.sqrt(1 - kept)[p])
            block += self.mean.astype(np.float32) + _column(np.sqrt(kept)[p]) * self.centered[p]
            children[own] = normalize_rows(block)
        return rows

    def _shares(self, parental: float, nearer: float) -> tuple[NDArray[np.float64], ...]:
        """Return a^2, g and t of each parent, [R] each."""
        inner = np.clip(self.inner, self.common + 0.02, 0.999)
        outer = np.where(self.dense, 1.0, parental) * (inner - self.common)
        kept = np.clip(outer / self.sizes, 0, 0.995)
        left = (1 - kept) * self.sizes.mean()
        group = np.clip((inner - self.common - kept * self.sizes) / left, 0, 0.98)
        twin = np.clip((self.first + nearer - inner) / left, 0, 0.995 - group)
        return kept, group, twin

    def _noise(self, kept: NDArray[np.float64]) -> Vectors:
        """Return [d, d], which makes standard Gaussian rows noise with the covariance that the parents leave."""
        covariance = _moment(self.centered, 1 - kept)
        sizes, axes = np.linalg.eigh(covariance)
        sizes = np.clip(sizes, 0, None)
        sizes *= (1 - self.common) / sizes.sum()
        return np.ascontiguousarray((axes * np.sqrt(sizes)).T, dtype=np.float32)


class _Shared:
    """Noise that neighboring rows share; a row either begins a new share or goes on with the last."""

    def __init__(self, rng: np.random.Generator, d: int) -> None:
        self._rng = rng
        self._last = rng.standard_normal((1, d), dtype=np.float32)

    def __call__(self, begins: NDArray[np.bool_]) -> Vectors:
        """Return the noise of rows, float32 [len(begins), d]."""
        fresh = self._rng.standard_normal((int(begins.sum()), self._last.shape[1]), dtype=np.float32)
        drawn = np.concatenate([self._last, fresh])
        self._last = drawn[-1:]
        shared: Vectors = drawn[np.cumsum(begins)]
        return shared


def _neighbors(rows: Vectors, k: int, sample: int, seed: int) -> tuple[Vectors, float]:
    """Return cosines of the k nearest of a random sample of rows, falling, [sample, k]; share of pairs >= 0.7.

    Where a row has fewer than k others, there are as many columns as it has, and at least one.
    """
    others = len(rows) - 1
    k = max(1, min(k, others))
    rng = np.random.default_rng(seed)
    chosen = np.arange(len(rows)) if sample >= len(rows) else np.sort(rng.choice(len(rows), sample, replace=False))
    best, close = [], 0
    for start in range(0, len(chosen), 128):
        block = chosen[start : start + 128]
        cosines = rows[block] @ rows.T
        cosines[np.arange(len(block)), block] = -2
        close += int((cosines >= _CLOSE).sum())
        best.append(-np.sort(-np.partition(cosines, len(rows) - k, axis=1)[:, len(rows) - k :], axis=1))
    return np.concatenate(best), close / (len(chosen) * max(1, others))


def _moment(rows: Vectors, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sum_n w_n x_n x_n^T / N, float64 [d, d], a block of rows at a time."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        total += (block * _column(weights[start : start + _BLOCK])).T @ block
    return total / len(rows)


def _column(values: NDArray[np.float64]) -> Vectors:
    return values.astype(np.float32)[:, None]


def _check(real: Vectors, n: int) -> None:
    if n < 1:
        raise InputError(f"cannot make {n} rows; at least 1 is needed")
    if real.ndim != 2 or real.dtype != np.float32 or len(real) < 50:
        raise InputError(f"the source must be float32 of at least 50 rows; got {real.dtype} of shape {real.shape}")
    norms = np.linalg.norm(real, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))
    if len(wrong):
        raise InputError(f"the source must have unit rows; {len(wrong)} have not, the first is row {wrong[0]}")
