"""A node's errors as the classes of :mod:`tensor_wasm.errors`, by their kind."""

from __future__ import annotations

import re

from tensor_wasm.api.errors import RemoteError
from tensor_wasm.errors import RateLimited, TensorWasmError

_SECONDS = re.compile(r"[0-9]{1,6}", re.ASCII)


class Kinds:
    """The error class of each kind: of several that share one the most general, which a node's answer does not tell."""

    def __init__(self) -> None:
        self._classes: dict[str, type[TensorWasmError]] = {}
        waiting: list[type[TensorWasmError]] = TensorWasmError.__subclasses__()
        while waiting:
            error = waiting.pop(0)
            if "kind" in vars(error) and error.__module__ == TensorWasmError.__module__:
                self._classes.setdefault(error.kind, error)
            waiting.extend(error.__subclasses__())

    def error(
        self,
        kind: str,
        message: str,
        status: int = 500,
        request_id: str | None = None,
        retry_after: str | None = None,
    ) -> TensorWasmError:
        """The error of a kind; :class:`RemoteError` for one that this release does not know."""
        known = self._classes.get(kind)
        error: TensorWasmError
        if known is None:
            error = RemoteError(kind, message, status)
        elif known is RateLimited and retry_after is not None and _SECONDS.fullmatch(retry_after):
            error = RateLimited(message, int(retry_after))
        else:
            error = known(message)
        error.request_id = request_id
        return error
