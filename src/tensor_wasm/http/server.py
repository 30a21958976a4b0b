"""Serving a node over HTTP: from the socket to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator

import uvicorn

from tensor_wasm.config import Config
from tensor_wasm.errors import ConfigurationError, InternalError, TensorWasmError
from tensor_wasm.http.acceptor import Acceptor
from tensor_wasm.http.app import create_app
from tensor_wasm.http.operator import Answers, OperatorListener, check_operator_address
from tensor_wasm.http.protocol import ConnectionLimit, Protocol, connections_max, protocol_for
from tensor_wasm.http.supervision import Supervision
from tensor_wasm.http.tls import tls_for
from tensor_wasm.node import Node
from tensor_wasm.telemetry import HttpMetrics, LagMonitor
from tensor_wasm.telemetry.audit import AuditLog
from tensor_wasm.telemetry.connection_metrics import ConnectionMetrics
from tensor_wasm.telemetry.nvml import GpuReader, NamedGpu
from tensor_wasm.telemetry.observer import Observer
from tensor_wasm.telemetry.tracing import tracing_for

_log = logging.getLogger("tensor_wasm.http")

_BACKLOG = 2048
_SWITCH_INTERVAL_S = 0.001
_KEEP_ALIVE_S = 75
_POLL_S = 0.02
_LAST_ANSWERS_S = 2
_WARNING_INTERVAL_S = 60.0
_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_END_SIGNALS, signal.SIGHUP)

OnStarted = Callable[[str, int], None]


class _Uvicorn(uvicorn.Server):
    """uvicorn with this server's own signals and TLS, which says when it listens."""

    def __init__(self, config: uvicorn.Config, acceptor: Acceptor | None, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._acceptor = acceptor
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._acceptor is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._acceptor.start(self._create_protocol)
            # Of its servers uvicorn wants no more than that they close.
            self.servers = [self._acceptor]  # type: ignore[list-item]
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # What did not end in time: clients that do not read, or that do not end TLS as they should.
        late = [connection for connection in self.server_state.connections if isinstance(connection, Protocol)]
        for connection in late:
            connection.abandon()
        if late:
            await asyncio.sleep(_POLL_S)

    def _create_protocol(self) -> Protocol:
        create: Callable[..., Protocol] = self.config.http_protocol_class  # type: ignore[assignment]
        return create(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Server:
    """A node's HTTP server.

    :meth:`run` serves until a signal or :meth:`stop`; :meth:`start_in_thread` does so beside the caller. The node
    stays open: whoever made it closes it. ``on_started`` is called with host and port when requests are taken.
    ``audit`` is told of calls that change state or are refused; it stays its maker's to close. ``supervision`` is the
    service manager that started the process, if one did.

    What is in ``on_hangup`` is called on SIGHUP, one after the other in a thread of its own: it reads files again. What
    one raises is logged, and the next is called.

    Raises :class:`ConfigurationError` when the address cannot be had, or would open a node without tokens to others,
    when the files for TLS cannot be used, and when OpenTelemetry's variables or packages for traces cannot.
    """

    def __init__(
        self,
        node: Node,
        config: Config,
        on_started: OnStarted | None = None,
        audit: AuditLog | None = None,
        supervision: Supervision | None = None,
    ) -> None:
        self._node = node
        self._config = config
        self._on_started = on_started
        self._metrics = HttpMetrics()
        self._lag = LagMonitor()
        self._supervision = Supervision() if supervision is None else supervision
        gpu = node.device.gpu
        self._gpus = GpuReader(only=None if gpu is None else NamedGpu(gpu.facts.uuid, gpu.name))
        self._limit = ConnectionLimit(connections_max(), ConnectionMetrics())
        self._tls = tls_for(config)
        self.on_hangup: list[Callable[[], None]] = [] if self._tls is None else [self._tls.reload]
        if audit is not None:
            self.on_hangup.append(audit.reopen)
        self._observer = Observer(node, config, self._metrics, self._lag, self._gpus)
        self._tracing = tracing_for(config, os.environ)
        check_operator_address(config, node.tokens)
        self._app = create_app(
            node,
            config,
            self._metrics,
            [self._lag, self._limit.metrics, self._gpus],
            audit,
            self._observer,
            self._tracing,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._hung_up = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._address: tuple[str, int] | None = None
        self._operator: OperatorListener | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that requests are taken on. Raises :class:`InternalError` before there is one."""
        if self._address is None:
            raise InternalError("the server was not started")
        return self._address

    @property
    def operator_address(self) -> tuple[str, int] | None:
        """Host and port of the operator's listener; None when it has its socket alone."""
        return None if self._operator is None else self._operator.tcp_address

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or :meth:`stop`; 0 when all requests got their answers.

        On the first signal the node takes no more work, and what runs may finish within ``drain_s``; then it is ended.
        A second signal ends the process at once. SIGHUP calls ``on_hangup``. On another than the main thread signals
        are left alone.
        """
        listener = _listen(self._config)
        # Guests that call the host all the time hold the interpreter lock in turns; at Python's 5 ms a turn the event
        # loop, which needs it several times a request, would answer after seconds.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        try:
            self._observer.start()
            self._tracing.start()
            self._listen_to_operators()
            settings = self._uvicorn_config()
            with asyncio.Runner(loop_factory=settings.get_loop_factory()) as runner:
                runner.run(self._serve(listener, settings))
        finally:
            if self._operator is not None:
                self._operator.close()
            self._observer.close()
            self._tracing.close()
            listener.close()
            self._ready.set()
        return 0

    def _listen_to_operators(self) -> None:
        """Start the listener that needs no event loop."""
        answers = Answers(self._config, self._node.tokens, self._observer, self._app.sources, self._app.audit)
        self._operator = OperatorListener(self._config, answers, self._tls)
        self._operator.start()

    def start_in_thread(self) -> tuple[str, int]:
        """Serve in a thread; host and port once requests are taken. Raises what kept the server from starting."""
        self._thread = threading.Thread(target=self._run_in_thread, name="http", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self.address

    def stop(self) -> None:
        """Drain and stop, as a signal does; returns when a server in a thread has ended. Safe to call twice."""
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
                loop.call_soon_threadsafe(stopping.set)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run_in_thread(self) -> None:
        try:
            self.run()
        except BaseException as error:  # goes to who waits for the start
            self._failure = error
            if self._address is not None:
                _log.exception("the server ended")
        finally:
            self._ready.set()

    async def _serve(self, listener: socket.socket, settings: uvicorn.Config) -> None:
        loop = asyncio.get_running_loop()
        self._loop, self._stopping, self._hung_up = loop, asyncio.Event(), asyncio.Event()
        acceptor = None if self._tls is None else Acceptor(listener, self._tls, self._limit)
        server = _Uvicorn(settings, acceptor, lambda: self._started(listener))
        restore = self._take_signals(loop) if threading.current_thread() is threading.main_thread() else None
        self._lag.start()
        warner = loop.create_task(self._warn()) if self._app.access.is_exposed else None
        stopper = loop.create_task(self._stop_when_asked(server))
        reader = loop.create_task(self._read_again_when_asked())
        try:
            await server.serve(sockets=[listener])
        finally:
            self._lag.stop()
            self._supervision.close()
            stopper.cancel()
            reader.cancel()
            if warner is not None:
                warner.cancel()
            if restore is not None:
                restore()
            self._loop = self._stopping = None

    def _uvicorn_config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self._app,
            loop="uvloop",
            http=protocol_for(self._metrics, self._limit),  # type: ignore[arg-type]  # a class made at run time
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
            backlog=_BACKLOG,
        )

    def _started(self, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        self._address = host, port
        self._observer.url = _url(host, port, is_tls=self._tls is not None)
        _log.info("listening on %s port %d%s", host, port, "" if self._tls is None else " with TLS")
        if self._app.access.is_open and not self._app.access.is_exposed:
            _log.warning("no tokens are set: every caller on this machine is admin for any tenant")
        self._node.restarts.listener = self._app.note_restart
        self._node.job_queue.start(self._app.note_job)
        if self._on_started is not None:
            self._on_started(host, port)
        self._supervision.started(f"listening on {host} port {port}, device {self._node.device.name}")
        self._ready.set()

    # --- signals ----------------------------------------------------------------------------------------

    def _take_signals(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """First signal to end: drain. Second: the process ends as if it had no handler. SIGHUP: files are read again.

        Returns how to undo this.
        """
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def received(number: int) -> None:
            assert self._stopping is not None
            if self._stopping.is_set():
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self._stopping.set()

        for number in _END_SIGNALS:
            loop.add_signal_handler(number, received, number)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up.set)

        def restore() -> None:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

        return restore

    async def _read_again_when_asked(self) -> None:
        """Call what is in ``on_hangup``. A signal that comes meanwhile makes one more round, not several at once."""
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            for callback in tuple(self.on_hangup):
                try:
                    await asyncio.to_thread(callback)
                except TensorWasmError as error:
                    _log.error("SIGHUP: %s", error)
                except Exception:
                    _log.exception("SIGHUP: a file could not be read again")

    # --- the end ----------------------------------------------------------------------------------------

    async def _stop_when_asked(self, server: _Uvicorn) -> None:
        """Drain: refuse new work, let running requests finish, end what does not, then close the listener.

        The listener stays open meanwhile, so that /readyz and refusals can say why.
        """
        assert self._stopping is not None
        await self._stopping.wait()
        self._node.drain.begin()
        working = self._app.working
        busy = self._node.job_queue.busy
        self._supervision.stopping(f"draining: {working} requests in flight and {busy} jobs")
        _log.info(
            "draining: %d requests in flight and %d jobs, at most %g seconds", working, busy, self._config.drain_s
        )
        if not await self._wait_until_idle(self._config.drain_s):
            left = self._app.working + self._node.job_queue.busy
            _log.warning("ending %d requests and jobs that did not finish in time", left)
            await asyncio.to_thread(self._node.drain.finish, 0.0)
            await self._wait_until_idle(_LAST_ANSWERS_S)
        server.should_exit = True

    async def _wait_until_idle(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while self._app.working or self._node.job_queue.busy:
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    async def _warn(self) -> None:
        while True:
            _log.warning(
                "TENSOR_WASM_DEV_MODE: no tokens are set and other machines can reach this node; whoever does is admin"
            )
            await asyncio.sleep(_WARNING_INTERVAL_S)


def _url(host: str, port: int, *, is_tls: bool) -> str:
    return f"http{'s' if is_tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def serve(node: Node, config: Config, on_started: OnStarted | None = None) -> int:
    """Serve a node until a signal; the process's exit code."""
    return Server(node, config, on_started).run()


def _listen(config: Config) -> socket.socket:
    host, port = config.listen_host, config.listen_port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        # Python adds the address to the system's own text; a failed look-up of a name has only its own.
        reason = str(error.strerror or error).partition(" (while")[0]
        raise ConfigurationError(
            f"TENSOR_WASM_LISTEN_ADDR={config.listen_addr}: {reason}; choose another address or port"
        ) from error
    listener.setblocking(False)
    return listener
