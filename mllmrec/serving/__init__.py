"""Use a finished run: lists for users and items that it did not know, without a new fit."""
