"""Artifacts: bytes by their own hash. What was put survives a crash; what is read was verified."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from blake3 import blake3

from tensor_wasm.errors import StoreError
from tensor_wasm.store.files import UNFINISHED, make_directory, sync_directory, unusable, write_durably

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ArtifactStore:
    """A directory of files named by the BLAKE3 (hex) of their content, in 256 folders by its first two digits.

    Safe to use from several threads. Raises :class:`StoreError` when the directory cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        make_directory(directory)
        self._remove_unfinished()

    def put(self, data: bytes) -> str:
        """Keep ``data``; it is on the disk when its digest is returned. Damaged content is written anew."""
        digest = blake3(data).hexdigest()
        path = self._path(digest)
        make_directory(path.parent)
        try:
            kept = path.stat().st_size == len(data) and blake3(path.read_bytes()).hexdigest() == digest
        except FileNotFoundError:
            kept = False
        except OSError as error:
            raise unusable(path, error) from error
        if kept:
            sync_directory(path.parent)  # another thread may have linked it a moment ago
        else:
            write_durably(path, data, replace=True)
        sync_directory(self._directory)
        return digest

    def get(self, digest: str) -> bytes:
        """The content of that digest. Raises :class:`StoreError` when it is gone or is not what it was."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise StoreError(
                f"artifact {digest} is missing from {self._directory}: restore it from a backup, or deploy it again"
            ) from None
        except OSError as error:
            raise unusable(path, error) from error
        if blake3(data).hexdigest() != digest:
            raise StoreError(
                f"artifact {digest} in {self._directory} is damaged: restore it from a backup, or deploy it again"
            )
        return data

    def size_bytes(self, digest: str) -> int:
        """Bytes of the content of that digest; 0 when it is gone."""
        try:
            return self._path(digest).stat().st_size
        except OSError:
            return 0

    def delete(self, digest: str) -> None:
        """Remove the content of that digest, if it is there."""
        path = self._path(digest)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        except OSError as error:
            raise unusable(path, error) from error

    def digests(self) -> set[str]:
        """All that is kept."""
        return {path.name for path in self._directory.glob("??/*") if _DIGEST.fullmatch(path.name)}

    def keep_only(self, digests: set[str]) -> int:
        """Delete what nothing names; how many there were. For the start: a crash may leave some behind."""
        unnamed = self.digests() - digests
        for digest in unnamed:
            self.delete(digest)
        return len(unnamed)

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise StoreError("an artifact's digest is 64 hexadecimal digits")
        return self._directory / digest[:2] / digest

    def _remove_unfinished(self) -> None:
        with contextlib.suppress(OSError):
            for path in self._directory.glob(f"??/{UNFINISHED}*"):
                path.unlink()
