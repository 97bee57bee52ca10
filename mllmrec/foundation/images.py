"""Pictures from anywhere, opened safely: hostile until checked.

The kind of a file is decided by its content and an allow-list, its size by its header, before any pixel is
decoded. What comes out is 8-bit RGB, upright, the first frame of an animation, on white where it was clear.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from mllmrec.errors import MllmrecError

ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}
FORMATS = tuple(ENDINGS)
_MOST_BYTES = 50 << 20
_MOST_PIXELS = 64 << 20
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
_CHECKED_SIDE = 64  # a large JPEG is checked at a fraction of its size


class ImageRefusedError(MllmrecError):
    """A picture that cannot be used; the text is the reason."""


def open_image(path: Path, *, side: int | None = None) -> Image.Image:
    """An RGB picture.

    Args:
        path: the file.
        side: the longest side that is needed; a large JPEG is then decoded at a fraction of its size.

    Raises:
        ImageRefusedError: the file is missing, empty, too large, of another kind, cut off, or has a side or an
            aspect that shows nothing.
    """
    return _open(path, side)[0]


def check_image(data: bytes) -> str:
    """The kind of a picture that `open_image` would take, one of FORMATS; every pixel is decoded once.

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
        kind = _kind(image)
        if side:
            image.draft("RGB", (side, side))
        image.seek(0)
        return _upright(_to_rgb(image), _orientation(image)), kind


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """Yield a picture of an allowed kind and size; whatever the block raises becomes an ImageRefusedError."""
    try:
        _check_bytes(source)
        with warnings.catch_warnings():
            # The pixel limit below is stricter than the one that Pillow warns of.
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
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
    """Return the EXIF orientation, 1..8; 1 (upright) where the EXIF data cannot be read."""
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
    if size > _MOST_BYTES:
        raise ImageRefusedError(f"the file has {size >> 20} MiB, more than {_MOST_BYTES >> 20}")


def _check_size(width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise ImageRefusedError(f"{width} x {height} pixels are more than {_MOST_PIXELS >> 20} million")
    short, long = sorted((width, height))
    if short < _LEAST_SIDE:
        raise ImageRefusedError(f"{width} x {height} pixels show nothing")
    if long > _MOST_ASPECT * short:
        raise ImageRefusedError(f"{width} x {height} pixels are a line, not a picture")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I;16", "I", "F")):
        return _from_deep(image).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """16-bit and float greys: the full range of the type, not of the picture, becomes 0..255."""
    values = np.asarray(image, dtype=np.float64)
    full = 255.0 if values.max(initial=0) <= 255 else 65535.0
    return Image.fromarray((np.clip(values / full, 0, 1) * 255).round().astype(np.uint8))
