"""Making machine code of fenced texts, in another process than the one that has the GPU's context.

The driver has an assembler too, and while that works on a text, for up to a minute, no kernel of its process can be
launched: launches of all tenants wait for a lock of the driver's. Machine code only has to be loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tensor_wasm.abi.limits import BLOCK_THREADS_MAX
from tensor_wasm.device.cuda.blocks import is_bounded, widened
from tensor_wasm.device.cuda.nvjitlink import NvJitLink, NvJitLinkError
from tensor_wasm.device.fence import FencedKernel
from tensor_wasm.errors import InternalError, PtxError

_REGISTERS: Final = re.compile(rb"\bUsed (\d+) registers\b")
#: A GPU has so many for the threads of a block.
_REGISTERS_OF_BLOCK: Final = 65_536


@dataclass(frozen=True, slots=True)
class AssembledKernel:
    """A fenced kernel as machine code.

    With ``is_narrow`` it takes, or may take, more registers than there are for the largest blocks, and the text does
    not say that it has none of those. ``wide`` is the same with few enough, and slower for it; empty where there is
    none. The rest is as in :class:`~tensor_wasm.device.fence.FencedKernel`.
    """

    code: bytes
    name: str
    image: bytes
    is_narrow: bool
    wide: bytes = b""


@dataclass(frozen=True, slots=True)
class Assembler:
    """NVIDIA's library whose first number is ``library``, for GPUs of the architecture ``sm``."""

    library: int
    sm: str

    def assemble(self, fenced: FencedKernel, *, is_wide: bool = False) -> AssembledKernel:
        """A kernel's machine code. With ``is_wide`` the largest blocks can have it.

        Raises :class:`~tensor_wasm.errors.PtxError` with what is said of a text that is refused, or for which there is
        not enough memory, and :class:`~tensor_wasm.errors.InternalError` when the library does not work.
        """
        text = fenced.ptx.encode()
        text = widened(text) if is_wide else text
        try:
            code, log = NvJitLink(self.library).assemble(text, self.sm)
        except NvJitLinkError as error:
            if not error.log:
                raise InternalError(f"NVIDIA's assembler does not work: {error}") from error
            raise PtxError(f"the GPU's assembler refuses the kernel: {error.log}") from None
        except OSError as error:
            raise InternalError(f"NVIDIA's assembler is not there any more: {error}") from error
        # Where the log says it in other words some day, the kernel is assembled once more, which does no harm.
        found = [int(count) for count in _REGISTERS.findall(log)]
        is_few = bool(found) and max(found) * BLOCK_THREADS_MAX <= _REGISTERS_OF_BLOCK
        return AssembledKernel(code, fenced.name, fenced.image, not is_few and not is_bounded(text))
