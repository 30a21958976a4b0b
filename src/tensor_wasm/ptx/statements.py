"""The inside of a kernel or function: instructions, labels, declarations and scopes, as a flat list."""

from __future__ import annotations

from tensor_wasm.ptx.constants import constant, integer, signed
from tensor_wasm.ptx.declarations import NAME_LENGTH_MAX, addend, declarations, expect, formals, name, registers
from tensor_wasm.ptx.lexer import Lexer, is_number, is_word, quote
from tensor_wasm.ptx.program import Space
from tensor_wasm.ptx.syntax import (
    BodyItem,
    BranchTargets,
    CallTargets,
    Formal,
    Group,
    Label,
    Memory,
    Name,
    Negated,
    Operand,
    Pair,
    Predicate,
    Scope,
    Statement,
    Sum,
    Vector,
)

#: ``{`` within one another.
SCOPE_DEPTH_MAX = 32
#: Characters of an opcode with its modifiers.
OPCODE_LENGTH_MAX = 200
#: Operands of an instruction, elements of a vector, and arguments of a call.
OPERANDS_MAX = 4096

_SPACES = {
    ".local": Space.LOCAL,
    ".shared": Space.SHARED,
    ".param": Space.PARAM,
    ".global": Space.GLOBAL,
    ".const": Space.CONST,
}
_ENDS = (",", ";")
_CONSTANT_STARTS = ("-", "+", "~", "(", "WARP_SZ")


def body(lexer: Lexer) -> list[BodyItem]:
    """What is between the ``{`` at the cursor and its ``}``; the cursor goes past that."""
    items: list[BodyItem] = []
    depth = 1
    lexer.advance()
    while True:
        current = lexer.current
        if is_word(current):
            items.append(_word(lexer))
        elif current == "@":
            items.append(_predicated(lexer))
        elif current == "{":
            if depth == SCOPE_DEPTH_MAX:
                raise lexer.error(f"scopes are nested deeper than {SCOPE_DEPTH_MAX}")
            depth += 1
            items.append(Scope.OPEN)
            lexer.advance()
        elif current == "}":
            depth -= 1
            lexer.advance()
            if not depth:
                return items
            items.append(Scope.CLOSE)
        elif current == ";":
            lexer.skip_empty_statements()
        else:
            _directive(lexer, items)


def location(lexer: Lexer) -> None:
    """``.loc file line column``, with ``, function_name label`` and ``, inlined_at file line column`` after it."""
    lexer.advance()
    _three_numbers(lexer)
    while lexer.current == ",":
        lexer.advance()
        if lexer.current == "function_name":
            lexer.advance()
            name(lexer, "a label")
            addend(lexer)
        elif lexer.current == "inlined_at":
            lexer.advance()
            _three_numbers(lexer)
        else:
            raise lexer.unexpected("'function_name' or 'inlined_at'")


def pragma(lexer: Lexer) -> None:
    """``.pragma "text", "text";``: advice for a compiler for GPUs."""
    while True:
        if not lexer.advance().startswith('"'):
            raise lexer.unexpected("a string in quotes")
        if lexer.advance() != ",":
            break
    expect(lexer, ";")


def _three_numbers(lexer: Lexer) -> None:
    for _ in range(3):
        if not is_number(lexer.current):
            raise lexer.unexpected("a number")
        lexer.advance()


def _directive(lexer: Lexer, items: list[BodyItem]) -> None:
    current = lexer.current
    if current == ".reg":
        items.append(registers(lexer))
    elif current == ".loc":
        location(lexer)
    elif current == ".pragma":
        pragma(lexer)
    elif current in _SPACES:
        lexer.advance()
        items.extend(declarations(lexer, _SPACES[current], is_extern=False))
    elif not current:
        raise lexer.error("the text ends inside a kernel or function: a } is missing")
    else:
        raise lexer.unexpected("an instruction, a label or a declaration")


def _word(lexer: Lexer) -> BodyItem:
    """An instruction, or a label with what may belong to it."""
    line, column = lexer.place()
    word, offset = lexer.current, lexer.start
    if lexer.advance() != ":":
        return _instruction(lexer, word, None, (line, column, offset))
    if "." in word or len(word) > NAME_LENGTH_MAX:
        raise lexer.error(f"{quote(word)} is no label", offset)
    match lexer.advance():
        case ".branchtargets":
            return BranchTargets(word, _names(lexer), offset)
        case ".calltargets":
            return CallTargets(word, _names(lexer), (), (), offset)
        case ".callprototype":
            results, parameters = _prototype(lexer)
            return CallTargets(word, None, results, parameters, offset)
    return Label(word, line, offset)


def _names(lexer: Lexer) -> tuple[Name, ...]:
    """Names after the directive at the cursor, to the semicolon."""
    found: list[Name] = []
    while True:
        lexer.advance()
        start = lexer.start
        found.append(Name(name(lexer, "a name"), start))
        if lexer.current != ",":
            break
    expect(lexer, ";")
    return tuple(found)


def _prototype(lexer: Lexer) -> tuple[tuple[Formal, ...], tuple[Formal, ...]]:
    """``.callprototype (results) _ (parameters);``"""
    results: tuple[Formal, ...] = ()
    parameters: tuple[Formal, ...] = ()
    if lexer.advance() == "(":
        results = formals(lexer, in_function=True)
    name(lexer, "'_'")
    if lexer.current == "(":
        parameters = formals(lexer, in_function=True)
    while lexer.current in (".noreturn", ".abi_preserve", ".abi_preserve_control"):
        if is_number(lexer.advance()):
            lexer.advance()
    expect(lexer, ";")
    return results, parameters


def _predicated(lexer: Lexer) -> Statement:
    offset = lexer.start
    is_negated = lexer.advance() == "!"
    if is_negated:
        lexer.advance()
    register = name(lexer, "a predicate register")
    if not is_word(lexer.current):
        raise lexer.unexpected("an instruction")
    word, place = lexer.current, (*lexer.place(), lexer.start)
    lexer.advance()
    return _instruction(lexer, word, Predicate(register, is_negated, offset), place)


def _instruction(lexer: Lexer, opcode: str, predicate: Predicate | None, place: tuple[int, int, int]) -> Statement:
    """An instruction, of which the first word is read, up to past its semicolon; ``place`` of that word."""
    line, column, offset = place
    while lexer.current.startswith("."):
        opcode += lexer.current
        if len(opcode) > OPCODE_LENGTH_MAX:
            break
        lexer.advance()
    if len(opcode) > OPCODE_LENGTH_MAX:
        raise lexer.error(f"unknown opcode {quote(opcode)}", offset)
    operands: list[Operand] = []
    if lexer.current != ";":
        is_call = opcode.startswith("call")
        while True:
            operands.append(_group(lexer) if is_call and lexer.current == "(" else _operand(lexer))
            if lexer.current == ";":
                break
            if lexer.current != ",":
                raise lexer.unexpected("',' or ';'")
            if len(operands) == OPERANDS_MAX:
                raise lexer.error("too many operands")
            lexer.advance()
    lexer.advance()
    return Statement(opcode, predicate, tuple(operands), line, column, offset)


def _operand(lexer: Lexer) -> Operand:
    current, offset = lexer.current, lexer.start
    if is_word(current) and current != "WARP_SZ":
        following = lexer.advance()
        named = Name(current, offset)
        return named if following in _ENDS else _more(lexer, named)
    match current:
        case "{":
            return Vector(_list(lexer, "}"), offset)
        case "[":
            return _memory(lexer)
        case "!":
            lexer.advance()
            start = lexer.start
            return Negated(Name(_word_operand(lexer), start), offset)
    if not is_number(current) and current not in _CONSTANT_STARTS:
        raise lexer.unexpected("an operand")
    return constant(lexer)


def _more(lexer: Lexer, named: Name) -> Operand:
    """An operand that starts with a name and does not end with it."""
    match lexer.current:
        case "|":
            lexer.advance()
            start = lexer.start
            return Pair(named, Name(_word_operand(lexer), start), named.offset)
        case "+" | "-":
            return Sum(named, addend(lexer), named.offset)
    return named


def _word_operand(lexer: Lexer) -> str:
    current = lexer.current
    if not is_word(current):
        raise lexer.unexpected("a register")
    lexer.advance()
    return current


def _list(lexer: Lexer, end: str) -> tuple[Operand, ...]:
    """Names and constants from the bracket at the cursor to ``end``."""
    found: list[Operand] = []
    lexer.advance()
    while lexer.current != end:
        if lexer.current in ("{", "[", "!"):
            raise lexer.unexpected("a register or a constant")
        found.append(_operand(lexer))
        if len(found) > OPERANDS_MAX:
            raise lexer.error("too many elements")
        if lexer.current == ",":
            lexer.advance()
        elif lexer.current != end:
            raise lexer.unexpected(f"',' or '{end}'")
    lexer.advance()
    return tuple(found)


def _group(lexer: Lexer) -> Group:
    offset = lexer.start
    return Group(_list(lexer, ")"), offset)


def _memory(lexer: Lexer) -> Memory:
    """``[name]``, ``[name+8]``, ``[8]``, ``[name, {x, y}]``."""
    offset = lexer.start
    lexer.advance()
    base: Name | None = None
    if is_word(lexer.current) and lexer.current != "WARP_SZ":
        base = Name(lexer.current, lexer.start)
        lexer.advance()
        displacement = addend(lexer) if lexer.current != "]" else 0
    else:
        displacement = signed(integer(lexer))
    more: list[Operand] = []
    while lexer.current == "," and len(more) < 4:
        lexer.advance()
        if lexer.current == "[":
            raise lexer.unexpected("a register or a vector")
        more.append(_operand(lexer))
    expect(lexer, "]")
    return Memory(base, displacement, tuple(more), offset)
