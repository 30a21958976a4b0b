"""What is in a node's home. Who looks after all of it (repair, backup) goes by this table."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tensor_wasm.errors import StoreError


class Kind(Enum):
    """What a part of the home is, and with that how it is checked and whether a backup has it."""

    #: One SQLite file, which may have ``-wal`` and ``-shm`` beside it.
    DATABASE = "database"
    #: A file without which what others hold of this node is worth nothing, as a key.
    SECRET = "secret"  # noqa: S105 - a kind of file
    #: Files by the digest of their content, which rows of the database name.
    ARTIFACTS = "artifacts"
    #: A directory of files that rows name, which never change. A file is there before its row and goes after it.
    FILES = "files"
    #: Sealed files that are made anew when they are gone. No backup has them.
    CACHE = "cache"
    #: What the program that holds the home keeps locked. No backup has it.
    LOCK = "lock"
    #: What repair took out of the way. No backup has it.
    ASIDE = "aside"
    #: A small file for convenience, begun anew when it is gone. No backup has it.
    NOTE = "note"
    #: Where the program that holds the home listens while it runs. No backup has it.
    SOCKET = "socket"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the home; ``name`` is its path in there."""

    name: str
    kind: Kind


#: A room that keeps something new in the home adds its line here.
PARTS: tuple[Part, ...] = (
    Part("node.db", Kind.DATABASE),
    Part("node.key", Kind.SECRET),
    Part("signing.key", Kind.SECRET),
    Part("artifacts", Kind.ARTIFACTS),
    Part("snapshots", Kind.FILES),
    Part("cache/modules", Kind.CACHE),
    Part("cache/kernels", Kind.CACHE),
    Part("node.lock", Kind.LOCK),
    Part("damaged", Kind.ASIDE),
    Part("releases.json", Kind.NOTE),
    Part("operator.sock", Kind.SOCKET),
)

#: The tables whose rows name artifacts, and which of their rows still do.
ARTIFACT_ROWS: dict[str, str] = {
    "functions": "SELECT digest, id FROM functions WHERE deleted_at IS NULL",
    "snapshots": "SELECT module_digest, id FROM snapshots",
    "kernels": "SELECT digest, name || ' ' || version FROM kernels",
}

#: Of each part of named files: the table whose rows name them, and the query for their names and sizes.
FILE_ROWS: dict[str, tuple[str, str]] = {
    "snapshots": ("snapshots", "SELECT id, size_bytes FROM snapshots"),
}

#: What SQLite keeps beside a database.
DATABASE_COMPANIONS = ("-wal", "-shm")


def parts(*kinds: Kind) -> list[Part]:
    """The parts of these kinds."""
    return [part for part in PARTS if part.kind in kinds]


def top_names() -> set[str]:
    """All names that a home may have directly in it."""
    names = {part.name.partition("/")[0] for part in PARTS}
    return names | {part.name + end for part in parts(Kind.DATABASE) for end in DATABASE_COMPANIONS}


def lacks_database(home: Path) -> bool:
    """Whether there are artifacts and no database that could name them: it was removed, for it is made first."""
    path = home / "node.db"
    return not (path.exists() and path.stat().st_size) and any(home.glob("artifacts/??/*"))


def check_database(home: Path) -> None:
    """Look before a new database is made: artifacts that no row names are deleted. Raises :class:`StoreError`."""
    if lacks_database(home):
        raise StoreError(
            f"{home} has artifacts and its node.db is gone or empty: restore a backup with `tensor-wasm restore"
            " DIRECTORY`, or run `tensor-wasm doctor --repair`, which keeps the artifacts aside, to start empty"
        )


def regular_files(directory: Path) -> Iterator[Path]:
    """``directory`` if it is a regular file, else all below it; links not followed. What goes away is passed over."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISREG(directory.lstat().st_mode):
            yield directory
    for place, _, names in os.walk(directory, onerror=None):
        for name in sorted(names):
            path = Path(place) / name
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISREG(mode):
                yield path
