"""The bounds of an inner product by int16 codes, of all coordinates and of those on leading axes, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from mllmrec_kernels.mixed.coded_rows import bound_dot, encode, encode_user, table_bytes
from mllmrec_kernels.mixed.leading_rows import AXES, BYTES, bound_leading, lead_items, lead_users
from numba import njit

# of the columns' sizes: equal ones, one that is far larger, all kinds, and what float32 hardly holds
EXPONENTS = {"equal": (0, 0), "wide": (-9, 9), "tiny": (-40, -30), "huge": (25, 37)}


@njit(error_model="numpy")
def bounds_of(users: np.ndarray, rows: object, codes: np.ndarray, bounds: np.ndarray, out: np.ndarray) -> None:
    for p in range(len(users)):
        encode_user(users, p, rows.sizes, codes, bounds, p)
        for i in range(len(rows.codes)):
            out[p, i, 0], out[p, i, 1] = bound_dot(codes, bounds, p, rows, i)


@njit(error_model="numpy")
def leading_bounds_of(users: object, items: object, out: np.ndarray) -> None:
    ids = np.arange(out.shape[1], dtype=np.int32)
    for u in range(out.shape[0]):
        bound_leading(users, u, items, ids, 0, 7, out[u, :, 0], out[u, :, 1])
        bound_leading(users, u, items, ids, 7, len(ids) - 7, out[u, 7:, 0], out[u, 7:, 1])


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


@pytest.mark.parametrize("name", EXPONENTS)
@pytest.mark.parametrize("d", [128, 129, 450])
def test_no_inner_product_is_off_by_more_than_its_radius_on_leading_axes(name: str, d: int) -> None:
    items, users = vectors(name, 0, 40, d), vectors(name, 1, 23, d)
    leading = lead_items(items)
    assert leading.rows.codes.shape == (40, AXES)
    out = np.full((23, 40, 2), np.nan)
    leading_bounds_of(lead_users(users, leading), leading, out)
    exact = users.astype(np.float64) @ items.astype(np.float64).T
    assert (np.abs(out[..., 0] - exact) <= out[..., 1]).all()


def test_leading_axes_leave_little_of_vectors_with_a_steep_spectrum() -> None:
    generator = np.random.default_rng(4)
    sizes = np.concatenate([np.ones(AXES // 2), np.full(200, 0.01)])
    turned = np.linalg.qr(generator.standard_normal((len(sizes), len(sizes))))[0]
    items, users = (
        ((generator.standard_normal((n, len(sizes))) * sizes) @ turned).astype(np.float32) for n in (300, 8)
    )
    leading, out = lead_items(items), np.zeros((8, 300, 2))
    leading_bounds_of(lead_users(users, leading), leading, out)
    assert out[..., 1].max() < 0.02 * (users @ items.T).std()
    assert np.abs(out[..., 0] - users.astype(np.float64) @ items.T).max() > 1e-5 * out[..., 1].max()


def test_narrow_vectors_have_no_leading_axes() -> None:
    leading = lead_items(np.ones((5, 2 * AXES - 1), np.float32))
    assert leading.rows.codes.shape[1] == 0
    assert lead_users(np.ones((3, 2 * AXES - 1), np.float32), leading).codes.shape == (3, 0)
    assert lead_items(np.ones((0, 500), np.float32)).rows.codes.shape[1] == 0
    assert lead_items(np.ones((5, 500), np.float32), 5 * BYTES - 1).rows.codes.shape[1] == 0
