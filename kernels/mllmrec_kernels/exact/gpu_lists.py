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
# For a number that meets its threshold: the bit of its item, in the words of its row.
_MARK = """@!hit bra {next};
shr.s32 slot, {item}, 5;
cvt.s64.s32 at, slot;
mad.wide.s32 at, {place}, {capacity}, at;
shl.b64 at, at, 2;
add.s64 at, at, {keys};
and.b32 id, {item}, 31;
mov.b32 bits, 1;
shl.b32 bits, bits, id;
red.relaxed.gpu.global.or.b32 [at], bits;
{next}:"""
_CHAINS = 4  # of maxima, so that one need not wait for another


@dataclass(frozen=True)
class _Ptx:
    """PTX that reads PACK numbers of a tile at once.

    Attributes:
        arguments: names of the operands, in order.
        kinds: of their registers, a letter each: f float32, r int32, l int64.
        excess: sets `excess`, at least `least` if a number may meet a threshold; NaN if the number is.
        hits: for each list that a number may go to: code that sets `hit`, and the names of its place and item.
        entry: writes an entry of a list.
        least: a float32 number, its bits.
    """

    arguments: tuple[str, ...]
    kinds: str
    excess: str
    hits: tuple[tuple[str, str, str], ...]
    entry: str = _ENTRY
    least: str = "0f00000000"

    @property
    def text(self) -> str:
        """Return the instructions; Triton numbers PACK results first, then PACK registers of each argument."""
        operands = [{name: f"${PACK * (1 + m) + n}" for m, name in enumerate(self.arguments)} for n in range(PACK)]
        lines = [_START.format(tops=", ".join(f"top{n}" for n in range(_CHAINS)))]
        for n, operand in enumerate(operands):
            lines.append(self.excess.format(**operand))
            lines.append(f"max.f32 top{n % _CHAINS}, {f'top{n % _CHAINS}' if n >= _CHAINS else 'excess'}, excess;")
        lines += [f"max.f32 top0, top0, top{n};" for n in range(1, _CHAINS)]
        lines += [f"setp.ge.f32 any, top0, {self.least};", "@!any bra DONE;"]
        for n, operand in enumerate(operands):
            for m, (hit, place, item) in enumerate(self.hits):
                named = operand | {"place": operand[place], "item": operand[item], "next": f"NEXT{n}_{m}"}
                lines += [hit.format(**operand), self.entry.format(**named)]
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
_WITHIN = _Ptx(
    ("value", "place", "item", "capacity", "keys"), "frrrl",
    "abs.f32 excess, {value};\nneg.f32 excess, excess;",
    (("abs.f32 excess, {value};\nsetp.le.f32 hit, excess, 0f3F800000;", "place", "item"),), _MARK, "0fBF800000",
)  # fmt: skip
_BOTH = _Ptx(
    ("value", "by_row", "by_column", "row", "column", "capacity", "counts", "keys"), "fffrrrll",
    "min.f32 threshold, {by_row}, {by_column};\nsub.f32 excess, {value}, threshold;",
    (
        ("setp.ge.f32 hit, {value}, {by_row};", "row", "column"),
        ("setp.ne.s32 hit, {row}, {column};\nsetp.ge.and.f32 hit, {value}, {by_column}, hit;", "column", "row"),
    ),
)  # fmt: skip
_WORDS = 4  # that one branch is for: 16 bytes
# Of each word the bits one after the other, from the lowest: a slot of the list and, if it fits, the id.
_BITS = """setp.eq.b32 none, {word}, 0;
@none bra NEXT{n};
mov.b32 left, {word};
TURN{n}: brev.b32 bit, left;
clz.b32 bit, bit;
add.s32 bit, bit, {item};
sub.s32 slot, left, 1;
and.b32 left, left, slot;
mad.wide.s32 at, {place}, 4, {counts};
atom.relaxed.gpu.global.add.s32 slot, [at], 1;
setp.ge.s32 full, slot, {capacity};
@full bra LAST{n};
cvt.s64.s32 at, slot;
mad.wide.s32 at, {place}, {capacity}, at;
shl.b64 at, at, 2;
add.s64 at, at, {ids};
st.global.b32 [at], bit;
LAST{n}: setp.ne.b32 none, left, 0;
@none bra TURN{n};
NEXT{n}:"""


def _marked_text() -> str:
    names = ("word", "place", "item", "capacity", "counts", "ids")
    operands = [{name: f"${_WORDS * (1 + m) + n}" for m, name in enumerate(names)} for n in range(_WORDS)]
    lines = ["{", ".reg .pred none, full;", ".reg .b32 left, any;", ".reg .s32 bit, slot;", ".reg .s64 at;"]
    lines += ["mov.b32 any, 0;", *(f"or.b32 any, any, {operand['word']};" for operand in operands)]
    lines += ["setp.eq.b32 none, any, 0;", "@none bra DONE;"]
    lines += [_BITS.format(n=n, **operand) for n, operand in enumerate(operands)]
    return "\n".join([*lines, "DONE:", *(f"mov.b32 ${n}, 0;" for n in range(_WORDS)), "}"])


_MARKED_TEXT = tl.constexpr(_marked_text())
_MARKED_REGISTERS = tl.constexpr(",".join(["=r"] * _WORDS + [kind for kind in "rrrrll" for _ in range(_WORDS)]))
_MARKED_TOGETHER = tl.constexpr(_WORDS)
_FROM_TEXT, _FROM_REGISTERS = tl.constexpr(_FROM.text), tl.constexpr(_FROM.registers)
_WITHIN_TEXT, _WITHIN_REGISTERS = tl.constexpr(_WITHIN.text), tl.constexpr(_WITHIN.registers)
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
def mark_within(bits: tl.tensor, tile: tl.tensor, place: tl.tensor, item: tl.tensor, words: tl.tensor) -> None:
    """Set bit `item` of row `place` for each number from -1 to 1, both included; NaN sets none.

    An atomic that returns nothing: no thread waits for it. bits int32 [., words]; place, item int32, [M, 1] and [1, N].
    """
    if INTERPRETED:
        hit = (tile >= -1.0) & (tile <= 1.0)
        at = (place + tl.zeros_like(hit).to(tl.int32)).to(tl.int64) * words + (item >> 5)
        tl.atomic_or(bits + at, (1 << (item & 31)) + tl.zeros_like(hit).to(tl.int32), mask=hit, sem="relaxed")
    else:
        tl.inline_asm_elementwise(
            _WITHIN_TEXT, _WITHIN_REGISTERS, [tile, place, item, words, bits.to(tl.int64)], dtype=tl.int32,
            is_pure=False, pack=TOGETHER,
        )  # fmt: skip


@triton.jit
def append_marked(
    ids: tl.tensor, counts: tl.tensor, marked: tl.tensor, place: tl.tensor, item: tl.tensor, capacity: tl.tensor
) -> None:
    """Append item + b to list `place` for each set bit b of a word; a full list takes no more, and its count goes on.

    ids int32 [., capacity], counts int32: pointers; marked, item int32 [B]; place int32.
    """
    if INTERPRETED:
        for bit in range(32):
            hit = ((marked >> bit) & 1) != 0
            slot = tl.atomic_add(counts + place + tl.zeros_like(marked), 1, mask=hit, sem="relaxed")
            tl.store(ids + place.to(tl.int64) * capacity + slot, item + bit, mask=hit & (slot < capacity))
    else:
        tl.inline_asm_elementwise(
            _MARKED_TEXT, _MARKED_REGISTERS, [marked, place, item, capacity, counts.to(tl.int64), ids.to(tl.int64)],
            dtype=tl.int32, is_pure=False, pack=_MARKED_TOGETHER,
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
