"""Code that all parts of the gate write: memory indices, counters, histograms, states."""

from __future__ import annotations

from tensor_wasm.dispatch import layout
from tensor_wasm.dispatch.layout import BUCKETS, HISTOGRAM_SUM, LATENCY_BUCKETS_NS
from tensor_wasm.wasm import Body, Function, Local, Module, ValType

I32, I64 = ValType.I32, ValType.I64
#: The gate's memories: the guest's, the ledger's (shared), its own.
GUEST, LEDGER, SCRATCH = 0, 1, 2


def observe(module: Module) -> Function:
    """``(histogram address in the ledger, ns)``: count one observation."""
    function = module.function([I32, I64], [], name="observe")
    body, (histogram, value) = function.code, function.parameters
    body.get(histogram)
    body.get(histogram)
    body.memory("i64.load", HISTOGRAM_SUM, memory=LEDGER)
    body.get(value)
    body.op("i64.add")
    body.memory("i64.store", HISTOGRAM_SUM, memory=LEDGER)
    for bucket, bound in enumerate(LATENCY_BUCKETS_NS):
        body.get(value)
        body.i64_const(bound)
        body.op("i64.le_u")
        with body.if_():
            increment(body, histogram, 8 * bucket)
            body.op("return")
    increment(body, histogram, 8 * (BUCKETS - 1))
    return function


def increment(body: Body, base: Local, offset: int) -> None:
    """Add one to a counter that only this instance writes."""
    body.get(base)
    body.get(base)
    body.memory("i64.load", offset, memory=LEDGER)
    body.i64_const(1)
    body.op("i64.add")
    body.memory("i64.store", offset, memory=LEDGER)


def set_state(body: Body, slot: Local, state: int) -> None:
    """Say in the ledger what the instance is doing."""
    body.get(slot)
    body.i32_const(state)
    body.memory("i32.store", layout.STATE, memory=LEDGER)


def load_guest_size(body: Body) -> None:
    """Push the guest's memory size in bytes, i64: 4 GiB does not fit 32 bits."""
    body.memory_size(GUEST)
    body.op("i64.extend_i32_u")
    body.i64_const(16)
    body.op("i64.shl")
