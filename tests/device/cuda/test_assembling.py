"""Assembling beside the main loop: turns of tenants, and texts that take too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from device.cuda.clients import in_thread, until
from tensor_wasm.device.cuda import assembling
from tensor_wasm.device.cuda.assembling import THREADS_MAX, Assemblers, Assembly, Calm


class Assembler:
    """Assembles a text once it is let go."""

    def __init__(self) -> None:
        self.running: list[bytes] = []
        self._gates: dict[bytes, threading.Event] = {}

    def assemble(self, ptx: bytes, wide: bytes) -> int:
        assert wide == b"wide"
        self.running.append(ptx)
        assert self.gate(ptx).wait(120)
        if ptx.startswith(b"bad"):
            raise ValueError(ptx.decode())
        return len(ptx)

    def gate(self, ptx: bytes) -> threading.Event:
        return self._gates.setdefault(ptx, threading.Event())

    def open_all(self) -> None:
        for gate in list(self._gates.values()):
            gate.set()


@pytest.fixture
def assembler() -> Iterator[Assembler]:
    made = Assembler()
    yield made
    until(lambda: made.open_all() or True)


def assembly(tenant: int, ptx: bytes) -> Assembly:
    return Assembly(1, tenant, 0, False, ptx, "name", b"", b"wide")


def test_each_tenant_has_one_thread_at_a_time(assembler):
    assemblers = Assemblers(assembler.assemble)
    for number in range(10):
        assert assemblers.put(assembly(1, b"first" + b"x" * number))
    assert assemblers.put(assembly(2, b"second"))
    until(lambda: len(assembler.running) == 2)
    assert sorted(assembler.running) == [b"first", b"second"]
    assert assemblers.take() is None
    assembler.gate(b"first").set()
    until(lambda: len(assembler.running) == 3)
    done = assemblers.take()
    assert done is not None
    assert (done.module, done.error) == (5, None)
    for number in range(10):
        assembler.gate(b"first" + b"x" * number).set()
    until(lambda: len(assembler.running) == 11)


def test_an_error_is_handed_on(assembler):
    assemblers = Assemblers(assembler.assemble)
    assembler.gate(b"bad").set()
    assemblers.put(assembly(1, b"bad"))
    found: list[Assembly] = []
    until(lambda: found or found.extend(each for each in [assemblers.take()] if each))
    assert isinstance(found[0].error, ValueError)


def test_one_that_takes_too_long_is_told_once_and_holds_up_its_tenant_alone(assembler):
    assemblers = Assemblers(assembler.assemble, limit_s=0.05)
    assemblers.put(assembly(1, b"slow"))
    assemblers.put(assembly(1, b"next"))
    late: list[Assembly] = []
    until(lambda: late or late.extend(assemblers.take_late()))
    assert [each.code for each in late] == [b"slow"]
    assert assemblers.take_late() == []
    assert not assemblers.is_stuck
    assembler.gate(b"other").set()
    assemblers.put(assembly(2, b"other"))
    until(lambda: b"other" in assembler.running)
    assert b"next" not in assembler.running
    for ptx in (b"slow", b"next"):
        assembler.gate(ptx).set()
    until(lambda: b"next" in assembler.running)


def test_it_is_stuck_when_every_thread_is_late(assembler):
    assemblers = Assemblers(assembler.assemble, limit_s=0.05)
    for tenant in range(THREADS_MAX):
        assert not assemblers.is_stuck
        assemblers.put(assembly(tenant, b"slow%d" % tenant))
    late: list[Assembly] = []
    until(lambda: late.extend(assemblers.take_late()) or len(late) == THREADS_MAX)
    assert assemblers.is_stuck


def test_no_more_wait_than_may(assembler, monkeypatch):
    monkeypatch.setattr(assembling, "WAITING_MAX", 3)
    assemblers = Assemblers(assembler.assemble)
    assemblers.put(assembly(1, b"first"))
    until(lambda: assembler.running)
    assert [assemblers.put(assembly(1, b"more%d" % number)) for number in range(4)] == [True] * 3 + [False]
    for number in range(3):
        assembler.gate(b"more%d" % number).set()
    assembler.gate(b"first").set()


def test_a_load_waits_until_what_ran_before_it_is_over():
    calm, asked = Calm(), []
    assert not calm.is_awaited
    first, began_s = in_thread(calm.wait), time.monotonic()
    until(lambda: calm.is_awaited)
    for _ in range(3):
        calm.tell(lambda since_s: bool(asked.append(since_s)))
        assert calm.is_awaited
    assert len(set(asked)) == 1
    assert abs(asked[0] - began_s) < 60
    second = in_thread(calm.wait)
    until(lambda: calm.tell(lambda since_s: bool(asked.append(since_s))) or len(set(asked)) == 2)
    calm.tell(lambda since_s: since_s == min(asked))
    assert first() is None
    assert calm.is_awaited
    calm.tell(lambda _: True)
    assert second() is None
    assert not calm.is_awaited


def test_a_load_does_not_wait_for_a_kernel_without_an_end():
    Calm(patience_s=0.05).wait()
