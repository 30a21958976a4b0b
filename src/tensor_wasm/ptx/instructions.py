"""From a statement to an instruction: operands resolved and checked against what the opcode asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.calls import Argument, Call, Prototype
from tensor_wasm.ptx.constants import bits_in, error_of_notation
from tensor_wasm.ptx.forms import Category, Pairing, RoleKind
from tensor_wasm.ptx.lexer import Lexer, quote
from tensor_wasm.ptx.plans import PART_TYPES, Expected, Plan, accepted, plan
from tensor_wasm.ptx.program import (
    Address,
    Guard,
    Immediate,
    Instruction,
    Operand,
    Parameter,
    Register,
    ScalarType,
    Space,
    Special,
    Symbol,
    Variable,
)
from tensor_wasm.ptx.scopes import Names
from tensor_wasm.ptx.specials import SPECIALS
from tensor_wasm.ptx.syntax import Constant, Memory, Name, Negated, Pair, Predicate, Statement, Sum, Vector
from tensor_wasm.ptx.syntax import Operand as Written

# Spaces whose addresses may be 32 bits wide.
_NARROW_SPACES: Final = frozenset({Space.SHARED, Space.LOCAL, Space.CONST, Space.PARAM})
_WIDE_ADDRESSES: Final = accepted(ScalarType.U64)
_NARROW_ADDRESSES: Final = accepted(ScalarType.U64) | accepted(ScalarType.U32)
_INTEGERS: Final = frozenset("bus")


@dataclass(slots=True)
class Callee:
    """What a call consists of: its names, and for an indirect call, what it may be of."""

    name: Name
    results: tuple[Written, ...]
    arguments: tuple[Written, ...]
    candidates: tuple[str, ...] | None
    prototype: Prototype | None


class Instructions:
    """Makes the instructions of one program; remembers each opcode and constant it has seen."""

    __slots__ = ("_addresses", "_destinations", "_immediates", "_lexer", "_negated", "_plans", "_sources", "names")

    def __init__(self, lexer: Lexer, names: Names) -> None:
        self._lexer = lexer
        self.names = names
        self._plans: dict[str, Plan] = {}
        self._immediates: dict[tuple[int, ScalarType], Immediate] = {}
        self._destinations: list[Register | None] = []
        self._sources: list[Operand] = []
        self._addresses: list[Address] = []
        self._negated: set[int] = set()

    def plan(self, statement: Statement) -> Plan:
        """What the statement's opcode asks. Raises :class:`PtxError`."""
        found = self._plans.get(statement.opcode)
        if found is None:
            try:
                found = plan(statement.opcode)
            except PtxError as error:
                raise PtxError(error.text, statement.line, statement.column) from None
            self._plans[statement.opcode] = found
        return found

    def guard(self, predicate: Predicate | None) -> Guard | None:
        """``@p``: a predicate register."""
        if predicate is None:
            return None
        return Guard(self._predicate(Name(predicate.name, predicate.offset)), predicate.is_negated)

    def instruction(self, statement: Statement, chosen: Plan) -> Instruction:
        """The checked instruction. Raises :class:`PtxError` at the operand that is wrong."""
        try:
            expected = chosen.expected(len(statement.operands))
        except PtxError as error:
            raise PtxError(error.text, statement.line, statement.column) from None
        self._destinations, self._sources, self._addresses, self._negated = [], [], [], set()
        has_policy = False
        for wanted, operand in zip(expected, statement.operands, strict=True):
            match wanted.role.kind:
                case RoleKind.SOURCE:
                    self._source(wanted, operand, chosen)
                case RoleKind.DESTINATION:
                    self._destination(wanted, operand, chosen)
                case RoleKind.ADDRESS:
                    self._address(operand, chosen)
                case RoleKind.IMMEDIATE:
                    self._constant(operand, chosen)
                case RoleKind.POLICY:
                    has_policy = True
                    self._register(operand, accepted(ScalarType.B64), chosen)
                case _:
                    self._any(operand, chosen)
        self._check_whole(statement, chosen, has_policy=has_policy)
        return self._finish(statement, chosen)

    def selector(self, operand: Written, chosen: Plan) -> Operand:
        """The index of a ``brx.idx``."""
        return self._value(operand, ScalarType.U32, accepted(ScalarType.U32), chosen)

    def call(self, statement: Statement, operands: Callee) -> Call:
        """A ``call``, of which the structure is checked."""
        target = self._called(operands.name)
        return Call(
            "call",
            tuple(statement.opcode.split(".")[1:]),
            (),
            (),
            (target,) if isinstance(target, Register) else (),
            self.guard(statement.predicate),
            statement.line,
            statement.column,
            callee="" if isinstance(target, Register) else target.name,
            results=tuple(self._result(element) for element in operands.results),
            arguments=tuple(self._argument(element) for element in operands.arguments),
            candidates=operands.candidates,
            prototype=operands.prototype,
        )

    def _called(self, name: Name) -> Register | Variable:
        found = self._declared(name)
        if isinstance(found, Register) and found.type.bits == 64 and not found.type.is_float:
            return found
        if isinstance(found, Variable) and found.space is Space.GLOBAL and found.is_extern:
            return found
        raise self._error(name, f"{quote(name.text)} is no function, nor a register with the address of one")

    def _result(self, operand: Written) -> Register | Variable | None:
        found = self._actual(operand)
        if found is None or isinstance(found, Register | Variable):
            return found
        raise self._error(operand, "a result of a call goes to a register or a .param variable")

    def _argument(self, operand: Written) -> Argument | None:
        return operand if isinstance(operand, Constant) else self._actual(operand)

    def _actual(self, operand: Written) -> Register | Variable | Parameter | Special | Immediate | None:
        """An argument or result by its name; None for ``_``."""
        if not isinstance(operand, Name):
            raise self._error(operand, "a name is expected here")
        if operand.text == "_":
            return None
        found = self.names.find(operand.text, operand.offset)
        special = SPECIALS.get(operand.text)
        if found is None and special is not None:
            return special
        found = self._declared(operand)
        if isinstance(found, Variable) and found.space is not Space.PARAM:
            raise self._error(operand, f"{quote(operand.text)} is not in the param space, as calls need")
        return found

    def _declared(self, name: Name) -> Register | Variable | Parameter:
        found = self.names.find(name.text, name.offset)
        if found is None:
            raise self._undeclared(name)
        return found

    def _finish(self, statement: Statement, chosen: Plan) -> Instruction:
        opcode = chosen.opcode
        root, modifiers, types = opcode.form.root, opcode.modifiers, opcode.types
        sources = self._sources
        address = self._addresses[0] if self._addresses else None
        space = opcode.space
        if root == "createpolicy":
            # A cache policy says nothing to a device without that cache: any value is right.
            root, modifiers, sources, address, space = "mov", (), [self._immediate(0, ScalarType.B64)], None, None
        return Instruction(
            root,
            modifiers,
            types,
            tuple(self._destinations),
            tuple(sources),
            self.guard(statement.predicate),
            statement.line,
            statement.column,
            address,
            space,
            frozenset(self._negated),
        )

    def _check_whole(self, statement: Statement, chosen: Plan, *, has_policy: bool) -> None:
        """Rules between operands."""
        opcode = chosen.opcode
        wants_policy = "L2::cache_hint" in opcode.modifiers
        if wants_policy is not has_policy and opcode.form.category is not Category.ASYNC:
            missing = "needs a cache policy" if wants_policy else "takes a cache policy only with .L2::cache_hint"
            raise PtxError(f"{quote(chosen.text)} {missing}", statement.line, statement.column)
        if chosen.opcode.form.root == "mov" and len(self._sources) > 1 and len(self._destinations) > 1:
            raise PtxError("mov packs or unpacks, not both", statement.line, statement.column)
        if opcode.space is Space.PARAM and opcode.form.root == "st":
            base = self._addresses[0].base
            if isinstance(base, Parameter):
                text = f"the parameter {quote(base.name)} cannot be written"
                raise PtxError(text, statement.line, statement.column)

    # --- destinations ---------------------------------------------------------------------------------------------

    def _destination(self, wanted: Expected, operand: Written, chosen: Plan) -> None:
        if isinstance(operand, Pair):
            if wanted.role.pairing is Pairing.NONE:
                raise self._error(operand, f"{quote(chosen.text)} has no second destination")
            self._destinations.append(self._target(operand.first, wanted.accepts, chosen))
            self._destinations.append(self._target(operand.second, accepted(ScalarType.PRED), chosen))
            return
        if wanted.role.pairing is Pairing.REQUIRED:
            raise self._error(operand, f"{quote(chosen.text)} needs a predicate beside its destination: write d|p")
        if not isinstance(operand, Vector):
            if wanted.count is not None and wanted.count > 1:
                raise self._error(operand, f"{quote(chosen.text)} needs {wanted.count} registers in braces here")
            self._destinations.append(self._target(operand, wanted.accepts, chosen))
            return
        accepts = self._elements(wanted, operand, chosen)[1]
        for element in operand.elements:
            self._destinations.append(self._target(element, accepts, chosen))

    def _target(self, operand: Written, accepts: frozenset[ScalarType], chosen: Plan) -> Register | None:
        if isinstance(operand, Name) and operand.text == "_":
            return None
        return self._register(operand, accepts, chosen)

    def _elements(
        self, wanted: Expected, operand: Vector, chosen: Plan
    ) -> tuple[ScalarType | None, frozenset[ScalarType]]:
        """Check the number of a vector's elements; their type and the registers they take."""
        count = len(operand.elements)
        if not count:
            raise self._error(operand, "there is nothing in these braces")
        if wanted.count is None:
            return self._parts(wanted, operand, chosen)
        if wanted.count not in (0, count):
            raise self._error(operand, f"{quote(chosen.text)} needs {wanted.count} elements here, not {count}")
        return wanted.type, wanted.accepts

    def _parts(self, wanted: Expected, operand: Vector, chosen: Plan) -> tuple[ScalarType, frozenset[ScalarType]]:
        """The type of each part of a packed value."""
        kind, count = wanted.type, len(operand.elements)
        assert kind is not None
        if count == 1:
            return kind, wanted.accepts
        part = PART_TYPES.get(kind.bits // count) if kind.kind == "b" and count in (2, 4) else None
        if part is None:
            raise self._error(operand, f"{quote(chosen.text)} cannot pack {count} parts")
        return part, accepted(part)

    # --- sources --------------------------------------------------------------------------------------------------

    def _source(self, wanted: Expected, operand: Written, chosen: Plan) -> None:
        kind, accepts = wanted.type, wanted.accepts
        if isinstance(operand, Vector):
            if wanted.count == 1 and not wanted.role.many:
                raise self._error(operand, f"{quote(chosen.text)} takes no vector here")
            kind, accepts = self._elements(wanted, operand, chosen)
            for element in operand.elements:
                self._sources.append(self._value(element, kind, accepts, chosen))
            return
        if wanted.count is not None and wanted.count > 1:
            raise self._error(operand, f"{quote(chosen.text)} needs {wanted.count} values in braces here")
        if isinstance(operand, Negated):
            if not wanted.role.is_negatable:
                raise self._error(operand, f"{quote(chosen.text)} takes no negated predicate here")
            self._negated.add(len(self._sources))
            operand = operand.name
        self._sources.append(self._value(operand, kind, accepts, chosen))

    def _value(
        self, operand: Written, kind: ScalarType | None, accepts: frozenset[ScalarType], chosen: Plan
    ) -> Operand:
        """A source that is read: a register, constant, special register or address."""
        if isinstance(operand, Name):
            text = operand.text
            found = self.names.find(text, operand.offset)
            if isinstance(found, Register):
                if found.type not in accepts:
                    raise self._mismatch(operand, found.type, accepts, chosen)
                return found
            special = SPECIALS.get(text)
            if special is not None and found is None:
                return self._special(operand, special, kind, accepts, chosen)
            if found is None:
                raise self._undeclared(operand)
            return self._symbol(operand, found, 0, kind, chosen)
        if isinstance(operand, Constant):
            return self._literal(operand, kind, chosen)
        if isinstance(operand, Sum):
            entity = self.names.find(operand.name.text, operand.name.offset)
            if entity is None:
                raise self._undeclared(operand.name)
            if isinstance(entity, Register):
                raise self._error(operand, "only a variable's address can have a number added to it")
            return self._symbol(operand, entity, operand.addend, kind, chosen)
        raise self._error(operand, f"{quote(chosen.text)} takes a register or a constant here")

    def _literal(self, operand: Constant, kind: ScalarType | None, chosen: Plan) -> Immediate:
        kind = ScalarType.B32 if kind is None else kind
        bits = bits_in(operand, kind)
        if bits is None:
            raise self._error(operand, error_of_notation(operand, kind, quote(chosen.text)).text)
        return self._immediate(bits, kind)

    def _immediate(self, bits: int, kind: ScalarType) -> Immediate:
        found = self._immediates.get((bits, kind))
        if found is None:
            found = self._immediates[bits, kind] = Immediate(bits, kind)
        return found

    def _special(
        self,
        operand: Name,
        special: Special | Immediate,
        kind: ScalarType | None,
        accepts: frozenset[ScalarType],
        chosen: Plan,
    ) -> Operand:
        is_cut = chosen.opcode.form.root == "mov" and kind is not None and kind.bits < special.type.bits
        if special.type not in accepts and not (is_cut and kind is not None and kind.kind in _INTEGERS):
            raise self._mismatch(operand, special.type, accepts, chosen)
        return special

    def _symbol(
        self, operand: Written, entity: Variable | Parameter, addend: int, kind: ScalarType | None, chosen: Plan
    ) -> Symbol:
        space = entity.space if isinstance(entity, Variable) else Space.PARAM
        least = 32 if space in _NARROW_SPACES else 64
        if kind is not None and (kind.kind not in _INTEGERS or not least <= kind.bits <= 64):
            text = f"the address of {quote(entity.name)} has {least} bits or more and is no .{kind.ptx_name}"
            raise self._error(operand, f"{text}, as {quote(chosen.text)} needs here")
        return Symbol(entity, addend)

    def _constant(self, operand: Written, chosen: Plan) -> None:
        if not isinstance(operand, Constant):
            raise self._error(operand, f"{quote(chosen.text)} needs an integer constant here")
        self._sources.append(self._literal(operand, ScalarType.U32, chosen))

    def _any(self, operand: Written, chosen: Plan) -> None:
        self._sources.append(self._value(operand, None, frozenset(ScalarType), chosen))

    # --- addresses ------------------------------------------------------------------------------------------------

    def _address(self, operand: Written, chosen: Plan) -> None:
        if not isinstance(operand, Memory):
            raise self._error(operand, f"{quote(chosen.text)} needs an address in brackets here")
        address = Address(self._base(operand, chosen), operand.addend)
        if self._addresses:
            base = address.base
            self._sources.append(
                self._immediate(0, ScalarType.U64)
                if base is None
                else (base if isinstance(base, Register) else Symbol(base))
            )
            self._sources.append(self._immediate(operand.addend & (1 << 64) - 1, ScalarType.S64))
        self._addresses.append(address)
        if operand.more and chosen.opcode.form.category is not Category.TEXTURE:
            raise self._error(operand.more[0], f"{quote(chosen.text)} takes one address and no coordinates")
        for written in operand.more:
            for element in written.elements if isinstance(written, Vector) else (written,):
                self._any(element, chosen)

    def _base(self, operand: Memory, chosen: Plan) -> Register | Variable | Parameter | None:
        name = operand.base
        if name is None:
            return None
        space = chosen.opcode.space if not self._addresses else Space.GLOBAL
        found = self.names.find(name.text, name.offset)
        if found is None:
            raise self._undeclared(name)
        if isinstance(found, Register):
            accepts = _NARROW_ADDRESSES if space in _NARROW_SPACES else _WIDE_ADDRESSES
            if found.type not in accepts:
                raise self._mismatch(name, found.type, accepts, chosen)
            return found
        own = found.space if isinstance(found, Variable) else Space.PARAM
        if space is not Space.GENERIC and space is not own and chosen.opcode.form.category is not Category.TEXTURE:
            text = f"{quote(name.text)} is in the {own.value} space, which {quote(chosen.text)} does not access"
            raise self._error(name, text)
        return found

    # --- registers ------------------------------------------------------------------------------------------------

    def _register(self, operand: Written, accepts: frozenset[ScalarType], chosen: Plan) -> Register:
        if not isinstance(operand, Name):
            raise self._error(operand, f"{quote(chosen.text)} needs a register here")
        found = self.names.find(operand.text, operand.offset)
        if isinstance(found, Register):
            if found.type not in accepts:
                raise self._mismatch(operand, found.type, accepts, chosen)
            return found
        if found is None and operand.text not in SPECIALS:
            raise self._undeclared(operand)
        raise self._error(operand, f"{quote(operand.text)} is no register, as {quote(chosen.text)} needs here")

    def _predicate(self, name: Name) -> Register:
        found = self.names.find(name.text, name.offset)
        if found is None:
            raise self._undeclared(name)
        if not isinstance(found, Register) or found.type is not ScalarType.PRED:
            raise self._error(name, f"{quote(name.text)} is no predicate register")
        return found

    # --- errors ---------------------------------------------------------------------------------------------------

    def _error(self, operand: Written, text: str) -> PtxError:
        return self._lexer.error(text, operand.offset)

    def _undeclared(self, name: Name) -> PtxError:
        return self._lexer.error(f"{quote(name.text)} is not declared", name.offset)

    def _mismatch(self, name: Name, found: ScalarType, accepts: frozenset[ScalarType], chosen: Plan) -> PtxError:
        wanted = ", ".join(f".{kind.ptx_name}" for kind in ScalarType if kind in accepts)
        text = f"{quote(name.text)} is of type .{found.ptx_name}; {quote(chosen.text)} needs one of {wanted} here"
        return self._lexer.error(text, name.offset)
