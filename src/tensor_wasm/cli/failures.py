"""What ends a command early: a kind, one line for people, an exit code."""

from __future__ import annotations

from enum import IntEnum
from functools import cache

from tensor_wasm.api.errors import Unreachable
from tensor_wasm.errors import TensorWasmError


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    DENIED = 4
    NOT_FOUND = 5
    DEADLINE = 124
    INTERRUPTED = 130


_CODES_BY_STATUS = {
    401: ExitCode.DENIED,
    403: ExitCode.DENIED,
    404: ExitCode.NOT_FOUND,
    421: ExitCode.DENIED,
    504: ExitCode.DEADLINE,
}


class Failure(Exception):
    """A command cannot go on. ``kind`` is contract, ``message`` is for people, ``request_id`` finds the node's log."""

    def __init__(
        self, kind: str, message: str, exit_code: int = ExitCode.FAILED, request_id: str | None = None
    ) -> None:
        self.kind = kind
        self.message = message
        self.exit_code = int(exit_code)
        self.request_id = request_id
        super().__init__(message)


def usage(message: str) -> Failure:
    """The failure of arguments that cannot be used."""
    return Failure("usage", message, ExitCode.USAGE)


def unreachable(message: str) -> Failure:
    """The failure of a server that does not answer, or not as a node does."""
    return Failure(Unreachable.kind, message, ExitCode.UNREACHABLE)


def exit_code_of(kind: str, status: int) -> int:
    """The exit code for an error a node answered with: by its kind, by the HTTP status when the kind is not known."""
    return _codes_by_kind().get(kind, int(_CODES_BY_STATUS.get(status, ExitCode.FAILED)))


@cache
def _codes_by_kind() -> dict[str, int]:
    codes: dict[str, int] = {}
    waiting: list[type[TensorWasmError]] = [TensorWasmError]
    while waiting:
        error = waiting.pop()
        codes.setdefault(error.kind, error.exit_code)
        waiting.extend(error.__subclasses__())
    return codes
