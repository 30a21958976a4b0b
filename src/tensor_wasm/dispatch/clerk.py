"""The clerk: the WebAssembly that settles an instance's slot when it has ended, however it ended; and sets shares.

It is WebAssembly because it must change the same words as the gates do, with the same atomics: Python has none on
shared memory. It runs in a store of the ledger's own, after the instance's store is gone.
"""

from __future__ import annotations

from functools import cache

from tensor_wasm.dispatch import layout
from tensor_wasm.dispatch.arbiter import Operation, arbiter
from tensor_wasm.dispatch.layout import COUNTERS
from tensor_wasm.runtime import Engine
from tensor_wasm.runtime import Module as CompiledModule
from tensor_wasm.wasm import Body, Function, Local, Module, ValType

I32, I64 = ValType.I32, ValType.I64
_COUNTER_BYTES = 8


def clerk_module(engine: Engine) -> CompiledModule:
    """The clerk, compiled: imports the ledger's memory, exports ``settle(slot offset)`` and
    ``share(tenant offset, weight, cap)``.
    """
    return engine.compile(_clerk())


@cache
def _clerk() -> bytes:
    module = Module()
    module.import_memory("ledger", "memory", layout.PAGES, layout.PAGES, shared=True)
    arbitrate = arbiter(module, 0)
    settle = module.function([I32], [], export="settle")
    body, (slot,) = settle.code, settle.parameters
    tenant = body.local(I32)
    body.get(slot)
    body.memory("i32.load", layout.TENANT_SLOT)
    body.set(tenant)
    # An instance that ended while it waited stands in a queue still; one that ended in a kernel holds a permit.
    for field, operation in ((layout.QUEUED, Operation.LEAVE), (layout.HELD, Operation.RELEASE)):
        body.get(slot)
        body.memory("i32.load", field)
        with body.if_():
            body.get(slot)
            body.get(tenant)
            body.i32_const(operation)
            body.call(arbitrate)
            body.op("drop")
    _fold_counters(body, slot, tenant)
    _share(module, arbitrate)
    return module.encode().wasm


def _share(module: Module, arbitrate: Function) -> None:
    """``(tenant, weight, cap)``: change a tenant's share, and hand out permits that it may have from now on."""
    share = module.function([I32] * 3, [], export="share")
    body, (tenant, weight, cap) = share.code, share.parameters
    for field, value in ((layout.TENANT_WEIGHT, weight), (layout.TENANT_CAP, cap)):
        body.get(tenant)
        body.get(value)
        body.memory("i32.atomic.store", field)
    with body.loop() as again:
        body.i32_const(0)
        body.get(tenant)
        body.i32_const(Operation.NUDGE)
        body.call(arbitrate)
        body.br_if(again)


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
