"""What the node's use cases take and give."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Export:
    """An exported function: its name, parameter and result types as in WebAssembly's text ("i32", "f64", …)."""

    name: str
    parameters: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Import:
    """A function that a guest imports."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Function:
    """Deployed code. ``created_at`` is in seconds since 1970, ``memory_pages`` the initial size in 64 KiB pages.

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
class Page:
    """A page of a list; ``next`` is what to pass as ``after`` for the following one, None at the end."""

    items: list[Function]
    next: str | None


@dataclass(frozen=True, slots=True)
class KeptInstance:
    """An instance that lives between calls. ``state`` is "idle" or "busy"; ``idle_left_s`` None while it is busy.

    ``created_at`` is in seconds since 1970; it ends when it was idle for ``idle_timeout_s``.
    """

    id: str
    tenant: int
    function_id: str
    function_name: str
    state: str
    created_at: float
    calls: int
    idle_timeout_s: float
    idle_left_s: float | None
    memory_bytes: int
    gpu_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A captured instance. ``sha`` is the BLAKE3 (hex) of its memories, which have ``size_bytes``.

    ``created_at`` is in seconds since 1970.
    """

    id: str
    tenant: int
    function_id: str
    function_name: str
    module_digest: str
    size_bytes: int
    sha: str
    created_at: float


@dataclass(frozen=True, slots=True)
class DeviceRestart:
    """That a GPU lost everything that was on it: why, by which tenant's kernel (None where none is known), and which
    other tenants had something there.
    """

    device: str
    reason: str
    offender: int | None
    kernel: str | None
    victims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """An invocation that returned. ``dropped_output_bytes`` did not fit into ``stdout`` and ``stderr``."""

    results: list[int | float]
    export: str
    function_id: str
    instance_id: str
    duration_s: float
    launches: int
    stdout: bytes
    stderr: bytes
    dropped_output_bytes: int
