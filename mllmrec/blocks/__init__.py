"""Work in blocks of rows, on processes of this machine or on a Ray cluster (docs/scale.md)."""
