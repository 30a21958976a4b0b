"""A random kernel with its launch: made from a number, run and interpreted, and compared word for word."""

from __future__ import annotations

import random
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from compiler.launch import LaunchFault, Machine
from fuzz.block import Block
from fuzz.cooperating import DYNAMIC_BYTES, CooperatingGenerator
from fuzz.generator import Generator
from fuzz.interpreter import STEPS_MAX, Code
from fuzz.places import APPROXIMATE_BYTES, ARRAYS_AT, Axes, Floats, Parameter
from tensor_wasm.compiler import WIDTHS, CompiledKernel, compile_kernel
from tensor_wasm.errors import DeadlineExceeded, InvalidWasm
from tensor_wasm.ptx import find_kernel, read
from tensor_wasm.ptx.program import Kernel, Program

#: Processor time that a launch gets. None needs a hundredth of it.
RUN_S = 2.0
_WIDTHS = (*WIDTHS, WIDTHS[-1])
_EDGE_SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 70)
_LARGE_SIZES = (96, 128, 256)
_WHOLE_WARPS = ((64, 1, 1), (32, 2, 1), (16, 4, 1), (1, 64, 1), (4, 4, 4), (96, 1, 1), (8, 12, 1))
_FLAT = (
    (10, 10, 1),
    (3, 5, 4),
    (17, 3, 1),
    (1, 64, 1),
    (33, 2, 1),
    (12, 2, 2),
    (5, 1, 7),
    (8, 4, 1),
    (4, 3, 2),
    (6, 5, 1),
)
_CELLS = {"u32": ("<u4", 32), "u64": ("<u8", 64), "s64": ("<u8", 64), "f32": ("<u4", 32)}


@dataclass(frozen=True)
class Case:
    """A kernel ``k``, its launch, and its memory before it."""

    number: int
    text: str
    grid: int
    block: Axes
    parameters: tuple[Parameter, ...]
    memory: bytes = field(repr=False)
    floats: tuple[Floats, ...] = field(repr=False)
    #: Where results are not exact: the first byte and the number of ``f32``.
    approximate: tuple[int, int] = (ARRAYS_AT, 0)

    @property
    def width(self) -> int:
        """How many threads run side by side; narrow strips are compiled sooner."""
        return _WIDTHS[self.number % len(_WIDTHS)]

    @property
    def launch(self) -> str:
        """The launch in words."""
        arguments = ", ".join(f"{p.name}={p.value:#x}" for p in self.parameters)
        shape = f"grid {self.grid}, block {self.block}, strips of {self.width}"
        return f"{shape}, arguments {arguments}, memory at {ARRAYS_AT:#x}"


class Difference(Exception):
    """The compiled kernel did something else than the interpreter, or there is none. ``kind`` says which."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


def make(number: int) -> Case:
    """The case of a number: always the same."""
    source = random.Random(number)
    # Kernels of the kind whose blocks are joined: small blocks, several of them.
    is_plain = source.random() < 0.2
    grid, block = _small_blocks(source) if is_plain else _shape(source)
    threads = block[0] * block[1] * block[2] * grid
    size = source.choice((4, 8, 12, 16, 24, 36))
    if threads > 100:
        size = min(size, 12)
    is_cooperating = not is_plain and source.random() < 0.5
    generator = (
        CooperatingGenerator(source, min(size, 16), grid, block)
        if is_cooperating
        else Generator(source, size, grid, block, is_plain=is_plain)
    )
    text = generator.text()
    places = generator.places
    memory = bytes(places.contents())
    inexact = (places.approximate, threads * APPROXIMATE_BYTES // 4)
    return Case(number, text, grid, block, tuple(places.parameters), memory, tuple(places.floats), inexact)


def _small_blocks(source: random.Random) -> tuple[int, Axes]:
    x = source.choice((1, 2, 3, 4, 5, 7, 8, 8, 12, 16, 16, 17, 24, 31, 32, 32, 48, 64))
    return source.randint(1, max(255 // x, 1) if source.random() < 0.3 else max(80 // x, 2)), (x, 1, 1)


def _shape(source: random.Random) -> tuple[int, Axes]:
    choice = source.random()
    if choice < 0.1:
        block: Axes = source.choice(_WHOLE_WARPS)
    elif choice < 0.25:
        block = (source.randint(1, 70), 1, 1)
    elif choice < 0.5:
        block = (source.choice(_EDGE_SIZES), 1, 1)
    elif choice < 0.55:
        block = (source.choice(_LARGE_SIZES), 1, 1)
    elif choice < 0.8:
        block = source.choice(_FLAT)
    else:
        x = source.randint(1, 20)
        y = source.randint(1, max(70 // x, 1))
        block = (x, y, source.randint(1, max(70 // (x * y), 1)))
    threads = block[0] * block[1] * block[2]
    return source.choice((1, 2, 3)) if threads <= 20 else source.choice((1, 1, 2)) if threads <= 40 else 1, block


def expected(case: Case, *, backwards: bool = False, steps_max: int = STEPS_MAX) -> tuple[bytearray, int]:
    """Memory after the launch, by the interpreter, and the steps of the thread that did most.

    Threads go in the other order if ``backwards``.
    """
    code = Code(find_kernel(read(case.text), "k"), steps_max)
    return _interpreted(case, code, backwards=backwards), code.steps


def _interpreted(case: Case, code: Code, *, backwards: bool = False) -> bytearray:
    guest = bytearray(ARRAYS_AT) + bytearray(case.memory)
    memories = code.memories(guest, _packed(case.parameters))
    x, y, z = case.block
    launch = {**{f"ctaid.{axis}": 0 for axis in "yz"}, "nctaid.x": case.grid, "nctaid.y": 1, "nctaid.z": 1}
    launch |= {"ntid.x": x, "ntid.y": y, "ntid.z": z}
    for ctaid in range(case.grid)[:: -1 if backwards else 1]:
        Block(code, memories, case.block, {**launch, "ctaid.x": ctaid}, DYNAMIC_BYTES).run(backwards=backwards)
    return guest[ARRAYS_AT:]


def _run(case: Case, kernel: CompiledKernel, machine: Machine) -> np.ndarray:
    """Memory after the launch of the compiled kernel. Raises :class:`LaunchFault`."""
    end = ARRAYS_AT + len(case.memory)
    prepared = machine.prepare(
        kernel,
        case.grid,
        case.block,
        *map(_argument, case.parameters),
        shared_bytes=DYNAMIC_BYTES * (".extern .shared" in case.text),
        guest_pages=-(-end // 65_536),
    )
    try:
        memory = prepared.memory("memory")
        memory[ARRAYS_AT:end] = case.memory
        end_s = time.process_time() + RUN_S
        prepared.store.interrupt = lambda: DeadlineExceeded("too long") if time.process_time() > end_s else None
        prepared.call()
        return np.frombuffer(bytes(memory[ARRAYS_AT:end]), np.uint8).copy()
    finally:
        prepared.store.close()


def _compiled(kernel: Kernel, program: Program, width: int) -> CompiledKernel:
    try:
        return compile_kernel(kernel, program, width=width)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        name = type(error).__name__
        text = f"the compiler raised {name}: {error} at {Path(place.filename).name}:{place.lineno}"
        raise Difference(f"compiler {name} {place.name}", text) from None


def compare(case: Case, machine: Machine) -> None:
    """Raises :class:`Difference` where the compiled kernel leaves other memory, or faults."""
    program = read(case.text)
    kernel = find_kernel(program, "k")
    want = np.frombuffer(bytes(_interpreted(case, Code(kernel))), np.uint8).copy()
    compiled = _compiled(kernel, program, case.width)
    try:
        got = _run(case, compiled, machine)
    except DeadlineExceeded:
        raise Difference("hang", f"the compiled kernel does not end in {RUN_S} s") from None
    except LaunchFault as fault:
        raise Difference("fault", f"the compiled kernel stopped: {fault}") from None
    except InvalidWasm as error:
        raise Difference("invalid", f"the module is not valid: {error}") from None
    for memory in (want, got):
        _make_nan_alike(memory, case.floats)
    _take_what_is_close(want, got, case.approximate)
    if (want == got).all():
        return
    place = int(np.flatnonzero(want != got)[0]) // 4 * 4
    one, other = (int.from_bytes(memory[place : place + 4].tobytes(), "little") for memory in (got, want))
    address = ARRAYS_AT + place
    raise Difference("word", f"the word at {address:#x} ({_name(case, address)}) is {one:#010x}, not {other:#010x}")


def _name(case: Case, address: int) -> str:
    pointers = [p for p in case.parameters if p.kind == "u64" and p.value <= address]
    nearest = max(pointers, key=lambda p: p.value)
    return f"{nearest.name}+{address - nearest.value}"


def _make_nan_alike(memory: np.ndarray, floats: tuple[Floats, ...]) -> None:
    """Give every NaN where memory holds floats the same bits."""
    for start, step, count, bits in floats:
        words = np.ndarray((count,), f"<u{bits // 8}", memory, start - ARRAYS_AT, (step,))
        infinity, top = (0x7F80_0000, 1 << 31) if bits == 32 else (0x7FF0_0000_0000_0000, 1 << 63)
        words[words & (top - 1) > infinity] = infinity + 1


def _take_what_is_close(want: np.ndarray, got: np.ndarray, approximate: tuple[int, int]) -> None:
    """Put into ``got`` what is wanted where it is as near as an approximation has to be."""
    start, count = approximate
    place = slice(start - ARRAYS_AT, start - ARRAYS_AT + 4 * count)
    right, found = want[place].view("<f4"), got[place].view("<f4")
    with np.errstate(all="ignore"):
        is_close = np.abs(right.astype(np.float64) - found) <= 2.0**-10 * np.abs(right) + 2.0**-18
    is_close |= np.isnan(right) & np.isnan(found)
    found[is_close] = right[is_close]


def _argument(parameter: Parameter) -> np.generic:
    layout, bits = _CELLS[parameter.kind]
    value: np.generic = np.array(parameter.value & (1 << bits) - 1, layout)[()]
    return value


def _packed(parameters: tuple[Parameter, ...]) -> bytes:
    """The block of parameters, each at its natural alignment."""
    packed = bytearray()
    for parameter in parameters:
        size = _CELLS[parameter.kind][1] // 8
        packed += bytes(-len(packed) % size)
        packed += _argument(parameter).tobytes()
    return bytes(packed)
