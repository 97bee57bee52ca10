"""Pictures are hostile until checked."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from mllmrec.foundation.images import ImageRefusedError, open_image


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def huge_png(path: Path, side: int) -> None:
    """A header that promises side x side pixels, and a kilobyte of data."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize(
    ("side", "reason"),
    [(50_000, "the header promises more pixels"), (9_000, "9000 x 9000 pixels are more than 64 million")],
)
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path, side: int, reason: str) -> None:
    huge_png(tmp_path / "bomb.png", side)
    with pytest.raises(ImageRefusedError, match=reason):
        open_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "content",
    [
        b"<html><body>not found</body></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'></svg>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"SIMPLE  =                    T" + b" " * 3000,
        b"II*\x00" + b"\0" * 100,
    ],
)
def test_other_kinds_named_jpg_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ImageRefusedError, match="not a JPEG, PNG, WEBP, GIF, BMP picture"):
        open_image(tmp_path / "x.jpg")


def test_a_cut_picture_is_refused_and_pillow_is_left_strict(tmp_path: Path) -> None:
    picture(size=(400, 300)).save(tmp_path / "x.jpg")
    data = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageRefusedError, match="unreadable picture"):
        open_image(tmp_path / "x.jpg")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize(
    ("size", "reason"),
    [((1, 1), "1 x 1 pixels show nothing"), ((10, 10_000), "are a line"), ((9999, 3), "show nothing")],
)
def test_sizes_that_show_nothing_are_refused(tmp_path: Path, size: tuple[int, int], reason: str) -> None:
    Image.new("RGB", size).save(tmp_path / "x.png")
    with pytest.raises(ImageRefusedError, match=reason):
        open_image(tmp_path / "x.png")


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageRefusedError, match="the file is missing"):
        open_image(tmp_path / "x.png")
    (tmp_path / "x.png").touch()
    with pytest.raises(ImageRefusedError, match="the file is empty"):
        open_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("mode", "name"),
    [("CMYK", "x.jpg"), ("L", "x.png"), ("P", "x.gif"), ("RGBA", "x.webp"), ("1", "x.bmp"), ("LA", "x.png")],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, name: str) -> None:
    picture("RGBA" if mode == "RGBA" else "RGB").convert(mode).save(tmp_path / name)
    assert open_image(tmp_path / name).mode == "RGB"


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    Image.fromarray(np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (32, 1))).save(tmp_path / "x.png")
    grey = np.asarray(open_image(tmp_path / "x.png"))[0, :, 0]
    assert (grey[0], grey[-1]) == (0, 255) and abs(int(grey[32]) - 129) <= 2


def test_clear_pixels_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "x.png")
    assert open_image(tmp_path / "x.png").getpixel((5, 5)) == (255, 255, 255)


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(size=(60, 20)).save(tmp_path / "x.jpg", exif=exif)
    assert open_image(tmp_path / "x.jpg").size == (20, 60)


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    red, _, blue = open_image(tmp_path / "x.gif").getpixel((3, 3))
    assert red > 200 and blue < 50
