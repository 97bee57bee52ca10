"""Generate a shop for demos and tests: some hundreds of goods, their pictures, and the shop's customers.

The text of a good says its kind; only its picture shows its look: one motif in one color and pattern, with a printed
label. Customers choose by both, so a pipeline that reads pictures can gain over one that does not. The shop is written
as plain files, as any shop's own would be, and is read by the same reader.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from pydantic import BaseModel, ConfigDict, Field

from mllmrec.foundation import storage

# Category, group, kinds, and a sentence of praise.
_GOODS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("Kitchen", "Cookware", ("Saucepan", "Casserole", "Wok", "Kettle"), "Heats evenly and cleans up in a minute."),
    ("Kitchen", "Tableware", ("Mug", "Dinner Plate", "Soup Bowl", "Teapot"), "Glazed stoneware for every day."),
    ("Bedroom", "Bedding", ("Duvet Cover", "Pillowcase", "Throw", "Quilt"), "Woven from long cotton fibres."),
    ("Bathroom", "Towels", ("Bath Towel", "Hand Towel", "Bath Mat", "Robe"), "Thick loops that dry quickly."),
    ("Garden", "Planters", ("Flower Pot", "Window Box", "Watering Can", "Trellis"), "Stands frost and strong sun."),
    ("Office", "Stationery", ("Notebook", "Desk Tray", "Pencil Case", "Calendar"), "Keeps a full desk in order."),
    ("Play", "Toys", ("Stacking Blocks", "Kite", "Spinning Top", "Puzzle"), "Sanded smooth for small hands."),
    ("Travel", "Bags", ("Backpack", "Tote", "Wash Bag", "Luggage Tag"), "Double seams and a water-tight lining."),
)
_BRANDS = ("Alder & Finch", "Brightwell", "Corvid Works", "Dunmore", "Elm Street", "Fjordline", "Gladstone", "Harrow")
_LINES = ("Classic", "Everyday", "Studio", "Heritage", "Compact", "Family", "Weekend", "Atelier", "Nordic", "Original")
_DAY = 86_400
_OPENED = 1_700_000_000  # unix seconds of the shop's first day
SIDE = 160
COLORS = {
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
_RIM = 4  # pixels of plain color around a pattern


class CatalogueOptions(BaseModel):
    """Set size and taste of the generated shop."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    items: Annotated[int, Field(ge=20)] = 400
    users: Annotated[int, Field(ge=20)] = 600
    seed: Annotated[int, Field(ge=0)] = 7
    shown_taste: float = 1.6  # weight of what the text says in a customer's choice
    seen_taste: float = 2.4  # weight of what only the picture shows


def ensure_catalogue(folder: Path, *, seed: int) -> None:
    """Generate the shop into `folder`, unless it lies there already."""
    if not (folder / "interactions.csv").is_file():
        generate_catalogue(folder, CatalogueOptions(seed=seed))


def generate_catalogue(folder: Path, options: CatalogueOptions) -> None:
    """Write items.jsonl, images/ and interactions.csv; the same bytes for the same options."""
    storage.make_folder(folder)
    generator = np.random.default_rng(options.seed)
    facets = _facets(options.items, generator)
    _write_items(folder, facets, generator)
    utility = _utility(facets, options, generator)
    # Last: a folder with interactions is whole.
    with storage.atomic(folder / "interactions.csv") as temporary:
        _shop(utility, _names(facets), generator).write_csv(temporary)


def catalogue_texts(n: int, *, seed: int = 7) -> list[list[str]]:
    """Return title, brand, categories and description of n different goods, without pictures.

    n is at most 2,560, the number of different goods.
    """
    shape = (len(_GOODS), 4, len(_BRANDS), len(_LINES))
    chosen = np.random.default_rng(seed).permutation(int(np.prod(shape)))[:n]
    words = (_words(*(int(at) for at in facets)) for facets in zip(*np.unravel_index(chosen, shape), strict=True))
    return [[one["title"], one["brand"], " ".join(one["categories"]), one["description"]] for one in words]


def _words(goods: int, kind: int, brand: int, line: int) -> dict[str, Any]:
    """Return the catalogue's words for an item of these facets."""
    room, group, kinds, praise = _GOODS[goods]
    return {
        "title": f"{_BRANDS[brand]} {_LINES[line]} {kinds[kind]}",
        "brand": _BRANDS[brand],
        "categories": [room, group],
        "description": f"{kinds[kind]} of the {_LINES[line]} line. {praise}",
    }


def _facets(n: int, generator: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Return the facets of the items, int64 [I] each: goods, kind, brand, line, color, motif, pattern."""
    sizes = {
        "goods": len(_GOODS),
        "kind": 4,
        "brand": len(_BRANDS),
        "line": len(_LINES),
        "color": len(COLORS),
        "motif": len(MOTIFS),
        "pattern": len(PATTERNS),
    }
    return {name: generator.integers(size, size=n) for name, size in sizes.items()}


def _names(facets: dict[str, NDArray[np.int64]]) -> list[str]:
    goods = [_GOODS[g][2][k] for g, k in zip(facets["goods"], facets["kind"], strict=True)]
    return [f"{name.lower().replace(' ', '-')}-{n:04d}" for n, name in enumerate(goods)]


def _write_items(folder: Path, facets: dict[str, NDArray[np.int64]], generator: np.random.Generator) -> None:
    colors, names, lines = list(COLORS), _names(facets), []
    (folder / "images").mkdir(exist_ok=True)
    for n, name in enumerate(names):
        words = _words(*(int(facets[name][n]) for name in ("goods", "kind", "brand", "line")))
        look = colors[facets["color"][n]], PATTERNS[facets["pattern"][n]]
        picture = draw(MOTIFS[facets["motif"][n]], *look, words["brand"], generator)
        with storage.atomic(folder / "images" / f"{name}.png") as temporary:
            picture.save(temporary, format="PNG")
        lines.append(
            {
                "item": name,
                **words,
                "price": float(round(5 + 60 * generator.beta(1.5, 4), 2)),
                "image": f"images/{name}.png",
            }
        )
    storage.write_text(folder / "items.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _utility(
    facets: dict[str, NDArray[np.int64]], options: CatalogueOptions, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the utility of each item for each customer before and after a turn of taste, float64 [U, 2, I]."""
    popular = 0.5 * generator.normal(size=options.items)
    weights = {
        "goods": options.shown_taste,
        "brand": 0.5 * options.shown_taste,
        "color": options.seen_taste,
        "motif": 0.6 * options.seen_taste,
        "pattern": 0.5 * options.seen_taste,
    }
    utility = np.tile(popular, (options.users, 2, 1))
    for name, weight in weights.items():
        likes = generator.dirichlet(np.full(int(facets[name].max()) + 1, 0.35), size=(options.users, 2))
        turned = generator.random(options.users) < 0.15  # the others keep their taste
        likes[~turned, 1] = likes[~turned, 0]
        utility += weight * 2 * likes[..., facets[name]]
    return utility


def _shop(utility: NDArray[np.float64], names: list[str], generator: np.random.Generator) -> pl.DataFrame:
    """Return each customer's purchases: best utility plus Gumbel noise, nothing twice, one after the other."""
    rows = []
    for user, (before, after) in enumerate(utility):
        count = int(generator.integers(8, 25))
        noise = generator.gumbel(0, 0.5, size=len(names))
        first = np.argsort(-(before + noise))[: count - count // 4]
        second = [item for item in np.argsort(-(after + noise)) if item not in set(first.tolist())][: count // 4]
        start = _OPENED + int(generator.integers(200 * _DAY))
        for turn, item in enumerate([*generator.permutation(first), *second]):
            when = start + turn * 3 * _DAY + int(generator.integers(_DAY))
            rows.append((f"u{user:04d}", names[item], int(generator.integers(3, 6)), when))
    return pl.DataFrame(rows, schema=["user", "item", "rating", "timestamp"], orient="row")


def draw(motif: str, color: str, pattern: str, label: str, generator: np.random.Generator) -> Image.Image:
    """Draw an RGB picture of SIDE x SIDE pixels; small differences of place, size and tint are drawn at random.

    Args:
        motif: outline of the object.
        color: one of COLORS.
        pattern: one of PATTERNS.
        label: text on the object; empty: none.
        generator: source of the differences.
    """
    radius = SIDE * generator.uniform(0.31, 0.37)
    center = SIDE / 2 + generator.uniform(-5, 5, size=2)
    tint = np.clip(np.array(COLORS[color]) + generator.integers(-14, 15, size=3), 0, 255)
    mask = Image.new("L", (SIDE, SIDE), 0)
    _outline(ImageDraw.Draw(mask), motif, float(center[0]), float(center[1]), radius)
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
