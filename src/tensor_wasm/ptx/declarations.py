"""Declarations: registers, variables with their initial values, and the parameters of kernels and functions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.ptx.constants import constant, integer, signed
from tensor_wasm.ptx.lexer import Lexer, is_word, quote
from tensor_wasm.ptx.program import ScalarType, Space
from tensor_wasm.ptx.syntax import Constant, Declaration, Formal, Name, Registers, Sum, Value

#: Bytes of the largest variable.
VARIABLE_BYTES_MAX = 256 << 20
#: Registers that one ``%r<count>`` may declare.
REGISTERS_MAX = 1 << 31
#: Nested ``[]`` of an array.
DIMENSIONS_MAX = 8
#: Largest ``.align``, in bytes.
ALIGNMENT_MAX = 1 << 16
#: Length of a name.
NAME_LENGTH_MAX = 4096
#: Parameters of one kernel or function.
FORMALS_MAX = 4096

#: ``.b32`` and its like.
TYPES: Final[Mapping[str, ScalarType]] = MappingProxyType({f".{kind.ptx_name}": kind for kind in ScalarType})

_OPAQUE = frozenset({".texref", ".samplerref", ".surfref"})
_VECTORS: Final[Mapping[str, int]] = MappingProxyType({".v2": 2, ".v4": 4})
_POINTEE_SPACES = frozenset({".const", ".global", ".local", ".shared", ".param"})


def name(lexer: Lexer, wanted: str) -> str:
    """The plain name at the cursor, which goes past it."""
    current = lexer.current
    if not is_word(current) or "." in current:
        raise lexer.unexpected(wanted)
    if len(current) > NAME_LENGTH_MAX:
        raise lexer.error(f"the name {quote(current)} is longer than {NAME_LENGTH_MAX} characters")
    lexer.advance()
    return current


def expect(lexer: Lexer, wanted: str) -> None:
    """Go past the token ``wanted``. Raises :class:`PtxError` where something else stands."""
    if lexer.current != wanted:
        raise lexer.unexpected(f"'{wanted}'")
    lexer.advance()


def alignment(lexer: Lexer) -> int:
    """``.align n``: the cursor is at the directive and goes past the number."""
    lexer.advance()
    offset = lexer.start
    value = integer(lexer)
    if not 1 <= value <= ALIGNMENT_MAX or value & (value - 1):
        raise lexer.error(f"an alignment is a power of two up to {ALIGNMENT_MAX}", offset)
    return value


def registers(lexer: Lexer) -> Registers:
    """``.reg .type a, b<n>;``: the cursor is at the directive and goes past the semicolon."""
    offset = lexer.start
    kind = TYPES.get(lexer.advance())
    if kind is None:
        if lexer.current in _VECTORS:
            raise lexer.error("vector registers are not supported: declare one register for each element")
        raise lexer.unexpected("a type such as .b32")
    lexer.advance()
    names: list[tuple[Name, int | None]] = []
    while True:
        start = lexer.start
        text = name(lexer, "a register name")
        names.append((Name(text, start), _register_count(lexer)))
        if lexer.current != ",":
            break
        lexer.advance()
    expect(lexer, ";")
    return Registers(kind, tuple(names), offset)


def _register_count(lexer: Lexer) -> int | None:
    if lexer.current != "<":
        return None
    lexer.advance()
    if not lexer.current.isdecimal():
        raise lexer.unexpected("a number of registers")
    if len(lexer.current) > 10 or int(lexer.current) > REGISTERS_MAX:
        raise lexer.error(f"{quote(lexer.current)} registers are too many")
    count = int(lexer.current)
    lexer.advance()
    expect(lexer, ">")
    return count


def declarations(lexer: Lexer, space: Space, *, is_extern: bool) -> list[Declaration]:
    """Variables of one directive: the cursor is after the state space and goes past the semicolon."""
    kind, width, aligned, is_opaque = _element(lexer)
    found: list[Declaration] = []
    while True:
        offset = lexer.start
        text = name(lexer, "a variable name")
        dimensions = _dimensions(lexer)
        if width > 1:
            dimensions = (*dimensions, width)
            aligned = aligned or kind.size_bytes * width
        values = None
        if lexer.current == "=":
            lexer.advance()
            values = _Values(lexer, dimensions).read()
        declared = Declaration(text, space, kind, aligned, dimensions, values, is_extern, offset, is_opaque)
        _check_size(lexer, declared)
        found.append(declared)
        if lexer.current != ",":
            break
        lexer.advance()
    expect(lexer, ";")
    return found


def _element(lexer: Lexer) -> tuple[ScalarType, int, int | None, bool]:
    """What stands between the state space and the name: type, vector width, alignment, and whether it is opaque."""
    kind: ScalarType | None = None
    width, aligned, is_opaque = 1, None, False
    while lexer.current.startswith("."):
        current = lexer.current
        if current == ".align":
            aligned = alignment(lexer)
            continue
        if current == ".attribute":
            lexer.advance()
            expect(lexer, "(")
            while lexer.current.startswith(".") or lexer.current == ",":
                lexer.advance()
            expect(lexer, ")")
            continue
        if current in _OPAQUE or current == ".tex":
            kind, is_opaque = ScalarType.B64, True
        elif current in _VECTORS:
            width = _VECTORS[current]
        elif current in TYPES and TYPES[current] is not ScalarType.PRED:
            kind = kind if is_opaque else TYPES[current]
        else:
            raise lexer.unexpected("a type such as .b32")
        lexer.advance()
    if kind is None:
        raise lexer.unexpected("a type such as .b32")
    return kind, width, aligned, is_opaque


def _dimensions(lexer: Lexer) -> tuple[int | None, ...]:
    dimensions: list[int | None] = []
    while lexer.current == "[":
        if len(dimensions) == DIMENSIONS_MAX:
            raise lexer.error(f"an array has at most {DIMENSIONS_MAX} dimensions")
        lexer.advance()
        if lexer.current == "]":
            if dimensions:
                raise lexer.error("only the first dimension of an array may be left out")
            dimensions.append(None)
        else:
            offset = lexer.start
            size = integer(lexer)
            if not 0 <= size <= VARIABLE_BYTES_MAX:
                raise lexer.error(f"the array is too large: at most {VARIABLE_BYTES_MAX} bytes are allowed", offset)
            dimensions.append(size)
        expect(lexer, "]")
    return tuple(dimensions)


def _check_size(lexer: Lexer, declared: Declaration) -> None:
    size = declared.type.size_bytes
    for dimension in declared.dimensions:
        size *= 1 if dimension is None else dimension
    if size > VARIABLE_BYTES_MAX:
        text = f"{quote(declared.name)} is too large: at most {VARIABLE_BYTES_MAX} bytes are allowed"
        raise lexer.error(text, declared.offset)


class _Values:
    """Initial values: nested braces are flattened to the index of each element."""

    def __init__(self, lexer: Lexer, dimensions: tuple[int | None, ...]) -> None:
        self._lexer = lexer
        self._dimensions = dimensions
        self._strides = [1] * (len(dimensions) + 1)
        for level in range(len(dimensions) - 1, -1, -1):
            self._strides[level] = self._strides[level + 1] * (dimensions[level] or 1)
        self._found: list[tuple[int, Value]] = []

    def read(self) -> tuple[tuple[int, Value], ...]:
        if self._lexer.current == "{":
            self._braces(0, 0)
        else:
            self._found.append((0, self._value()))
        return tuple(self._found)

    def _braces(self, level: int, start: int) -> None:
        lexer = self._lexer
        if level > max(len(self._dimensions), 1) - 1:
            raise lexer.error("the braces are nested deeper than the array")
        lexer.advance()
        limit = self._limit(level, start)
        index = start
        while lexer.current != "}":
            if limit is not None and index >= limit:
                raise lexer.error("there are more initial values than elements")
            if lexer.current == "{":
                self._braces(level + 1, index)
                index += self._strides[level + 1]
            elif many := lexer.integers():
                if limit is not None and index + len(many.values) > limit:
                    raise lexer.error("there are more initial values than elements", many.offset)
                self._found.append((index, many))
                index += len(many.values)
                continue
            else:
                self._found.append((index, self._value()))
                index += 1
            if lexer.current == ",":
                lexer.advance()
            elif lexer.current != "}":
                raise lexer.unexpected("',' or '}'")
        lexer.advance()

    def _limit(self, level: int, start: int) -> int | None:
        if not self._dimensions:
            return start + 1
        if level == 0 and self._dimensions[0] is None:
            return None
        return start + self._strides[level]

    def _value(self) -> Value:
        """A constant, or an address: ``name``, ``name+8``, ``generic(name)+8``."""
        lexer = self._lexer
        if not is_word(lexer.current) or lexer.current == "WARP_SZ":
            value: Constant = constant(lexer)
            if lexer.current == "(":
                raise lexer.error("parts of an address as an initial value are not supported")
            return value
        offset = lexer.start
        is_generic = lexer.current == "generic"
        text = name(lexer, "a name")
        if is_generic and lexer.current == "(":
            lexer.advance()
            offset = lexer.start
            text = name(lexer, "a variable name")
            expect(lexer, ")")
        return Sum(Name(text, offset), addend(lexer), offset)


def addend(lexer: Lexer) -> int:
    """What follows a name in an address: ``+8``, ``-8``, ``+-8`` or nothing."""
    if lexer.current == "+":
        lexer.advance()
    elif lexer.current != "-":
        return 0
    return signed(integer(lexer))


def formals(lexer: Lexer, *, in_function: bool) -> tuple[Formal, ...]:
    """Parameters or results in parentheses; the cursor goes past them. Registers are for functions only."""
    expect(lexer, "(")
    found: list[Formal] = []
    while lexer.current != ")":
        if len(found) == FORMALS_MAX:
            raise lexer.error(f"at most {FORMALS_MAX} parameters are allowed")
        found.append(_formal(lexer, in_function=in_function))
        if lexer.current == ",":
            lexer.advance()
        elif lexer.current != ")":
            raise lexer.unexpected("',' or ')'")
    lexer.advance()
    return tuple(found)


def _formal(lexer: Lexer, *, in_function: bool) -> Formal:
    is_register = lexer.current == ".reg" and in_function
    if lexer.current != ".param" and not is_register:
        raise lexer.unexpected("'.param'")
    lexer.advance()
    kind: ScalarType | None = None
    aligned: int | None = None
    while lexer.current.startswith("."):
        current = lexer.current
        if current == ".align":
            aligned = alignment(lexer)
            continue
        if current == ".ptr":
            lexer.advance()
            _pointee(lexer)
            continue
        if current in _OPAQUE:
            kind = ScalarType.B64
        elif current in TYPES and (is_register or TYPES[current] is not ScalarType.PRED):
            kind = TYPES[current]
        else:
            raise lexer.unexpected("a type such as .u64")
        lexer.advance()
    if kind is None:
        raise lexer.unexpected("a type such as .u64")
    offset = lexer.start
    text = name(lexer, "a parameter name")
    dimensions = _dimensions(lexer)
    if len(dimensions) > 1:
        raise lexer.error("a parameter has at most one dimension", offset)
    count = (dimensions[0] or 0) if dimensions else None
    return Formal(text, kind, aligned, count, is_register, offset)


def _pointee(lexer: Lexer) -> None:
    """``.ptr .space .align n``: promises about where a pointer leads. Nothing here relies on them."""
    if lexer.current in _POINTEE_SPACES:
        lexer.advance()
    if lexer.current == ".align":
        alignment(lexer)
