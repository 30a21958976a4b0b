"""Special registers: where a thread is, and what it may ask about the machine.

The machine is one multiprocessor, on however many cores its blocks run; a warp is 32 threads of ascending number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Special
from tensor_wasm.wasm import Body, Function, Global, Local, ValType

AXES: Final = ("x", "y", "z")

#: The compiler's own: a thread's index in the grid along x, of 32 bits or 64 (:mod:`.joining`).
GRID_INDEX: Final = "index in the grid"

#: What %clock and %globaltimer count, in cycles and nanoseconds: reads. So they rise, and a wait for them ends.
_READ_COSTS = 16


class Coordinates:
    """Locals of a kernel function that say where its thread is.

    ``body`` is its code; ``grid`` and ``block`` are the launch's sizes, ``block_index`` and ``thread_index`` the place
    in them, each x, y, z; ``thread`` is the thread's number in its block, x fastest. ``row`` is how many threads a row
    has: as many as the block, unless blocks are joined: then ``block_index`` is that of the first one, and what is of
    the block, but for its size, is of all of them as of one. A function that is given its
    block has ``block_index`` among its parameters. Code of one lane (``is_lane``) knows its thread alone.
    """

    def __init__(
        self,
        function: Function,
        clock: Global,
        block_index: tuple[Local, ...] | None = None,
        *,
        is_lane: bool = False,
    ) -> None:
        body = self.body = function.code
        launch = () if is_lane else function.parameters
        self.grid = launch[0:3]
        self.block = launch[3:6]
        self.row: Local | None = None if is_lane else launch[3]
        self.shared_bytes: Local | None = None if is_lane else launch[6]
        self.parameters: Local | None = None if is_lane else launch[7]
        self.block_index = () if is_lane else block_index or tuple(body.local(ValType.I32) for _ in AXES)
        self.thread_index = tuple(body.local(ValType.I32) for _ in AXES)
        self.thread = body.local(ValType.I32)
        self.clock = clock

    def push(self, body: Body, register: Special) -> None:
        """Push a special register's value, in the carrier of its type. Raises :class:`PtxError` for an unknown one."""
        if register.name == GRID_INDEX:
            self._push_grid_index(body, is_wide=register.type.bits == 64)
            return
        local = self._axis(register)
        if local is not None:
            body.get(local)
            is_wide = False
        elif register.name in _CONSTANTS:
            body.i32_const(_CONSTANTS[register.name])
            is_wide = False
        elif register.name in _WRITERS:
            is_wide = _WRITERS[register.name](self, body)
        else:
            axis = f".{register.axis}" if register.axis else ""
            raise PtxError(f"special register %{register.name}{axis} is not supported")
        if is_wide and register.type.bits <= 32:
            body.op("i32.wrap_i64")
        elif not is_wide and register.type.bits == 64:
            body.op("i64.extend_i32_u")
        if register.type.bits == 16:
            body.i32_const(0xFFFF)
            body.op("i32.and")

    def _push_grid_index(self, body: Body, *, is_wide: bool) -> None:
        prefix = "i64" if is_wide else "i32"
        for local, operation in (
            (self.block_index[0], ""),
            (self.block[0], f"{prefix}.mul"),
            (self.thread_index[0], f"{prefix}.add"),
        ):
            body.get(local)
            if is_wide:
                body.op("i64.extend_i32_u")
            if operation:
                body.op(operation)

    def _axis(self, register: Special) -> Local | None:
        vectors: Mapping[str, tuple[Local, ...]] = {
            "tid": self.thread_index,
            "ntid": self.block,
            "ctaid": self.block_index,
            "nctaid": self.grid,
            "clusterid": self.block_index,
            "nclusterid": self.grid,
        }
        vector = vectors.get(register.name)
        if vector is None or register.axis not in AXES:
            return None
        return vector[AXES.index(register.axis)]


def _lane(at: Coordinates, body: Body) -> bool:
    body.get(at.thread)
    body.i32_const(31)
    body.op("i32.and")
    return False


def _warp(at: Coordinates, body: Body) -> bool:
    body.get(at.thread)
    body.i32_const(5)
    body.op("i32.shr_u")
    return False


def _warps(at: Coordinates, body: Body) -> bool:
    x, y, z = at.block
    for local in (x, y, z):
        body.get(local)
    body.op("i32.mul", "i32.mul")
    body.i32_const(31)
    body.op("i32.add")
    body.i32_const(5)
    body.op("i32.shr_u")
    return False


def _lane_mask(*after: str) -> Callable[[Coordinates, Body], bool]:
    """The mask of the own lane, then operations on it; ``-1`` among them pushes that constant."""

    def write(at: Coordinates, body: Body) -> bool:
        body.i32_const(1)
        _lane(at, body)
        body.op("i32.shl")
        for operation in after:
            if operation == "-1":
                body.i32_const(-1)
            elif operation == "2x":
                body.i32_const(1)
                body.op("i32.shl")
            else:
                body.op(operation)
        return False

    return write


def _shared(at: Coordinates, body: Body) -> bool:
    assert at.shared_bytes is not None
    body.get(at.shared_bytes)
    return False


def _clock(at: Coordinates, body: Body) -> bool:
    body.global_get(at.clock)
    body.i64_const(_READ_COSTS)
    body.op("i64.add")
    body.global_set(at.clock)
    body.global_get(at.clock)
    return True


def _clock_high(at: Coordinates, body: Body) -> bool:
    _clock(at, body)
    body.i64_const(32)
    body.op("i64.shr_u")
    return True


_CONSTANTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "smid": 0,
        "nsmid": 1,
        "gridid": 0,
        "cluster_ctaid": 0,
        "cluster_nctaid": 1,
        "cluster_ctarank": 0,
        "cluster_nctarank": 1,
        "reserved_smem_offset_begin": 0,
        "reserved_smem_offset_end": 0,
        "reserved_smem_offset_cap": 0,
        "current_graph_exec": 0,
        "is_explicit_cluster": 0,
        **{f"envreg{number}": 0 for number in range(32)},
        **{f"pm{number}": 0 for number in range(8)},
        **{f"pm{number}_64": 0 for number in range(8)},
    }
)

_WRITERS: Final[Mapping[str, Callable[[Coordinates, Body], bool]]] = MappingProxyType(
    {
        "laneid": _lane,
        "warpid": _warp,
        "nwarpid": _warps,
        "lanemask_eq": _lane_mask(),
        "lanemask_lt": _lane_mask("-1", "i32.add"),
        "lanemask_ge": _lane_mask("-1", "i32.mul"),
        "lanemask_le": _lane_mask("2x", "-1", "i32.add"),
        "lanemask_gt": _lane_mask("2x", "-1", "i32.mul"),
        "total_smem_size": _shared,
        "aggr_smem_size": _shared,
        "dynamic_smem_size": _shared,
        "clock": _clock,
        "clock_hi": _clock_high,
        "clock64": _clock,
        "globaltimer": _clock,
        "globaltimer_lo": _clock,
        "globaltimer_hi": _clock_high,
    }
)
SUPPORTED: Final = frozenset({"tid", "ntid", "ctaid", "nctaid", "clusterid", "nclusterid", *_CONSTANTS, *_WRITERS})
"""Names of the special registers that :meth:`Coordinates.push` knows."""
