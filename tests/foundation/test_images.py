"""Pictures are hostile until checked."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from mllmrec.foundation import images
from mllmrec.foundation.images import ByteBudget, ImageRefusedError, check_image, image_kind, open_image
from mllmrec.foundation.memory import PeakMemory


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


def test_a_jpeg_with_further_pictures_behind_it_is_a_jpeg(tmp_path: Path) -> None:
    first, second = picture(size=(200, 150)), picture(size=(50, 40))
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second])
    data = (tmp_path / "x.jpg").read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == "MPO"
    assert check_image(data) == image_kind(data) == image_kind(tmp_path / "x.jpg") == "JPEG"
    assert open_image(tmp_path / "x.jpg").size == (200, 150)


def with_exif(data: bytes, *entries: bytes) -> bytes:
    """A JPEG with an EXIF directory of raw entries."""
    directory = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 32
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(directory) + 2) + directory + data[2:]


ORIENTATION_6 = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)


@pytest.mark.parametrize(
    ("entries", "size"),
    [
        # A resolution of 0 / 0; Pillow fails when it writes the directory again.
        ((ORIENTATION_6, struct.pack("<HHII", 0x011A, 10, 1, 38)), (30, 60)),
        ((ORIENTATION_6, struct.pack("<HHII", 0x011A, 5, 1, 0xFFFFFF)), (30, 60)),
        ((struct.pack("<HHI4s", 0x0112, 2, 4, b"six\0"),), (60, 30)),
        ((struct.pack("<HHIHH", 0x0112, 3, 1, 99, 0),), (60, 30)),
        ((struct.pack("<HHII", 0x0112, 99, 0xFFFFFFFF, 0),), (60, 30)),
    ],
)
def test_a_broken_number_in_the_exif_data_loses_no_picture(
    tmp_path: Path, entries: tuple[bytes, ...], size: tuple[int, int]
) -> None:
    packed = io.BytesIO()
    picture(size=(60, 30)).save(packed, "JPEG")
    (tmp_path / "x.jpg").write_bytes(with_exif(packed.getvalue(), *entries))
    assert open_image(tmp_path / "x.jpg").size == size


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.gif", "x.webp"])
def test_nothing_but_pixels_is_kept(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret"
    options = {"comment": b"secret"} if name in ("x.jpg", "x.gif") else {}
    picture().save(tmp_path / name, exif=exif, icc_profile=b"secret" * 40, **options)
    copy = io.BytesIO()
    open_image(tmp_path / name).save(copy, "JPEG")
    assert b"secret" not in copy.getvalue()


def test_every_orientation_is_turned_upright(tmp_path: Path) -> None:
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste("red", (0, 0, 8, 8))
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    for orientation, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright.transpose(Image.Transpose[turn]).save(tmp_path / "x.png", exif=exif)
        assert open_image(tmp_path / "x.png").tobytes() == upright.tobytes()


def test_conversion_by_strips_changes_no_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (70, 40, 4), dtype=np.uint8)
    clear = Image.fromarray(pixels, "RGBA")
    white = Image.new("RGBA", clear.size, "white")
    deep = Image.fromarray((pixels[..., 0].astype(np.uint16) << 8) + pixels[..., 1])
    clear.save(tmp_path / "clear.png")
    deep.save(tmp_path / "deep.png")
    monkeypatch.setattr(images, "_STRIP_PIXELS", 100)
    assert open_image(tmp_path / "clear.png").tobytes() == Image.alpha_composite(white, clear).convert("RGB").tobytes()
    grey = (np.asarray(deep) / 65535 * 255).round().astype(np.uint8)
    assert (np.asarray(open_image(tmp_path / "deep.png")) == grey[..., None]).all()


def test_a_picture_that_is_too_large_once_decoded_is_refused_from_its_header(tmp_path: Path) -> None:
    Image.new("RGBA", (8000, 6600)).save(tmp_path / "x.png", compress_level=1)
    with pytest.raises(ImageRefusedError, match="8000 x 6600 pixels of kind PNG RGBA take 402 MiB once decoded"):
        open_image(tmp_path / "x.png", side=64)


@pytest.mark.parametrize("kind", ["deep", "clear"])
def test_a_deep_or_clear_picture_takes_little_more_than_its_pixels(tmp_path: Path, kind: str) -> None:
    side = 3000  # 34 MiB of 32-bit pixels
    image = Image.fromarray(np.zeros((side, side), np.uint16)) if kind == "deep" else Image.new("LA", (side, side))
    image.save(tmp_path / "x.png", compress_level=1)
    del image
    peak = PeakMemory()
    open_image(tmp_path / "x.png", side=64)
    added = peak.added_mib()
    if added is None:
        pytest.skip("this system does not measure peak memory")
    assert added < 100  # was 240


def test_the_budget_is_never_exceeded() -> None:
    budget, lock = ByteBudget(100), threading.Lock()
    held, most = 0, 0

    def work(size: int) -> None:
        nonlocal held, most
        for _ in range(50):
            with budget.hold(size):
                with lock:
                    held += min(size, 100)
                    most = max(most, held)
                with lock:
                    held -= min(size, 100)

    threads = [threading.Thread(target=work, args=(size,)) for size in (40, 60, 70, 5, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert 0 < most <= 100


def test_a_jpeg_of_endless_scans_is_refused_undecoded() -> None:
    packed = io.BytesIO()
    picture("L", (64, 64)).save(packed, "JPEG", progressive=True)
    data = packed.getvalue()
    last = data.rfind(b"\xff\xda")
    assert check_image(data) == "JPEG" and data.count(b"\xff\xda") < 20
    bomb = data[:last] + data[last:-2] * 1000 + data[-2:]
    with pytest.raises(ImageRefusedError, match="a JPEG of more than 100 scans, more than any encoder writes"):
        check_image(bomb)


def test_a_png_of_endless_empty_chunks_is_refused_undecoded(tmp_path: Path) -> None:
    packed = io.BytesIO()
    picture().save(packed, "PNG")
    data = packed.getvalue()
    empty = struct.pack(">I", 0) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
    header = 8 + 12 + 13
    (tmp_path / "fine.png").write_bytes(data[:header] + empty * 100 + data[header:])
    assert open_image(tmp_path / "fine.png").size == (40, 30)
    (tmp_path / "bomb.png").write_bytes(data[:header] + empty * 60_000 + data[header:])
    with pytest.raises(ImageRefusedError, match="a PNG of more than 50,000 chunks"):
        open_image(tmp_path / "bomb.png")
