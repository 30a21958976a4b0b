"""The part of the scheduler that carries out operations across the lanes of a warp."""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.compiler.contexts import EXITED, ROW_RESOLVER, ROW_WAITS, Contexts
from tensor_wasm.compiler.scheduler import I32, Writer, drop_lowest
from tensor_wasm.wasm import Body, Function, Local, Module


def resolve_warp(module: Module, contexts: Contexts, resolvers: Sequence[Function]) -> Function:
    """``(base, first, last, force) -> whether``: carry out one operation of the warp from ``first`` on, if one can be.

    Lanes take part together when they wait at the same operation with the same mask, wherever in the code. It is
    carried out when all lanes of the mask that still live are there; with ``force``, with those that are.
    """
    signature = module.type([I32, I32])
    table = module.table(len(resolvers), len(resolvers))
    module.elements(table, 0, resolvers)
    group_of = _group(module, contexts)
    w = Writer(module, 4, 1, "resolve_warp", contexts)
    body = w.body
    base, first, last, force = w.function.parameters
    alive, todo, thread, state, group, resolver = (w.local() for _ in range(6))
    _survey(w, (base, first, last), alive, todo)
    with body.block() as nothing, body.loop() as again:
        body.get(todo)
        body.op("i32.eqz")
        body.br_if(nothing)
        body.get(first)
        body.get(todo)
        body.op("i32.ctz", "i32.add")
        body.set(thread)
        w.load_state(base, thread, state)
        w.push_row(base, state, ROW_RESOLVER)
        body.set(resolver)
        body.get(base)
        body.get(first)
        body.get(todo)
        body.get(thread)
        body.get(resolver)
        body.call(group_of)
        body.set(group)
        # Complete: no lane of the mask that lives is missing; or one that does not wait, or must not.
        w.push_word(base, thread, 0)
        body.get(alive)
        body.op("i32.and")
        body.get(group)
        body.i32_const(-1)
        body.op("i32.xor", "i32.and", "i32.eqz")
        w.push_row(base, state, ROW_WAITS)
        body.op("i32.eqz", "i32.or")
        body.get(force)
        body.op("i32.or")
        with body.if_():
            w.push_mailbox(base, first)
            body.i32_const(contexts.mailboxes)
            body.op("i32.add")
            body.get(group)
            body.get(resolver)
            body.call_indirect(signature, table.index)
            _release(w, base, first, group)
            body.i32_const(1)
            body.op("return")
        body.get(todo)
        body.get(group)
        body.i32_const(-1)
        body.op("i32.xor", "i32.and")
        body.set(todo)
        body.br(again)
    body.i32_const(0)
    return w.function


def _survey(w: Writer, place: tuple[Local, Local, Local], alive: Local, todo: Local) -> None:
    """Which lanes live, and which wait at an operation of the warp."""
    body = w.body
    base, first, last = place
    thread, state = w.local(), w.local()
    body.get(first)
    body.set(thread)
    with body.loop() as again:
        w.load_state(base, thread, state)
        body.get(state)
        body.i32_const(EXITED)
        body.op("i32.ne")
        with body.if_():
            _add_lane(body, first, thread, alive)
            w.push_waits(state)
            with body.if_():
                w.push_row(base, state, ROW_RESOLVER)
                body.i32_const(0)
                body.op("i32.ge_s")
                with body.if_():
                    _add_lane(body, first, thread, todo)
        w.add(thread, 1)
        body.get(thread)
        body.get(last)
        body.op("i32.lt_u")
        body.br_if(again)


def _add_lane(body: Body, first: Local, thread: Local, mask: Local) -> None:
    body.get(mask)
    body.i32_const(1)
    body.get(thread)
    body.get(first)
    body.op("i32.sub", "i32.shl", "i32.or")
    body.set(mask)


def _group(module: Module, contexts: Contexts) -> Function:
    """``(base, first, todo, thread, resolver) -> lanes`` of ``todo`` that wait at the same with the thread's mask."""
    w = Writer(module, 5, 1, "group", contexts)
    body = w.body
    base, first, todo, thread, resolver = w.function.parameters
    mask, group, other, state, own, waits = (w.local() for _ in range(6))
    w.push_word(base, thread, 0)
    body.set(mask)
    w.load_state(base, thread, own)
    w.push_row(base, own, ROW_WAITS)
    body.set(waits)
    with body.loop() as again:
        body.get(first)
        body.get(todo)
        body.op("i32.ctz", "i32.add")
        body.set(other)
        w.load_state(base, other, state)
        w.push_row(base, state, ROW_RESOLVER)
        body.get(resolver)
        body.op("i32.eq")
        w.push_word(base, other, 0)
        body.get(mask)
        body.op("i32.eq", "i32.and")
        # What does not wait (`activemask`) asks who is here: at this very instruction.
        body.get(own)
        body.get(state)
        body.op("i32.eq")
        body.get(waits)
        body.op("i32.or", "i32.and")
        with body.if_():
            _add_lane(body, first, other, group)
        drop_lowest(body, todo)
        body.get(todo)
        body.br_if(again)
    body.get(group)
    return w.function


def _release(w: Writer, base: Local, first: Local, group: Local) -> None:
    """Make the lanes of a group ready."""
    body = w.body
    thread, state = w.local(), w.local()
    with body.loop() as again:
        body.get(first)
        body.get(group)
        body.op("i32.ctz", "i32.add")
        body.set(thread)
        w.load_state(base, thread, state)
        w.go_on(base, thread, state)
        drop_lowest(body, group)
        body.get(group)
        body.br_if(again)
