"""PTX text to typed program: lexer, parser, the opcode table, names and types checked, control flow.

:func:`read` does it all; :func:`support` says what of the result this release does not lower.
"""

from tensor_wasm.ptx.graph import Graph
from tensor_wasm.ptx.program import Kernel, Program
from tensor_wasm.ptx.reading import find_kernel, read, target_of
from tensor_wasm.ptx.support import Unsupported, support

__all__ = ["Graph", "Kernel", "Program", "Unsupported", "find_kernel", "read", "support", "target_of"]
