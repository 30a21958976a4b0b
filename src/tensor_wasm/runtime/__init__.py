"""The boundary with Wasmtime: bindings, engine, module cache, stores, memory. Knows nothing of HTTP or tenants."""

from tensor_wasm.runtime.allocator import give_back_large_blocks
from tensor_wasm.runtime.annex import Annex, Piece, Region
from tensor_wasm.runtime.cache import KEPT_CODE_BYTES, ModuleCache, SealedFiles
from tensor_wasm.runtime.endings import Failure, Frame
from tensor_wasm.runtime.engine import CHECK_TICKS, CHECK_TICKS_MAX, EPOCH_TICK_S, Engine, Module
from tensor_wasm.runtime.linker import HostFunction, Linker, Template
from tensor_wasm.runtime.memory import Budget, MemoryPool, SharedBudget
from tensor_wasm.runtime.pages import PAGE_BYTES, Pages
from tensor_wasm.runtime.priority import (
    FIRST_NICENESS,
    FURTHER_NICENESS,
    asleep,
    begin_call,
    is_spent,
    let_others_first,
    step_back,
)
from tensor_wasm.runtime.recent import Recent
from tensor_wasm.runtime.shared import FileMemory, SharedMemory
from tensor_wasm.runtime.spans import Spans
from tensor_wasm.runtime.store import MAX_VALUES, TABLE_ELEMENTS, CallFailed, Instance, Output, Store, TableEntry

__all__ = [
    "CHECK_TICKS",
    "CHECK_TICKS_MAX",
    "EPOCH_TICK_S",
    "FIRST_NICENESS",
    "FURTHER_NICENESS",
    "KEPT_CODE_BYTES",
    "MAX_VALUES",
    "PAGE_BYTES",
    "TABLE_ELEMENTS",
    "Annex",
    "Budget",
    "CallFailed",
    "Engine",
    "Failure",
    "FileMemory",
    "Frame",
    "HostFunction",
    "Instance",
    "Linker",
    "MemoryPool",
    "Module",
    "ModuleCache",
    "Output",
    "Pages",
    "Piece",
    "Recent",
    "Region",
    "SealedFiles",
    "SharedBudget",
    "SharedMemory",
    "Spans",
    "Store",
    "TableEntry",
    "Template",
    "asleep",
    "begin_call",
    "give_back_large_blocks",
    "is_spent",
    "let_others_first",
    "step_back",
]
