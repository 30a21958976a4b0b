"""The part of the gate that takes a permit, waits for one, and gives it back."""

from __future__ import annotations

from tensor_wasm.abi import Code, limits
from tensor_wasm.dispatch import layout
from tensor_wasm.dispatch.gate_words import I32, I64, LEDGER, add_to_tenant, increment, set_state
from tensor_wasm.dispatch.layout import COUNTERS, State
from tensor_wasm.wasm import Body, Function, Label, Local, Module

#: A launch that waits looks at its flags and its deadline this often.
WAIT_SLICE_NS = 10_000_000
_MARGIN_NS = limits.LAUNCH_MARGIN_MS * 1_000_000


def acquire(module: Module, clock: Function, observe: Function) -> Function:
    """``(slot, now) -> code``: take a permit, waiting if there is none; counts the wait and what it refuses."""
    wait = _wait(module, clock, observe)
    function = module.function([I32, I64], [I32], name="acquire")
    body, (slot, now) = function.code, function.parameters
    available = body.local(I32)
    body.get(slot)
    body.memory("i64.load", layout.DEADLINE_NS, memory=LEDGER)
    body.get(now)
    body.op("i64.sub")
    body.i64_const(_MARGIN_NS)
    body.op("i64.lt_s")
    with body.if_():
        increment(body, slot, layout.INSTANCE_COUNTERS + COUNTERS.rejected_deadline)
        body.i32_const(Code.DEADLINE)
        body.op("return")
    with body.block() as none_free:
        _take_one(body, slot, available, none_free)
        increment(body, slot, layout.INSTANCE_COUNTERS + COUNTERS.permit_wait)  # no wait: the first bucket
        body.i32_const(Code.OK)
        body.op("return")
    body.get(slot)
    body.get(now)
    body.call(wait)
    return function


def _take_one(body: Body, slot: Local, available: Local, none_free: Label) -> None:
    """Take a permit or branch to ``none_free``.

    Nothing that Wasmtime may interrupt stands between the exchange and the note that the permit is held.
    """
    with body.loop() as again:
        body.i32_const(0)
        body.memory("i32.atomic.load", layout.AVAILABLE, memory=LEDGER)
        body.tee(available)
        body.i32_const(0)
        body.op("i32.le_s")
        body.br_if(none_free)
        body.i32_const(0)
        body.get(available)
        body.get(available)
        body.i32_const(1)
        body.op("i32.sub")
        body.memory("i32.atomic.rmw.cmpxchg", layout.AVAILABLE, memory=LEDGER)
        body.get(available)
        body.op("i32.ne")
        body.br_if(again)
    body.get(slot)
    body.i32_const(1)
    body.memory("i32.store", layout.HELD, memory=LEDGER)
    add_to_tenant(body, slot, layout.TENANT_HELD, "add")


def _wait(module: Module, clock: Function, observe: Function) -> Function:
    """``(slot, start) -> code``: wait for a permit in slices, so that an order to end and the deadline are seen."""
    function = module.function([I32, I64], [I32], name="wait")
    body, (slot, start) = function.code, function.parameters
    available, now, left, code = body.local(I32), body.local(I64), body.local(I64), body.local(I32)
    _queue(body, slot, "add")
    set_state(body, slot, State.WAITING)
    with body.block() as done, body.loop() as again:
        with body.block() as none_free:
            _take_one(body, slot, available, none_free)
            body.br(done)
        body.get(slot)
        body.memory("i32.load", layout.FLAGS, memory=LEDGER)
        with body.if_():
            body.op("unreachable")  # whoever asked for the end knows why
        body.get(slot)
        body.call(clock)
        body.set(now)
        _load_wait_left(body, start, now, left)
        _refuse_if_over(body, slot, left, code, refusal=Code.SATURATED, done=done)
        _load_deadline_left(body, slot, now, left)
        _refuse_if_over(body, slot, left, code, refusal=Code.DEADLINE, done=done)
        _sleep(body, left)
        body.br(again)
    _queue(body, slot, "sub")
    set_state(body, slot, State.RUNNING)
    body.get(slot)
    body.i32_const(layout.INSTANCE_COUNTERS + COUNTERS.permit_wait)
    body.op("i32.add")
    body.get(slot)
    body.call(clock)
    body.get(start)
    body.op("i64.sub")
    body.call(observe)
    body.get(code)
    return function


def _queue(body: Body, slot: Local, direction: str) -> None:
    """Count the launch among those that wait, or no longer."""
    body.i32_const(0)
    body.i32_const(1)
    body.memory(f"i32.atomic.rmw.{direction}", layout.WAITERS, memory=LEDGER)
    body.op("drop")
    add_to_tenant(body, slot, layout.TENANT_WAITING, direction)


def _load_wait_left(body: Body, start: Local, now: Local, left: Local) -> None:
    """``left = allowed wait - (now - start)``."""
    body.i32_const(0)
    body.memory("i64.load", layout.MAX_WAIT_NS, memory=LEDGER)
    body.get(now)
    body.get(start)
    body.op("i64.sub", "i64.sub")
    body.set(left)


def _load_deadline_left(body: Body, slot: Local, now: Local, left: Local) -> None:
    """``left`` becomes the lesser of itself and what is left until a launch could no longer start."""
    until = body.local(I64)
    body.get(slot)
    body.memory("i64.load", layout.DEADLINE_NS, memory=LEDGER)
    body.get(now)
    body.op("i64.sub")
    body.i64_const(_MARGIN_NS)
    body.op("i64.sub")
    body.tee(until)
    body.get(left)
    body.get(until)
    body.get(left)
    body.op("i64.lt_s", "select")
    body.set(left)
    body.release(until)


def _refuse_if_over(body: Body, slot: Local, left: Local, code: Local, *, refusal: Code, done: Label) -> None:
    counter = COUNTERS.rejected_saturated if refusal is Code.SATURATED else COUNTERS.rejected_deadline
    body.get(left)
    body.i64_const(0)
    body.op("i64.le_s")
    with body.if_():
        increment(body, slot, layout.INSTANCE_COUNTERS + counter)
        body.i32_const(refusal)
        body.set(code)
        body.br(done)


def _sleep(body: Body, left: Local) -> None:
    """Sleep until a permit comes back, but no longer than ``left`` nor than one slice."""
    body.i32_const(0)
    body.i32_const(0)
    body.get(left)
    body.i64_const(WAIT_SLICE_NS)
    body.get(left)
    body.i64_const(WAIT_SLICE_NS)
    body.op("i64.lt_s", "select")
    body.memory("memory.atomic.wait32", layout.AVAILABLE, memory=LEDGER)
    body.op("drop")


def release(body: Body, slot: Local) -> None:
    """Give the permit back and wake one launch that waits."""
    body.get(slot)
    body.i32_const(0)
    body.memory("i32.store", layout.HELD, memory=LEDGER)
    add_to_tenant(body, slot, layout.TENANT_HELD, "sub")
    body.i32_const(0)
    body.i32_const(1)
    body.memory("i32.atomic.rmw.add", layout.AVAILABLE, memory=LEDGER)
    body.op("drop")
    body.i32_const(0)
    body.memory("i32.atomic.load", layout.WAITERS, memory=LEDGER)
    with body.if_():
        body.i32_const(0)
        body.i32_const(1)
        body.memory("memory.atomic.notify", layout.AVAILABLE, memory=LEDGER)
        body.op("drop")
