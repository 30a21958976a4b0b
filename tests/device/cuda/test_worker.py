"""A worker as a process: what it is given, what it refuses, when it ends."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from device.cuda.clients import LIMIT_S, PARTITION_BYTES, STAGING_BYTES, until
from device.cuda.emulated_worker import worker_command
from tensor_wasm.device.cuda import board
from tensor_wasm.device.cuda.gpu import Gpu
from tensor_wasm.device.cuda.messages import REQUESTS, Frames, Kind, Message, request
from tensor_wasm.device.cuda.shared import SharedFile
from tensor_wasm.device.cuda.worker_handle import worker_environment

ROOT = Path(__file__).parents[3]


class Raw:
    """A worker, and a socket on which anything can be said to it."""

    def __init__(self) -> None:
        self.shared = SharedFile.create(STAGING_BYTES)
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(LIMIT_S)
        numbers = (0, theirs.fileno(), self.shared.descriptor, board.BYTES + STAGING_BYTES)
        self.process = subprocess.Popen(
            [*worker_command(), *map(str, numbers)],
            pass_fds=(theirs.fileno(), self.shared.descriptor),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=worker_environment(),
        )
        theirs.close()
        self._frames = Frames()
        self._heard: list[Message] = []

    def say(self, message: Message) -> None:
        self.socket.sendall(b"".join(message.parts()))

    def hear(self) -> Message:
        while not self._heard:
            data = self.socket.recv(1 << 16)
            assert data, "it closed its socket"
            self._heard += self._frames.feed(data)
        return self._heard.pop(0)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()
        self.shared.close()


@pytest.fixture
def raw() -> Iterator[Raw]:
    opened = Raw()
    assert opened.hear().kind is Kind.READY
    yield opened
    opened.close()


def test_it_gets_nothing_that_it_does_not_need(monkeypatch):
    monkeypatch.setenv("TENSOR_WASM_SECRET", "a token")
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    gpu = Gpu(0, staging_bytes=STAGING_BYTES, command=worker_command())
    try:
        process = Path(f"/proc/{gpu.pid}")
        names = {entry.split(b"=")[0].decode() for entry in (process / "environ").read_bytes().split(b"\0") if entry}
        assert names <= set(worker_environment())
        assert "TENSOR_WASM_SECRET" not in names
        pipe = str(Path(f"/proc/self/fd/{writing}").readlink())
        opened = {str(each.readlink()) for each in (process / "fd").iterdir() if each.is_symlink()}
        assert pipe not in opened
        assert sum(each.startswith("socket:") for each in opened) == 1
        assert "NoNewPrivs:\t1" in (process / "status").read_text()
        core = next(line for line in (process / "limits").read_text().splitlines() if line.startswith("Max core"))
        assert core.split()[4:6] == ["0", "0"]
        assert (process / "cwd").resolve() == Path("/")
    finally:
        gpu.close()
        os.close(reading)
        os.close(writing)


def test_it_ends_with_its_client():
    program = (
        "import sys, time\n"
        "from tensor_wasm.device.cuda.gpu import Gpu\n"
        f"gpu = Gpu(0, staging_bytes={STAGING_BYTES}, command={worker_command()!r})\n"
        f"gpu.open_tenant(1, {PARTITION_BYTES})\n"
        "print(gpu.pid, flush=True)\n"
        "time.sleep(3600)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    client = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    assert client.stdout is not None
    pid = int(client.stdout.readline())
    client.kill()
    client.wait()
    client.stdout.close()
    until(lambda: is_gone(pid))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_it_ends_when_its_socket_closes(raw):
    raw.say(request(Kind.OPEN_TENANT, 1, (1, PARTITION_BYTES)))
    raw.hear()
    raw.socket.shutdown(socket.SHUT_RDWR)
    assert raw.process.wait(LIMIT_S) == 0


def test_an_interrupt_from_the_terminal_is_not_for_it(raw):
    os.kill(raw.process.pid, signal.SIGINT)
    raw.say(request(Kind.BEAT, 0))
    assert raw.hear() == request(Kind.DONE, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"Traceback (most recent call last):",
        b"".join(request(Kind.OPEN_TENANT, 1, (1,)).parts()),
        b"".join(request(Kind.DONE, 1).parts()),
        b"\x04\x04" + bytes(4) + b"\xff" * 16,
    ],
)
def test_what_is_no_request_ends_it(raw, data):
    raw.socket.sendall(data)
    message = raw.hear()
    assert message.kind is Kind.LAST_WORDS
    assert "InternalError" in message.text()
    assert raw.process.wait(LIMIT_S) == 1


def test_numbers_that_cannot_be_are_refused_one_by_one(raw):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    source = random.Random(seed)
    edges = [0, 1, 2, 255, 256, board.LANES, STAGING_BYTES, 1 << 32, 1 << 63, (1 << 64) - 1]
    raw.say(request(Kind.OPEN_TENANT, 1, (1, PARTITION_BYTES)))
    (base,) = raw.hear().numbers(1)
    edges += [base, base - 1, base + PARTITION_BYTES - 1, base + PARTITION_BYTES]
    sent: set[int] = set()
    # Not what would change who has what: those are tried by themselves.
    kinds = [kind for kind in REQUESTS if kind not in (Kind.BEAT, Kind.CLOSE_TENANT, Kind.OPEN_TENANT)]
    for number in range(2, 600):
        kind = source.choice(kinds)
        numbers, fields = REQUESTS[kind]
        content = [source.choice([b"", b"x", b"\xff", bytes(100)]) for _ in range(fields)]
        raw.say(request(kind, number, [source.choice(edges) for _ in range(numbers)], *content))
        sent.add(number)
        if len(sent) >= 20:
            until(lambda: sent.discard(raw.hear().request) or not sent)
    until(lambda: not sent or sent.discard(raw.hear().request) or not sent)
    raw.say(request(Kind.BEAT, 0))
    assert raw.hear().kind is Kind.DONE


def test_partitions_that_cannot_be_are_refused_one_by_one(raw):
    for number, size in enumerate((0, 1, 3, 1 << 20, PARTITION_BYTES + 1, 1 << 40, 1 << 63, (1 << 64) - 1)):
        raw.say(request(Kind.OPEN_TENANT, number, (1, size)))
        assert raw.hear().kind in (Kind.INVALID, Kind.NO_MEMORY), size


def test_a_frame_that_is_sent_slowly_holds_nothing_up(raw):
    raw.say(request(Kind.OPEN_TENANT, 1, (1, PARTITION_BYTES)))
    (base,) = raw.hear().numbers(1)
    frame = b"".join(request(Kind.LOAD, 2, (1, base, 0), b" " * 3_000_000, b"", b"none", bytes(16)).parts())
    done = threading.Event()

    def send() -> None:
        for start in range(0, len(frame), 100_001):
            raw.socket.sendall(frame[start : start + 100_001])
        done.set()

    threading.Thread(target=send, daemon=True).start()
    assert raw.hear().kind is Kind.PTX_ERROR
    assert done.wait(LIMIT_S)


def test_it_says_why_it_cannot_start(tmp_path):
    shared = SharedFile.create(STAGING_BYTES)
    ours, theirs = socket.socketpair()
    wrong_size = board.BYTES + STAGING_BYTES + 65_536
    process = subprocess.Popen(
        [*worker_command(), "0", str(theirs.fileno()), str(shared.descriptor), str(wrong_size)],
        pass_fds=(theirs.fileno(), shared.descriptor),
        env=worker_environment(),
    )
    theirs.close()
    ours.settimeout(LIMIT_S)
    frames = Frames()
    message = next(heard for _ in range(100) for heard in frames.feed(ours.recv(1 << 16)))
    assert message.kind is Kind.UNUSABLE
    assert "another size" in message.text()
    assert process.wait(LIMIT_S) == 1
    ours.close()
    shared.close()
