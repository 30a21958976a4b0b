"""Recursive descent over the text of a module: directives, variables, kernels and functions.

What is inside a routine's braces is read by :mod:`.statements`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.declarations import declarations, formals, name
from tensor_wasm.ptx.lexer import Lexer, is_number, is_word, quote
from tensor_wasm.ptx.program import Space
from tensor_wasm.ptx.statements import body, location, pragma
from tensor_wasm.ptx.syntax import Alias, Heading, ModuleItem, Name, Routine

_LINKAGES = frozenset({".extern", ".visible", ".weak", ".common"})
_VARIABLES = {".global": Space.GLOBAL, ".const": Space.CONST, ".shared": Space.SHARED}
_THREAD_LIMITS = frozenset({".maxntid", ".reqntid"})
# Directives of a kernel or function that guide a compiler for a GPU and change no result, with their numbers.
_TUNING = {
    ".minnctapersm": 1,
    ".maxnctapersm": 1,
    ".maxnreg": 1,
    ".maxclusterrank": 1,
    ".reqnctapercluster": 3,
    ".abi_preserve": 1,
    ".abi_preserve_control": 1,
    ".noreturn": 0,
    ".explicitcluster": 0,
    ".blocksareclusters": 0,
}
#: Threads on an axis of a block that .reqntid and .maxntid may name.
THREADS_MAX = 1 << 31


class Parser:
    """Reads a module item by item; :attr:`heading` is there from the start."""

    def __init__(self, lexer: Lexer) -> None:
        self._lexer = lexer
        self.heading = self._heading()

    def items(self) -> Iterator[ModuleItem]:
        """Variables, kernels and functions in the order of the text. Raises :class:`PtxError`."""
        lexer = self._lexer
        while current := lexer.current:
            if current in _LINKAGES or current in _VARIABLES or current in (".entry", ".func", ".attribute", ".tex"):
                yield from self._linked()
            elif current == ".file":
                self._file()
            elif current == ".section":
                self._section()
            elif current == ".loc":
                location(lexer)
            elif current == ".pragma":
                pragma(lexer)
            elif current == ".alias":
                yield self._alias()
            elif current in (".version", ".target", ".address_size"):
                raise lexer.error(f"{current} may stand only once, at the start")
            elif current == ";":
                lexer.skip_empty_statements()
            else:
                raise lexer.unexpected("a directive such as .visible, .entry, .func or .global")

    def _heading(self) -> Heading:
        lexer = self._lexer
        if lexer.current != ".version":
            raise lexer.unexpected("'.version': is this PTX?")
        version = lexer.advance()
        if not is_number(version) or not version.replace(".", "", 1).isdecimal():
            raise lexer.unexpected("a version such as 8.0")
        if len(version) > 8:
            raise lexer.error(f"{quote(version)} is no version of PTX")
        if lexer.advance() != ".target":
            raise lexer.unexpected("'.target'")
        targets = []
        while True:
            lexer.advance()
            targets.append(name(lexer, "a target such as sm_80"))
            if lexer.current != ",":
                break
        if lexer.current == ".address_size":
            if lexer.advance() != "64":
                raise lexer.error("only .address_size 64 is supported: compile for 64 bits")
            lexer.advance()
        return Heading(version, targets[0])

    def _linked(self) -> Iterator[ModuleItem]:
        lexer = self._lexer
        is_extern = False
        while lexer.current in _LINKAGES:
            is_extern |= lexer.current == ".extern"
            lexer.advance()
        match lexer.current:
            case ".entry" | ".func":
                yield self._routine()
            case current if current in _VARIABLES:
                lexer.advance()
                yield from declarations(lexer, _VARIABLES[current], is_extern=is_extern)
            case ".tex":
                yield from declarations(lexer, Space.GLOBAL, is_extern=is_extern)
            case _:
                raise lexer.unexpected("'.entry', '.func' or a state space")

    def _routine(self) -> Routine:
        lexer = self._lexer
        is_entry = lexer.current == ".entry"
        line, _ = lexer.place()
        if lexer.advance() == ".attribute":
            self._attribute()
        results = formals(lexer, in_function=True) if lexer.current == "(" and not is_entry else ()
        offset = lexer.start
        routine = Routine(name(lexer, "a name"), is_entry, (), results, None, None, None, line, offset)
        if lexer.current == "(":
            routine.parameters = formals(lexer, in_function=not is_entry)
        self._limits(routine)
        if lexer.current == ";":
            lexer.advance()
            return routine
        if lexer.current != "{":
            raise lexer.unexpected("'{'")
        routine.body = body(lexer)
        return routine

    def _limits(self, routine: Routine) -> None:
        """Directives between a routine's parameters and its body."""
        lexer = self._lexer
        while lexer.current.startswith("."):
            current, offset = lexer.current, lexer.start
            if current in _THREAD_LIMITS:
                lexer.advance()
                limit = self._axes()
                if current == ".reqntid":
                    routine.reqntid = self._once(routine.reqntid, limit, offset)
                else:
                    routine.maxntid = self._once(routine.maxntid, limit, offset)
            elif current in _TUNING:
                lexer.advance()
                self._numbers(_TUNING[current])
            elif current == ".pragma":
                pragma(lexer)
            elif current in (".attribute", ".unified"):
                self._attribute()
            else:
                raise lexer.unexpected("'{' or a directive of a kernel")

    def _once(
        self, before: tuple[int, int, int] | None, limit: tuple[int, int, int], offset: int
    ) -> tuple[int, int, int]:
        if before is not None:
            raise self._lexer.error("this directive stands twice", offset)
        return limit

    def _axes(self) -> tuple[int, int, int]:
        axes = self._numbers(3)
        offset = self._lexer.start
        if not axes or any(not 1 <= axis <= THREADS_MAX for axis in axes):
            raise self._lexer.error("a block has 1 thread or more on each axis", offset)
        x, y, z = (*axes, 1, 1)[:3]
        return x, y, z

    def _numbers(self, count: int) -> list[int]:
        """Up to ``count`` decimal numbers with commas between them."""
        lexer = self._lexer
        numbers: list[int] = []
        while len(numbers) < count:
            if not lexer.current.isdecimal() or len(lexer.current) > 10:
                raise lexer.unexpected("a number")
            numbers.append(int(lexer.current))
            if lexer.advance() != "," or len(numbers) == count:
                break
            lexer.advance()
        return numbers

    def _attribute(self) -> None:
        """``.attribute(.name)``, ``.unified(1, 2)``: nothing in it changes a result here."""
        lexer = self._lexer
        if lexer.advance() != "(":
            raise lexer.unexpected("'('")
        while lexer.advance() != ")":
            if not (
                lexer.current.startswith(".")
                or is_number(lexer.current)
                or is_word(lexer.current)
                or lexer.current == ","
            ):
                raise lexer.unexpected("')'")
        lexer.advance()

    def _file(self) -> None:
        """``.file 1 "name"``, with an optional ``, time, size``."""
        lexer = self._lexer
        if not is_number(lexer.advance()):
            raise lexer.unexpected("a file number")
        if not lexer.advance().startswith('"'):
            raise lexer.unexpected("a file name in quotes")
        while lexer.advance() == ",":
            if not is_number(lexer.advance()):
                raise lexer.unexpected("a number")

    def _section(self) -> None:
        """Debugging data: its name, then bytes in braces."""
        lexer = self._lexer
        if not (lexer.advance().startswith(".") or is_word(lexer.current)):
            raise lexer.unexpected("a section name")
        if lexer.advance() != "{":
            raise lexer.unexpected("'{'")
        lexer.skip_braced()

    def _alias(self) -> Alias:
        lexer = self._lexer
        lexer.advance()
        offset = lexer.start
        alias = Name(name(lexer, "a function name"), offset)
        if lexer.current != ",":
            raise lexer.unexpected("','")
        lexer.advance()
        offset = lexer.start
        target = Name(name(lexer, "a function name"), offset)
        if lexer.current != ";":
            raise lexer.unexpected("';'")
        lexer.advance()
        return Alias(alias, target)


def parse(text: str) -> tuple[Heading, Iterator[ModuleItem], Lexer]:
    """The heading of a module, its items as they are read, and the cursor that makes their errors.

    Raises :class:`PtxError`.
    """
    if not text.strip():
        raise PtxError("the text is empty: PTX starts with .version", 1, 1)
    lexer = Lexer(text)
    parser = Parser(lexer)
    return parser.heading, parser.items(), lexer
