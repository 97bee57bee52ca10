"""Pictures from anywhere, opened safely: hostile until checked.

The kind of a file is decided by its content and an allow-list, its size by its header, before any pixel is
decoded. The result is 8-bit RGB, upright, the first frame of an animation, on white where the picture is clear.
Parts of a file are counted before a decoder sees it, because many small ones cost hours in a few bytes.
Pictures that are decoded at the same time share one budget of memory, whatever the number of threads.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from mllmrec.errors import MllmrecError


class ByteBudget:
    """A budget of bytes: each caller takes a part, and waits until its part fits.

    Args:
        size: bytes in all.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait for `size` bytes and hold them in the block; more than the budget waits for all of it."""
        size = min(size, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}
FORMATS = tuple(ENDINGS)
MOST_FILE_BYTES = 50 << 20
_MOST_PIXELS = 64 << 20
_MOST_DECODED_BYTES = 384 << 20  # of one picture while it is decoded, and of all that are decoded at once
_STRIP_PIXELS = 1 << 18  # deep and clear pictures are converted by strips of so many pixels
_LEAST_SIDE = 8
_MOST_ASPECT = 20
_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_decoding = ByteBudget(_MOST_DECODED_BYTES)
# Measured peak while one pixel is decoded. WebP holds two canvases, the bytes and the picture.
_WEBP_BYTES = 16
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}  # any other: 4, RGB too
_RGB_BYTES = 4  # as Pillow keeps it
_COEFFICIENT_BYTES = 2  # a channel and pixel of a progressive JPEG, at its full size
_CHECKED_SIDE = 64  # a large JPEG is checked at a fraction of its size


class ImageRefusedError(MllmrecError):
    """A picture that cannot be used; the text is the reason."""


def open_image(path: Path, *, side: int | None = None) -> Image.Image:
    """Return a picture in RGB.

    Args:
        path: the file.
        side: the longest side that is needed, in pixels; a large JPEG is then decoded at a fraction of its size.

    Returns:
        8-bit RGB, upright.

    Raises:
        ImageRefusedError: the file is missing, empty, too large, of another kind, cut off, or has a side or an
            aspect that shows nothing.
    """
    return _open(path, side)[0]


def check_image(data: bytes) -> str:
    """Return the kind of a picture that `open_image` would take, one of FORMATS; every pixel is decoded once.

    Raises:
        ImageRefusedError: as `open_image`.
    """
    return _open(data, _CHECKED_SIDE)[1]


def image_kind(source: Path | bytes) -> str:
    """Return the kind of a picture by its header, one of FORMATS; no pixel is decoded.

    Raises:
        ImageRefusedError: as `open_image`, except for what only decoding finds.
    """
    with _opened(source) as image:
        return _kind(image)


def _open(source: Path | bytes, side: int | None) -> tuple[Image.Image, str]:
    with _opened(source) as image:
        kind, orientation = _kind(image), _orientation(image)
        header_pixels = image.width * image.height
        if side:
            image.draft("RGB", (side, side))
        needed = _decoded_bytes(image, header_pixels, turned=orientation in _TRANSPOSITIONS)
        if needed > _MOST_DECODED_BYTES:
            raise ImageRefusedError(
                f"{image.width} x {image.height} pixels of kind {kind} {image.mode} take {needed >> 20} MiB once "
                f"decoded, more than {_MOST_DECODED_BYTES >> 20}"
            )
        with _decoding.hold(needed):
            image.seek(0)
            image.load()
            upright = _upright(_to_rgb(image), orientation)
            upright.info = {}  # comments and places would go into every copy that is saved
            return upright, kind


def _decoded_bytes(image: Image.Image, header_pixels: int, *, turned: bool) -> int:
    """Return the bytes that decoding and conversion to RGB hold at their peak, by the header."""
    pixel_bytes = _WEBP_BYTES if image.format == "WEBP" else _MODE_BYTES.get(image.mode, 4)
    copies = _RGB_BYTES * ((image.mode != "RGB" or "transparency" in image.info) + turned)
    progressive = bool(image.info.get("progressive")) * _COEFFICIENT_BYTES * len(image.getbands())
    return image.width * image.height * (pixel_bytes + copies) + header_pixels * progressive


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """Yield a picture of an allowed kind and size; whatever the block raises becomes an ImageRefusedError."""
    try:
        _check_bytes(source)
        opened = nullcontext(BytesIO(source)) if isinstance(source, bytes) else source.open("rb")
        with opened as file, warnings.catch_warnings():
            if excess := find_excess(file):
                raise ImageRefusedError(f"{excess}, more than any encoder writes")
            # The pixel limit below is stricter than the one that Pillow warns of.
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                _check_size(*image.size)
                yield image
    except ImageRefusedError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageRefusedError("the header promises more pixels than any picture has") from error
    except Exception as error:  # decoders raise what they like on hostile bytes
        name = str(source) if isinstance(source, Path) else "<"
        reason = str(error).split(name)[0].strip(" '\"") or type(error).__name__
        if "identify" in reason:
            reason = f"not a {', '.join(FORMATS)} picture"
        raise ImageRefusedError(f"unreadable picture: {reason[:100]}") from error


def _kind(image: Image.Image) -> str:
    # Pillow calls a JPEG with further pictures behind it (phones write them) MPO.
    return "JPEG" if image.format == "MPO" else image.format or ""


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1..8; 1 (upright) if the EXIF data cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # any broken number in it raises, and the pixels are good
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSITIONS else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSITIONS[orientation]) if orientation in _TRANSPOSITIONS else image


def _check_bytes(source: Path | bytes) -> None:
    if isinstance(source, Path) and not source.is_file():
        raise ImageRefusedError("the file is missing")
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if size == 0:
        raise ImageRefusedError("the file is empty")
    if size > MOST_FILE_BYTES:
        raise ImageRefusedError(f"the file has {size >> 20} MiB, more than {MOST_FILE_BYTES >> 20}")


def _check_size(width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise ImageRefusedError(f"{width} x {height} pixels are more than {_MOST_PIXELS >> 20} million")
    short, long = sorted((width, height))
    if short < _LEAST_SIDE:
        raise ImageRefusedError(f"{width} x {height} pixels show nothing")
    if long > _MOST_ASPECT * short:
        raise ImageRefusedError(f"{width} x {height} pixels are a line, not a picture")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded picture in RGB; one that is RGB already is not copied."""
    if image.mode.startswith(("I;16", "I", "F")):
        return _by_strips(image, partial(_shallow, full=_full_range(image)))
    if "A" in image.getbands() or "transparency" in image.info:
        return _by_strips(image, _on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a picture to RGB a strip of rows at a time, so that wide pixels exist for one strip only."""
    converted = Image.new("RGB", image.size)
    for strip, top in _strips(image):
        converted.paste(convert(strip), (0, top))
    return converted


def _strips(image: Image.Image) -> Iterator[tuple[Image.Image, int]]:
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height))), top


def _on_white(strip: Image.Image) -> Image.Image:
    white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, strip.convert("RGBA")).convert("RGB")


def _full_range(image: Image.Image) -> float:
    """Return the largest value of the type, not of the picture: 255 or 65535."""
    return 255.0 if max(int(np.asarray(strip).max()) for strip, _ in _strips(image)) <= 255 else 65535.0


def _shallow(strip: Image.Image, *, full: float) -> Image.Image:
    values = np.asarray(strip, dtype=np.float64)
    return Image.fromarray((np.clip(values / full, 0, 1) * 255).round().astype(np.uint8)).convert("RGB")


MOST_SCANS = 100  # of a JPEG; each passes over every pixel, and encoders write about ten
MOST_CHUNKS = 50_000  # of a PNG; Pillow reads each by itself, and encoders write one for 4 KiB or more
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_SCAN = b"\xff\xda"  # inside a scan's data, 0xff is followed by zero
_CHUNK_BYTES = 12  # of a PNG's chunk beside its data: size, name, checksum


def find_excess(file: BinaryIO) -> str:
    """Return in words what a file has too much of; empty if it is fine, or of another kind.

    Args:
        file: a picture of bounded size, at its start; it is at its start again afterwards.
    """
    head = file.read(len(_PNG))
    excess = ""
    if head == _PNG and _has_many_chunks(file):
        excess = f"a PNG of more than {MOST_CHUNKS:,} chunks"
    elif head.startswith(_JPEG) and file.read().count(_SCAN) > MOST_SCANS:
        excess = f"a JPEG of more than {MOST_SCANS} scans"
    file.seek(0)
    return excess


def _has_many_chunks(file: BinaryIO) -> bool:
    for _ in range(MOST_CHUNKS):
        size = file.read(4)
        if len(size) < len(b"size"):
            return False
        file.seek(int.from_bytes(size) + _CHUNK_BYTES - len(size), 1)
    return True
