"""The bound of an inner product by int16 codes, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from mllmrec_kernels.mixed.coded_rows import bound_dot, encode, encode_user, table_bytes
from numba import njit

# of the columns' sizes: equal ones, one that is far larger, all kinds, and what float32 hardly holds
EXPONENTS = {"equal": (0, 0), "wide": (-9, 9), "tiny": (-40, -30), "huge": (25, 37)}


@njit(error_model="numpy")
def bounds_of(users: np.ndarray, rows: object, codes: np.ndarray, bounds: np.ndarray, out: np.ndarray) -> None:
    for p in range(len(users)):
        encode_user(users, p, rows.sizes, codes, bounds, p)
        for i in range(len(rows.codes)):
            out[p, i, 0], out[p, i, 1] = bound_dot(codes, bounds, p, rows, i)


def vectors(name: str, seed: int, n: int, d: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    low, high = EXPONENTS[name]
    sizes = 10.0 ** generator.uniform(low / 4 if seed else low, high / 4 if seed else high, d)
    rows = (generator.standard_normal((n, d)) * sizes).astype(np.float32)
    rows[0], rows[:, d // 2] = 0, 0
    if d > 2:
        rows[1, 2:] = 0
    return rows


@pytest.mark.parametrize("name", EXPONENTS)
@pytest.mark.parametrize("d", [1, 63, 64, 65, 450])
def test_no_inner_product_is_off_by_more_than_its_radius(name: str, d: int) -> None:
    items, users = vectors(name, 0, 40, d), vectors(name, 1, 23, d)
    rows = encode(items, table_bytes(40, d))
    codes, bounds = np.full((23, rows.codes.shape[1]), 9, np.int16), np.full((23, 3), np.nan)
    codes[:, d:] = 0
    out = np.full((23, 40, 2), np.nan)
    bounds_of(users, rows, codes, bounds, out)
    exact = users.astype(np.float64) @ items.astype(np.float64).T
    off = np.abs(out[..., 0] - exact)
    assert (off <= out[..., 1] + np.abs(exact) * 1e-12).all()
    norms = np.linalg.norm(codes.astype(np.float64), axis=1)
    assert norms.max() < 2**15.5 and np.linalg.norm(rows.codes.astype(np.float64), axis=1).max() < 2**15.5


def test_the_bound_is_narrow_where_one_column_is_large() -> None:
    generator = np.random.default_rng(3)
    items, users = (generator.standard_normal((n, 128)).astype(np.float32) for n in (500, 8))
    items[:, 5] *= 200
    users[:, 5] /= 200
    rows = encode(items, table_bytes(500, 128))
    codes, bounds, out = np.zeros((8, rows.codes.shape[1]), np.int16), np.zeros((8, 3)), np.zeros((8, 500, 2))
    bounds_of(users, rows, codes, bounds, out)
    assert out[..., 1].max() < 0.01 * (users @ items.T).std()


def test_a_table_that_does_not_fit_has_no_rows() -> None:
    assert encode(np.ones((3, 5), np.float32), table_bytes(3, 5) - 1).codes.shape == (0, 0)
    assert encode(np.ones((3, 0), np.float32), 1 << 20).codes.shape == (0, 0)
