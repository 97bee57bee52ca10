"""The parts of a picture file, counted before a decoder sees it: many small ones cost hours in a few bytes."""

from __future__ import annotations

from typing import BinaryIO

MOST_SCANS = 100  # of a JPEG; each passes over every pixel, and encoders write about ten
MOST_CHUNKS = 50_000  # of a PNG; Pillow reads each by itself, and encoders write one for 4 KiB or more
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_SCAN = b"\xff\xda"  # inside a scan's data, 0xff is followed by zero
_CHUNK_BYTES = 12  # of a PNG's chunk beside its data: size, name, checksum


def find_excess(file: BinaryIO) -> str:
    """Return in words what a file has too much of; empty where it is fine, or of another kind.

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
