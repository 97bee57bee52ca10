"""Measure pixels: colors, texture, shape, layout; no weights, no guesses."""
