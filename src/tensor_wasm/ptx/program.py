"""The typed program: what a PTX text says, checked, with every name resolved.

This is the interface between the front end and what comes after it (compiler, reference interpreter, the
allow-list of a GPU). Everything is immutable data; a register, variable or block is referred to by identity or index,
never by a name that still has to be looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ScalarType(Enum):
    """A fundamental type (PTX ISA, "Fundamental Types"): name, kind letter, bits.

    Kinds: ``b`` untyped bits, ``u`` unsigned, ``s`` signed, ``f`` float, ``p`` predicate, ``x`` packed or alternate
    floats.
    """

    PRED = ("pred", "p", 1)
    B8 = ("b8", "b", 8)
    B16 = ("b16", "b", 16)
    B32 = ("b32", "b", 32)
    B64 = ("b64", "b", 64)
    B128 = ("b128", "b", 128)
    U8 = ("u8", "u", 8)
    U16 = ("u16", "u", 16)
    U32 = ("u32", "u", 32)
    U64 = ("u64", "u", 64)
    S8 = ("s8", "s", 8)
    S16 = ("s16", "s", 16)
    S32 = ("s32", "s", 32)
    S64 = ("s64", "s", 64)
    F16 = ("f16", "f", 16)
    F32 = ("f32", "f", 32)
    F64 = ("f64", "f", 64)
    F16X2 = ("f16x2", "x", 32)
    BF16 = ("bf16", "x", 16)
    BF16X2 = ("bf16x2", "x", 32)
    TF32 = ("tf32", "x", 32)
    E4M3X2 = ("e4m3x2", "x", 16)
    E5M2X2 = ("e5m2x2", "x", 16)

    def __init__(self, ptx_name: str, kind: str, bits: int) -> None:
        self.ptx_name = ptx_name
        self.kind = kind
        self.bits = bits

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return max(self.bits // 8, 1)

    @property
    def is_signed(self) -> bool:
        """Whether widening copies the sign."""
        return self.kind == "s"

    @property
    def is_float(self) -> bool:
        """Whether it is ``f16``, ``f32`` or ``f64``."""
        return self.kind == "f"


class Space(Enum):
    """A state space; ``GENERIC`` is an access that names none."""

    GENERIC = "generic"
    GLOBAL = "global"
    SHARED = "shared"
    LOCAL = "local"
    CONST = "const"
    PARAM = "param"


@dataclass(frozen=True, slots=True, eq=False)
class Register:
    """A virtual register. Scopes are resolved: two registers of one name in two scopes are two objects.

    ``index`` counts the registers of a kernel from 0.
    """

    name: str
    type: ScalarType
    index: int


@dataclass(frozen=True, slots=True)
class Immediate:
    """A constant as the bit pattern of the operand's own type, zero-extended: 0 <= bits < 2 ** type.bits."""

    bits: int
    type: ScalarType


@dataclass(frozen=True, slots=True)
class Special:
    """A special register, ``%tid.x`` as ``Special("tid", "x", U32)``; ``axis`` is empty where there is none."""

    name: str
    axis: str
    type: ScalarType


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """A variable in memory: of the program (global, const, shared) or of a kernel (local, shared).

    ``initial`` holds its first bytes (the rest is zero) or None. ``pointers`` lists ``(offset, variable, addend)`` for
    initial values that are addresses. An ``extern`` shared variable has size 0: the launch gives its size.
    """

    name: str
    space: Space
    type: ScalarType
    size_bytes: int
    alignment: int
    initial: bytes | None = None
    pointers: tuple[tuple[int, Variable, int], ...] = ()
    is_extern: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """A kernel parameter. ``type`` is its scalar type, or ``B8`` for an array (a struct passed by value).

    ``offset`` is where it lies in the packed parameter block, at its natural alignment.
    """

    name: str
    type: ScalarType
    size_bytes: int
    alignment: int
    offset: int
    is_array: bool = False


@dataclass(frozen=True, slots=True)
class Symbol:
    """The address of a variable or parameter, plus ``offset`` bytes, as a value (``mov.u64 %rd1, table+8``)."""

    target: Variable | Parameter
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """A memory operand ``[base+offset]``; without a base ``offset`` is the absolute address."""

    base: Register | Variable | Parameter | None
    offset: int


Operand = Register | Immediate | Special | Symbol


@dataclass(frozen=True, slots=True)
class Guard:
    """``@p`` or ``@!p``."""

    register: Register
    negated: bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction that is not control flow.

    - ``root``: the opcode without modifiers (``"add"``).
    - ``modifiers``: those that are not types, in the order of the text, without dots (``("rn", "ftz")``). The state
      space and the vector width of memory operations are not among them.
    - ``types``: in the order of the text (``cvt``: to, from; ``set``: to, from).
    - ``destinations``: registers written; None stands for ``_``. ``setp p|q`` has two, ``ld.v4`` four.
    - ``sources``: values read, in the order of the text, without the address. A vector operand gives its elements.
      A negated predicate source (``!p``) is in ``negated`` by its position.
    - ``address``, ``space``: of a memory operation, else None.
    - ``guard``: runs only where it holds; elsewhere the destinations keep their values.
    - ``line``, ``column``: where the opcode stands, from 1.
    """

    root: str
    modifiers: tuple[str, ...]
    types: tuple[ScalarType, ...]
    destinations: tuple[Register | None, ...]
    sources: tuple[Operand, ...]
    guard: Guard | None
    line: int
    column: int
    address: Address | None = None
    space: Space | None = None
    negated: frozenset[int] = frozenset()

    @property
    def type(self) -> ScalarType:
        """The last type: the operation's own for most opcodes, the source's for ``cvt``."""
        return self.types[-1]

    @property
    def text(self) -> str:
        """The opcode for messages, ``add.rn.ftz.f32``."""
        space = [self.space.value] if self.space not in (None, Space.GENERIC) else []
        return ".".join([self.root, *space, *self.modifiers, *(kind.ptx_name for kind in self.types)])


@dataclass(frozen=True, slots=True)
class Emit(Instruction):
    """One record for whoever launched: a line of ``printf`` or a failed assertion.

    ``sources`` are the record's values, each of the type at its place in ``types`` (``B32`` or ``B64``; floats are
    ``B64``, strings their addresses); ``modifiers`` say what the record is:

    - ``print``: ``format`` is the text, as C's ``printf`` has it; the values are those of its conversions, in order.
    - ``text``: the one value is the address of a format that is not known before the kernel runs.
    - ``assert``: the values are the addresses of message, file and function, the line, and the axes of the block's and
      the thread's index; the launch then ends as a failed assertion.
    """

    format: bytes = b""


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on at block ``target`` (an index)."""

    target: int


@dataclass(frozen=True, slots=True)
class Branch:
    """Go on at ``taken`` where ``guard`` holds, else at ``otherwise``."""

    guard: Guard
    taken: int
    otherwise: int
    is_uniform: bool = False


@dataclass(frozen=True, slots=True)
class Switch:
    """``brx.idx``: go on at ``targets[selector]``."""

    selector: Operand
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exit:
    """The thread ends (``ret`` or ``exit`` of a kernel, or its end)."""


@dataclass(frozen=True, slots=True)
class Trap:
    """``trap``: the launch fails."""

    line: int


Terminator = Jump | Branch | Switch | Exit | Trap


@dataclass(frozen=True, slots=True)
class Block:
    """A basic block: instructions, then one way on. Guarded branches, exits and traps have become ``Branch``."""

    index: int
    instructions: tuple[Instruction, ...]
    terminator: Terminator
    line: int


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """An ``.entry``. Block 0 is where a thread starts; every block can be reached.

    ``reqntid`` and ``maxntid`` are the directives' axes (missing ones 1), or None. ``parameter_bytes`` is the size of
    the packed parameter block.
    """

    name: str
    parameters: tuple[Parameter, ...]
    parameter_bytes: int
    registers: tuple[Register, ...]
    variables: tuple[Variable, ...]
    blocks: tuple[Block, ...]
    line: int
    reqntid: tuple[int, int, int] | None = None
    maxntid: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A PTX text that was read. ``variables`` are those at module level."""

    version: str
    target: str
    variables: tuple[Variable, ...]
    kernels: tuple[Kernel, ...]
