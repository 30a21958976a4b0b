"""Warp operations: what each asks of the lowering, and the WebAssembly functions that resolve them for a warp."""

from tensor_wasm.compiler.warp.mailbox import (
    IN_OFFSET,
    IN_WORDS,
    LANES,
    MAILBOX_BYTES,
    OUT_OFFSET,
    OUT_WORDS,
    WORD_BYTES,
    Builder,
)
from tensor_wasm.compiler.warp.plans import Operand, Plan
from tensor_wasm.compiler.warp.table import RESOLVERS, handles, plan

__all__ = [
    "IN_OFFSET",
    "IN_WORDS",
    "LANES",
    "MAILBOX_BYTES",
    "OUT_OFFSET",
    "OUT_WORDS",
    "RESOLVERS",
    "WORD_BYTES",
    "Builder",
    "Operand",
    "Plan",
    "handles",
    "plan",
]
