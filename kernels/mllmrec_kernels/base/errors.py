"""The two ways a kernel refuses: the arrays are wrong, or the backend is not there."""

from __future__ import annotations


class KernelError(Exception):
    """Root of every error that this package raises on purpose; its text is one line for a person."""


class KernelInputError(KernelError, ValueError):
    """An array has the wrong shape, dtype, order or content (NaN, ids out of range)."""


class BackendUnavailableError(KernelError, RuntimeError):
    """A backend was asked for by name and cannot run here; the text holds the pip command."""
