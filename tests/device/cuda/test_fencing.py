"""Texts read and fenced in compiler processes are what they are in this one, and cost no more than a limit allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from device.ptx_texts import HEAD
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.cuda.fencing import Draft, Order, Reader, read_here, reader_of
from tensor_wasm.device.fence import Partition
from tensor_wasm.errors import DeadlineExceeded, InternalError, PtxError

VECTOR_ADD = (Path(__file__).parents[2] / "corpus" / "vector_add.ptx").read_bytes()
PARTITION = Partition(1 << 30, 1 << 24)
BASE = PARTITION.base + 4096
#: A text that is for the processes at once, however young they are.
PADDING = b"// " + b"x" * (100 << 10) + b"\n"
VARIABLES = (
    HEAD
    + """
.global .align 4 .u32 counter = 7;
.visible .entry counts(.param .u64 .ptr .global .align 4 out, .param .align 8 .b8 pair[16])
.reqntid 32, 2, 1
{
    .reg .pred %p<2>;
    .reg .b32 %r<4>;
    ld.global.u32 %r1, [counter];
    setp.ne.u32 %p1, %r1, 0;
    @%p1 ret;
    trap;
}
"""
).encode()
#: Takes seconds to read.
LONG = (
    HEAD + ".visible .entry long()\n{\n    .reg .b32 %r<4>;\n" + "    add.u32 %r1, %r2, 1;\n" * 200_000 + "}\n"
).encode()


@pytest.fixture(scope="module")
def compilers() -> Iterator[Compilers]:
    pool = Compilers(1, 60.0)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def elsewhere(compilers: Compilers) -> Reader:
    return reader_of(compilers)


@pytest.mark.parametrize(("text", "entry"), [(VECTOR_ADD, "vector_add"), (VARIABLES, "counts")])
@pytest.mark.parametrize("is_checked", [False, True])
def test_a_kernel_fenced_elsewhere_is_the_same(elsewhere: Reader, text: bytes, entry: str, is_checked: bool) -> None:
    here, there = read_here(text + PADDING, entry), elsewhere(text + PADDING, entry, lambda: None)
    assert type(there) is not type(here)
    assert there.draft == here.draft
    fenced = [one.fence(PARTITION, BASE, "sm_90", is_checked=is_checked) for one in (here, there)]
    assert fenced[0] == fenced[1]


def test_a_draft_says_what_the_text_does() -> None:
    draft = read_here(VARIABLES, "counts").draft
    assert (draft.name, draft.reqntid, draft.maxntid, draft.target) == ("counts", (32, 2, 1), None, "sm_80")
    assert [(p.name, p.kind, p.size_bytes, p.offset) for p in draft.parameters] == [
        ("out", "u64", 8, 0),
        ("pair", "b8[16]", 16, 8),
    ]
    assert draft.parameter_bytes == 24
    assert draft.has_variables
    assert draft.trap_lines == {next(n for n, line in enumerate(VARIABLES.splitlines(), 1) if b"trap;" in line)}
    assert not read_here(VECTOR_ADD, "vector_add").draft.has_variables


def test_drafts_and_orders_are_read_as_they_were_written() -> None:
    draft = read_here(VARIABLES, "counts").draft
    assert Draft.decode(draft.encode()) == draft
    order = Order("k\udc80", PARTITION, BASE, "sm_90", True)
    assert Order.decode(order.encode()) == order
    for text in (b"", b"[]", b"{}", b"[1, 2]"):
        with pytest.raises(InternalError):
            Draft.decode(text)


def test_a_text_that_is_none_is_refused_with_its_place(elsewhere: Reader) -> None:
    with pytest.raises(PtxError) as caught:
        elsewhere(VECTOR_ADD.replace(b"ret;", b"frobnicate;") + PADDING, "vector_add", None)
    assert caught.value.line > 1
    with pytest.raises(PtxError, match="no entry"):
        elsewhere(VECTOR_ADD + PADDING, "other", None)


def test_an_image_outside_of_the_partition_is_refused(elsewhere: Reader) -> None:
    kernel = elsewhere(VARIABLES + PADDING, "counts", None)
    with pytest.raises(PtxError, match="do not fit"):
        kernel.fence(PARTITION, PARTITION.base - 4096, "sm_90", is_checked=False)


def test_who_waits_may_be_ended(elsewhere: Reader) -> None:
    with pytest.raises(DeadlineExceeded):
        elsewhere(LONG, "long", lambda: DeadlineExceeded("now"))


@pytest.mark.slow
def test_a_text_that_takes_too_long_is_refused() -> None:
    pool = Compilers(1, 0.5)
    try:
        with pytest.raises(PtxError, match=r"takes too long to compile: the limit is 0\.5 s"):
            reader_of(pool)(LONG, "long", None)
    finally:
        pool.close()


def test_without_processes_texts_are_read_here() -> None:
    pool = Compilers(0, 30.0)
    for compilers in (None, pool):
        kernel = reader_of(compilers)(VECTOR_ADD + PADDING, "vector_add", None)
        assert type(kernel) is type(read_here(VECTOR_ADD, "vector_add"))
    pool.close()
