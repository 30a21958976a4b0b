"""Variables and parameters of the typed program, from their declarations."""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.ptx.constants import bits_in, error_of_notation
from tensor_wasm.ptx.declarations import VARIABLE_BYTES_MAX
from tensor_wasm.ptx.lexer import Lexer, quote
from tensor_wasm.ptx.program import Parameter, ScalarType, Space, Variable
from tensor_wasm.ptx.scopes import Entity, Scope
from tensor_wasm.ptx.syntax import Constant, Declaration, Formal, Integers, Notation, Sum, Value

#: Bytes of a kernel's parameters (CUDA allows 32,764 from 12.1 on).
PARAMETER_BYTES_MAX = 32_764
#: Bytes of all initial values of a program.
INITIAL_BYTES_MAX = 64 << 20

_INITIALISED = frozenset({Space.GLOBAL, Space.CONST})


class Variables:
    """Makes the variables of one program. ``module`` is the scope in which initial values find their names."""

    __slots__ = ("_initial_bytes", "_lexer", "_module")

    def __init__(self, lexer: Lexer, module: Scope) -> None:
        self._lexer = lexer
        self._module = module
        self._initial_bytes = 0

    def variable(self, declared: Declaration) -> Variable:
        """The variable of a declaration. Raises :class:`PtxError`."""
        element = declared.type.size_bytes
        size = self._size(declared)
        initial: bytes | None = None
        pointers: tuple[tuple[int, Variable, int], ...] = ()
        if declared.values is not None:
            if declared.space not in _INITIALISED or declared.is_extern or declared.is_opaque:
                text = f"{quote(declared.name)} cannot have an initial value: only .global and .const variables can"
                raise self._lexer.error(text, declared.offset)
            initial, pointers = self._initial(declared)
        return Variable(
            declared.name,
            declared.space,
            declared.type,
            size,
            max(declared.alignment or element, element),
            initial,
            pointers,
            declared.is_extern or declared.is_opaque,
        )

    def function(self, name: str) -> Variable:
        """What stands for a function where its address is taken."""
        return Variable(name, Space.GLOBAL, ScalarType.B8, 0, 1, is_extern=True)

    def parameters(self, formals: Sequence[Formal]) -> tuple[tuple[Parameter, ...], int]:
        """Parameters with their places in the packed block, and the block's size."""
        found: list[Parameter] = []
        place = 0
        for formal in formals:
            element = formal.type.size_bytes
            size = element if formal.count is None else element * formal.count
            alignment = max(formal.alignment or element, element)
            place = -(-place // alignment) * alignment
            is_array = formal.count is not None
            kind = ScalarType.B8 if is_array else formal.type
            found.append(Parameter(formal.name, kind, size, alignment, place, is_array))
            place += size
            if place > PARAMETER_BYTES_MAX:
                text = f"the parameters are too large: at most {PARAMETER_BYTES_MAX} bytes are allowed"
                raise self._lexer.error(text, formal.offset)
        return tuple(found), place

    def _size(self, declared: Declaration) -> int:
        size = declared.type.size_bytes
        for dimension in declared.dimensions:
            size *= 1 if dimension is None else dimension
        if None not in declared.dimensions:
            return size
        if declared.values is not None:
            # ``size`` is that of one element of the open dimension.
            stride = max(size // declared.type.size_bytes, 1)
            last = max((_end(index, value) for index, value in declared.values), default=0) - 1
            size *= last // stride + 1
        elif declared.is_extern:
            size = 0
        else:
            raise self._lexer.error(
                f"{quote(declared.name)} needs a size: only .extern may leave it out", declared.offset
            )
        if size > VARIABLE_BYTES_MAX:
            text = f"{quote(declared.name)} is too large: at most {VARIABLE_BYTES_MAX} bytes are allowed"
            raise self._lexer.error(text, declared.offset)
        return size

    def _initial(self, declared: Declaration) -> tuple[bytes, tuple[tuple[int, Variable, int], ...]]:
        """The bytes of initial values, and those of them that are addresses."""
        assert declared.values is not None
        kind, element = declared.type, declared.type.size_bytes
        length = max((_end(index, value) for index, value in declared.values), default=0) * element
        self._initial_bytes += length
        if self._initial_bytes > INITIAL_BYTES_MAX:
            text = f"the initial values are too large: at most {INITIAL_BYTES_MAX} bytes are allowed"
            raise self._lexer.error(text, declared.offset)
        data = bytearray(length)
        pointers: list[tuple[int, Variable, int]] = []
        for index, value in declared.values:
            place = index * element
            if isinstance(value, Integers):
                data[place : place + len(value.values) * element] = self._packed(declared, value)
            elif isinstance(value, Constant):
                bits = bits_in(value, kind)
                if bits is None:
                    text = error_of_notation(value, kind, quote(declared.name)).text
                    raise self._lexer.error(text, value.offset)
                data[place : place + element] = bits.to_bytes(element, "little")
            else:
                pointers.append((place, self._pointee(value, kind), value.addend))
        return bytes(data), tuple(pointers)

    def _packed(self, declared: Declaration, many: Integers) -> bytes:
        kind = declared.type
        if kind.is_float:
            text = error_of_notation(Constant(0, Notation.INTEGER, many.offset), kind, quote(declared.name)).text
            raise self._lexer.error(text, many.offset)
        mask, element = (1 << kind.bits) - 1, kind.size_bytes
        if element == 1:
            return bytes(value & mask for value in many.values)
        return b"".join((value & mask).to_bytes(element, "little") for value in many.values)

    def _pointee(self, value: Sum, kind: ScalarType) -> Variable:
        name = value.name
        found: Entity | None = self._module.names.get(name.text)
        if found is None:
            raise self._lexer.error(f"{quote(name.text)} is not declared", name.offset)
        if kind.bits != 64 or kind.is_float:
            raise self._lexer.error("an address as an initial value needs a 64-bit integer type", name.offset)
        assert isinstance(found, Variable)
        return found


def _end(index: int, value: Value) -> int:
    """The index after a value's last element."""
    return index + (len(value.values) if isinstance(value, Integers) else 1)
