"""From the text's structure to the typed program: names, types and control flow checked and resolved."""

from __future__ import annotations

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.calls import Formals, Function, Linkage, Prototype
from tensor_wasm.ptx.flow import Flow, Target
from tensor_wasm.ptx.inline import inline
from tensor_wasm.ptx.instructions import Callee, Instructions
from tensor_wasm.ptx.lexer import Lexer, quote
from tensor_wasm.ptx.parser import parse
from tensor_wasm.ptx.plans import Plan
from tensor_wasm.ptx.program import Block, Exit, Kernel, Parameter, Program, Register, Space, Trap, Variable
from tensor_wasm.ptx.scopes import Entity, Names, Scope
from tensor_wasm.ptx.syntax import (
    Alias,
    BodyItem,
    BranchTargets,
    CallTargets,
    Declaration,
    Formal,
    Group,
    Label,
    Name,
    Operand,
    Registers,
    Routine,
    Statement,
)
from tensor_wasm.ptx.syntax import Scope as Brace
from tensor_wasm.ptx.variables import Variables

_FLOW_ROOTS = frozenset({"bra", "brx", "ret", "exit", "trap", "brkpt", "call", "pmevent"})


def check(text: str, entry: str | None = None) -> Program:
    """The typed program of a PTX text, calls replaced in ``entry`` only where that is given.

    Raises :class:`PtxError`.
    """
    heading, items, lexer = parse(text)
    checker = _Checker(lexer)
    for item in items:
        if isinstance(item, Declaration):
            checker.declare(item)
        elif isinstance(item, Alias):
            checker.alias(item)
        else:
            checker.routine(item)
    module = checker.module.names.values()
    variables = tuple(found for found in module if isinstance(found, Variable) and found.name not in checker.functions)
    program = Program(heading.version, heading.target, variables, tuple(checker.kernels.values()))
    return inline(program, checker.linkage, entry)


class _Checker:
    """Everything declared in a module so far."""

    def __init__(self, lexer: Lexer) -> None:
        self._lexer = lexer
        self.module = Scope(None)
        self.kernels: dict[str, Kernel] = {}
        #: Whether a function or kernel of a name has been defined, not only declared.
        self.functions: dict[str, bool] = {}
        self.linkage = Linkage()
        self._variables = Variables(lexer, self.module)
        self._instructions = Instructions(lexer, Names(lexer, self.module))

    def alias(self, alias: Alias) -> None:
        """Another name of a function."""
        self.linkage.aliases[alias.name.text] = alias.target.text

    def declare(self, declared: Declaration) -> None:
        """A variable of the module. A definition may follow a declaration with ``.extern``."""
        before = self.module.names.get(declared.name)
        variable = self._variables.variable(declared)
        if declared.name in self.functions or (
            isinstance(before, Variable) and not (before.is_extern or variable.is_extern)
        ):
            raise self._lexer.error(f"{quote(declared.name)} is declared twice", declared.offset)
        if before is None or not variable.is_extern:
            self.module.names[declared.name] = variable

    def routine(self, routine: Routine) -> None:
        """A kernel or function; a declaration of one that is defined elsewhere, too."""
        name = routine.name
        is_defined = routine.body is not None
        known = self.functions.get(name)
        if (known is None and name in self.module.names) or (known and is_defined):
            raise self._lexer.error(f"{quote(name)} is declared twice", routine.offset)
        self.functions[name] = bool(known) or is_defined
        if known is None:
            symbol = self.module.names[name] = self._variables.function(name)
            if not routine.is_entry:
                self.linkage.symbols[symbol] = name
        names = Names(self._lexer, self.module)
        parameters, parameter_bytes = self._variables.parameters(
            [formal for formal in routine.parameters if not formal.is_register]
        )
        offsets = {formal.name: formal.offset for formal in routine.parameters}
        for parameter in parameters:
            names.declare(parameter.name, parameter, offsets[parameter.name])
        if routine.body is None:
            return
        for formal in routine.results:
            self._formal(names, formal, is_result=True)
        for formal in routine.parameters:
            self._formal(names, formal, is_result=False)
        formals = None if routine.is_entry else _formals(names, routine)
        self._instructions.names = names
        body = _Body(self._lexer, names, self._instructions, self._variables, is_function=not routine.is_entry)
        blocks = body.blocks(routine.body, routine.line)
        self.linkage.variables += body.variables
        if formals is not None:
            self.linkage.functions[name] = Function(
                name, formals, tuple(names.registers), tuple(body.variables), blocks, routine.line
            )
        else:
            self.kernels[name] = Kernel(
                name,
                parameters,
                parameter_bytes,
                tuple(names.registers),
                tuple(body.variables),
                blocks,
                routine.line,
                routine.reqntid,
                routine.maxntid,
            )

    def _formal(self, names: Names, formal: Formal, *, is_result: bool) -> None:
        """A function's registers, and its results, which it writes like variables."""
        if formal.is_register:
            names.declare_register(formal.name, formal.type, formal.offset)
        elif is_result:
            size = formal.type.size_bytes * (1 if formal.count is None else formal.count)
            alignment = formal.alignment or formal.type.size_bytes
            result = Variable(formal.name, Space.PARAM, formal.type, size, alignment)
            names.declare(formal.name, result, formal.offset)


def _formals(names: Names, routine: Routine) -> Formals:
    """What the function's body names in the place of results and parameters."""

    def found(formal: Formal) -> Entity:
        entity = names.find(formal.name, formal.offset)
        assert entity is not None
        return entity

    results = [found(formal) for formal in routine.results]
    parameters = [found(formal) for formal in routine.parameters]
    return Formals(
        tuple(result for result in results if isinstance(result, Register | Variable)),
        tuple(parameter for parameter in parameters if isinstance(parameter, Register | Parameter)),
    )


class _Body:
    """The inside of one kernel or function."""

    def __init__(
        self,
        lexer: Lexer,
        names: Names,
        instructions: Instructions,
        variables: Variables,
        *,
        is_function: bool,
    ) -> None:
        self._lexer = lexer
        self._names = names
        self._instructions = instructions
        self._maker = variables
        self._flow = Flow(lexer, is_function=is_function)
        self._prototypes: dict[str, tuple[tuple[str, ...] | None, Prototype | None]] = {}
        self.variables: list[Variable] = []

    def blocks(self, items: list[BodyItem], line: int) -> tuple[Block, ...]:
        """Check all of ``items``; the basic blocks they make."""
        instructions, add = self._instructions, self._flow.add
        for item in items:
            if isinstance(item, Statement):
                plan = instructions.plan(item)
                if plan.opcode.form.root in _FLOW_ROOTS:
                    self._leave(item, plan)
                else:
                    add(instructions.instruction(item, plan))
            else:
                self._declare(item)
        return self._flow.blocks(line)

    def _declare(self, item: BodyItem) -> None:
        names = self._names
        match item:
            case Label(name, line, offset):
                names.label(name, self._flow.label(line), offset)
            case Registers(kind, declared):
                for register, count in declared:
                    if count is None:
                        names.declare_register(register.text, kind, register.offset)
                    else:
                        names.declare_registers(register.text, kind, count, register.offset)
            case Declaration():
                variable = self._maker.variable(item)
                names.declare(item.name, variable, item.offset)
                self.variables.append(variable)
            case Brace.OPEN:
                names.open()
            case Brace.CLOSE:
                names.close()
            case BranchTargets(name, targets, offset):
                names.table(name, targets, offset)
            case CallTargets(name):
                self._prototypes[name] = self._candidates(item)

    def _leave(self, statement: Statement, plan: Plan) -> None:
        """Control flow, and what has no place in a typed program."""
        root = plan.opcode.form.root
        if root == "call":
            self._flow.add(self._instructions.call(statement, self._callee(statement)))
            return
        try:
            plan.expected(len(statement.operands))
        except PtxError as error:
            raise PtxError(error.text, statement.line, statement.column) from None
        guard = self._instructions.guard(statement.predicate)
        match root:
            case "bra":
                target = self._target(self._name(statement.operands[0], "a label"))
                self._flow.jump(guard, target, statement.line, is_uniform="uni" in plan.opcode.modifiers)
            case "brx":
                selector = self._instructions.selector(statement.operands[0], plan)
                table = self._table(self._name(statement.operands[1], "a list of branch targets"))
                self._flow.switch(guard, selector, table, statement.line)
            case "ret":
                self._flow.end(guard, statement.line)
            case "exit":
                self._flow.end(guard, statement.line, Exit())
            case "trap" | "brkpt":
                # Without a debugger a breakpoint ends the launch as a trap does.
                self._flow.end(guard, statement.line, Trap(statement.line))

    def _name(self, operand: Operand, wanted: str) -> Name:
        if not isinstance(operand, Name):
            raise self._lexer.error(f"{wanted} is expected here", operand.offset)
        return operand

    def _target(self, name: Name) -> Target:
        return Target(name.text, self._names.scope, name.offset)

    def _table(self, name: Name) -> tuple[Target, ...]:
        scope: Scope | None = self._names.scope
        while scope is not None:
            found = scope.tables.get(name.text)
            if found is not None:
                return tuple(Target(target.text, scope, target.offset) for target in found)
            scope = scope.parent
        raise self._lexer.error(f"{quote(name.text)} is no .branchtargets list declared before", name.offset)

    def _callee(self, statement: Statement) -> Callee:
        """``call (results), function, (arguments), prototype;`` taken apart."""
        operands = list(statement.operands)
        results = operands.pop(0) if operands and isinstance(operands[0], Group) else None
        if not operands or not isinstance(operands[0], Name):
            raise PtxError("call needs the name of a function", statement.line, statement.column)
        name = operands.pop(0)
        arguments = operands.pop(0) if operands and isinstance(operands[0], Group) else None
        candidates: tuple[str, ...] | None = None
        prototype: Prototype | None = None
        if operands:
            listed = self._name(operands.pop(0), "a prototype")
            if listed.text not in self._prototypes:
                raise self._lexer.error(f"{quote(listed.text)} is no prototype declared before", listed.offset)
            candidates, prototype = self._prototypes[listed.text]
        if operands:
            raise self._lexer.error("a call has nothing after its prototype", operands[0].offset)
        assert isinstance(name, Name)
        assert results is None or isinstance(results, Group)
        assert arguments is None or isinstance(arguments, Group)
        return Callee(
            name,
            () if results is None else results.elements,
            () if arguments is None else arguments.elements,
            candidates,
            prototype,
        )

    def _candidates(self, item: CallTargets) -> tuple[tuple[str, ...] | None, Prototype | None]:
        """The functions of a ``.calltargets``, or what a ``.callprototype`` says."""
        if item.targets is None:
            return None, Prototype(tuple(map(_formal_bytes, item.results)), tuple(map(_formal_bytes, item.parameters)))
        for target in item.targets:
            if self._names.find(target.text, target.offset) is None:
                raise self._lexer.error(f"{quote(target.text)} is not declared", target.offset)
        return tuple(target.text for target in item.targets), None


def _formal_bytes(formal: Formal) -> int:
    return formal.type.size_bytes * (1 if formal.count is None else formal.count)
