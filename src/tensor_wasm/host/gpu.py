"""What the module that launches on a GPU asks of the host: room for windows, copies of large ones, an ending.

No guest can import these: a guest's link hands them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from tensor_wasm.abi import Signature
from tensor_wasm.dispatch.link_module import BIND_MODULE, LinkedImport
from tensor_wasm.errors import KernelFault
from tensor_wasm.host.guest import Guest
from tensor_wasm.host.guest_gpu import GuestGpu
from tensor_wasm.runtime import HostFunction

#: In the order in which the module that launches imports them.
_SIGNATURES: Final = {
    "reach": Signature(("i32", "i32"), ("i32",)),
    "fetch": Signature((), ()),
    "fail": Signature(("i32", "i32"), ()),
}
IMPORTS: Final = tuple(LinkedImport(BIND_MODULE, name, signature) for name, signature in _SIGNATURES.items())
_U32: Final = (1 << 32) - 1


def functions() -> Iterator[HostFunction]:
    """The host functions."""
    calls: dict[str, Callable[[Guest, Any], None]] = {"reach": _reach, "fetch": _fetch, "fail": _fail}
    for name, signature in _SIGNATURES.items():
        yield HostFunction(BIND_MODULE, name, signature.parameters, signature.results, calls[name])


def _reach(guest: Guest, values: Any) -> None:
    low, high = values[0].i32 & _U32, values[1].i32 & _U32
    values[0].i32 = _gpu(guest).reach(low, high or 1 << 32, guest.interrupt)


def _fetch(guest: Guest, _values: Any) -> None:
    _gpu(guest).fetch(guest.slot.kernel, guest.interrupt)


def _fail(guest: Guest, values: Any) -> None:
    error = _gpu(guest).failure(values[0].i32, values[1].i32 & _U32, guest.slot.kernel)
    if isinstance(error, KernelFault):
        guest.services.ledger.count_fault(guest.slot)
    raise error


def _gpu(guest: Guest) -> GuestGpu:
    assert guest.gpu is not None, "only a guest with kernels on a GPU has the module that asks"
    return guest.gpu
