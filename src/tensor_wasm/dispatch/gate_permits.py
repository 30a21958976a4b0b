"""The part of the gate that takes a permit, waits for one, and gives it back."""

from __future__ import annotations

from tensor_wasm.abi import Code, limits
from tensor_wasm.dispatch import layout
from tensor_wasm.dispatch.arbiter import Operation
from tensor_wasm.dispatch.gate_words import I32, I64, LEDGER, increment, set_state
from tensor_wasm.dispatch.layout import COUNTERS, State
from tensor_wasm.wasm import Body, Function, Label, Local, Module

#: A launch that waits looks at its flags and its deadline this often.
WAIT_SLICE_NS = 10_000_000
#: What ``memory.atomic.wait32`` gives when nobody woke it.
_TIMED_OUT = 2
_MARGIN_NS = limits.LAUNCH_MARGIN_MS * 1_000_000


def acquire(module: Module, clock: Function, observe: Function, arbiter: Function) -> Function:
    """``(slot, now) -> code``: take a permit, waiting if there is none; counts the wait and what it refuses."""
    wait = _wait(module, clock, observe, arbiter)
    function = module.function([I32, I64], [I32], name="acquire")
    body, (slot, now) = function.code, function.parameters
    tenant = body.local(I32)
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
    body.get(slot)
    body.memory("i32.load", layout.TENANT_SLOT, memory=LEDGER)
    body.set(tenant)
    with body.block() as none_free:
        _push_somebody_waits(body, tenant)
        body.br_if(none_free)
        _take_one(body, slot, tenant, none_free)
        increment(body, slot, layout.INSTANCE_COUNTERS + COUNTERS.permit_wait)  # no wait: the first bucket
        body.i32_const(Code.OK)
        body.op("return")
    body.get(slot)
    body.get(now)
    body.call(wait)
    return function


def _push_somebody_waits(body: Body, tenant: Local) -> None:
    """Push whether a launch waits that must not be overtaken: of the same tenant, or one that may have a permit."""
    body.i32_const(0)
    body.memory("i32.atomic.load", layout.CONTENDED, memory=LEDGER)
    body.get(tenant)
    body.memory("i32.atomic.load", layout.TENANT_WAITING, memory=LEDGER)
    body.op("i32.or")


def _take_one(body: Body, slot: Local, tenant: Local, none_free: Label) -> None:
    """Take a permit or branch to ``none_free``.

    Nothing that Wasmtime may interrupt stands between the exchange and the note that the permit is held.
    """
    available = body.local(I32)
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
    _add(body, tenant, layout.TENANT_HELD, 1)
    body.get(tenant)
    body.memory("i32.load", layout.TENANT_CAP, memory=LEDGER)
    body.op("i32.ge_s")
    with body.if_():  # one too many: put it back, and queue until the tenant holds less
        _add(body, tenant, layout.TENANT_HELD, -1)
        body.op("drop")
        _add(body, None, layout.AVAILABLE, 1)
        body.op("drop")
        body.br(none_free)
    body.get(slot)
    body.i32_const(1)
    body.memory("i32.store", layout.HELD, memory=LEDGER)
    body.release(available)


def _add(body: Body, base: Local | None, field: int, amount: int) -> None:
    """Add to a word of the ledger; its old value is pushed."""
    if base is None:
        body.i32_const(0)
    else:
        body.get(base)
    body.i32_const(amount)
    body.memory("i32.atomic.rmw.add", field, memory=LEDGER)


def _wait(module: Module, clock: Function, observe: Function, arbiter: Function) -> Function:
    """``(slot, start) -> code``: wait for a permit in slices, so that an order to end and the deadline are seen."""
    function = module.function([I32, I64], [I32], name="wait")
    body, (slot, start) = function.code, function.parameters
    now, left, code, waited = body.local(I64), body.local(I64), body.local(I32), body.local(I64)
    _arbitrate(body, slot, Operation.JOIN, arbiter)
    set_state(body, slot, State.WAITING)
    with body.block() as done, body.loop() as again:
        body.get(slot)
        body.memory("i32.atomic.load", layout.WAKE, memory=LEDGER)
        body.br_if(done)
        body.get(slot)
        body.memory("i32.load", layout.FLAGS, memory=LEDGER)
        with body.if_():
            body.op("unreachable")  # whoever asked for the end knows why; the clerk takes it out of the queue
        body.get(slot)
        body.call(clock)
        body.set(now)
        _load_wait_left(body, start, now, left)
        _refuse_if_over(body, left, code, refusal=Code.SATURATED, done=done)
        _load_deadline_left(body, slot, now, left)
        _refuse_if_over(body, left, code, refusal=Code.DEADLINE, done=done)
        _sleep(body, slot, left)
        body.i32_const(_TIMED_OUT)
        body.op("i32.eq")
        with body.if_():  # a permit that came back while an ended guest could not say so is handed out here
            _arbitrate(body, slot, Operation.NUDGE, arbiter)
        body.br(again)
    body.get(code)
    with body.if_():
        _arbitrate(body, slot, Operation.LEAVE, arbiter)
        _count_refusal(body, slot, code)
    set_state(body, slot, State.RUNNING)
    body.get(slot)
    body.i32_const(layout.INSTANCE_COUNTERS + COUNTERS.permit_wait)
    body.op("i32.add")
    body.get(slot)
    body.call(clock)
    body.get(start)
    body.op("i64.sub")
    body.tee(waited)
    body.call(observe)
    body.get(slot)
    body.get(waited)
    body.memory("i64.store", layout.WAITED_NS, memory=LEDGER)
    body.get(code)
    return function


def _arbitrate(body: Body, slot: Local, operation: int, arbiter: Function) -> None:
    body.get(slot)
    body.get(slot)
    body.memory("i32.load", layout.TENANT_SLOT, memory=LEDGER)
    body.i32_const(operation)
    body.call(arbiter)
    body.op("drop")


def _count_refusal(body: Body, slot: Local, code: Local) -> None:
    """Count what the wait ended with; granted while it gave up, the launch has its permit after all."""
    body.get(slot)
    body.memory("i32.load", layout.HELD, memory=LEDGER)
    with body.if_():
        body.i32_const(Code.OK)
        body.set(code)
        body.else_()
        body.get(code)
        body.i32_const(Code.SATURATED)
        body.op("i32.eq")
        with body.if_():
            increment(body, slot, layout.INSTANCE_COUNTERS + COUNTERS.rejected_saturated)
            body.else_()
            increment(body, slot, layout.INSTANCE_COUNTERS + COUNTERS.rejected_deadline)


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


def _refuse_if_over(body: Body, left: Local, code: Local, *, refusal: Code, done: Label) -> None:
    body.get(left)
    body.i64_const(0)
    body.op("i64.le_s")
    with body.if_():
        body.i32_const(refusal)
        body.set(code)
        body.br(done)


def _sleep(body: Body, slot: Local, left: Local) -> None:
    """Sleep until the launch is granted a permit, but no longer than ``left`` nor than one slice; push how it woke."""
    body.get(slot)
    body.i32_const(0)
    body.get(left)
    body.i64_const(WAIT_SLICE_NS)
    body.get(left)
    body.i64_const(WAIT_SLICE_NS)
    body.op("i64.lt_s", "select")
    body.memory("memory.atomic.wait32", layout.WAKE, memory=LEDGER)


def release(body: Body, slot: Local, arbiter: Function) -> None:
    """Give the permit back: to who waits, or to all.

    Who queues between the look and the return is seen by the second look, or sees the permit: the words are changed
    by atomics in opposite order.
    """
    tenant = body.local(I32)
    body.get(slot)
    body.memory("i32.load", layout.TENANT_SLOT, memory=LEDGER)
    body.set(tenant)
    _push_somebody_waits(body, tenant)
    with body.if_():
        _arbitrate(body, slot, Operation.RELEASE, arbiter)
        body.else_()
        body.get(slot)
        body.i32_const(0)
        body.memory("i32.store", layout.HELD, memory=LEDGER)
        _add(body, tenant, layout.TENANT_HELD, -1)
        body.op("drop")
        _add(body, None, layout.AVAILABLE, 1)
        body.op("drop")
        _push_somebody_waits(body, tenant)
        with body.if_():
            _arbitrate(body, slot, Operation.NUDGE, arbiter)
    body.release(tenant)
