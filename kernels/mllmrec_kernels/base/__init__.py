"""Support of every kernel: sparse matrices, errors, backends, compilation, threads."""

from mllmrec_kernels.base.code_cache import choose_folder

CODE_FOLDER = choose_folder()  # before the first function is declared for compilation
