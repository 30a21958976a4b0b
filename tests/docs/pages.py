"""A page of the documentation, taken apart: blocks, inline code, headings, links, commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from docs.program import ROOT

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: What runs another command, which is then looked at like any other; with the options that take a word.
_WRAPPERS = {"sudo": {"-u"}, "xargs": set(), "while": set(), "do": set()}
_OPERATORS = set("|&;()<>")


@dataclass(frozen=True)
class Page:
    """``name`` is its path below the root of the repository; links are looked up from there."""

    name: str
    text: str

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(str(path.relative_to(ROOT)), path.read_text("utf-8"))

    @cached_property
    def prose(self) -> str:
        """Without blocks of code."""
        return _FENCE.sub("", self.text)

    @cached_property
    def code(self) -> list[str]:
        """Inline code, outside of blocks; in one line each."""
        return [" ".join(code.split()) for code in _CODE.findall(self.prose)]

    def blocks(self, language: str) -> list[str]:
        """Bodies of blocks of one language, without the indent of the item that they are in."""
        found = [m for m in _FENCE.finditer(self.text) if m["language"] == language]
        return [re.sub(rf"^{m['indent']}", "", m["body"], flags=re.MULTILINE) for m in found]

    @cached_property
    def headings(self) -> list[str]:
        return _HEADING.findall(self.prose)

    @cached_property
    def anchors(self) -> set[str]:
        return {anchor(heading) for heading in self.headings}

    @cached_property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    @cached_property
    def commands(self) -> list[list[str]]:
        """Every command of the shell blocks, and of inline code that begins with one of ours; as words."""
        lines = [line for block in self.blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
        lines += [code for code in self.code if re.match(r"(?:tensor-wasm(?:-release)?|git|curl|jq|make) ", code)]
        return [command for line in lines for command in commands(line)]

    @cached_property
    def pipelines(self) -> list[list[list[str]]]:
        """The commands of each line of the shell blocks, one list a line."""
        lines = [line for block in self.blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
        return [commands(line) for line in lines]


def anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def commands(line: str) -> list[list[str]]:
    """The commands of a line of shell: parts of pipelines and lists, what wrappers run, what stands in ``$(…)``."""
    inner = re.findall(r"\$\(([^()]+)\)", line)
    outer = re.sub(r"\$\([^()]+\)", "SUBSTITUTED", line)
    lexer = shlex.shlex(outer, posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    skips = False
    for word in lexer:
        if skips:  # the file of a redirection
            skips = False
        elif set(word) <= set("<>") | {"&"} and set(word) & set("<>"):
            skips = True
            if found[-1] and found[-1][-1].isdigit():  # the number of what is redirected
                found[-1].pop()
        elif set(word) <= _OPERATORS:
            found.append([])
        else:
            found[-1].append(word)
    own = [command for words in found if (command := _unwrapped(words))]
    return own + [command for text in inner for command in commands(text)]


def _unwrapped(words: list[str]) -> list[str]:
    """A command without assignments and wrappers before it; empty when nothing is run."""
    words = words[:]
    while words:
        if re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        elif words[0] in ("export", "done", "for"):
            return []
        elif words[0] in _WRAPPERS:
            takes = _WRAPPERS[words.pop(0)]
            while words and words[0].startswith("-"):
                if words.pop(0) in takes:
                    words.pop(0)
        else:
            return words
    return []
