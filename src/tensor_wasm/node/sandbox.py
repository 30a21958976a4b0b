"""A sandbox: one instance with its store, from its making to its end, for one call or for many."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tensor_wasm.errors import Ending, EndingError, InternalError, InvalidSnapshot, QuotaExceeded
from tensor_wasm.host import Guest, HostServices, Stream, guest_state
from tensor_wasm.host.trace import CALL, SPAWN, Attribute, Span
from tensor_wasm.node.instances import LiveInstance
from tensor_wasm.node.model import Export, InvocationResult
from tensor_wasm.node.modules import ReadyModule
from tensor_wasm.node.origin import ORIGIN
from tensor_wasm.node.statistics import Statistics
from tensor_wasm.runtime import CallFailed, Engine, Instance, Output, Store
from tensor_wasm.runtime.image import ImageWriter
from tensor_wasm.runtime.state import InstanceState, Observed
from tensor_wasm.store import OwnFile
from tensor_wasm.wasm.observable import ObservableModule

#: How much of a name a span tells.
_NAME_SHOWN = 128
#: How much of stderr an error tells.
_STDERR_TAIL_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """What to call, for whom, until when (on :func:`time.monotonic_ns`'s clock).

    ``stream`` takes the chunks that the guest emits, when somebody reads them.
    """

    function_id: str
    tenant: int
    export: str | None
    args: Sequence[object]
    input: bytes
    deadline_ns: int
    is_cancelled: Callable[[], bool] | None = None
    stream: Stream | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an instance."""

    memory_bytes: int
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Image:
    """A state to make instances with; ``descriptor`` is of the file that begins with the bytes of the memory.

    ``file`` keeps that open for as long as somebody has the image, where nothing else does.
    """

    state: InstanceState
    device: Mapping[str, Any] | None
    descriptor: int
    file: OwnFile | None = None


@dataclass(frozen=True, slots=True)
class Workshop:
    """What sandboxes of a node are made with."""

    engine: Engine
    services: HostServices
    statistics: Statistics
    limits: Limits


class Sandbox:
    """A store and the guest in it. One thread at a time uses it; :meth:`close` must be called.

    Raises what its making came to from :meth:`start`: nothing of the guest runs before.
    """

    __slots__ = (
        "_guest",
        "_instance",
        "_live",
        "_module",
        "_observed",
        "_output_bytes",
        "_span",
        "_statistics",
        "_store",
    )

    def __init__(self, workshop: Workshop, live: LiveInstance, module: ReadyModule, call: Call) -> None:
        self._live = live
        self._module = module
        self._statistics = workshop.statistics
        self._output_bytes = workshop.limits.output_bytes
        self._guest = Guest(
            workshop.services,
            live.slot,
            call.deadline_ns,
            tenant=live.function.tenant,
            guest_input=call.input,
            is_cancelled=call.is_cancelled,
            device_budget=live.device_budget,
            on_device_bytes=partial(workshop.statistics.device_bytes_changed, live.key),
            stream=call.stream,
        )
        output = Output(self._output_bytes) if module.imports.uses_wasi else None
        self._store = Store(workshop.engine, live.budget, self._guest, self._guest.check, output)
        self._instance: Instance | None = None
        self._observed: Observed | None = None
        self._span: Span | None = None

    def start(self) -> None:
        """Instantiate the module, which runs its ``start`` function. Raises an :class:`EndingError`."""
        with _Endings(self):
            self._start()

    def run(self, call: Call, export: Export, values: Sequence[int | float]) -> InvocationResult:
        """Make the instance if it is not there yet, and call it. Raises an :class:`EndingError`."""
        started_ns = time.perf_counter_ns()
        slot = self._live.slot
        launches_before = slot.dispatches
        results: list[int | float] = []
        with _Endings(self):
            if self._instance is None:
                self._start()
            assert self._instance is not None
            function = self._instance.function(export.name)
            if function is None:
                raise InternalError("an export of the module is not in its instance")
            self._open_span(CALL, {"export": export.name[:_NAME_SHOWN]})
            results = self._store.call(function, export.parameters, values, export.results)
        duration_s = (time.perf_counter_ns() - started_ns) / 1e9
        output = self._store.output
        return InvocationResult(
            results=results,
            export=export.name,
            function_id=call.function_id,
            instance_id=self._live.id,
            duration_s=duration_s,
            launches=slot.dispatches - launches_before,
            stdout=b"" if output is None else bytes(output.stdout),
            stderr=b"" if output is None else bytes(output.stderr),
            dropped_output_bytes=0 if output is None else output.dropped_bytes,
        )

    def restore(self, image: Image, *, is_kept: bool = True) -> None:
        """Make the instance with a state that was captured, of the same module. Raises as :meth:`start`.

        One that is not to be kept is made sooner, and cannot be captured.
        """
        with _Endings(self):
            self._start(image, is_kept=is_kept)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all its memories now, device memory too."""
        return self._live.budget.used_bytes

    def capture(self, writer: ImageWriter) -> tuple[InstanceState, dict[str, Any] | None]:
        """Write the bytes of its memories; give the rest of its state, and of what it has on the device.

        To be called between calls.

        Raises :class:`~tensor_wasm.errors.InvalidSnapshot` for an instance whose state cannot be told.
        """
        if self._observed is None:
            raise InvalidSnapshot("the instance cannot be captured: it was not made to be kept")
        state = self._observed.read()
        writer.write(self._observed.view())
        return state, guest_state.capture(self._guest, writer)

    def begin_call(self, call: Call) -> None:
        """Prepare another call of the same instance."""
        self._guest.begin_call(call.deadline_ns, call.input, call.is_cancelled, call.stream)
        self._store.begin_call()
        if self._store.output is not None:
            self._store.output = Output(self._output_bytes)

    def end_call(self) -> None:
        """Rest until the next call."""
        self._guest.end_call()

    def close(self) -> None:
        """End the guest and give its memory back."""
        self._guest.close()
        self._store.close()
        self._live.used_gate = self._guest.is_to_settle

    def _start(self, image: Image | None = None, *, is_kept: bool = True) -> None:
        started_ns = time.perf_counter_ns()
        function = self._live.function
        self._open_span(SPAWN, {"tenant": str(function.tenant), "wasm_bytes": function.size_bytes})
        due = self._guest.interrupt()
        if due is not None:
            raise due
        self._instance = self._module.imports.instantiate(self._store, self._guest)
        if self._module.observable is not None:
            self._observe(self._instance, self._module.observable, image, is_kept=is_kept)
        live = self._live
        duration_s = (time.perf_counter_ns() - started_ns) / 1e9
        self._statistics.spawned(live.key, duration_s, live.slot.index, live.budget)
        self._close_span(None)

    def _observe(self, instance: Instance, module: ObservableModule, image: Image | None, *, is_kept: bool) -> None:
        """Have the state of a new instance be told later; give it one, or run its start function."""
        observed = self._observed = Observed(self._store, instance, module, looks_at_tables=is_kept)
        if image is not None:
            observed.write(image.state)
            observed.map_memory(image.descriptor, image.state.memory_bytes)
            if image.device is not None:
                guest_state.restore(self._guest, image.device, image.descriptor)
        elif module.start is not None:
            self._store.call(instance.function(module.start), (), (), ())

    def _ended(self, error: BaseException | None) -> EndingError | None:
        """What a call came to, noted as the instance's ending; None when the guest returned, or left with status 0."""
        self._guest.end_recording()
        cause: EndingError | None = None
        if isinstance(error, CallFailed):
            cause = self._guest.ending(error.failure)
        elif isinstance(error, EndingError):
            cause = error
        elif isinstance(error, MemoryError):
            cause = QuotaExceeded("the node has no memory left for this invocation")
        self._guest.take_printed()
        self._live.ending = Ending.RETURNED if cause is None else cause.ending
        self._close_span(cause)
        return None if cause is None else _with_stderr(cause, self._store.output)

    # --- traces -------------------------------------------------------------------------------------------

    def _open_span(self, name: str, attributes: dict[str, Attribute]) -> None:
        """Begin to note what the guest does, when it works for a request that is traced."""
        origin = ORIGIN.get()
        if origin is None:
            return
        origin.instance_id = self._live.id
        span = None if origin.trace is None else origin.trace.open(name)
        if span is not None:
            assert origin.trace is not None
            span.attributes |= {"instance_id": self._live.id, **attributes}
            self._guest.begin_recording(origin.trace, span, self._live.id)
            self._span = span

    def _close_span(self, error: BaseException | None) -> None:
        """End what :meth:`_open_span` began, if that is not over yet."""
        span, self._span = self._span, None
        if span is None:
            return
        self._guest.end_recording()
        if isinstance(error, EndingError):
            outcome = error.ending.value
        else:
            outcome = "internal" if error is not None else Ending.RETURNED.value
        if span.name == CALL:
            span.attributes["outcome"] = outcome
        span.end(None if error is None else outcome)


class _Endings:
    """A block in which a guest runs: however that ends, it leaves as an :class:`EndingError`, or not at all."""

    __slots__ = ("_sandbox",)

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if error is not None and not isinstance(error, (CallFailed, EndingError, MemoryError)):
            self._sandbox._close_span(error)  # noqa: SLF001 - the sandbox's own part
            return False  # a defect of ours, or a caller's mistake: not an ending of the guest's
        ending = self._sandbox._ended(error)  # noqa: SLF001 - the sandbox's own part
        if ending is not None:
            raise ending from None
        return True


def _with_stderr(error: EndingError, output: Output | None) -> EndingError:
    """The error with the end of what the guest wrote to stderr: there compilers' runtimes say why they trapped."""
    if output is None or not output.stderr:
        return error
    tail = bytes(output.stderr[-_STDERR_TAIL_BYTES:]).decode("utf-8", "replace").strip()
    return type(error)(f"{error}; stderr: {tail}")
