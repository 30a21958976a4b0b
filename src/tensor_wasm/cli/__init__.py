"""The command line: a file a command, none of which holds logic of the runtime."""

from tensor_wasm.cli.root import main

__all__ = ["main"]
