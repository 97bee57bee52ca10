"""Finished blocks as files: each whole or not there, its SHA-256 in its name, never read without a check."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from mllmrec.blocks.work import Arrays
from mllmrec.errors import EngineError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.folders import remove_temporaries

_NAME = re.compile(r"(\d{8})-([0-9a-f]{64})\.safetensors")


def as_bytes(arrays: Arrays) -> bytes:
    """Return a block's arrays as the content of its part file."""
    data: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return data


class PartFiles:
    """The part files of one work.

    Attributes:
        folder: their folder; it may be missing.
        torn: files whose content was not that of their name; they were removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.torn = 0
        self._files: dict[int, Path] = {}

    def find(self, blocks: int) -> set[int]:
        """Return the blocks of 0 .. blocks-1 that an earlier start finished; torn files are removed."""
        if self.folder.is_dir():
            remove_temporaries(self.folder)
            for file in sorted(self.folder.iterdir()):
                named = _NAME.fullmatch(file.name)
                if not named:
                    continue
                block = int(named[1])
                if block < blocks and block not in self._files and digests.hash_file(file) == named[2]:
                    self._files[block] = file
                else:
                    self.torn += 1
                    file.unlink()
        return set(self._files)

    def write(self, block: int, data: bytes) -> None:
        """Write a block's file, whole or not at all."""
        file = self.folder / f"{block:08d}-{digests.hash_bytes(data)}.safetensors"
        with storage.atomic(file) as temporary:
            temporary.write_bytes(data)
        self._files[block] = file

    def add(self, block: int, sha: str) -> None:
        """Take in the file that a worker of this machine wrote; `sha` is the hash that it reported.

        Raises:
            EngineError: the file is not there.
        """
        file = self.folder / f"{block:08d}-{sha}.safetensors"
        if not file.is_file():
            raise EngineError(f"a worker wrote {file}, and it is not there; is the folder removed by somebody?")
        self._files[block] = file

    def remove(self) -> None:
        """Remove the files, and their folder if nothing else is in it."""
        for file in self._files.values():
            file.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def read(self) -> Arrays:
        """Return the arrays of all blocks, joined in the blocks' order."""
        parts = [load_file(self._files[block]) for block in sorted(self._files)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
