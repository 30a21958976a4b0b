from __future__ import annotations

import threading
import time

import pytest

from tensor_wasm.telemetry.bounded import IN_TIME, Bounded

PART_S = 0.1
#: For a whole round, where the test is not about that: much more than it takes.
WHOLE_S = 20.0


class Gate:
    """A part that hangs until it is opened."""

    def __init__(self):
        self.opened = threading.Event()
        self.calls = 0

    def __call__(self):
        self.calls += 1
        self.opened.wait(20)
        return "open"


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.opened.set()


def values(read):
    found, failures = read
    return {name: value for name, (_, value) in found.items()}, failures


def wait_for(is_so):
    until = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_every_part_is_read_with_its_moment():
    bounded = Bounded({"one": lambda: 1, "two": lambda: 2}, WHOLE_S, WHOLE_S)
    before = time.monotonic()
    found, failures = bounded.read()
    assert {name: value for name, (_, value) in found.items()} == {"one": 1, "two": 2}
    assert before <= found["one"][0] <= found["two"][0] <= time.monotonic()
    assert failures == {}
    bounded.close()


def test_a_part_that_fails_says_how_and_the_others_are_read():
    bounded = Bounded({"bad": lambda: 1 // 0, "good": lambda: 2}, WHOLE_S, WHOLE_S)
    assert values(bounded.read()) == ({"good": 2}, {"bad": "ZeroDivisionError"})
    bounded.close()


def test_a_part_that_hangs_holds_up_nobody_and_is_left_alone_until_it_is_back(gate):
    bounded = Bounded({"first": lambda: 1, "hangs": gate, "last": lambda: 3}, PART_S, WHOLE_S)
    for _ in range(3):
        assert values(bounded.read()) == ({"first": 1, "last": 3}, {"hangs": IN_TIME})
    assert gate.calls == 1
    gate.opened.set()
    wait_for(lambda: values(bounded.read())[0].get("hangs") == "open")
    bounded.close()


def test_no_more_threads_hang_than_there_are_parts():
    gates = [Gate() for _ in range(3)]
    before = threading.active_count()
    bounded = Bounded({str(number): gate for number, gate in enumerate(gates)}, 0.01, WHOLE_S)
    for _ in range(10):
        assert bounded.read()[0] == {}
    assert threading.active_count() <= before + len(gates) + 1
    for gate in gates:
        gate.opened.set()
    bounded.close()
    wait_for(lambda: threading.active_count() <= before)


def test_all_of_it_has_a_limit_too(gate):
    parts = {"hangs": gate, **{f"{number}": lambda: time.sleep(0.05) for number in range(400)}}
    bounded = Bounded(parts, WHOLE_S, 0.2)
    began = time.monotonic()
    found, failures = bounded.read()
    assert time.monotonic() - began < 10
    assert found == {}
    assert set(failures.values()) == {IN_TIME}
    bounded.close()


def test_some_parts_alone_can_be_asked_for():
    bounded = Bounded({"one": lambda: 1, "two": lambda: 2}, WHOLE_S, WHOLE_S)
    assert values(bounded.read(["two"])) == ({"two": 2}, {})
    bounded.close()


def test_a_system_without_threads_is_a_failure_and_no_end(monkeypatch):
    def refuse(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    bounded = Bounded({"one": lambda: 1}, WHOLE_S, WHOLE_S)
    assert values(bounded.read()) == ({}, {"one": IN_TIME})
    bounded.close()
