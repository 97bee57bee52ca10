"""Mutated pictures through prepare and describe: each is described, or refused with a reason."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mllmrec.config import load_config
from mllmrec.dataset import PrepareOptions, prepare
from mllmrec.foundation.images import ImageRefusedError, open_image
from mllmrec.foundation.memory import PeakMemory
from mllmrec.pipeline import run

_EXTREMES = (0, 1, 7, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@cache
def originals() -> list[tuple[str, bytes]]:
    """Return small pictures of every kind and most forms that Pillow writes."""
    pixels = np.random.default_rng(3).integers(0, 256, (60, 80, 4), dtype=np.uint8)
    pixels[20:40, 20:60] = (200, 30, 40, 255)
    clear = Image.fromarray(pixels, "RGBA")
    color = clear.convert("RGB")
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x010E] = 6, 72.0, "a lamp"
    frames = {"save_all": True, "append_images": [Image.new("RGB", (80, 60), "blue")]}
    forms: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("JPEG", color, {"exif": exif, "icc_profile": b"\0" * 200}),
        ("JPEG", color, {"progressive": True, "subsampling": 0}),
        ("JPEG", color.convert("CMYK"), {}),
        ("JPEG", color.convert("L"), {"optimize": True}),
        ("MPO", color, frames),
        ("PNG", clear, {"exif": exif}),
        ("PNG", color.convert("P"), {"transparency": 3}),
        ("PNG", clear.convert("LA"), {}),
        ("PNG", color.convert("1"), {}),
        ("PNG", Image.fromarray(pixels[..., 0].astype(np.uint16) << 8), {}),
        ("PNG", color, frames),
        ("GIF", color.convert("P"), {"save_all": True, "append_images": [color.convert("L").convert("P")]}),
        ("WEBP", clear, {"lossless": True, "exif": exif}),
        ("WEBP", color, {"quality": 60, **frames}),
        ("BMP", color, {}),
        ("BMP", color.convert("P"), {}),
    ]
    return [(f"{kind} {image.mode}", packed(kind, image, options)) for kind, image, options in forms]


def packed(kind: str, image: Image.Image, options: dict[str, object]) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def double(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:]


def drop(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 64) :]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.randrange(1, 64)) + data[start + 8 :]


def set_number(data: bytes, rng: random.Random) -> bytes:
    """Put an extreme number where one may be a size, a length or an offset: into the first 200 bytes."""
    number, width = rng.choice(_EXTREMES), rng.choice("HI")
    value = struct.pack(rng.choice("<>") + width, number & (0xFFFF if width == "H" else 0xFFFFFFFF))
    start = rng.randrange(min(len(data), 200))
    return data[:start] + value + data[start + len(value) :]


def join(data: bytes, rng: random.Random) -> bytes:
    """Put the head of one kind before the body of another."""
    other = rng.choice(originals())[1]
    return data[: rng.randrange(4, 200)] + other[rng.randrange(4, 200) :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip_bits, cut, double, drop, overwrite, set_number, join),
)


def mutants(number: int) -> Iterator[tuple[str, bytes]]:
    forms, rng = originals(), random.Random(16)
    for n in range(number):
        form, data = forms[n % len(forms)]
        mutation = MUTATIONS[n // len(forms) % len(MUTATIONS)]
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            data = mutation(data, rng) or b"\0"
        yield f"{form} {mutation.__name__}", data


@pytest.mark.parametrize("number", [112, pytest.param(5_000, marks=pytest.mark.slow)])
def test_each_mutated_picture_is_described_or_refused_with_a_reason(tmp_path: Path, number: int) -> None:
    shop = tmp_path / "shop"
    (shop / "images").mkdir(parents=True)
    for n, (_, data) in enumerate(mutants(number)):
        (shop / "images" / f"i{n}.jpg").write_bytes(data)
    items = [{"item": f"i{n}", "title": f"Lamp {n}"} for n in range(number)]
    (shop / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (shop / "interactions.csv").write_text("user,item\n" + "".join(f"u{n % 7},i{n}\n" for n in range(number)))

    memory = PeakMemory()
    dataset = prepare(shop, tmp_path / "dataset", PrepareOptions(k_core=0))
    run(dataset, tmp_path / "run", load_config(None, []), until="describe", cache=tmp_path / "cache.sqlite")
    added = memory.added_mib()

    table = pl.read_parquet(tmp_path / "run" / "describe" / "descriptions.parquet")
    copied = dict(zip(dataset.item_ids, dataset.items["images"].list.len() > 0, strict=True))
    refused_at_the_door = re.search(
        r"(\d+) image files are no usable pictures \(\d+ x \w", " ".join(dataset.manifest["warnings"])
    )
    counts: Counter[str] = Counter()
    for name, text, status, reason in table.select("id", "description", "status", "reason").iter_rows():
        if not copied[name]:
            assert (text, status, reason) == ("", "text-only", "")
            counts["refused by prepare"] += 1
        elif status == "ok":
            assert text.endswith(".") and not reason
            counts["described"] += 1
        else:
            assert (text, status) == ("", "text-only") and len(reason) > 10
            counts["refused by describe"] += 1
    assert refused_at_the_door and int(refused_at_the_door[1]) == counts["refused by prepare"]
    assert counts.total() == number
    assert min(counts.values()) > number // 50  # each way is walked
    assert added is None or added < 400
    print(f"{number} pictures: {dict(counts)}, {added} MiB")  # noqa: T201 - shown by pytest -s


@pytest.mark.parametrize("number", [112, pytest.param(5_000, marks=pytest.mark.slow)])
def test_no_mutated_picture_takes_long(tmp_path: Path, number: int) -> None:
    longest, kind = 0.0, ""
    for name, data in mutants(number):
        (tmp_path / "x.jpg").write_bytes(data)
        started = time.process_time()
        try:
            image = open_image(tmp_path / "x.jpg", side=224)
            assert image.mode == "RGB" and min(image.size) >= 1
        except ImageRefusedError:
            pass  # the reasons are looked at above
        seconds = time.process_time() - started
        longest, kind = max((longest, kind), (seconds, name))
    assert longest < 10, kind
    print(f"{number} pictures: the longest took {longest:.2f} s ({kind})")  # noqa: T201 - shown by pytest -s
