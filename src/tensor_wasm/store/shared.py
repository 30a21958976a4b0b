"""Artifacts that several stores name: one goes when the last that names it lets go."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tensor_wasm.store.artifacts import ArtifactStore


class SharedArtifacts:
    """Counts who holds each artifact of a directory; on the disk are those that somebody holds.

    At the start every store holds what its rows name, and then :meth:`sweep` deletes the rest. Safe to use from several
    threads. Raises :class:`~tensor_wasm.errors.StoreError`.
    """

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._holders: Counter[str] = Counter()
        #: Held while files come and go: none may go while somebody comes to hold it.
        self._lock = threading.Lock()

    def hold(self, digests: Iterable[str]) -> None:
        """Hold artifacts that are there, each once more for each time that it is named."""
        with self._lock:
            self._holders.update(digests)

    def put(self, data: bytes) -> str:
        """Keep ``data`` and hold it once more; it is on the disk when its digest is returned."""
        with self._lock:
            digest = self._artifacts.put(data)
            self._holders[digest] += 1
            return digest

    @contextmanager
    def putting(self, data: bytes) -> Iterator[str]:
        """As :meth:`put`, for a block that notes who holds it; when that raises it is let go again."""
        digest = self.put(data)
        try:
            yield digest
        except BaseException:
            self.release(digest)
            raise

    def get(self, digest: str) -> bytes:
        """The verified content of that digest."""
        return self._artifacts.get(digest)

    def size_bytes(self, digest: str) -> int:
        """Bytes of the content of that digest; 0 when it is gone."""
        return self._artifacts.size_bytes(digest)

    def release(self, digest: str) -> bool:
        """Hold an artifact once less; whether that was the last time, so that it was deleted."""
        with self._lock:
            self._holders[digest] -= 1
            if self._holders[digest] > 0:
                return False
            del self._holders[digest]
            self._artifacts.delete(digest)
            return True

    def sweep(self) -> int:
        """Delete what nobody holds; how many there were. For the start: a crash may leave some behind."""
        with self._lock:
            return self._artifacts.keep_only(set(self._holders))
