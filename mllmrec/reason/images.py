"""The pictures of the reasoning stage are opened as all pictures are: see `mllmrec.images`."""

from mllmrec.images import FORMATS, ImageRefusedError, open_image

__all__ = ["FORMATS", "ImageRefusedError", "open_image"]
