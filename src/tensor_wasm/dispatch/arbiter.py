"""The arbiter: who gets a permit when launches wait for one.

A freed permit goes to the waiting tenant with the least permits held for its weight, and within a tenant in order of
arrival. Between equal shares the virtual time of start-time fair queueing decides: each permit moves a tenant's turn on
by one over its weight, so that also a single permit is shared by weight. Source: Goyal, Vin, Cheng, "Start-time Fair
Queueing" (1996).

The least share is at the root of a tournament over all tenants. One change costs a walk from a leaf to the root.

The code between lock and unlock has neither a loop nor a call. Wasmtime interrupts only at those, so nobody is ended,
or enters Python, with the lock in hand: whoever waits for it waits for a few hundred instructions, also one that
holds the interpreter lock.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensor_wasm.dispatch import layout
from tensor_wasm.wasm import Body, Function, Local, Module, ValType

I32, I64 = ValType.I32, ValType.I64
#: Whoever waits for the lock looks again this often: a wake cannot be lost, but a thread that would have woken can be.
_LOCK_SLICE_NS = 10_000_000
_NODE_SHIFT = layout.NODE_BYTES.bit_length() - 1


class Operation:
    """What :func:`arbiter` does before it hands out a permit, if there is one and somebody waits."""

    NUDGE = 0  # nothing
    JOIN = 1  # the instance queues
    LEAVE = 2  # the instance queues no longer, if it did
    RELEASE = 3  # the instance gives its permit back


def arbiter(module: Module, memory: int) -> Function:
    """``(instance slot, tenant slot, operation) -> whether a permit was handed out``.

    ``memory`` is the index of the ledger's memory. A ``NUDGE`` needs no instance.
    """
    function = module.function([I32, I32, I32], [I32], name="arbitrate")
    writer = _Arbiter(function.code, memory)
    slot, tenant, operation = function.parameters
    writer.lock()
    writer.do(slot, tenant, operation)
    writer.refresh(tenant)
    writer.note_contention()
    writer.grant()
    writer.unlock()
    writer.wake()
    return function


@dataclass(slots=True)
class _Arbiter:
    """Writes the arbiter's code. ``granted`` is who got a permit; ``freed`` is 1 while a permit is in hand."""

    body: Body
    memory: int
    granted: Local
    freed: Local

    def __init__(self, body: Body, memory: int) -> None:
        self.body = body
        self.memory = memory
        self.granted, self.freed = body.local(I32), body.local(I32)

    # --- the lock ---------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Take the lock; waiting for it can be interrupted."""
        body = self.body
        with body.block() as taken:
            body.i32_const(0)
            body.i32_const(0)
            body.i32_const(1)
            self.access("i32.atomic.rmw.cmpxchg", layout.LOCK)
            body.op("i32.eqz")
            body.br_if(taken)
            with body.loop() as again:
                body.i32_const(0)
                body.i32_const(2)
                self.access("i32.atomic.rmw.xchg", layout.LOCK)
                body.op("i32.eqz")
                body.br_if(taken)
                body.i32_const(0)
                body.i32_const(2)
                body.i64_const(_LOCK_SLICE_NS)
                self.access("memory.atomic.wait32", layout.LOCK)
                body.op("drop")
                body.br(again)

    def unlock(self) -> None:
        body = self.body
        body.i32_const(0)
        body.i32_const(0)
        self.access("i32.atomic.rmw.xchg", layout.LOCK)
        body.i32_const(2)
        body.op("i32.eq")
        with body.if_():
            body.i32_const(0)
            body.i32_const(1)
            self.access("memory.atomic.notify", layout.LOCK)
            body.op("drop")

    # --- queues -----------------------------------------------------------------------------------------

    def do(self, slot: Local, tenant: Local, operation: Local) -> None:
        body = self.body
        for code, write in (
            (Operation.JOIN, self.join),
            (Operation.LEAVE, self.leave),
            (Operation.RELEASE, self.release),
        ):
            body.get(operation)
            body.i32_const(code)
            body.op("i32.eq")
            with body.if_():
                write(slot, tenant)

    def join(self, slot: Local, tenant: Local) -> None:
        """Put the instance at its tenant's tail. A tenant that comes anew has no turns to make up for."""
        body = self.body
        tail = body.local(I32)
        with self.storing(slot, layout.NEXT):
            body.i32_const(0)
        self.load(tenant, layout.TENANT_TAIL)
        body.set(tail)
        with self.storing(slot, layout.PREVIOUS):
            body.get(tail)
        body.get(tail)
        with body.if_():
            with self.storing(tail, layout.NEXT):
                body.get(slot)
            body.else_()
            with self.storing(tenant, layout.TENANT_HEAD):
                body.get(slot)
            with self.storing(tenant, layout.TENANT_TURN, "i64.store"):
                self.push_later(tenant)
        with self.storing(tenant, layout.TENANT_TAIL):
            body.get(slot)
        with self.storing(slot, layout.QUEUED):
            body.i32_const(1)
        with self.storing(slot, layout.WAKE, "i32.atomic.store"):
            body.i32_const(0)
        self.add(tenant, layout.TENANT_WAITING, 1)
        body.release(tail)

    def push_later(self, tenant: Local) -> None:
        """Push the later of the tenant's turn and the virtual time."""
        body = self.body
        turn, now = body.local(I64), body.local(I64)
        self.load(tenant, layout.TENANT_TURN, "i64.load")
        body.tee(turn)
        body.i32_const(0)
        self.access("i64.load", layout.VIRTUAL_TIME)
        body.tee(now)
        body.get(turn)
        body.get(now)
        body.op("i64.gt_s", "select")
        body.release(turn, now)

    def leave(self, slot: Local, tenant: Local) -> None:
        self.load(slot, layout.QUEUED)
        with self.body.if_():
            self.unlink(slot, tenant)

    def unlink(self, slot: Local, tenant: Local) -> None:
        """Take the instance out of its tenant's queue."""
        body = self.body
        before, after = body.local(I32), body.local(I32)
        self.load(slot, layout.PREVIOUS)
        body.set(before)
        self.load(slot, layout.NEXT)
        body.set(after)
        for one, field, end, other in (
            (before, layout.NEXT, layout.TENANT_HEAD, after),
            (after, layout.PREVIOUS, layout.TENANT_TAIL, before),
        ):
            body.get(one)
            with body.if_():
                with self.storing(one, field):
                    body.get(other)
                body.else_()
                with self.storing(tenant, end):
                    body.get(other)
        with self.storing(slot, layout.QUEUED):
            body.i32_const(0)
        self.add(tenant, layout.TENANT_WAITING, -1)
        body.release(before, after)

    def release(self, slot: Local, tenant: Local) -> None:
        """Take the instance's permit in hand."""
        body = self.body
        self.load(slot, layout.HELD)
        with body.if_():
            with self.storing(slot, layout.HELD):
                body.i32_const(0)
            self.add(tenant, layout.TENANT_HELD, -1)
            body.i32_const(1)
            body.set(self.freed)

    # --- the tournament ---------------------------------------------------------------------------------

    def refresh(self, tenant: Local) -> None:
        """Enter the tenant's share and turn at its leaf, and carry the least up to the root."""
        body = self.body
        node, share, turn, least = body.local(I32), body.local(I64), body.local(I64), body.local(I32)
        self.push_share(tenant)
        body.set(share)
        self.load(tenant, layout.TENANT_TURN, "i64.load")
        body.set(turn)
        self.load(tenant, layout.TENANT_LEAF)
        body.set(node)
        body.get(tenant)
        body.set(least)
        self.store_node(node, share, turn, least)
        with body.block() as at_root:
            for _ in range(layout.TOURNAMENT_LEVELS):
                body.get(node)
                body.i32_const(1)
                body.op("i32.eq")
                body.br_if(at_root)
                self.meet_sibling(node, share, turn, least)
                body.get(node)
                body.i32_const(1)
                body.op("i32.shr_u")
                body.set(node)
                self.store_node(node, share, turn, least)
        body.release(node, share, turn, least)

    def push_share(self, tenant: Local) -> None:
        """Push what the tenant holds for its weight, ``NOT_WAITING`` when it has no use for a permit."""
        body = self.body
        self.load(tenant, layout.TENANT_HELD, "i32.atomic.load")
        body.op("i64.extend_i32_s")
        body.i64_const(layout.SHARE_SCALE)
        body.op("i64.mul")
        self.load(tenant, layout.TENANT_WEIGHT)
        body.op("i64.extend_i32_u", "i64.div_s")
        body.i64_const(layout.NOT_WAITING)
        self.load(tenant, layout.TENANT_HEAD)
        body.i32_const(0)
        body.op("i32.ne")
        self.load(tenant, layout.TENANT_HELD, "i32.atomic.load")
        self.load(tenant, layout.TENANT_CAP)
        body.op("i32.lt_s", "i32.and", "select")

    def meet_sibling(self, node: Local, share: Local, turn: Local, least: Local) -> None:
        """Where the node's sibling has the lesser share, or an earlier turn at the same share, take the sibling's."""
        body = self.body
        place, other_share, other_turn = body.local(I32), body.local(I64), body.local(I64)
        body.get(node)
        body.i32_const(1)
        body.op("i32.xor")
        body.i32_const(_NODE_SHIFT)
        body.op("i32.shl")
        body.set(place)
        self.load(place, layout.TOURNAMENT + layout.NODE_SHARE, "i64.load")
        body.set(other_share)
        self.load(place, layout.TOURNAMENT + layout.NODE_TURN, "i64.load")
        body.set(other_turn)
        body.get(other_share)
        body.get(share)
        body.op("i64.lt_s")
        body.get(other_share)
        body.get(share)
        body.op("i64.eq")
        body.get(other_turn)
        body.get(turn)
        body.op("i64.lt_s", "i32.and", "i32.or")
        with body.if_():
            body.get(other_share)
            body.set(share)
            body.get(other_turn)
            body.set(turn)
            self.load(place, layout.TOURNAMENT + layout.NODE_TENANT)
            body.set(least)
        body.release(place, other_share, other_turn)

    def store_node(self, node: Local, share: Local, turn: Local, least: Local) -> None:
        body = self.body
        place = body.local(I32)
        body.get(node)
        body.i32_const(_NODE_SHIFT)
        body.op("i32.shl")
        body.set(place)
        for field, value, store in (
            (layout.NODE_SHARE, share, "i64.store"),
            (layout.NODE_TURN, turn, "i64.store"),
            (layout.NODE_TENANT, least, "i32.store"),
        ):
            with self.storing(place, layout.TOURNAMENT + field, store):
                body.get(value)
        body.release(place)

    def push_is_contended(self) -> None:
        """Push whether somebody waits who may have a permit."""
        body = self.body
        body.i32_const(layout.NODE_BYTES)
        self.access("i64.load", layout.TOURNAMENT + layout.NODE_SHARE)
        body.i64_const(layout.NOT_WAITING)
        body.op("i64.ne")

    def note_contention(self) -> None:
        """Say so in the header. An exchange, so that a permit freed before it is seen after it."""
        body = self.body
        body.i32_const(0)
        self.push_is_contended()
        self.access("i32.atomic.rmw.xchg", layout.CONTENDED)
        body.op("drop")

    # --- permits ----------------------------------------------------------------------------------------

    def grant(self) -> None:
        """Hand the permit in hand, else a free one, to whose turn it is; one that nobody wants is free."""
        body = self.body
        self.push_is_contended()
        with body.if_():
            body.get(self.freed)
            body.op("i32.eqz")
            with body.if_():
                self.take_free()
            body.get(self.freed)
            with body.if_():
                self.hand_over()
        body.get(self.freed)
        with body.if_():
            body.i32_const(0)
            body.i32_const(1)
            self.access("i32.atomic.rmw.add", layout.AVAILABLE)
            body.op("drop")

    def take_free(self) -> None:
        body = self.body
        body.i32_const(0)
        body.i32_const(1)
        self.access("i32.atomic.rmw.sub", layout.AVAILABLE)
        body.i32_const(0)
        body.op("i32.gt_s")
        body.tee(self.freed)
        body.op("i32.eqz")
        with body.if_():
            body.i32_const(0)
            body.i32_const(1)
            self.access("i32.atomic.rmw.add", layout.AVAILABLE)
            body.op("drop")

    def hand_over(self) -> None:
        """Give the permit in hand to the first of the root's tenant."""
        body = self.body
        tenant, turn, granted = body.local(I32), body.local(I64), self.granted
        body.i32_const(layout.NODE_BYTES)
        self.access("i32.load", layout.TOURNAMENT + layout.NODE_TENANT)
        body.set(tenant)
        self.load(tenant, layout.TENANT_HEAD)
        body.set(granted)
        self.unlink(granted, tenant)
        with self.storing(granted, layout.HELD):
            body.i32_const(1)
        self.add(tenant, layout.TENANT_HELD, 1)
        self.load(tenant, layout.TENANT_TURN, "i64.load")
        body.set(turn)
        body.i32_const(0)
        body.get(turn)
        self.access("i64.store", layout.VIRTUAL_TIME)
        with self.storing(tenant, layout.TENANT_TURN, "i64.store"):
            body.get(turn)
            body.i64_const(layout.SHARE_SCALE)
            self.load(tenant, layout.TENANT_WEIGHT)
            body.op("i64.extend_i32_u", "i64.div_s", "i64.add")
        body.i32_const(0)
        body.set(self.freed)
        self.refresh(tenant)
        self.note_contention()
        with self.storing(granted, layout.WAKE, "i32.atomic.store"):
            body.i32_const(1)
        body.release(tenant, turn)

    def wake(self) -> None:
        """Wake who was granted a permit; push whether somebody was."""
        body = self.body
        body.get(self.granted)
        with body.if_():
            body.get(self.granted)
            body.i32_const(1)
            self.access("memory.atomic.notify", layout.WAKE)
            body.op("drop")
        body.get(self.granted)
        body.i32_const(0)
        body.op("i32.ne")

    # --- words ------------------------------------------------------------------------------------------

    def access(self, name: str, field: int) -> None:
        self.body.memory(name, field, memory=self.memory)

    def load(self, base: Local, field: int, name: str = "i32.load") -> None:
        self.body.get(base)
        self.access(name, field)

    def storing(self, base: Local, field: int, name: str = "i32.store") -> _Storing:
        """A ``with`` block that pushes what is stored."""
        return _Storing(self, base, field, name)

    def add(self, base: Local, field: int, amount: int) -> None:
        self.body.get(base)
        self.body.i32_const(amount)
        self.access("i32.atomic.rmw.add", field)
        self.body.op("drop")


@dataclass(frozen=True, slots=True)
class _Storing:
    writer: _Arbiter
    base: Local
    field: int
    name: str

    def __enter__(self) -> None:
        self.writer.body.get(self.base)

    def __exit__(self, *_: object) -> None:
        self.writer.access(self.name, self.field)
