"""Mailboxes: how the lanes of a warp hand operands to a warp operation and get its results.

Lane L of a warp has its mailbox at ``mail + L * MAILBOX_BYTES``: first ``IN_WORDS`` words that the lane writes (word 0
is the membermask), then ``OUT_WORDS`` words that the resolver writes. A value of 64 bits takes two words, low first;
a predicate is a word, 0 or 1.

A *resolver* is a WebAssembly function ``(mail: i32, members: i32) -> ()`` that reads the operands of the lanes in
``members`` and writes their results. The mailboxes of other lanes, which may wait for something else, are afterwards
as they were, and no result depends on them. Nobody else may use a warp's mailboxes while its resolver runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tensor_wasm.compiler.values.formula import Scope, Value, constant, read
from tensor_wasm.wasm import Body, Function, Label, Local, Module, ValType

LANES: Final = 32
MAILBOX_BYTES: Final = 128
IN_WORDS: Final = 16
OUT_WORDS: Final = 16
WORD_BYTES: Final = 4
#: Where the operands and the results start, in bytes from the start of a mailbox.
IN_OFFSET: Final = 0
OUT_OFFSET: Final = IN_WORDS * WORD_BYTES
#: The operand word after the membermask.
FIRST: Final = 1

ALL_LANES: Final = 0xFFFF_FFFF
_MAILBOX_SHIFT: Final = MAILBOX_BYTES.bit_length() - 1

#: Writes a resolver into a module; the number is the index of the memory that holds the mailboxes.
Builder = Callable[[Module, int], Function]


@dataclass(frozen=True, slots=True)
class Box:
    """A mailbox while code is written: its lane, its address."""

    lane: Local
    address: Local


class Resolver(Scope):
    """The body of a resolver while it is written."""

    __slots__ = ("_mail", "_members", "memory")

    def __init__(self, function: Function, memory: int) -> None:
        super().__init__(function.code)
        self._mail, self._members = function.parameters
        self.memory = memory

    @property
    def mail(self) -> Value:
        """The address of lane 0's mailbox."""
        return read(self._mail)

    @property
    def members(self) -> Value:
        """Which lanes take part, a bit each."""
        return read(self._members)

    def operand(self, box: Box, word: int) -> Value:
        """Operand word ``word`` of a mailbox."""
        return self.word(read(box.address), word)

    def word(self, address: Value, word: int) -> Value:
        """Operand word ``word`` of the mailbox at ``address``."""

        def push(body: Body) -> None:
            address.push(body)
            body.memory("i32.load", IN_OFFSET + WORD_BYTES * word, memory=self.memory)

        return Value(ValType.I32, push)

    def give(self, box: Box, word: int, value: Value) -> None:
        """Write result word ``word`` of a mailbox."""
        self.body.get(box.address)
        value.push(self.body)
        self.body.memory("i32.store", OUT_OFFSET + WORD_BYTES * word, memory=self.memory)

    def give_all(self, lanes: Value, *values: Value) -> None:
        """Write the same results, from word 0 on, for every lane in ``lanes``."""
        kept = [self.let(value) for value in values]
        with self.each(lanes) as box:
            for word, value in enumerate(kept):
                self.give(box, word, value)

    @contextmanager
    def each(self, lanes: Value) -> Iterator[Box]:
        """What is written inside runs for every lane in ``lanes``, in ascending order."""
        body = self.body
        rest, lane, address = (body.local(ValType.I32) for _ in range(3))
        with body.block() as done:
            lanes.push(body)
            body.tee(rest)
            body.op("i32.eqz")
            body.br_if(done)
            with body.loop() as again:
                self._enter(rest, lane, address)
                yield Box(lane, address)
                without_lowest(read(rest)).push(body)
                body.tee(rest)
                body.br_if(again)
        body.release(rest, lane, address)

    def set(self, local: Local, value: Value) -> None:
        """Compute ``value`` into a local."""
        value.push(self.body)
        self.body.set(local)

    def _enter(self, rest: Local, lane: Local, address: Local) -> None:
        self.set(lane, read(rest).unary("ctz"))
        self.set(address, self.mail + (read(lane) << _MAILBOX_SHIFT))

    # --- four lanes at a time ---------------------------------------------------------------------------

    @contextmanager
    def each_four(self) -> Iterator[Local]:
        """What is written inside runs for each four lanes; gives the address of the first one's mailbox."""
        body = self.body
        address = body.local(ValType.I32)
        self.set(address, self.mail)
        with body.loop() as again:
            yield address
            self.step(address, self.mail, again)
        body.release(address)

    def step(self, address: Local, mail: Value, again: Label) -> None:
        """Go on with the next four mailboxes until there are no more."""
        self.set(address, read(address) + 4 * MAILBOX_BYTES)
        (read(address) - mail).compare("ne", LANES * MAILBOX_BYTES).push(self.body)
        self.body.br_if(again)

    def gather(self, address: Value, word: int, first: int = 0) -> Value:
        """Operand word ``word`` of four lanes from ``first`` after ``address`` on, as a vector of i32."""

        def push(body: Body) -> None:
            offset = IN_OFFSET + WORD_BYTES * word + MAILBOX_BYTES * first
            address.push(body)
            body.memory("v128.load32_zero", offset, memory=self.memory)
            for lane in range(1, 4):
                # The address goes below the vector, which is on the stack already.
                body.set(held)
                address.push(body)
                body.get(held)
                body.memory_lane("v128.load32_lane", lane, offset + MAILBOX_BYTES * lane, memory=self.memory)

        held = self.local(ValType.V128)
        return Value(ValType.V128, push)


def without_lowest(lanes: Value) -> Value:
    """``lanes`` without its lowest one; written out it reads ``lanes`` twice."""
    return lanes & (lanes - 1)


def has_lane(lanes: Value, lane: Value) -> Value:
    """Whether a lane is in ``lanes``: 1 or 0."""
    return lanes.shr_u(lane) & 1


def box_address(mail: Value, lane: Value) -> Value:
    """The address of a lane's mailbox."""
    return mail + (lane << _MAILBOX_SHIFT)


def vector(name: str, *operands: Value | bytes) -> Value:
    """The plain vector instruction ``name`` applied to operands; bytes stand for a constant of 16."""

    def push(body: Body) -> None:
        for operand in operands:
            if isinstance(operand, Value):
                operand.push(body)
            else:
                body.v128_const(operand)
        body.op(name)

    return Value(ValType.V128, push)


def shift(name: str, value: Value, amount: int) -> Value:
    """A vector shift (``"i32x4.shl"``) by a constant."""
    return vector(name, value, constant(ValType.I32, amount))


def shuffle(first: Value, second: Value, words: Sequence[int]) -> Value:
    """A vector of four words out of eight: those of ``first`` are 0 to 3, those of ``second`` 4 to 7."""

    def push(body: Body) -> None:
        first.push(body)
        second.push(body)
        body.shuffle([WORD_BYTES * word + byte for word in words for byte in range(WORD_BYTES)])

    return Value(ValType.V128, push)


def bits_of(truths: Value, shape: str = "i32x4") -> Value:
    """The highest bit of each element of a vector, as an i32."""

    def push(body: Body) -> None:
        truths.push(body)
        body.op(f"{shape}.bitmask")

    return Value(ValType.I32, push)


def words(*values: int) -> bytes:
    """A vector constant of 32-bit words; a single one fills it."""
    filled = values * 4 if len(values) == 1 else values
    return b"".join((value & 0xFFFF_FFFF).to_bytes(WORD_BYTES, "little") for value in filled)


def quads(value: int) -> bytes:
    """A vector constant with a 64-bit number twice."""
    return (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little") * 2


def builder(name: str, write: Callable[[Resolver], None]) -> Builder:
    """A builder of a resolver that ``write`` writes."""

    def build(module: Module, memory: int) -> Function:
        function = module.function([ValType.I32, ValType.I32], [], name=name)
        with Resolver(function, memory) as resolver:
            write(resolver)
        return function

    return build
