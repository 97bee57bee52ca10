"""Find a single thing on a plain ground, and name its size, outline and pattern."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Lab = NDArray[np.float32]  # [..., 3] CIELAB, D65
Mask = NDArray[np.bool_]  # [h, w]
_GROUND_DISTANCE = 14.0  # CIELAB distance at which a pixel is no longer the ground
_PLAIN = 0.95  # share of the border that must be one color
_SINGLE = 0.9  # share of what is not ground that one thing must hold: a scene or a page of type is no object
_DIRECTIONS = ("vertical", "diagonal", "horizontal", "diagonal")  # of stripes, by gradient angle


@dataclass(frozen=True, slots=True)
class Foreground:
    """A thing on a plain ground.

    Attributes:
        mask: its pixels, holes of the drawing filled.
        share: of the picture, 0..1.
        outline: "round", "square", "wide rectangular", "tall rectangular", "triangular", "star-shaped",
            "ring-shaped", "diamond-shaped" or "irregular".
        pattern: "plain", "horizontal stripes", "vertical stripes", "diagonal stripes", "checks" or "dots".
    """

    mask: Mask
    share: float
    outline: str
    pattern: str


def find_foreground(lab: Lab) -> tuple[Foreground | None, NDArray[np.float32] | None]:
    """Return the largest thing that differs from a plain border, and the border's color.

    Args:
        lab: [h, w, 3] pixels in CIELAB.

    Returns:
        The thing, None if there is no single one, and the color as [3] CIELAB, None if the border is not plain.
    """
    border = np.concatenate(
        [lab[:2].reshape(-1, 3), lab[-2:].reshape(-1, 3), lab[:, :2].reshape(-1, 3), lab[:, -2:].reshape(-1, 3)]
    )
    ground = np.median(border, axis=0)
    if (np.linalg.norm(border - ground, axis=1) < _GROUND_DISTANCE).mean() < _PLAIN:
        return None, None
    labels, count = ndimage.label(np.linalg.norm(lab - ground, axis=2) >= _GROUND_DISTANCE)
    if count == 0:
        return None, ground
    sizes = np.bincount(labels.ravel())[1:]
    body = labels == 1 + int(sizes.argmax())
    filled = ndimage.binary_fill_holes(body)
    share = float(filled.mean())
    single = sizes.max() >= _SINGLE * sizes.sum()
    if not single or not 0.03 <= share <= 0.8:
        return None, ground
    return Foreground(filled, share, _outline(filled, body), _pattern(lab, filled)), ground


def _outline(filled: Mask, body: Mask) -> str:
    rows, columns = np.nonzero(filled)
    height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    area = float(filled.sum())
    if _central_hole(filled & ~body, rows, columns) > 0.1 * area:
        return "ring-shaped"
    extent, spread = area / (height * width), _radial_spread(filled, rows, columns)
    if extent > 0.9:
        ratio = width / height
        return "wide rectangular" if ratio > 1.25 else "tall rectangular" if ratio < 0.8 else "square"
    if spread < 0.06:
        return "round"
    balance = abs(float(rows.mean()) - (rows.min() + rows.max()) / 2) / height
    return _pointed(filled, extent, spread, balance)


def _pointed(filled: Mask, extent: float, spread: float, balance: float) -> str:
    """Return an outline with corners: a star, or a half-filled box on its base or on its tip."""
    if spread > 0.14 and _corners(filled) >= 5:
        return "star-shaped"
    if 0.42 < extent < 0.62:
        return "triangular" if balance > 0.08 else "diamond-shaped"
    return "irregular"


def _central_hole(holes: Mask, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> int:
    """Return the pixels of the hole in the middle, where it is as wide as high: a gap between stripes is not."""
    labels, _ = ndimage.label(holes)
    middle = labels[int(rows.mean()), int(columns.mean())]
    if middle == 0:
        return 0
    inside = np.nonzero(labels == middle)
    height, width = (int(np.ptp(side)) + 1 for side in inside)
    return len(inside[0]) if 0.7 < width / height < 1.4 else 0


def _profile(
    filled: Mask, rows: NDArray[np.intp] | None = None, columns: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Return [72] distances from the center of mass to the outline, every five degrees, over their mean."""
    if rows is None or columns is None:
        rows, columns = np.nonzero(filled)
    center = rows.mean(), columns.mean()
    angle = np.degrees(np.arctan2(rows - center[0], columns - center[1])) % 360
    distance = np.hypot(rows - center[0], columns - center[1])
    radius = np.zeros(72)
    np.maximum.at(radius, (angle // 5).astype(int) % 72, distance)
    profile: NDArray[np.float64] = radius / max(float(radius.mean()), 1e-9)
    return profile


def _radial_spread(filled: Mask, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> float:
    return float(_profile(filled, rows, columns).std())


def _corners(filled: Mask) -> int:
    radius = ndimage.gaussian_filter1d(_profile(filled), 1.5, mode="wrap")
    peaks = (radius > np.roll(radius, 1)) & (radius >= np.roll(radius, -1)) & (radius > 1.06)
    return int(peaks.sum())


def _pattern(lab: Lab, filled: Mask) -> str:
    """Return the pattern inside the outline, from the directions of its edges."""
    inner = ndimage.binary_erosion(filled, iterations=4)
    if inner.sum() < 150:
        return "plain"
    main = np.median(lab[inner], axis=0)
    light = ndimage.gaussian_filter(np.linalg.norm(lab - main, axis=2), 0.7)
    gy, gx = ndimage.sobel(light, axis=0), ndimage.sobel(light, axis=1)
    strength = np.hypot(gy, gx)
    edges = inner & (strength > 25)
    density = edges.sum() / inner.sum()
    if density < 0.08:
        return "plain"
    angle = np.degrees(np.arctan2(gy[edges], gx[edges])) % 180
    share = np.bincount(((angle + 22.5) // 45).astype(int) % 4, weights=strength[edges], minlength=4)
    share = share / share.sum()
    if share.max() > 0.55:
        return f"{_DIRECTIONS[int(share.argmax())]} stripes"
    if share[0] + share[2] > 0.62 and min(share[0], share[2]) > 0.2:
        return "checks"
    return "dots" if _blobs(light, inner) >= 4 else "plain"


def _blobs(light: NDArray[np.float32], inner: Mask) -> int:
    """Count small islands that differ from the most of the inside."""
    labels, count = ndimage.label(inner & (light > 12))
    sizes = np.bincount(labels.ravel())[1:] if count else np.empty(0)
    return int(((sizes >= 4) & (sizes < 0.12 * inner.sum())).sum())
