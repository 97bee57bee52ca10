"""Measure a picture at one small size, whatever the size of the file; name its colors as people do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mllmrec.reason.vision.shape import Lab, find_foreground

Pixels = NDArray[np.uint8]  # [..., 3] sRGB

_VIVID = 38.0  # CIELAB chroma from which a small patch stands out
_LEAST_ACCENT = 0.012  # of the pixels
SIDE = 112  # pixels of the longest side at which pictures are measured
_FEW_COLORS = 0.75  # share that an object's two main colors must hold; a scene has more of them


NAMES: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 12),
    "charcoal": (54, 56, 60),
    "grey": (128, 128, 128),
    "light grey": (195, 195, 195),
    "white": (250, 250, 250),
    "cream": (248, 240, 215),
    "beige": (215, 195, 160),
    "tan": (190, 150, 105),
    "brown": (115, 70, 35),
    "dark brown": (58, 36, 22),
    "maroon": (110, 15, 25),
    "red": (215, 30, 35),
    "coral": (240, 115, 95),
    "orange": (245, 130, 20),
    "gold": (205, 160, 45),
    "yellow": (248, 220, 40),
    "olive": (115, 115, 40),
    "lime": (150, 210, 50),
    "green": (40, 145, 60),
    "dark green": (20, 65, 40),
    "mint": (165, 225, 190),
    "teal": (15, 125, 130),
    "turquoise": (60, 205, 205),
    "sky blue": (125, 190, 235),
    "blue": (35, 90, 205),
    "navy": (20, 28, 80),
    "lavender": (185, 165, 225),
    "purple": (110, 45, 150),
    "dark purple": (52, 22, 70),
    "magenta": (205, 35, 140),
    "pink": (245, 165, 190),
    "slate": (85, 105, 125),
}


@dataclass(frozen=True, slots=True)
class Measurements:
    """Numbers and names of one picture.

    Attributes:
        palette: (color, share) of the whole picture, largest first.
        accents: (color, share, third of the picture or "") of small vivid patches.
        brightness: mean CIELAB lightness, 0..100.
        contrast: standard deviation of the lightness.
        colorfulness: mean chroma.
        busyness: share of pixels on an edge.
        direction: "horizontal", "vertical" or "" if edges have no prevailing direction.
        bands: the main color of the top, middle and bottom third.
        symmetric: whether left mirrors right.
        detail: "top", "middle", "bottom" or "" : the third that holds most edges.
        outline, pattern: of a single thing on a plain ground; empty if there is none.
        share: of the picture that the thing fills.
        thing: its (color, share), largest first.
        ground: the plain ground's color, empty if it is not plain.
    """

    palette: tuple[tuple[str, float], ...]
    accents: tuple[tuple[str, float, str], ...]
    brightness: float
    contrast: float
    colorfulness: float
    busyness: float
    direction: str
    bands: tuple[str, str, str]
    symmetric: bool
    detail: str
    outline: str
    pattern: str
    share: float
    thing: tuple[tuple[str, float], ...]
    ground: str


def measure(image: Image.Image) -> Measurements:
    """Return the measurements of an RGB picture; deterministic, about 10 ms."""
    scale = SIDE / max(image.size)
    size = tuple(max(24, round(side * scale)) for side in image.size)
    pixels = np.asarray(
        image.resize((size[0], size[1]), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    )
    lab = to_lab(pixels)
    names = nearest_names(lab)
    light = lab[..., 0]
    edges, direction = _edges(light)
    thing, ground = find_foreground(lab)
    inside = tuple(shares(names[thing.mask], least=0.12, most=2)) if thing else ()
    if sum(share for _, share in inside) < _FEW_COLORS:
        thing, inside = None, ()
    known, palette = list(NAMES), shares(names)
    return Measurements(
        palette=tuple(palette),
        accents=tuple(accents(names, lab, [name for name, _ in palette])),
        brightness=float(light.mean()),
        contrast=float(light.std()),
        colorfulness=colorfulness(lab),
        busyness=float(edges.mean()),
        direction=direction,
        bands=_bands(names),
        symmetric=float(np.abs(light - light[:, ::-1]).mean()) < 0.25 * float(light.std()) + 1,
        detail=_detail(edges),
        outline=thing.outline if thing else "",
        pattern=thing.pattern if thing else "",
        share=thing.share if thing else 0.0,
        thing=inside,
        ground=known[int(nearest_names(ground[None, :])[0])] if ground is not None else "",
    )


def _edges(light: NDArray[np.float32]) -> tuple[NDArray[np.bool_], str]:
    gy, gx = ndimage.sobel(light, axis=0), ndimage.sobel(light, axis=1)
    edges = np.hypot(gy, gx) > 40
    flat, upright = float(np.abs(gy).sum()), float(np.abs(gx).sum())
    if flat > 1.5 * upright:
        return edges, "horizontal"
    return edges, "vertical" if upright > 1.5 * flat else ""


def _bands(names: NDArray[np.intp]) -> tuple[str, str, str]:
    top, middle, bottom = (shares(band)[0][0] for band in np.array_split(names, 3, axis=0))
    return top, middle, bottom


def _detail(edges: NDArray[np.bool_]) -> str:
    thirds = [float(band.mean()) for band in np.array_split(edges, 3, axis=0)]
    most = int(np.argmax(thirds))
    others = sorted(thirds)[1]
    return ("top", "middle", "bottom")[most] if thirds[most] > 1.35 * others + 0.01 else ""


def to_lab(pixels: Pixels) -> Lab:
    """Convert sRGB pixels to CIELAB (D65), float32 [..., 3]."""
    srgb = pixels.astype(np.float32) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
    return lab.astype(np.float32)


@cache
def _palette() -> Lab:
    return to_lab(np.array(list(NAMES.values()), dtype=np.uint8))


def nearest_names(lab: Lab) -> NDArray[np.intp]:
    """Return the index in NAMES of each pixel's nearest color, [...].

    Lightness counts half: a red in the shade is still called red.
    """
    weights = np.array([0.5, 1.0, 1.0], dtype=np.float32)
    flat = lab.reshape(-1, 3) * weights
    palette = _palette() * weights
    distance = (flat**2).sum(1)[:, None] - 2 * flat @ palette.T + (palette**2).sum(1)[None, :]
    return np.asarray(distance.argmin(axis=1).reshape(lab.shape[:-1]), dtype=np.intp)


def shares(names: NDArray[np.intp], *, least: float = 0.06, most: int = 4) -> list[tuple[str, float]]:
    """Return the commonest colors and their share of the pixels, largest first.

    Args:
        names: indices in NAMES, of any shape.
        least: the smallest share that is listed, 0..1; the first color is listed in any case.
        most: the number of colors.

    Returns:
        (color, share) each.

    >>> shares(np.array([0, 0, 0, 4]))
    [('black', 0.75), ('white', 0.25)]
    """
    counts = np.bincount(names.ravel(), minlength=len(NAMES))
    order = np.argsort(-counts, kind="stable")[:most]
    known, total = list(NAMES), max(1, names.size)
    commonest = [(known[n], float(counts[n] / total)) for n in order]
    return [(name, share) for name, share in commonest if share >= least] or commonest[:1]


def accents(names: NDArray[np.intp], lab: Lab, known: Sequence[str]) -> list[tuple[str, float, str]]:
    """Return vivid colors that catch the eye, although they are too small to be among the `known` ones.

    Args:
        names: [h, w] indices in NAMES.
        lab: [h, w, 3] the same pixels in CIELAB.
        known: names of the picture's main colors.

    Returns:
        At most two of (color, share of all pixels, the third of the picture that holds most of it or "").
    """
    vivid = np.hypot(lab[..., 1], lab[..., 2]) > _VIVID
    counts = np.bincount(names[vivid], minlength=len(NAMES))
    order = [int(n) for n in np.argsort(-counts, kind="stable") if counts[n] >= _LEAST_ACCENT * names.size]
    others = [(n, name) for n in order if (name := list(NAMES)[n]) not in known]
    return [(name, float(counts[n] / names.size), _third((names == n) & vivid)) for n, name in others[:2]]


def _third(mask: NDArray[np.bool_]) -> str:
    counts = [int(band.sum()) for band in np.array_split(mask, 3, axis=0)]
    most = int(np.argmax(counts))
    return ("top", "middle", "bottom")[most] if counts[most] > 0.6 * sum(counts) else ""


def colorfulness(lab: Lab) -> float:
    """Return the mean chroma of the pixels: 0 is grey, above 40 is vivid."""
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())
