"""Memory that a random kernel works on: a table that all threads read, and strips of which each thread has its part.

A strip's *mapping* says how a thread's part follows from its number: in order, backwards, shifted by a distance that
wraps around 2**32, times a parameter, by rows, and so on. No two threads share a part, so no kernel has a race.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from compiler.values.oracle import F32, float_edges
from fuzz.writer import Writer

TABLE_BYTES = 8192
MARGIN_BYTES = 64
RECORD_BYTES = 256
ARRAYS_AT = 4096
STRIDES = (1, 2, 4, 4, 4, 8, 8, 16, 16, 3, 12, 32)
MAPPINGS = ("forward",) * 5 + ("reversed", "shifted", "signed", "scaled", "exchanged", "rows", "warp", "leader")
#: Those that need nothing of a thread but its number in the grid.
_PLAIN_MAPPINGS = ("forward", "forward", "reversed", "shifted", "signed", "scaled", "exchanged")
WARP = 32
#: Of each counter: operations whose order does not matter.
COUNTERS = ("add.u32", "min.s32", "max.u32", "or.b32", "xor.b32", "max.s32", "add.s32", "and.b32")
#: For each thread, results that are not exact.
APPROXIMATE_BYTES = 16

#: What plain code has in place of special registers of blocks and warps; none is the number.
_PLAIN = {"%tid.x": "", "%ctaid.x": "%tid.y", "%laneid": "%ctaid.y", "%warpid": "%tid.z"}

Axes = tuple[int, int, int]


class Parameter(NamedTuple):
    """A kernel parameter with its argument."""

    kind: str
    name: str
    value: int


class Floats(NamedTuple):
    """Where memory holds floats, whose NaN are all the same: ``count`` of ``bits``, each ``step`` bytes further."""

    start: int
    step: int
    count: int
    bits: int


class Reach(NamedTuple):
    """An address: a register, a constant to add, and the guard under which it is one."""

    register: str
    offset: int
    guard: str

    def at(self, offset: int) -> str:
        """As an operand."""
        total = self.offset + offset
        return f"[{self.register}+{total}]" if total else f"[{self.register}]"


@dataclass
class Strip:
    """``stride`` bytes for each thread. ``kind`` is ``b`` for bits, ``f32`` or ``f64`` for floats only."""

    pointer: str
    is_variable: bool
    stride: int
    mapping: str
    kind: str
    distance: int

    @property
    def alignment(self) -> int:
        """The largest access that is aligned wherever a part starts, in bytes."""
        return min(self.stride & -self.stride, 16)


@dataclass
class Places:
    """Lays out the memory of a launch of ``grid`` blocks of ``block`` threads, and writes addresses in it.

    ``is_plain``: threads ask for nothing but their number in the grid. Code may say ``%tid.x`` and so on all the same:
    :meth:`plain` makes something else of it.
    """

    source: random.Random
    writer: Writer
    grid: int
    block: Axes
    is_plain: bool = False
    number: str = ""
    parameters: list[Parameter] = field(default_factory=list)
    floats: list[Floats] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    size_bytes: int = 0

    def __post_init__(self) -> None:
        x, y, z = self.block
        self.block_threads = x * y * z
        self.threads = self.block_threads * self.grid
        self.scale = self.source.randint(1, 4)
        self.memory = bytearray()
        at = self._allocate(TABLE_BYTES + 2 * MARGIN_BYTES)
        self._parameter("u64", "table", at + MARGIN_BYTES)
        self.record = self._allocate(self.threads * RECORD_BYTES)
        self._parameter("u64", "record", self.record)
        self._parameter("u32", "n", self.scale)
        self._parameter("u32", "k", self.source.choice((0, 1, 2, 3, 7, 0x8000_0000, self.source.getrandbits(32))))
        self._parameter("s64", "m", self.source.getrandbits(self.source.randint(1, 64)))
        self._parameter("f32", "x", self.source.choice(float_edges(F32)))
        self._parameter("u64", "counters", self._allocate(4 * len(COUNTERS)))
        self.approximate = self._allocate(self.threads * APPROXIMATE_BYTES)
        self._parameter("u64", "approximate", self.approximate)
        for index in range(self.source.randint(1, 5)):
            self._strip(index)

    def _parameter(self, kind: str, name: str, value: int) -> None:
        self.parameters.append(Parameter(kind, name, value))

    def _allocate(self, size: int) -> int:
        """The address of new memory."""
        start = self.size_bytes
        self.size_bytes = -(-(start + size) // 64) * 64
        return ARRAYS_AT + start

    def _strip(self, index: int) -> None:
        chance = self.source
        stride, mapping = chance.choice(STRIDES), chance.choice(_PLAIN_MAPPINGS if self.is_plain else MAPPINGS)
        distance = chance.randint(1, 40)
        kind = "b"
        if stride % 4 == 0 and chance.random() < 0.3:
            kind = "f64" if stride % 8 == 0 and chance.random() < 0.5 else "f32"
        count = self.threads
        if mapping == "scaled":
            count *= self.scale
        elif mapping == "exchanged":
            count = 1 << (count - 1).bit_length()
        elif mapping == "leader":
            count = self.grid
        elif mapping == "warp":
            count = self.grid * -(-self.block_threads // WARP) * WARP
        is_variable = kind == "b" and mapping != "signed" and chance.random() < 0.15
        name = f"strip{index}"
        if is_variable:
            self.variables.append(f".global .align 16 .b8 {name}[{count * stride}];")
        else:
            start = self._allocate(count * stride)
            self._parameter("u64", name, start + (distance * stride if mapping == "signed" else 0))
            if kind != "b":
                width = int(kind[1:])
                self.floats.append(Floats(start, width // 8, count * stride * 8 // width, width))
        self.strips.append(Strip(name, is_variable, stride, mapping, kind, distance))

    def contents(self) -> bytearray:
        """The memory before the launch."""
        chance = self.source
        data = bytearray(chance.randbytes(self.size_bytes))
        edges = [*float_edges(F32), *range(8), 31, 32, 0xFFFF_FFFF, 0x8000_0000, 0x3C00_BC00, 0x7C00_0001]
        for place in range(0, TABLE_BYTES, 4):
            if chance.random() < 0.4:
                data[place : place + 4] = chance.choice(edges).to_bytes(4, "little")
        return data

    # --- code -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Compute the thread's number in the grid."""
        self.number = self._thread_number()
        self.writer.keep(self.number)

    def plain(self, line: str) -> str:
        """A line with the number where it says ``%tid.x``, and constants where it says what blocks and warps are."""
        for special, other in _PLAIN.items():
            line = line.replace(special, other or self.number)
        return line.replace("%own_", "%")

    def _plain_number(self) -> str:
        """In one of the ways in which compilers write it; ``%own_`` is what :meth:`plain` leaves as it is."""
        w, way = self.writer, self.source.randrange(4 if not self.number else 1)
        place = w.new("r")
        if way == 0:
            w.add(f"mad.lo.s32 {place}, %own_ctaid.x, %ntid.x, %own_tid.x")
            return place
        block, size, thread = w.new("r"), w.new("r"), w.new("r")
        for register, special in ((block, "%own_ctaid.x"), (thread, "%own_tid.x"), (size, "%ntid.x")):
            w.add(f"mov.u32 {register}, {special}")
        if way == 1:
            w.add(f"mad.lo.u32 {place}, {size}, {block}, {thread}")
        elif way == 2:
            first = w.new("r")
            w.add(f"mul.lo.s32 {first}, {block}, {size}")
            w.add(f"add.s32 {place}, {thread}, {first}")
        else:
            first, wide, index = w.new("d"), w.new("d"), w.fresh("d")
            kind = self.source.choice("us")
            w.add(f"mul.wide.{kind}32 {first}, {block}, {size}")
            w.add(f"cvt.u64.u32 {wide}, {thread}")
            w.add(f"add.s64 {index}, {first}, {wide}")
            w.add(f"cvt.u32.u64 {place}, {index}")
        return place

    def _thread_number(self) -> str:
        if self.is_plain:
            return self._plain_number()
        w, (_, y, z) = self.writer, self.block
        place = w.new("r")
        if y == z == 1:
            if self.source.random() < 0.5:
                w.add(f"mad.lo.s32 {place}, %ctaid.x, %ntid.x, %tid.x")
                return place
            w.add(f"mov.u32 {place}, %tid.x")
        else:
            rows = w.new("r")
            w.add(f"mad.lo.u32 {rows}, %tid.z, %ntid.y, %tid.y")
            w.add(f"mad.lo.u32 {place}, {rows}, %ntid.x, %tid.x")
        found = w.new("r")
        w.add(f"mad.lo.s32 {found}, %ctaid.x, {self.block_threads}, {place}")
        return found

    def pointer(self, strip: Strip) -> str:
        """The strip's start in a register."""
        w = self.writer
        pointer = w.new("d")
        if strip.is_variable:
            w.add(f"mov.u64 {pointer}, {strip.pointer}")
            return pointer
        w.add(f"ld.param.u64 {pointer}, [{strip.pointer}]")
        if self.source.random() < 0.5:
            w.add(f"cvta.to.global.u64 {pointer}, {pointer}")
        return pointer

    def own(self, strip: Strip) -> Reach:
        """The address of the thread's part of a strip."""
        number = self.number if self.source.random() < 0.7 else self._thread_number()
        index, guard = self._index(strip, number)
        pointer = self.pointer(strip)
        return self.address(pointer, index, strip.stride, is_signed=strip.mapping == "signed", guard=guard)

    def address(self, pointer: str, index: str, stride: int, *, is_signed: bool, guard: str = "") -> Reach:
        """``pointer`` plus ``index`` times ``stride``, in one of the ways compilers write it."""
        w, chance = self.writer, self.source
        narrow, wide = ("s32", "s64") if is_signed else ("u32", "u64")
        result = w.new("d")
        shift = stride.bit_length() - 1 if stride & (stride - 1) == 0 else None
        way = chance.randrange(5)
        if way == 0:
            w.add(f"mad.wide.{narrow} {result}, {index}, {stride}, {pointer}")
        else:
            offset = w.new("d")
            if way == 1:
                w.add(f"mul.wide.{narrow} {offset}, {index}, {stride}")
            elif way == 2:
                product = w.new("r")
                if shift is not None and chance.random() < 0.5:
                    w.add(f"shl.b32 {product}, {index}, {shift}")
                else:
                    w.add(f"mul.lo.{narrow} {product}, {index}, {stride}")
                w.add(f"cvt.{wide}.{narrow} {offset}, {product}")
            else:
                whole = w.new("d")
                w.add(f"cvt.{wide}.{narrow} {whole}, {index}")
                if shift is not None and way == 3:
                    w.add(f"shl.b64 {offset}, {whole}, {shift}")
                else:
                    w.add(f"mul.lo.{wide} {offset}, {whole}, {stride}")
            w.add(f"add.s64 {result}, {pointer}, {offset}")
        if chance.random() < 0.2:
            moved, by = w.new("d"), chance.choice((64, -64, 4096, 1))
            w.add(f"add.s64 {moved}, {result}, {by}")
            return Reach(moved, -by, guard)
        return Reach(result, 0, guard)

    def _index(self, strip: Strip, number: str) -> tuple[str, str]:
        """Which part is the thread's, and the guard under which it has one."""
        w, chance = self.writer, self.source
        index = w.new("r")
        match strip.mapping:
            case "forward":
                if chance.random() < 0.7:
                    return number, ""
                up, back = chance.choice(((1, -1), (-1, 1), (0x7FFF_FFFF, -0x7FFF_FFFF), (1 << 31, 1 << 31)))
                there = w.new("r")
                w.add(f"add.u32 {there}, {number}, {up}")
                w.add(f"add.u32 {index}, {there}, {back}")
            case "reversed":
                last = w.new("r")
                w.add(f"mov.u32 {last}, {self.threads - 1}")
                w.add(f"sub.u32 {index}, {last}, {number}")
            case "shifted":
                w.add(f"add.u32 {index}, {number}, {-strip.distance}")
                guard = w.new("p")
                is_below = chance.random() < 0.5
                w.add(f"setp.{'lt' if is_below else 'ge'}.{chance.choice('us')}32 {guard}, {number}, {strip.distance}")
                return index, f"@{'!' if is_below else ''}{guard}"
            case "leader":  # one address for the block, and one thread that goes there
                guard, first, place = w.new("p"), w.new("r"), w.new("r")
                w.add(f"mul.lo.u32 {first}, %ctaid.x, {self.block_threads}")
                w.add(f"sub.u32 {place}, {number}, {first}")
                w.add(f"setp.eq.u32 {guard}, {place}, {strip.distance % self.block_threads}")
                w.add(f"mov.u32 {index}, %ctaid.x")
                return index, f"@{guard}"
            case "signed":
                w.add(f"sub.s32 {index}, {number}, {strip.distance}")
            case "scaled":
                scale = w.new("r")
                w.add(f"ld.param.u32 {scale}, [n]")
                w.add(f"mul.lo.s32 {index}, {number}, {scale}")
            case "exchanged":
                bits = (self.threads - 1).bit_length()
                w.add(f"xor.b32 {index}, {number}, {strip.distance & (1 << bits) - 1}")
            case "rows":
                x, y, z = self.block
                row, start = w.new("r"), w.new("r")
                w.add(f"mad.lo.u32 {row}, %tid.z, {y}, %tid.y")
                w.add(f"mad.lo.u32 {start}, %tid.x, {y * z}, {row}")
                w.add(f"mad.lo.u32 {index}, %ctaid.x, {x * y * z}, {start}")
            case _:
                place, first, lane = w.new("r"), w.new("r"), w.new("r")
                pitch = -(-self.block_threads // WARP) * WARP
                w.add(f"mul.lo.u32 {first}, %ctaid.x, {self.block_threads}")
                w.add(f"sub.u32 {place}, {number}, {first}")
                w.add(f"mad.lo.u32 {place}, %ctaid.x, {pitch}, {place}")
                w.add(f"shl.b32 {lane}, %laneid, 1")
                w.add(f"sub.u32 {index}, {place}, {lane}")
                w.add(f"add.u32 {index}, {index}, {WARP - 1}")
        return index, ""

    def anywhere(self) -> tuple[Reach, int]:
        """An address in the table, and the largest access that is aligned there."""
        w, chance = self.writer, self.source
        stride = chance.choice((1, 2, 4, 4, 4, 8, 16, 3, 12))
        index, guard, is_signed = self._table_index(stride)
        pointer = w.new("d")
        w.add(f"ld.param.u64 {pointer}, [table]")
        reach = self.address(pointer, index, stride, is_signed=is_signed, guard=guard)
        return reach, min(stride & -stride, 16)

    def _table_index(self, stride: int) -> tuple[str, str, bool]:
        """A register below ``TABLE_BYTES / stride``, or so under a guard; and whether it may be negative."""
        w, chance = self.writer, self.source
        index, is_signed = w.new("r"), chance.random() < 0.5
        mask = (1 << (TABLE_BYTES // stride).bit_length() - 1) - 1
        match chance.randrange(10):
            case 0:
                w.add(f"mov.u32 {index}, %tid.{chance.choice('xxyz')}")
            case 1:
                w.add(f"and.b32 {index}, {w.any('r')}, {mask}")
            case 2:
                w.add(f"and.b32 {index}, {self.number}, {mask & chance.choice((mask, 7, 63))}")
            case 3:
                w.add(f"sub.u32 {index}, 255, %tid.x")
            case 4:
                w.add(f"add.s32 {index}, %tid.x, -1")
                if not is_signed:
                    guard = w.new("p")
                    w.add(f"setp.gt.s32 {guard}, %tid.x, 0")
                    return index, f"@{guard}", False
                return index, "", stride <= MARGIN_BYTES
            case 5:
                scale = w.new("r")
                w.add(f"ld.param.u32 {scale}, [n]")
                w.add(f"mul.lo.u32 {index}, {scale}, %tid.x")
                if stride * 4 * 255 >= TABLE_BYTES:
                    w.add(f"and.b32 {index}, {index}, {mask}")
            case 6:
                uniform = w.new("r")
                w.add(f"ld.param.u32 {uniform}, [k]")
                w.add(f"and.b32 {uniform}, {uniform}, 255")
                w.add(f"add.u32 {index}, {uniform}, {chance.choice(('%tid.x', '%tid.y', '%ctaid.x'))}")
            case 7:
                w.add(f"mov.u32 {index}, {chance.choice(('%laneid', '%ctaid.x', '%warpid', '5'))}")
            case 8:
                number, last = w.new("r"), chance.randint(1, 40)
                w.add(f"min.s32 {number}, %tid.x, {last}")
                w.add(f"max.s32 {index}, {number}, {chance.randint(0, last)}")
            case _:  # what is too far is turned off
                far = w.any("r")
                guard = w.new("p")
                w.add(f"mov.u32 {index}, {far}")
                w.add(f"setp.lt.u32 {guard}, {far}, {mask}")
                return index, f"@{guard}", False
        return index, "", is_signed
