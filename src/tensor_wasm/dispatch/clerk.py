"""The clerk: the WebAssembly function that settles an instance's slot when it has ended, however it ended.

It is WebAssembly because it must change the same words as the gates do, with the same atomics: Python has none on
shared memory. It runs in a store of the ledger's own, after the instance's store is gone.
"""

from __future__ import annotations

from functools import cache

from tensor_wasm.dispatch import layout
from tensor_wasm.dispatch.layout import COUNTERS, State
from tensor_wasm.runtime import Engine
from tensor_wasm.runtime import Module as CompiledModule
from tensor_wasm.wasm import Body, Local, Module, ValType

I32, I64 = ValType.I32, ValType.I64
_COUNTER_BYTES = 8


def clerk_module(engine: Engine) -> CompiledModule:
    """The clerk, compiled: imports the ledger's memory, exports ``settle(slot offset)``."""
    return engine.compile(_clerk())


@cache
def _clerk() -> bytes:
    module = Module()
    module.import_memory("ledger", "memory", layout.PAGES, layout.PAGES, shared=True)
    settle = module.function([I32], [], export="settle")
    body, (slot,) = settle.code, settle.parameters
    tenant = body.local(I32)
    body.get(slot)
    body.memory("i32.load", layout.TENANT_SLOT)
    body.set(tenant)
    _leave_queue(body, slot, tenant)
    _return_permits(body, slot, tenant)
    _fold_counters(body, slot, tenant)
    return module.encode().wasm


def _leave_queue(body: Body, slot: Local, tenant: Local) -> None:
    """An instance that ended while it waited is still counted as waiting."""
    body.get(slot)
    body.memory("i32.load", layout.STATE)
    body.i32_const(State.WAITING)
    body.op("i32.eq")
    with body.if_():
        body.i32_const(0)
        body.i32_const(1)
        body.memory("i32.atomic.rmw.sub", layout.WAITERS)
        body.op("drop")
        body.get(tenant)
        body.i32_const(1)
        body.memory("i32.atomic.rmw.sub", layout.TENANT_WAITING)
        body.op("drop")


def _return_permits(body: Body, slot: Local, tenant: Local) -> None:
    held = body.local(I32)
    body.get(slot)
    body.memory("i32.load", layout.HELD)
    body.tee(held)
    with body.if_():
        body.get(slot)
        body.i32_const(0)
        body.memory("i32.store", layout.HELD)
        body.get(tenant)
        body.get(held)
        body.memory("i32.atomic.rmw.sub", layout.TENANT_HELD)
        body.op("drop")
        body.i32_const(0)
        body.get(held)
        body.memory("i32.atomic.rmw.add", layout.AVAILABLE)
        body.op("drop")
        body.i32_const(0)
        body.get(held)
        body.memory("memory.atomic.notify", layout.AVAILABLE)
        body.op("drop")


def _fold_counters(body: Body, slot: Local, tenant: Local) -> None:
    """Add each counter to the tenant's and leave zero, so that the slot's next user starts from nothing."""
    count, left = body.local(I64), body.local(I32)
    body.i32_const(COUNTERS.size // _COUNTER_BYTES)
    body.set(left)
    with body.loop() as again:
        body.get(slot)
        body.memory("i64.load", layout.INSTANCE_COUNTERS)
        body.tee(count)
        body.op("i64.eqz", "i32.eqz")
        with body.if_():
            body.get(tenant)
            body.get(count)
            body.memory("i64.atomic.rmw.add", layout.TENANT_COUNTERS)
            body.op("drop")
            body.get(slot)
            body.i64_const(0)
            body.memory("i64.store", layout.INSTANCE_COUNTERS)
        for pointer in (slot, tenant):
            body.get(pointer)
            body.i32_const(_COUNTER_BYTES)
            body.op("i32.add")
            body.set(pointer)
        body.get(left)
        body.i32_const(1)
        body.op("i32.sub")
        body.tee(left)
        body.br_if(again)
