"""A worker: ``python -m tensor_wasm.device.cuda.worker INDEX SOCKET BOARD BYTES``, started by its client.

It holds the driver's context of one GPU, looks at the board for launches, and answers requests on a socket, until the
socket closes, which is when its client closes it or dies. It is given the kernels of tenants after the fence, and
nothing else: neither the node's environment, which may hold tokens, nor an open file of it. When the driver's context
is lost it says so, and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from tensor_wasm.device.cuda.assembling import PATIENCE_S, Assemblers, Assembly, Calm
from tensor_wasm.device.cuda.bindings import CudaDriver
from tensor_wasm.device.cuda.driver import OUT_OF_MEMORY, Driver, DriverError
from tensor_wasm.device.cuda.engine import Engine
from tensor_wasm.device.cuda.messages import Frames, Kind, Message, answer, check_request, encode_facts, request
from tensor_wasm.device.cuda.shared import SharedFile

#: After a launch the worker looks for others without a pause for so long.
SPIN_S: Final = 0.02
#: Then it pauses for so long between two looks, and after ``CALM_S`` without a launch for longer.
PAUSE_S: Final = 50e-6
CALM_S: Final = 1.0
CALM_PAUSE_S: Final = 1e-3
#: How often it looks whether the context still is, and what the assembler has done.
CHECK_S: Final = 1e-3
#: How long the engine may wait for the GPU while no kernel is in flight: then the GPU hangs.
STALL_S: Final = 10.0
#: Looks at the board between two at the socket, while it does not pause.
_LOOKS: Final = 8
_RECEIVE_BYTES: Final = 1 << 18
#: Once the client is gone: time to wipe the tenants' memory.
_GRACE_S: Final = 3.0
#: For the last words: a client that does not read them must not keep the worker.
_LAST_WORDS_S: Final = 1.0
_NAME_BYTES_MAX: Final = 4_096
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38


def main(argv: Sequence[str], make_driver: Callable[[], Driver]) -> None:
    """Serve the client whose socket ``argv`` names, until it is gone; ends the process."""
    index, socket_descriptor, board_descriptor, board_bytes = map(int, argv[1:5])
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _restrict()
    connection = socket.socket(fileno=socket_descriptor)
    threading.Thread(target=_end_with, args=(connection,), name="client-watch", daemon=True).start()
    try:
        shared = SharedFile(board_descriptor, board_bytes)
        shared.close()  # the mapping stays
        server = _Server(connection)
        engine = Engine(make_driver(), index, shared.content, shared.address, server.attend)
    except Exception as error:
        _say(connection, answer(Kind.UNUSABLE, 0, _reason(error)))
        os._exit(1)
    status = 1
    try:
        _say(connection, Message(Kind.READY, 0, (encode_facts(engine.facts),)))
        gc.collect()
        gc.freeze()
        server.serve(engine)
        engine.close()
        status = 0
    except ConnectionError:
        pass  # the client is gone
    except BaseException as error:
        server.say_last_words(error)
    os._exit(status)  # the driver's own end may wait for a kernel that has none


def _restrict() -> None:
    """Give up what a worker does not need. What the system does not allow is left."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # tenants' memory would be in it
    library = ctypes.CDLL(None)
    library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # The client starts workers from a thread that lasts as long as they do.
    library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client decides when to end


def _end_with(connection: socket.socket) -> None:
    """End the process soon after its client is gone, even if the driver does not answer any more."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLHUP)
    poll.poll()
    time.sleep(_GRACE_S)
    os._exit(1)


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, DriverError) else f"{type(error).__name__}: {error}"


def _say(connection: socket.socket, message: Message) -> None:
    connection.sendall(b"".join(message.parts()))


class _Server:
    """The main loop, of one engine."""

    _engine: Engine
    _assemblers: Assemblers
    _calls: dict[Kind, Callable[..., Sequence[int] | None]]

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = Frames()
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self._requests: deque[Message] = deque()
        self._calm = Calm()
        self._is_connected = True
        self._is_ending = False
        #: Tenants and lanes that are to be closed once their work is over, and the requests that ask for it; of tenants
        #: also since when.
        self._closing_tenants: list[tuple[int, int, float]] = []
        self._closing_lanes: list[tuple[int, int]] = []
        #: The tenant of each lane.
        self._lanes: dict[int, int] = {}
        #: Since when the engine has waited though no kernel was in flight.
        self._waits_since_s: float | None = None
        self._waits = 0

    def serve(self, engine: Engine) -> None:
        """Look at the board and at the socket in turns, until the socket is closed.

        Raises :class:`DriverError` once the context is lost, and ConnectionError when the client is gone.
        """
        self._engine = engine
        self._assemblers = Assemblers(self._assemble)
        self._calls = {
            Kind.OPEN_TENANT: lambda tenant, size_bytes: (engine.open_tenant(tenant, size_bytes),),
            Kind.UNLOAD: engine.remove_kernel,
            Kind.OPEN_LANE: self._open_lane,
            Kind.COPY_IN: engine.copy_in,
            Kind.COPY_OUT: lambda tenant, address, place, size: engine.copy_out(tenant, place, address, size),
            Kind.SET_MEMORY: engine.set_memory,
        }
        clock = time.monotonic
        launched_s = checked_s = clock()
        turns = 0
        while self._is_connected:
            started = engine.poll()
            now_s = clock()
            if started:
                launched_s = now_s
            if now_s - checked_s >= CHECK_S:
                checked_s = now_s
                engine.check()
                self._look_at_assemblers()
                self._go_on_closing()
                if self._calm.is_awaited:
                    self._calm.tell(engine.is_over)
            idle_s = now_s - launched_s
            turns += 1
            if self._requests:
                self._answer(self._requests.popleft())
                turns, pause_s = _LOOKS, 0.0  # where a request came, the next is not far
            elif idle_s < SPIN_S:
                pause_s = 0.0
            else:
                turns, pause_s = _LOOKS, PAUSE_S if idle_s < CALM_S else CALM_PAUSE_S
            if turns >= _LOOKS:
                turns = 0
                self._listen(pause_s)
        self._is_ending = True

    def attend(self) -> None:
        """What the engine calls again and again while it waits for the GPU: hear what the client wants next.

        Raises TimeoutError when the GPU does nothing, and ConnectionError when the client is gone.
        """
        self._waits += 1
        if self._waits % _LOOKS or self._is_ending:
            return
        self._listen(0.0)
        if not self._is_connected:
            raise ConnectionResetError
        now_s = time.monotonic()
        if self._waits_since_s is None or self._engine.running():
            self._waits_since_s = now_s  # kernels of any length may be before what is waited for
        elif now_s - self._waits_since_s > STALL_S:
            raise TimeoutError(f"the GPU did nothing for {STALL_S:.0f} s")

    def say_last_words(self, error: BaseException) -> None:
        """Tell the client why this process ends, if it still listens."""
        running = self._engine.running()
        tenants = sorted({each.tenant for each in running})
        kernel = running[0].kernel.encode() if len(tenants) == 1 else b""
        text = answer(Kind.LAST_WORDS, 0, _reason(error)).fields[0]
        with contextlib.suppress(OSError):
            self._connection.settimeout(_LAST_WORDS_S)
            _say(self._connection, request(Kind.LAST_WORDS, 0, tenants, kernel, text))

    # --- requests ---------------------------------------------------------------------------------------

    def _listen(self, pause_s: float) -> None:
        """Wait so long for something on the socket, and keep it for its turn."""
        if not select.select((self._connection,), (), (), pause_s)[0]:
            return
        count = self._connection.recv_into(self._buffer)
        if not count:
            self._is_connected = False
        for message in self._frames.feed(self._buffer[:count]):
            if message.kind is Kind.BEAT:
                _say(self._connection, request(Kind.DONE, message.request))
            else:
                self._requests.append(message)

    def _answer(self, message: Message) -> None:
        numbers, content = check_request(message)
        if message.kind is Kind.LOAD:
            self._load(message.request, numbers, content)
        elif message.kind is Kind.CLOSE_TENANT:
            self._close_tenant(message.request, numbers[0])
        elif message.kind is Kind.CLOSE_LANE:
            self._close_lane(message.request, numbers[0])
        else:
            self._try(message.request, self._calls[message.kind], *numbers)

    def _try(self, number: int, call: Callable[..., Sequence[int] | None], *numbers: int) -> None:
        """Answer a request with what a call gives, or with its error. Raises that of a context that is lost."""
        self._waits_since_s = None
        try:
            reply = request(Kind.DONE, number, call(*numbers) or ())
        except OSError:
            raise  # the client is gone, or the GPU does nothing: TimeoutError is one
        except Exception as error:
            reply = _refusal(number, error)
        _say(self._connection, reply)

    # --- lanes and tenants ------------------------------------------------------------------------------

    def _open_lane(self, lane: int, tenant: int) -> None:
        self._engine.open_lane(lane, tenant)
        self._lanes[lane] = tenant

    def _close_lane(self, number: int, lane: int) -> None:
        """Close a lane; the answer comes when it can be opened again."""
        try:
            self._engine.close_lane(lane)
        except (ValueError, DriverError) as error:
            _say(self._connection, _refusal(number, error))
        else:
            self._lanes.pop(lane, None)
            self._closing_lanes.append((lane, number))
            self._go_on_closing()

    def _close_tenant(self, number: int, tenant: int) -> None:
        """Have a tenant begin nothing more, and close it once its work is over: no other request waits for that."""
        for lane in [lane for lane, owner in self._lanes.items() if owner == tenant]:
            self._engine.close_lane(lane)
            del self._lanes[lane]
        self._closing_tenants.append((tenant, number, time.monotonic()))
        self._go_on_closing()

    def _go_on_closing(self) -> None:
        if self._closing_lanes:
            lanes, self._closing_lanes = self._closing_lanes, []
            for lane, number in lanes:
                if self._engine.is_lane_open(lane):
                    self._closing_lanes.append((lane, number))
                else:
                    _say(self._connection, request(Kind.DONE, number))
        if self._closing_tenants:
            busy = {each.tenant for each in self._engine.running()}
            late_s = time.monotonic() - PATIENCE_S
            tenants, self._closing_tenants = self._closing_tenants, []
            for tenant, number, since_s in tenants:
                # Its kernels are unloaded, for which the driver waits for all that run.
                if tenant in busy or (since_s > late_s and not self._engine.is_over(since_s)):
                    self._closing_tenants.append((tenant, number, since_s))
                else:
                    self._try(number, self._engine.close_tenant, tenant)

    # --- kernels ----------------------------------------------------------------------------------------

    def _load(self, number: int, numbers: Sequence[int], content: Sequence[bytes]) -> None:
        tenant, image_base, leaves_faults = numbers
        code, wide, name, image = content
        if leaves_faults > 1 or len(name) > _NAME_BYTES_MAX or not name.isascii():
            _say(self._connection, answer(Kind.INVALID, number, "a kernel cannot be loaded so"))
            return
        assembly = Assembly(number, tenant, image_base, bool(leaves_faults), code, name.decode("ascii"), image, wide)
        if not self._assemblers.put(assembly):
            _say(self._connection, answer(Kind.NO_MEMORY, number, "too many kernels wait for the GPU's assembler"))

    def _assemble(self, code: bytes, wide: bytes) -> int:
        """On a thread of the assemblers'."""
        self._calm.wait()
        return self._engine.assemble(code, wide)

    def _look_at_assemblers(self) -> None:
        while (assembly := self._assemblers.take()) is not None:
            self._finish(assembly)
        for assembly in self._assemblers.take_late():
            _say(self._connection, answer(Kind.PTX_ERROR, assembly.request, "it takes too long to assemble"))
        if self._assemblers.is_stuck:
            raise TimeoutError("the driver's assembler does not come to an end")

    def _finish(self, assembly: Assembly) -> None:
        error, module = assembly.error, assembly.module
        if isinstance(error, DriverError) and error.is_sticky:
            raise error
        if assembly.is_late:
            if module is not None:
                self._engine.forget(module)
        elif isinstance(error, DriverError) and error.code != OUT_OF_MEMORY:
            _say(self._connection, answer(Kind.PTX_ERROR, assembly.request, error.log or str(error)))
        elif error is not None:
            _say(self._connection, _refusal(assembly.request, error))
        else:
            self._try(assembly.request, lambda: self._add(assembly))

    def _add(self, assembly: Assembly) -> Sequence[int]:
        assert assembly.module is not None
        return self._engine.add_kernel(
            assembly.tenant,
            assembly.module,
            assembly.name,
            assembly.image_base,
            assembly.image,
            assembly.leaves_faults,
        )


def _refusal(number: int, error: Exception) -> Message:
    """The answer to a request that failed. Raises the error of a context that is lost."""
    if isinstance(error, DriverError):
        if error.is_sticky:
            raise error
        return answer(Kind.NO_MEMORY if error.code == OUT_OF_MEMORY else Kind.FAILED, number, str(error))
    if isinstance(error, ValueError):
        return answer(Kind.INVALID, number, str(error))
    return answer(Kind.NO_MEMORY if isinstance(error, MemoryError) else Kind.FAILED, number, _reason(error))


if __name__ == "__main__":
    main(sys.argv, CudaDriver)
