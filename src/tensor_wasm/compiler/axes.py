"""Counting along the three axes of grids and blocks: structure for :mod:`.grid` and what it calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensor_wasm.compiler.special import Coordinates
from tensor_wasm.wasm import Body, Local


def skip_empty(body: Body, at: Coordinates) -> None:
    """Do nothing at all for a launch with an empty axis."""
    for local in (*at.grid, *at.block):
        body.get(local)
        body.op("i32.eqz")
    body.op(*["i32.or"] * 5)
    with body.if_():
        body.op("return")


def nest(body: Body, indices: Sequence[Local], limits: Sequence[Local], inside: Callable[[], None]) -> None:
    """Loop over some axes, the first one fastest; each limit is at least 1."""
    if not indices:
        inside()
        return
    index = indices[-1]
    body.i32_const(0)
    body.set(index)
    with body.loop() as again:
        nest(body, indices[:-1], limits, inside)
        increment(body, index)
        body.get(index)
        body.get(limits[len(indices) - 1])
        body.op("i32.lt_u")
        body.br_if(again)


def to_next_row(body: Body, index: Sequence[Local], limits: Sequence[Local]) -> None:
    """Go on to the next row, and plane, where an index has gone past the end of its row; past the last z stays so."""
    if len(index) == 1:
        return
    body.get(index[0])
    body.get(limits[0])
    body.op("i32.ge_u")
    with body.if_():
        body.i32_const(0)
        body.set(index[0])
        increment(body, index[1])
        to_next_row(body, index[1:], limits[1:])


def increment(body: Body, local: Local, amount: int = 1) -> None:
    """Add to an i32 local."""
    body.get(local)
    body.i32_const(amount)
    body.op("i32.add")
    body.set(local)


def push_least(body: Body, first: Local, second: Local) -> None:
    """Push the lesser of two i32, without signs."""
    body.get(first)
    body.get(second)
    body.get(first)
    body.get(second)
    body.op("i32.lt_u", "select")
