"""What is built, and what a compiler is to the script that builds it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol

FOLDER = Path(__file__).resolve().parent

#: The exact versions that made the committed files of the compilers that are no part of the `dev` extra.
REQUIREMENTS = FOLDER / "requirements.txt"


@dataclass(frozen=True, slots=True)
class Product:
    """One PTX file: its source and the word for what made it and how; the default has none."""

    source: str
    variant: str = ""

    @property
    def path(self) -> Path:
        """Where it is committed."""
        return FOLDER / ".".join(part for part in (self.source, self.variant, "ptx") if part)

    @property
    def name(self) -> str:
        """Its path in this folder."""
        return self.path.relative_to(FOLDER).as_posix()


class Compiler(Protocol):
    """A compiler that makes some of the files."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def is_optional(self) -> bool:
        """Whether it is no part of the `dev` extra."""

    @property
    def products(self) -> tuple[Product, ...]:
        """What it makes."""

    def lack(self) -> str:
        """Why it cannot run here, empty when it can."""

    def build(self, product: Product) -> str:
        """The PTX of a product. Raises :class:`nvrtc.BuildError` when the compiler refuses its source."""


def lack_of(*packages: str) -> str:
    """What of these packages is not installed in the version that made the committed files; empty for nothing."""
    wanted = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)$", REQUIREMENTS.read_text("utf-8"), re.MULTILINE))
    for package in packages:
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"
        if found != wanted[package]:
            return f"{package} {found} is installed, {wanted[package]} made the files"
    return ""


def without_folders(text: str) -> str:
    """Line tables name the file by its full path, in the folder that the compiler was started in."""
    return re.sub(r'^(\s*\.file\s+\d+ ")[^"]*/', r"\1", text, flags=re.MULTILINE)
