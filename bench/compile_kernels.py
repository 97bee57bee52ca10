"""Every Triton kernel compiled for GPUs that need not be here: `python -m bench.compile_kernels` writes the table.

Triton compiles for a named target; registers and stack are read from the cubin by the cuobjdump that comes with it
(-res-usage), shared memory is what Triton asks of a launch. The shapes are those of 384-dimensional embeddings.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from mllmrec_kernels.exact import gpu_int8, gpu_score
from mllmrec_kernels.mixed import gpu_rows as mixed
from mllmrec_kernels.mixed.reference import LANES
from mllmrec_kernels.propagate import gpu as propagate
from mllmrec_kernels.rank import gpu as rank
from mllmrec_kernels.rank import gpu_terms
from mllmrec_kernels.rank import gpu_tiles as rank_tiles
from mllmrec_kernels.sample import gpu as sample
from mllmrec_kernels.topk import gpu, gpu_block, gpu_pairs, gpu_self, gpu_tiles
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TABLE = Path(__file__).resolve().parents[1] / "docs" / "kernels-compiled.md"
# Compute capability: (name of the architecture, shared memory of one block in bytes).
TARGETS = {80: ("sm_80", 166_912), 90: ("sm_90a", 232_448), 100: ("sm_100a", 232_448)}
HOPPER = (90,)
HALF, FLOAT, DOUBLE, BYTE, INT, LONG = "*fp16", "*fp32", "*fp64", "*i8", "*i32", "*i64"


@dataclass(frozen=True)
class Kernel:
    """A kernel as a launcher compiles it: types of its arguments, constants, warps and stages."""

    name: str
    function: Any
    types: tuple[str, ...]
    constants: dict[str, Any] = field(default_factory=dict)
    warps: int = 4
    stages: int = 3
    warps_hopper: int = 0  # where they are others
    fused: bool = True  # multiplications into additions
    targets: tuple[int, ...] = tuple(TARGETS)  # that it is launched on

    def warps_of(self, capability: int) -> int:
        """Warps of a block on a target."""
        return self.warps_hopper if self.warps_hopper and capability == 90 else self.warps


TILE = {"D": 384, "BM": gpu_block.ROWS, "BN": gpu_block.COLUMNS, "BK": gpu_score.STEP}
SAMPLE = {"D": 384, "BM": gpu_block.SAMPLED, "BN": gpu_block.SAMPLED, "BK": gpu_score.STEP}
COUNT_AHEAD = (HALF, HALF, HALF, HALF, FLOAT, FLOAT, INT, INT, "i32", "i32", "i32", "i32")
PRODUCT = {"warps": gpu_block.WARPS, "stages": gpu_block.STAGES, "warps_hopper": gpu_block.WARPS_HOPPER}
COLLECT = (HALF, HALF, INT, FLOAT, LONG, INT, "i32", "i32", "i32", "i32", "i32")
LAYER = {"WEIGHTED": True, "BASE": True, "EDGES": propagate.EDGES, "COLUMNS": propagate.COLUMNS}
ADD_ROWS = (LONG, LONG, INT, FLOAT, LONG, INT, FLOAT, FLOAT, "i32")
DROP = (LONG, INT, INT, LONG, INT, "i32", "i64", "i32", "i32")


def _count_ahead(d: int, tile: rank.Tile) -> Kernel:
    terms = {"HELD": gpu_terms.is_held(d), "TWO": gpu_terms.has_two(d)}
    shape = {**terms, "D": d, "BM": tile.rows, "BN": tile.columns, "BK": gpu_score.STEP}
    name = f"count_ahead, {d} columns"
    return Kernel(name, rank_tiles.count_ahead, COUNT_AHEAD, shape, warps=tile.warps, stages=tile.stages)


def _self_graph_kernels() -> list[Kernel]:
    """Return the kernels of a graph of rows with themselves by int8."""
    return [
        Kernel("encode_rows, int8", gpu_int8.encode_rows, (FLOAT, DOUBLE, BYTE, INT, INT, "i32", "i32"),
               {"WIDTH": 2.0**-9, "D": 384, "B": gpu_int8.ENCODED}, targets=HOPPER),
        Kernel("sample_low", gpu_pairs.sample_low, (BYTE, INT, INT, *("i32",) * 5),
               {"EXCLUDE_SELF": True, "D": 384, "BM": gpu_self.SAMPLED, "BN": gpu_self.SAMPLED,
                "STAGES": gpu_self.STAGES}, warps=gpu_self.SAMPLE_WARPS, targets=HOPPER),
        Kernel("queue_pairs", gpu_pairs.queue_pairs, (BYTE, INT, INT, INT, *("i32",) * 5),
               {"D": 384, "BM": gpu_self.ROWS, "BN": gpu_self.COLUMNS, "LENGTH": gpu_self.LENGTH,
                "STAGES": gpu_self.STAGES}, warps=gpu_self.WARPS, targets=HOPPER),
        Kernel("fill_lists", gpu_pairs.fill_lists, (INT, INT, INT, LONG, INT, INT, "i32", "i32"),
               {"B": gpu_self.EMPTIED}, targets=HOPPER),
        Kernel("raise_low", gpu_pairs.raise_low,
               (LONG, INT, INT, INT, INT, FLOAT, DOUBLE, "i32", "i32", "i32", "i32"),
               {"UNITS": 2.0**18, "W": gpu_self.LEAST_CAPACITY_MANY, "B": gpu_self.SCORED}, warps=1,
               targets=HOPPER),
        Kernel("decide", gpu_pairs.decide,
               (LONG, INT, INT, INT, FLOAT, DOUBLE, DOUBLE, INT, FLOAT, INT, "i32", "i32", "i32"),
               {"INCLUDE_SELF": False, "W": gpu_self.LEAST_CAPACITY_MANY, "B": gpu_self.SCORED}, warps=1,
               targets=HOPPER),
    ]  # fmt: skip


def kernels() -> list[Kernel]:
    """Every Triton kernel of the package, in each form that matters."""
    return [
        Kernel("pair_dots", gpu_score.pair_dots, (FLOAT, FLOAT, INT, INT, DOUBLE, "i32", "i32"),
               {"B": gpu_score.SCORED}),
        Kernel("encode_rows", gpu_score.encode_rows, (FLOAT, DOUBLE, HALF, DOUBLE, "i32", "i32"),
               {"D": 384, "B": gpu_score.ENCODED, "STEP": gpu_score.STEP}),
        Kernel("sample_thresholds", gpu_tiles.sample_thresholds, (HALF, HALF, INT, FLOAT, "i32", "i32", "i32"), SAMPLE,
               warps=gpu_block.SAMPLE_WARPS, stages=gpu_block.STAGES),
        Kernel("collect", gpu_tiles.collect, COLLECT, {"SYMMETRIC": False, "GROUP": gpu_block.GROUP, **TILE},
               **PRODUCT),
        Kernel("collect, symmetric", gpu_tiles.collect, COLLECT, {"SYMMETRIC": True, "GROUP": gpu_block.GROUP, **TILE},
               **PRODUCT),
        Kernel("drop", gpu_tiles.drop, DROP, {"EXCLUDE_SELF": True, "EXCLUDE": False, "B": gpu_block.ENTRIES}),
        Kernel("drop, excluded", gpu_tiles.drop, DROP,
               {"EXCLUDE_SELF": False, "EXCLUDE": True, "B": gpu_block.ENTRIES}),
        Kernel("sort_rows, 32", gpu_tiles.sort_rows, (LONG, "i32"), {"W": 32}),
        Kernel("sort_rows, 512", gpu_tiles.sort_rows, (LONG, "i32"), {"W": gpu.CAPACITY}),
        Kernel("sort_rows, 2048", gpu_tiles.sort_rows, (LONG, "i32"), {"W": gpu_block.IN_REGISTERS}),
        Kernel("rescore", gpu_tiles.rescore,
               (LONG, FLOAT, INT, FLOAT, FLOAT, DOUBLE, DOUBLE, DOUBLE, "i64", "i32", "i32"),
               {"B": gpu_score.SCORED}),
        *_self_graph_kernels(),
        Kernel("encode_terms", gpu_terms.encode_terms,
               (FLOAT, INT, DOUBLE, HALF, HALF, DOUBLE, DOUBLE, "i32", "i32", "i32"),
               {"TWO": True, "D": 64, "B": gpu_score.ENCODED, "STEP": gpu_score.STEP}),
        _count_ahead(64, rank.NARROW), _count_ahead(128, rank.MIDDLE), _count_ahead(384, rank.WIDE),
        Kernel("list_marked", rank_tiles.list_marked, (INT, INT, INT, "i32", "i32", "i32"), {"B": rank.WORDS}),
        Kernel("count_before", rank.count_before, (FLOAT, FLOAT, INT, FLOAT, INT, INT, LONG, LONG, INT, "i32"),
               {"B": rank.LISTED}),
        Kernel("layer_rows, float32", propagate.layer_rows, (LONG, INT, *(FLOAT,) * 4, "i32", "i32"), LAYER, warps=1),
        Kernel("layer_rows, float64", propagate.layer_rows, (LONG, INT, FLOAT, *(DOUBLE,) * 3, "i32", "i32"), LAYER,
               warps=1),
        Kernel("add_rows", mixed.add_rows, ADD_ROWS, {"VALUES": False, "DENSE": False, "B": mixed.ENTRIES},
               fused=False),
        Kernel("add_rows, values", mixed.add_rows, ADD_ROWS, {"VALUES": True, "DENSE": False, "B": mixed.ENTRIES},
               fused=False),
        Kernel("add_rows, dense", mixed.add_rows, ADD_ROWS, {"VALUES": False, "DENSE": True, "B": mixed.ENTRIES},
               fused=False),
        Kernel("row_moments", mixed.row_moments, (FLOAT, DOUBLE, DOUBLE, DOUBLE, "i32"), {"LANES": LANES}, fused=False),
        Kernel("count_scored", mixed.count_scored, (FLOAT, INT, INT, FLOAT, FLOAT, LONG, LONG, INT),
               {"B": mixed.LISTED}, fused=False),
        Kernel("sample_rows", sample.sample_rows, (LONG, INT, LONG, LONG, INT, INT, INT, "i32", "i32", "i32"),
               {"B": sample.SAMPLES}),
    ]  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """Count registers per thread, bytes spilled per thread and bytes of shared memory per block of a kernel."""

    registers: int
    spilled: int
    shared: int


def compiled(kernel: Kernel, capability: int, *, ones: bool = False) -> Usage:
    """Compile for one target, and read what ptxas made of it; with `ones`, as a launch does whose sizes are all 1."""
    signature, constants = {}, {}
    types = iter(kernel.types)
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for place, name in enumerate(kernel.function.arg_names):
        if name in kernel.constants:
            signature[name], constants[name] = "constexpr", kernel.constants[name]
            continue
        signature[name] = next(types)
        # A launch makes a constant of an integer that is 1.
        if ones and not signature[name].startswith("*") and name not in kernel.function.do_not_specialize:
            signature[name], constants[name] = "constexpr", 1
        if signature[name].startswith("*"):  # torch aligns what it allocates
            attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel.function, signature, constants, attributes)
    options = {"num_warps": kernel.warps_of(capability), "num_stages": kernel.stages, "enable_fp_fusion": kernel.fused}
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, spilled = _resources(binary.asm["cubin"])
    return Usage(registers, spilled, binary.metadata.shared)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers a thread, and bytes of its stack: no kernel keeps an array there, so they are spilled registers."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    assert found, report
    return int(found[1]), int(found[2])


def table(measure: Callable[[Kernel, int], Usage] = compiled) -> str:
    """The page: one line a kernel, registers / spilled / shared memory for each target."""
    lines = [
        "# Triton kernels, compiled", "",
        f"By `make kernel-table` with Triton {triton.__version__}, for 384 columns: registers per thread, bytes",
        "spilled per thread, bytes of shared memory per block. Registers and spills (the stack, for no kernel keeps an",
        "array there) are read from the cubin by `cuobjdump -res-usage`; shared memory is what a launch asks for.",
        "Not used: other kernels are launched there.", "",
        "| kernel | warps | " + " | ".join(TARGETS[c][0] for c in TARGETS) + " |",
        "|---|---|" + "---|" * len(TARGETS),
    ]  # fmt: skip
    for kernel in kernels():
        uses = [measure(kernel, capability) if capability in kernel.targets else None for capability in TARGETS]
        shown = " | ".join(f"{use.registers} / {use.spilled} / {use.shared:,}" if use else "not used" for use in uses)
        warps = f"{kernel.warps}, sm_90a {kernel.warps_hopper}" if kernel.warps_hopper else str(kernel.warps)
        lines.append(f"| {kernel.name} | {warps} | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table())
    sys.stdout.write(TABLE.read_text())
