"""Limits on one function, so that compiling what the compiler wrote takes bounded time and memory."""

from __future__ import annotations

from tensor_wasm.errors import PtxError
from tensor_wasm.ptx.program import Kernel
from tensor_wasm.wasm import Body

#: Engines take functions of up to 7.6 MB, but Cranelift's time grows with the square of the code whose values are the
#: same for all threads (it moves those out of the loops and keeps them all): 1.3 s for 140 kB of nothing else.
FUNCTION_BYTES_MAX = 1 << 20

#: The engines' limit on the locals of one function.
LOCALS_MAX = 50_000

#: Locals that a function has besides registers: indices, parameters, temporaries.
LOCALS_RESERVED = 2_000


class TooLarge(PtxError):
    """The code for strips of some width is too large; for narrower ones it may not be."""


def check_size(kernel: Kernel, code: Body) -> None:
    """Raises :class:`TooLarge` when a function became too large."""
    if code.size > FUNCTION_BYTES_MAX:
        text = f"kernel {kernel.name} is too large: {code.size} bytes of code of {FUNCTION_BYTES_MAX}"
        raise TooLarge(text, kernel.line, 1)
