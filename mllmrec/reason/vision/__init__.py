"""Measurements of pixels: colours, texture, shape, layout. No weights, no guesses."""
