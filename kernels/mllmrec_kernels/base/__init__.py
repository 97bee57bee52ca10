"""Support of every kernel: sparse matrices, errors, backends, compilation, threads."""
