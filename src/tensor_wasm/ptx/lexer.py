"""Tokens of a PTX text, made one at a time, with their places.

A token is a string. Its kind shows in its first character: a word (an opcode with its dotted modifiers, a name, a
register) starts with a letter or one of ``% $ _``; a directive with ``.`` and a letter; a number with a digit (or
``.`` and a digit); a string with a double quote; everything else is punctuation. The empty string is the end.
"""

from __future__ import annotations

import re

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.syntax import Integers

#: Characters of offending text that a message shows.
QUOTE_LENGTH = 40

# One alternative after another, none of them able to give back what it took: time is linear in the text.
_SKIP = r"(?>[ \t\r\n\f\v]++|//[^\n]*+|/\*(?>[^*]++|\*(?!/))*+\*/|@@DWARF[^\n]*+)*+"
_TOKEN = re.compile(
    _SKIP
    + r"""(
    [%$_a-zA-Z][\w$]*+ (?:\.\w++(?:::\w++)*+)*+
    |\.[a-zA-Z_]\w*+ (?:::\w++)*+
    |(?:0[fF][0-9a-fA-F]{8}+
       |0[dD][0-9a-fA-F]{16}+
       |0[xX][0-9a-fA-F]++U?+
       |0[bB][01]++U?+
       |\d++\.\d*+(?:[eE][+-]?\d++)?+
       |\.\d++(?:[eE][+-]?\d++)?+
       |\d++[eE][+-]?\d++
       |\d++U?+)(?![\w$])
    |"[^"\n]*+"
    |<<|>>|<=|>=|==|!=|&&|\|\|
    |[@!{}()\[\],;:=+\-*%&|^~<>?]|/(?!\*)
    |)""".replace("\n", "").replace(" ", ""),
    re.ASCII,
)
_BRACED = re.compile(r"""(?>[^}"/]++|//[^\n]*+|/\*(?>[^*]++|\*(?!/))*+\*/|/|"[^"\n]*+"|")*+\}""")
_EMPTY_STATEMENTS = re.compile(f"(?>{_SKIP};)*+")
_INTEGERS = re.compile(r"(?>[ \t\r\n]*+-?+(?:[1-9][0-9]{0,17}+|0[xX][0-9a-fA-F]{1,16}+|0)[ \t\r\n]*+,)++", re.ASCII)
_OFFENDER = re.compile(r"[^\s,;]+|.")

_WORD_STARTS = frozenset("%$_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NUMBER_STARTS = frozenset("0123456789")


def is_word(current: str) -> bool:
    """Whether a token is a word: an opcode, name or register."""
    return current[:1] in _WORD_STARTS and current != ""


def is_number(current: str) -> bool:
    """Whether a token is a number."""
    return (
        current[:1] in _NUMBER_STARTS or (current[:1] == "." and current[1:2] in _NUMBER_STARTS) if current else False
    )


def quote(text: str) -> str:
    """Text of the program for a message: printable, on one line, shortened, in quotes."""
    if len(text) > QUOTE_LENGTH:
        text = text[: QUOTE_LENGTH - 3] + "..."
    return "'" + text.encode("ascii", "backslashreplace").decode().translate(_UNPRINTABLE) + "'"


_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(32), 127)}


def decode(text: bytes | str) -> str:
    """The characters of a PTX text, without the NUL that C programs leave at its end.

    Raises :class:`PtxError` at the first byte that is not UTF-8.
    """
    if isinstance(text, str):
        return text.rstrip("\0")
    try:
        return bytes(text).rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        before = bytes(text[: error.start]).decode()
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
        raise PtxError(f"byte 0x{text[error.start]:02X} is not UTF-8: PTX is ASCII text", line, column) from None


class Lexer:
    """A cursor over the tokens of ``text``: ``current`` is where it stands, ``start`` its offset in characters."""

    __slots__ = ("_counted", "_line", "_line_start", "_next", "start", "text", "current")

    def __init__(self, text: str) -> None:
        self.text = text
        self.current = ""
        self.start = 0
        self._line = 1
        self._line_start = 0
        self._counted = 0
        self._go_to(0)

    def advance(self) -> str:
        """Go to the next token and return it; empty at the end. Raises :class:`PtxError` where there is none."""
        match = self._next()
        self.current = current = match[1]
        self.start = match.start(1)
        if not current and self.start < len(self.text):
            raise self._no_token()
        return current

    def skip_braced(self) -> None:
        """Go past the ``}`` that ends what the current ``{`` opened, without looking at it (debugging data)."""
        match = _BRACED.match(self.text, self.start + 1)
        if match is None:
            raise self.error("this { is never closed")
        self._go_to(match.end())

    def skip_empty_statements(self) -> None:
        """Go past the ``;`` at the cursor and all that follow it at once."""
        match = _EMPTY_STATEMENTS.match(self.text, self.start)
        assert match is not None
        self._go_to(match.end())

    def integers(self) -> Integers | None:
        """A run of plain integers, each with a comma after it, from the cursor on, which goes past it; or None."""
        match = _INTEGERS.match(self.text, self.start)
        if match is None:
            return None
        values = [int(digits, 0) for digits in match[0].split(",")[:-1]]
        found = Integers(values, self.start)
        self._go_to(match.end())
        return found

    def place(self) -> tuple[int, int]:
        """Line and column of the current token, from 1. Places are asked for in ascending order."""
        start = self.start
        newlines = self.text.count("\n", self._counted, start)
        if newlines:
            self._line += newlines
            self._line_start = self.text.rfind("\n", self._counted, start) + 1
        self._counted = start
        return self._line, start - self._line_start + 1

    def error(self, text: str, offset: int | None = None) -> PtxError:
        """The error for what is wrong at ``offset``, or else at the current token."""
        at = self.start if offset is None else offset
        return PtxError(text, self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at))

    def unexpected(self, wanted: str) -> PtxError:
        """The error for a current token that is not ``wanted``."""
        found = quote(self.current) if self.current else "the end of the text"
        return self.error(f"expected {wanted}, found {found}")

    def _go_to(self, offset: int) -> None:
        self._next = _TOKEN.finditer(self.text, offset).__next__
        self.advance()

    def _no_token(self) -> PtxError:
        rest = self.text[self.start : self.start + QUOTE_LENGTH + 1]
        if rest.startswith("/*"):
            return self.error("this comment is never closed")
        if rest.startswith('"'):
            return self.error("this string is not closed on its line")
        offender = _OFFENDER.match(rest)
        return self.error(f"{quote(offender[0] if offender else rest)} is not PTX")
