"""One op on one input, and the peers that do the same."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BLOCK_SCORES = 1 << 24  # scores that a chunked torch peer holds at a time: 64 MiB


@dataclass(frozen=True, slots=True)
class Peer:
    """A way to do the same work without mllmrec.

    Attributes:
        name: as it is reported.
        module: what must be importable.
        install: the command that brings it.
        prepare: makes it ready, untimed, and returns the call that is timed.
        differs: how its result is not the same, empty where it is.
    """

    name: str
    module: str
    install: str
    prepare: Callable[[], Callable[[], Any]]
    differs: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A verb of mllmrec_kernels on one input.

    Attributes:
        op: the verb's name.
        name: sizes and settings.
        run: calls the verb.
        peers: who else can do it.
        about: one line on the input, for a person.
    """

    op: str
    name: str
    run: Callable[[], Any]
    peers: tuple[Peer, ...]
    about: str = ""


def torch_peer(name: str, prepare: Callable[[], Callable[[], Any]], differs: str = "") -> Peer:
    """A peer that needs torch alone."""
    return Peer(name, "torch", "pip install torch", prepare, differs)


def scipy_peer(name: str, prepare: Callable[[], Callable[[], Any]], differs: str = "") -> Peer:
    """A peer that needs NumPy and scipy alone."""
    return Peer(name, "scipy", "pip install scipy", prepare, differs)


def library(name: str) -> Any:
    """Import a peer's module; what it says of itself while it loads (deprecations, BLAS threads) is kept quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def block_rows(columns: int) -> int:
    """Rows of a block of scores with so many columns."""
    return max(1, BLOCK_SCORES // max(1, columns))


def sizes(**named: int) -> str:
    """`N=50,000 d=384`, the beginning of a case's name."""
    return " ".join(f"{name}={value:,}" for name, value in named.items())
