"""``tensor-wasm admin``: what an operator sees and does, a file a noun."""

from tensor_wasm.cli.admin.group import admin

__all__ = ["admin"]
