"""Homes for tests of repair and backup: what a node would have made."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from random import Random

from tensor_wasm.runtime import SealedFiles
from tensor_wasm.store import (
    ArtifactStore,
    Database,
    FunctionRecord,
    HomeLock,
    Registry,
    TenantStore,
    TokenRecord,
    TokenStore,
    node_key,
)

PAGE_BYTES = 4096


def fill(database: Database, random: Random, count: int) -> None:
    """``count`` rows or so in every table, some with values of many pages."""
    registry, tokens, tenants = Registry(database), TokenStore(database), TenantStore(database)
    for number in range(count):
        record = FunctionRecord(
            str(uuid.UUID(int=random.getrandbits(128))),
            random.choice([0, 7, (1 << 64) - 1]),
            "n" * random.randrange(1, 128),
            random.randbytes(32).hex(),
            number,
            random.choice([1.5, 1000.0]),
        )
        registry.add(record)
        if number % 3 == 0:
            registry.delete(record.id, record.tenant)
        tokens.add(TokenRecord(f"token-{number}", "für Anna", "tenant=1", random.randbytes(32), 1.5, None))
        tenants.set(number, {"weight": number, "rate_qps": 0.5, "cuda": True})
    with database.transaction() as connection:
        for number in range(count):
            connection.execute("INSERT INTO models VALUES (?, '1', 'f', NULL, 1.5)", (f"model-{number}",))
            connection.execute(
                "INSERT INTO kernels (tenant, name, version, digest, size_bytes, manifest, signature, publisher,"
                " created_at) VALUES ('1', ?, '1', ?, 1, ?, x'00', 'p', 1.0)",
                (f"kernel-{number}", random.randbytes(32).hex(), random.randbytes(20_000 if number % 8 == 0 else 100)),
            )


def rows(database: Path, *tables: str) -> dict[str, list[tuple]]:
    """What tables hold, in the order of their keys."""
    import sqlite3

    connection = sqlite3.connect(database)
    try:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in tables}
    finally:
        connection.close()


class Home:
    """A home with functions ``a`` and ``b`` and their artifacts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lock = HomeLock(path)
        self.key = node_key(path)
        database = Database(path / "node.db")
        artifacts = ArtifactStore(path / "artifacts")
        self.digests = {}
        for name in ("a", "b"):
            self.digests[name] = artifacts.put(name.encode() * 1000)
            Registry(database).add(FunctionRecord(name, 1, name, self.digests[name], 1000, 1.5))
        database.close()
        SealedFiles(path / "cache" / "modules", self.key).write("ab", b"code")
        lock.close()

    def artifact(self, name: str) -> Path:
        return self.path / "artifacts" / self.digests[name][:2] / self.digests[name]

    def add_snapshot(self, name: str, data: bytes) -> Path:
        """A snapshot's row and its file."""
        database = Database(self.path / "node.db")
        with database.transaction() as connection:
            connection.execute(
                "INSERT INTO snapshots (id, tenant, function_name, module_digest, size_bytes, sha, state, created_at)"
                " VALUES (?, '1', 'a', ?, ?, '', '{}', 1.5)",
                (name, self.digests["a"], len(data)),
            )
        database.close()
        (self.path / "snapshots").mkdir(mode=0o700, exist_ok=True)
        path = self.path / "snapshots" / name
        path.touch(0o600)
        path.write_bytes(data)
        return path

    def functions(self) -> list[str]:
        return [row[1] for row in rows(self.path / "node.db", "functions")["functions"]]

    def lose_page(self, number: int) -> None:
        """Write chance over a page of the database."""
        with (self.path / "node.db").open("r+b") as file:
            file.seek((number - 1) * PAGE_BYTES)
            file.write(os.urandom(PAGE_BYTES))
