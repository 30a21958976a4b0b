"""The gate (what a launch passes, in WebAssembly) and the ledger (permits and counters, in shared memory)."""

from tensor_wasm.dispatch.gate import Gate, GateFactory, GuestLink
from tensor_wasm.dispatch.ledger import Histogram, Ledger, LedgerView, Share, Slot, TenantCounters
from tensor_wasm.dispatch.rings import Event, Events, FilledRing
from tensor_wasm.dispatch.scratch import KernelEntry

__all__ = [
    "Event",
    "Events",
    "FilledRing",
    "Gate",
    "GateFactory",
    "GuestLink",
    "Histogram",
    "KernelEntry",
    "Ledger",
    "LedgerView",
    "Share",
    "Slot",
    "TenantCounters",
]
