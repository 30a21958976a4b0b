"""What the Python API gives: the same from a node in this process and from one over HTTP.

Times of day are in seconds since 1970, sizes in bytes, durations in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Export:
    """An exported function: its name, parameter and result types as in WebAssembly's text ("i32", "f64", …)."""

    name: str
    parameters: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Import:
    """A function that a module imports."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Function:
    """A deployed module. ``digest`` is its BLAKE3, ``memory_pages`` its memory's initial size in pages of 64 KiB.

    ``prewarm`` is the export from whose end every instance starts, None for a cold start.
    """

    id: str
    name: str
    tenant: int
    digest: str
    size_bytes: int
    created_at: float
    exports: tuple[Export, ...]
    imports: tuple[Import, ...]
    memory_pages: int
    prewarm: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A call that returned: ``results`` are the export's, empty when it has none; ``duration`` how long it ran.

    ``launches`` counts kernels. Of ``stdout`` and ``stderr``, bytes that are no UTF-8 are replaced, and
    ``dropped_output_bytes`` did not fit.
    """

    results: list[int | float]
    function_id: str
    instance_id: str
    duration: float
    launches: int
    stdout: str = field(default="", repr=False)
    stderr: str = field(default="", repr=False)
    dropped_output_bytes: int = 0


@dataclass(frozen=True, slots=True)
class KeptInstance:
    """A kept instance as it was a moment ago. ``state`` is "idle" or "busy"; ``idle_left`` None while it is busy.

    It ends when it was idle for ``idle_timeout``.
    """

    id: str
    tenant: int
    function_id: str
    function_name: str
    state: str
    created_at: float
    calls: int
    idle_timeout: float
    idle_left: float | None
    memory_bytes: int
    gpu_memory_bytes: int


@dataclass(frozen=True, slots=True)
class JobDescription:
    """A background job as it was a moment ago; ``result`` is None unless it was asked for by itself and has completed.

    ``status`` is "pending", "running", "completed", "failed" or "cancelled"; ``error_kind`` and ``error_message`` say
    why it did not complete.
    """

    id: str
    function_id: str
    export: str | None
    status: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    error_kind: str | None = None
    error_message: str | None = None
    result: Result | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PublishedKernel:
    """A signed kernel of the registry. ``digest`` is the BLAKE3 of its PTX, ``publisher`` whose signature it has."""

    name: str
    version: str
    digest: str
    size_bytes: int
    publisher: str
    created_at: float


@dataclass(frozen=True, slots=True)
class VerifiedKernel:
    """A kernel of the registry, verified when it was asked for; when that failed, ``reason`` says why.

    ``manifest`` are the bytes that ``signature`` is of.
    """

    name: str
    version: str
    digest: str
    size_bytes: int
    publisher: str
    created_at: float
    tenant: int
    is_verified: bool
    reason: str
    sm: str
    entry_points: tuple[str, ...]
    manifest: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Captured:
    """A snapshot that was made: the bytes of the captured memories, and ``sha``, the BLAKE3 of them."""

    id: str
    size_bytes: int
    sha: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A captured instance. ``function_id`` is that of its function, which may be gone, on this node or another."""

    id: str
    tenant: int
    function_id: str
    function_name: str
    module_digest: str
    size_bytes: int
    sha: str
    created_at: float
