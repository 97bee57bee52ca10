"""Errors of the kernels: wrong arrays, or a backend that is not there."""

from __future__ import annotations


class KernelError(Exception):
    """Root of every error that this package raises on purpose; its text is one line for a person."""


class KernelInputError(KernelError, ValueError):
    """An array has the wrong type, shape, dtype, order or content (NaN, ids out of range)."""


class BackendUnavailableError(KernelError, RuntimeError):
    """A backend named by the caller cannot run here; the text holds the pip command."""
