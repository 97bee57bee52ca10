"""Lists on the device that tiles of products append to: a bounded number of keys each, in any order.

A key is one int64 that sorts as an answer does: the bits of a score, made monotone, above 2^31 - 1 - id. A higher key
is a higher score, or an equal one of a lower id. A list entry without a pair holds EMPTY.

One number in thousands goes to a list. So the cost that counts is that of a number that does not. PTX takes PACK of
them at once: a subtraction and a maximum each, and one branch over the rest if no excess over a threshold is positive.
Triton's tensors take ten instructions a number, since each operation runs over the whole tile. The interpreter, which
runs no PTX, uses those tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from mllmrec_kernels.base import backend

INTERPRETED = tl.constexpr(backend.triton_interprets())
EMPTY = tl.constexpr(-(2**63))
PACK = 16  # numbers that one branch is for: of one thread


@triton.jit
def pack(score: tl.tensor, item: tl.tensor) -> tl.tensor:
    """Return the key of a float32 score and an int32 id; -0 sorts with +0."""
    bits = tl.where(score == 0.0, 0.0, score).to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (item ^ 0x7FFFFFFF).to(tl.int64)


@triton.jit
def key_score(key: tl.tensor) -> tl.tensor:
    """Return the float32 score of a key; NaN for EMPTY."""
    ordered = (key >> 32).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def key_item(key: tl.tensor) -> tl.tensor:
    """Return the id of a key."""
    return key.to(tl.int32) ^ 0x7FFFFFFF


_START = """{{
.reg .pred any, hit, full;
.reg .s32 slot, bits, sign, id;
.reg .f32 threshold, excess, other, score, {tops};
.reg .s64 at, key;"""
# For a number that meets its threshold: a slot of the list by an atomic and, if it fits, `pack` of number and item.
_ENTRY = """@!hit bra {next};
mad.wide.s32 at, {place}, 4, {counts};
atom.relaxed.gpu.global.add.s32 slot, [at], 1;
setp.ge.s32 full, slot, {capacity};
@full bra {next};
add.f32 score, {value}, 0f00000000;
mov.b32 bits, score;
shr.s32 sign, bits, 31;
and.b32 sign, sign, 0x7FFFFFFF;
xor.b32 bits, bits, sign;
xor.b32 id, {item}, 0x7FFFFFFF;
mov.b64 key, {{id, bits}};
cvt.s64.s32 at, slot;
mad.wide.s32 at, {place}, {capacity}, at;
shl.b64 at, at, 3;
add.s64 at, at, {keys};
st.global.b64 [at], key;
{next}:"""
_CHAINS = 4  # of maxima, so that one need not wait for another


@dataclass(frozen=True)
class _Ptx:
    """PTX that reads PACK numbers of a tile at once.

    Attributes:
        arguments: names of the operands, in order.
        kinds: of their registers, a letter each: f float32, r int32, l int64.
        excess: sets `excess`, not negative if a number may meet a threshold; NaN if the number is.
        hits: for each list that a number may go to: code that sets `hit`, and the names of its place and item.
    """

    arguments: tuple[str, ...]
    kinds: str
    excess: str
    hits: tuple[tuple[str, str, str], ...]

    @property
    def text(self) -> str:
        """Return the instructions; Triton numbers PACK results first, then PACK registers of each argument."""
        operands = [{name: f"${PACK * (1 + m) + n}" for m, name in enumerate(self.arguments)} for n in range(PACK)]
        lines = [_START.format(tops=", ".join(f"top{n}" for n in range(_CHAINS)))]
        for n, operand in enumerate(operands):
            lines.append(self.excess.format(**operand))
            lines.append(f"max.f32 top{n % _CHAINS}, {f'top{n % _CHAINS}' if n >= _CHAINS else 'excess'}, excess;")
        lines += [f"max.f32 top0, top0, top{n};" for n in range(1, _CHAINS)]
        lines += ["setp.ge.f32 any, top0, 0f00000000;", "@!any bra DONE;"]
        for n, operand in enumerate(operands):
            for m, (hit, place, item) in enumerate(self.hits):
                lines.append(hit.format(**operand))
                lines.append(
                    _ENTRY.format(**operand | {"place": operand[place], "item": operand[item], "next": f"NEXT{n}_{m}"})
                )
        return "\n".join([*lines, "DONE:", *(f"mov.b32 ${n}, 0;" for n in range(PACK)), "}"])

    @property
    def registers(self) -> str:
        """Return the constraints of the operands."""
        return ",".join(["=r"] * PACK + [kind for kind in self.kinds for _ in range(PACK)])


_FROM = _Ptx(
    ("value", "low", "place", "item", "capacity", "counts", "keys"), "ffrrrll",
    "sub.f32 excess, {value}, {low};",
    (("setp.ge.f32 hit, {value}, {low};", "place", "item"),),
)  # fmt: skip
_BETWEEN = _Ptx(
    ("value", "low", "high", "place", "item", "capacity", "counts", "keys"), "fffrrrll",
    "sub.f32 excess, {value}, {low};\nsub.f32 other, {high}, {value};\nmin.f32 excess, excess, other;",
    (("setp.ge.f32 hit, {value}, {low};\nsetp.le.and.f32 hit, {value}, {high}, hit;", "place", "item"),),
)  # fmt: skip
_BOTH = _Ptx(
    ("value", "by_row", "by_column", "row", "column", "capacity", "counts", "keys"), "fffrrrll",
    "min.f32 threshold, {by_row}, {by_column};\nsub.f32 excess, {value}, threshold;",
    (
        ("setp.ge.f32 hit, {value}, {by_row};", "row", "column"),
        ("setp.ne.s32 hit, {row}, {column};\nsetp.ge.and.f32 hit, {value}, {by_column}, hit;", "column", "row"),
    ),
)  # fmt: skip
_FROM_TEXT, _FROM_REGISTERS = tl.constexpr(_FROM.text), tl.constexpr(_FROM.registers)
_BETWEEN_TEXT, _BETWEEN_REGISTERS = tl.constexpr(_BETWEEN.text), tl.constexpr(_BETWEEN.registers)
_BOTH_TEXT, _BOTH_REGISTERS = tl.constexpr(_BOTH.text), tl.constexpr(_BOTH.registers)
TOGETHER = tl.constexpr(PACK)


@triton.jit
def append(
    keys: tl.tensor, counts: tl.tensor, tile: tl.tensor, low: tl.tensor, place: tl.tensor, item: tl.tensor,
    capacity: tl.tensor,
) -> None:  # fmt: skip
    """Append the key of each number of the tile that is at least `low`, with its item, to list `place`.

    A full list takes no more, and its count goes on. NaN is appended nowhere.

    keys int64 [., capacity], counts int32: pointers; tile float32 [M, N]; low float32, place, item int32: [M, N], or
    [M, 1] and [1, N] for what is one a row or a column.
    """
    if INTERPRETED:
        _append(keys, counts, tile, tile >= low, place, item, capacity)
    else:
        tl.inline_asm_elementwise(
            _FROM_TEXT, _FROM_REGISTERS, [tile, low, place, item, capacity, counts.to(tl.int64), keys.to(tl.int64)],
            dtype=tl.int32, is_pure=False, pack=TOGETHER,
        )  # fmt: skip


@triton.jit
def append_between(
    keys: tl.tensor, counts: tl.tensor, tile: tl.tensor, low: tl.tensor, high: tl.tensor, place: tl.tensor,
    item: tl.tensor, capacity: tl.tensor,
) -> None:  # fmt: skip
    """Append as `append` does, the numbers from `low` to `high`, both included."""
    if INTERPRETED:
        _append(keys, counts, tile, (tile >= low) & (tile <= high), place, item, capacity)
    else:
        tl.inline_asm_elementwise(
            _BETWEEN_TEXT, _BETWEEN_REGISTERS,
            [tile, low, high, place, item, capacity, counts.to(tl.int64), keys.to(tl.int64)],
            dtype=tl.int32, is_pure=False, pack=TOGETHER,
        )  # fmt: skip


@triton.jit
def append_both(
    keys: tl.tensor, counts: tl.tensor, tile: tl.tensor, by_row: tl.tensor, by_column: tl.tensor, row: tl.tensor,
    column: tl.tensor, capacity: tl.tensor,
) -> None:  # fmt: skip
    """Append to the lists of both sides: column to list row from by_row on, row to list column from by_column on.

    Where row and column are the same, they go to their list once. by_row float32, row int32: [M, 1]; by_column, column:
    [1, N].
    """
    if INTERPRETED:
        _append(keys, counts, tile, tile >= by_row, row, column, capacity)
        _append(keys, counts, tile, (tile >= by_column) & (row != column), column, row, capacity)
    else:
        tl.inline_asm_elementwise(
            _BOTH_TEXT, _BOTH_REGISTERS,
            [tile, by_row, by_column, row, column, capacity, counts.to(tl.int64), keys.to(tl.int64)],
            dtype=tl.int32, is_pure=False, pack=TOGETHER,
        )  # fmt: skip


@triton.jit
def _append(
    keys: tl.tensor, counts: tl.tensor, tile: tl.tensor, hit: tl.tensor, place: tl.tensor, item: tl.tensor,
    capacity: tl.tensor,
) -> None:  # fmt: skip
    at = place + tl.zeros_like(hit).to(tl.int32)
    slot = tl.atomic_add(counts + at, 1, mask=hit, sem="relaxed")
    tl.store(keys + at.to(tl.int64) * capacity + slot, pack(tile, item), mask=hit & (slot < capacity))


@triton.jit
def room(counts: tl.tensor, place: tl.tensor, live: tl.tensor, capacity: tl.tensor) -> tl.tensor:
    """Tell where `live` lists have not overflowed; tested before a tile, this bounds how far a count runs on."""
    return live & (tl.load(counts + place, mask=live, other=0, cache_modifier=".cg") <= capacity)
