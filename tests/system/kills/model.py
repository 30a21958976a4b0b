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
    is_warm: bool = False


@dataclass(slots=True)
class Snapshot:
    """Of an instance of a function that gives ``value``, after so many calls of ``step``; ``function`` is its name."""

    id: str
    tenant: int
    function: str
    value: int
    steps: int
    digest: str
    state: State = State.THERE


@dataclass(slots=True)
class Keyed:
    """A request that came with an Idempotency-Key, and the id of what it made."""

    tenant: int
    path: str
    body: dict[str, object]
    key: str
    id: str
    function: str


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
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    #: Captures that were asked for and not answered: what each may have made, under an id that nobody was told.
    capturing: list[Snapshot] = field(default_factory=list)
    keyed: list[Keyed] = field(default_factory=list)
    #: Secrets of tokens whose revocation was acknowledged.
    revoked: list[str] = field(default_factory=list)
    #: Ids of functions whose deletion was acknowledged.
    deleted: set[str] = field(default_factory=set)


_VALUE_AT, _STEPS_AT = 65_536, 65_552


def module(value: int, padding: bytes, *, is_warm: bool = False) -> bytes:
    """A module whose ``run`` returns ``value``; ``step`` how often it was called.

    One that is warm returns it only once ``init`` has run.
    """
    made = Module()
    made.memory(2, export="memory")
    if padding:
        made.data(padding, 0)
    run = made.function([], [ValType.I32], export="run").code
    if is_warm:
        init = made.function([], [], export="init").code
        init.i32_const(_VALUE_AT)
        init.i32_const(value)
        init.memory("i32.store")
        run.i32_const(_VALUE_AT)
        run.memory("i32.load")
    else:
        run.i32_const(value)
    step = made.function([], [ValType.I32], export="step").code
    step.i32_const(_STEPS_AT)
    step.i32_const(_STEPS_AT)
    step.memory("i32.load")
    step.i32_const(1)
    step.op("i32.add")
    step.memory("i32.store")
    step.i32_const(_STEPS_AT)
    step.memory("i32.load")
    return made.encode().wasm


def ptx(comment: str) -> bytes:
    """A kernel that does nothing, unlike any with another comment."""
    head = f"// {comment}\n.version 7.0\n.target sm_70\n.address_size 64\n"
    return (head + ".visible .entry nothing()\n{\n    ret;\n}\n").encode()


def digest_of(data: bytes) -> str:
    return blake3(data).hexdigest()
