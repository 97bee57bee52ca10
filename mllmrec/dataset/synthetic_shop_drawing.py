"""Pictures of the generated shop: one motif, in one colour and pattern, with a printed label."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 160
COLOURS = {
    "red": (206, 38, 42),
    "orange": (240, 132, 30),
    "yellow": (244, 214, 50),
    "green": (46, 142, 66),
    "teal": (20, 128, 132),
    "blue": (40, 92, 200),
    "purple": (112, 52, 150),
    "pink": (242, 160, 186),
}
MOTIFS = ("round", "square", "triangular", "star-shaped", "diamond-shaped", "ring-shaped")
PATTERNS = ("plain", "horizontal stripes", "vertical stripes", "dots")
_WHITE = (252, 252, 250)
_RIM = 4  # pixels of plain colour around a pattern


def draw(motif: str, colour: str, pattern: str, label: str, generator: np.random.Generator) -> Image.Image:
    """Draw an RGB picture of SIDE x SIDE pixels; small differences of place, size and tint are drawn at random.

    Args:
        motif: outline of the object.
        colour: one of COLOURS.
        pattern: one of PATTERNS.
        label: text on the object; empty: none.
        generator: source of the differences.
    """
    radius = SIDE * generator.uniform(0.31, 0.37)
    centre = SIDE / 2 + generator.uniform(-5, 5, size=2)
    tint = np.clip(np.array(COLOURS[colour]) + generator.integers(-14, 15, size=3), 0, 255)
    mask = Image.new("L", (SIDE, SIDE), 0)
    _outline(ImageDraw.Draw(mask), motif, float(centre[0]), float(centre[1]), radius)
    rim = Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in tint))
    body = rim.copy()
    _fill(ImageDraw.Draw(body), pattern)
    ground = int(generator.integers(243, 252))
    picture = Image.new("RGB", (SIDE, SIDE), (ground, ground, ground))
    picture.paste(rim, mask=mask.filter(ImageFilter.GaussianBlur(0.6)))
    picture.paste(body, mask=mask.filter(ImageFilter.MinFilter(2 * _RIM + 1)))
    ink = ImageDraw.Draw(picture)
    ink.text((SIDE / 2, SIDE - 7), label, fill=(150, 150, 150), font=ImageFont.load_default(9), anchor="mm")
    noise = generator.normal(0, 2.0, size=(SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _outline(pen: ImageDraw.ImageDraw, motif: str, x: float, y: float, r: float) -> None:
    box = (x - r, y - r, x + r, y + r)
    if motif == "round":
        pen.ellipse(box, fill=255)
    elif motif == "square":
        pen.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=255)
    elif motif == "ring-shaped":
        pen.ellipse(box, fill=255)
        pen.ellipse((x - 0.5 * r, y - 0.5 * r, x + 0.5 * r, y + 0.5 * r), fill=0)
    else:
        pen.polygon(_corners(motif, x, y, r), fill=255)


def _corners(motif: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    reaches = {"triangular": (1.1,) * 3, "diamond-shaped": (1.1, 0.8) * 2, "star-shaped": (1.15, 0.5) * 5}[motif]
    turn = 2 * math.pi / len(reaches)
    return [(x + s * r * math.sin(n * turn), y - s * r * math.cos(n * turn)) for n, s in enumerate(reaches)]


def _fill(pen: ImageDraw.ImageDraw, pattern: str) -> None:
    step = 16
    for at in range(0, SIDE, step):
        if pattern == "horizontal stripes":
            pen.rectangle((0, at, SIDE, at + 6), fill=_WHITE)
        elif pattern == "vertical stripes":
            pen.rectangle((at, 0, at + 6, SIDE), fill=_WHITE)
        elif pattern == "dots":
            for across in range(0, SIDE, step):
                shift = step // 2 if (at // step) % 2 else 0
                pen.ellipse((across + shift, at, across + shift + 7, at + 7), fill=_WHITE)
