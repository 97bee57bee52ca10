"""One op on one input, and the peers that do the same.

Peers beside torch and scipy come with the extra `bench`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mllmrec.errors import ConfigError

INSTALL = "pip install 'mllmrec[bench]'"  # brings every peer
BLOCK_SCORES = 1 << 24  # scores that a chunked torch peer holds at a time: 64 MiB


@dataclass(frozen=True, slots=True)
class Peer:
    """A way to do the same work without mllmrec.

    Attributes:
        name: as it is reported.
        module: must be importable.
        prepare: makes it ready, untimed, and returns the call that is timed.
        differs: the difference of its result, empty if it is the same.
    """

    name: str
    module: str
    prepare: Callable[[], Callable[[], Any]]
    differs: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A verb of mllmrec_kernels on one input.

    Attributes:
        op: the verb's name.
        name: sizes and settings.
        run: calls the verb.
        peers: others that can do it.
        about: one line on the input, for a person.
    """

    op: str
    name: str
    run: Callable[[], Any]
    peers: tuple[Peer, ...]
    about: str = ""


def library(name: str) -> Any:
    """Import a peer's module; its warnings while it loads (deprecations, BLAS threads) are hidden.

    Raises:
        ConfigError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"{name.partition('.')[0]} is not installed, which this peer needs: {INSTALL}") from error


def block_rows(columns: int) -> int:
    """Return the rows of a block of scores with so many columns."""
    return max(1, BLOCK_SCORES // max(1, columns))


def sizes(**named: int) -> str:
    """Return `N=50,000 d=384`, the beginning of a case's name."""
    return " ".join(f"{name}={value:,}" for name, value in named.items())
