"""What only a client of a node meets. A node's own errors keep their class, see :mod:`tensor_wasm.errors`.

::

    TensorWasmError
    ├── Unreachable      no node answers there, or the connection broke: whether the request had its effect is not known
    ├── AnswerTimeout    nothing came in time
    └── RemoteError      an error of a kind that this release does not know
"""

from __future__ import annotations

from tensor_wasm.errors import TensorWasmError


class Unreachable(TensorWasmError):
    """No node answers at the URL, what answers is none, or the connection broke before the answer was whole."""

    kind = "server_unreachable"
    exit_code = 3


class AnswerTimeout(TensorWasmError):
    """The node gave no answer in time, though it should have: what it was to do may be done or not."""

    kind = "timeout"
    http_status = 504
    exit_code = 124


class RemoteError(TensorWasmError):
    """An error of a kind that this release does not know; ``kind`` and ``http_status`` are those of the answer."""

    def __init__(self, kind: str, text: str, http_status: int = 500) -> None:
        self.kind = kind
        self.http_status = http_status
        super().__init__(text)
