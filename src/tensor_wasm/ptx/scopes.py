"""Names: what each means at a place in the text.

A routine's scopes hang below the module's. Registers of ``%r<1000000000>`` are made when they are first named.
"""

from __future__ import annotations

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.lexer import Lexer, quote
from tensor_wasm.ptx.program import Parameter, Register, ScalarType, Variable
from tensor_wasm.ptx.syntax import Name

Entity = Register | Variable | Parameter

# More digits than this cannot be below any allowed count.
_DIGITS_MAX = 10


class Scope:
    """Names declared between a ``{`` and its ``}``. ``labels`` maps to numbers that are unique in a routine."""

    __slots__ = ("labels", "names", "parent", "ranges", "tables")

    def __init__(self, parent: Scope | None) -> None:
        self.parent = parent
        self.names: dict[str, Entity] = {}
        self.ranges: dict[str, tuple[ScalarType, int]] = {}
        self.labels: dict[str, int] = {}
        self.tables: dict[str, tuple[Name, ...]] = {}


class Names:
    """The scopes of one routine, and the registers named in it so far."""

    __slots__ = ("_lexer", "registers", "scope")

    def __init__(self, lexer: Lexer, module: Scope) -> None:
        self._lexer = lexer
        self.registers: list[Register] = []
        self.scope = Scope(module)

    def open(self) -> None:
        """Enter a scope."""
        self.scope = Scope(self.scope)

    def close(self) -> None:
        """Leave the innermost scope."""
        assert self.scope.parent is not None
        self.scope = self.scope.parent

    def declare(self, name: str, entity: Entity, offset: int) -> None:
        """Add a name to the innermost scope. Raises :class:`PtxError` when it has it already."""
        if name in self.scope.names:
            raise self._twice(name, offset)
        self.scope.names[name] = entity

    def declare_register(self, name: str, kind: ScalarType, offset: int) -> None:
        """Add a single register."""
        self.declare(name, self._register(name, kind), offset)

    def declare_registers(self, prefix: str, kind: ScalarType, count: int, offset: int) -> None:
        """Add ``prefix0`` to ``prefix{count - 1}``."""
        if prefix in self.scope.ranges:
            raise self._twice(f"{prefix}<{count}>", offset)
        self.scope.ranges[prefix] = (kind, count)

    def find(self, name: str, offset: int) -> Entity | None:
        """What ``name`` means here; None when it is not declared."""
        scope: Scope | None = self.scope
        while scope is not None:
            found = scope.names.get(name)
            if found is not None:
                return found
            if scope.ranges:
                found = self._in_ranges(scope, name, offset)
                if found is not None:
                    return found
            scope = scope.parent
        return None

    def label(self, name: str, number: int, offset: int) -> None:
        """Add a label to the innermost scope."""
        if name in self.scope.labels or name in self.scope.tables:
            raise self._twice(name, offset)
        self.scope.labels[name] = number

    def table(self, name: str, targets: tuple[Name, ...], offset: int) -> None:
        """Add a list of branch targets to the innermost scope."""
        if name in self.scope.labels or name in self.scope.tables:
            raise self._twice(name, offset)
        self.scope.tables[name] = targets

    def _register(self, name: str, kind: ScalarType) -> Register:
        register = Register(name, kind, len(self.registers))
        self.registers.append(register)
        return register

    def _in_ranges(self, scope: Scope, name: str, offset: int) -> Register | None:
        """A register of a ``prefix<count>``, kept for the next time; ``%r12`` may be of ``%r`` or of ``%r1``."""
        found: ScalarType | None = None
        end = len(name)
        first = max(end - _DIGITS_MAX, 1)
        place = end
        while place > first and name[place - 1].isdecimal():
            place -= 1
            if name[place] == "0" and place < end - 1:
                continue
            declared = scope.ranges.get(name[:place])
            if declared is None or int(name[place:]) >= declared[1]:
                continue
            if found is not None:
                raise self._lexer.error(f"{quote(name)} is of two declarations of registers", offset)
            found = declared[0]
        if found is None:
            return None
        register = self._register(name, found)
        scope.names[name] = register
        return register

    def _twice(self, name: str, offset: int) -> PtxError:
        return self._lexer.error(f"{quote(name)} is declared twice", offset)
