"""What a client knows of the node's state: what was acknowledged must be there, what was not may be either way."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from blake3 import blake3

from tensor_wasm.wasm import Module, ValType


class State(Enum):
    """``MAKING`` and ``ENDING``: the request was sent, and no answer came yet."""

    MAKING = "making"
    THERE = "there"
    ENDING = "ending"


@dataclass(slots=True)
class Function:
    tenant: int
    name: str
    value: int
    digest: str
    size_bytes: int
    state: State = State.MAKING
    id: str | None = None


@dataclass(slots=True)
class Token:
    name: str
    state: State = State.MAKING
    id: str | None = None
    secret: str | None = None


@dataclass(slots=True)
class Job:
    id: str
    tenant: int
    value: int


@dataclass(slots=True)
class Kernel:
    tenant: int
    name: str
    digest: str
    state: State = State.MAKING


@dataclass(slots=True)
class Model:
    """What one client made. Only it changes these things, one request after another."""

    functions: dict[str, Function] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    #: The weights that a tenant may have: the last acknowledged one, and one that was asked for since.
    weights: dict[int, set[int | None]] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    #: Secrets of tokens whose revocation was acknowledged.
    revoked: list[str] = field(default_factory=list)
    #: Ids of functions whose deletion was acknowledged.
    deleted: set[str] = field(default_factory=set)


def module(value: int, padding: bytes) -> bytes:
    """A module whose ``run`` returns ``value``."""
    made = Module()
    made.memory(2, export="memory")
    if padding:
        made.data(padding, 0)
    run = made.function([], [ValType.I32], export="run")
    run.code.i32_const(value)
    return made.encode().wasm


def ptx(comment: str) -> bytes:
    """A kernel that does nothing, unlike any with another comment."""
    head = f"// {comment}\n.version 7.0\n.target sm_70\n.address_size 64\n"
    return (head + ".visible .entry nothing()\n{\n    ret;\n}\n").encode()


def digest_of(data: bytes) -> str:
    return blake3(data).hexdigest()
