"""Which instructions are warp operations, and what resolves each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tensor_wasm.compiler.warp import match, matrices, mma, redux, shuffle, vote
from tensor_wasm.compiler.warp.mailbox import Builder
from tensor_wasm.compiler.warp.plans import Plan
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Instruction

_PLANNERS: Final[Mapping[str, Callable[[Instruction], Plan | None]]] = MappingProxyType(
    {
        "shfl": shuffle.plan,
        "vote": vote.plan_vote,
        "activemask": vote.plan_activemask,
        "elect": vote.plan_elect,
        "bar": vote.plan_barrier,
        "match": match.plan,
        "redux": redux.plan,
        "ldmatrix": matrices.plan_load,
        "movmatrix": matrices.plan_move,
        "mma": mma.plan,
    }
)

#: What writes the resolver of each key: ``(module, index of the memory with the mailboxes)`` to a function.
RESOLVERS: Final[Mapping[str, Builder]] = MappingProxyType(
    {**shuffle.RESOLVERS, **vote.RESOLVERS, **match.RESOLVERS, **redux.RESOLVERS, **matrices.RESOLVERS, **mma.RESOLVERS}
)


def handles(instruction: Instruction) -> bool:
    """Whether an instruction is a warp operation that :func:`plan` knows."""
    return _find(instruction) is not None


def plan(instruction: Instruction) -> Plan:
    """What the lowering has to do for a warp operation. Raises :class:`PtxError` where :func:`handles` is false."""
    found = _find(instruction)
    if found is None:
        counts = f"{len(instruction.sources)} sources and {len(instruction.destinations)} destinations"
        raise PtxError(f"{instruction.text} with {counts} is not supported", instruction.line, instruction.column)
    return found


def _find(instruction: Instruction) -> Plan | None:
    planner = _PLANNERS.get(instruction.root)
    return None if planner is None else planner(instruction)
