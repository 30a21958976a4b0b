"""Kernels that reach outside: every address is checked; what is not the launch's own is a fault of that invocation."""

from __future__ import annotations

import pytest

from security.attacked import Answer, Attacked
from security.guests import PROBE_BYTES, device_probe, entry, kernel_call, probe, u64
from tensor_wasm.abi import Tag, pack

_FAULT = "faulted"
#: Addresses that are nobody's: around the end of memory, 4 GiB, the windows of other spaces, the sign, the top.
_OUTSIDE = [
    PROBE_BYTES, PROBE_BYTES + 65_536, (1 << 32) - 8, 1 << 32, (1 << 32) + 8, (1 << 32) + PROBE_BYTES - 8, 2 << 32,
    (2 << 32) + 8, 3 << 32, (3 << 32) + 2048, 1 << 40, 1 << 47, (1 << 63) - 8, 1 << 63,
    -8, -4096, -(1 << 32), 0xFFFF << 48,
]  # fmt: skip


def run(node: Attacked, function: str, text: str, *values: int, **shape: int) -> Answer:
    args, data = kernel_call(text, [u64(value) for value in values], **shape)
    return node.invoke(function, "kernel", args, data)


def faults(answer: Answer) -> None:
    assert answer.kind == "trap", answer.body
    assert _FAULT in answer.message, answer.message


_ACCESSES = {
    "load": "ld.global.u64 %rd1, [%rd0]; st.global.u64 [0], %rd1;",
    "store": "st.global.u64 [%rd0], 7;",
    "generic load": "ld.u64 %rd1, [%rd0]; st.global.u64 [0], %rd1;",
    "generic store": "st.u64 [%rd0], 7;",
    "byte": "st.global.u8 [%rd0], 7;",
    "vector": "ld.global.v2.u64 {%rd1, %rd2}, [%rd0]; st.global.u64 [0], %rd2;",
    "cached": "ld.global.nc.u64 %rd1, [%rd0]; st.global.u64 [0], %rd1;",
    "volatile": "ld.volatile.global.u64 %rd1, [%rd0]; st.global.u64 [0], %rd1;",
    "atomic": "atom.global.add.u64 %rd1, [%rd0], 1; st.global.u64 [0], %rd1;",
    "exchange": "atom.global.cas.b64 %rd1, [%rd0], 0, 1; st.global.u64 [0], %rd1;",
    "reduction": "red.global.max.u64 [%rd0], 1;",
    "negative offset": "add.u64 %rd1, %rd0, 64; ld.global.u64 %rd2, [%rd1+-64]; st.global.u64 [0], %rd2;",
}


@pytest.mark.parametrize("access", _ACCESSES)
def test_global_accesses_outside_guest_memory(node: Attacked, function: str, access: str):
    """Bound: loads, stores and atomics of every kind reach the guest's own memory only; all else is a fault."""
    text = entry(_ACCESSES[access])
    for address in _OUTSIDE:
        faults(run(node, function, text, address))
    assert run(node, function, text, 64).result[0] == 0


def test_accesses_that_straddle_the_end(node: Attacked, function: str):
    """Bound: an access whose first byte is inside and whose last is not is a fault, and writes none of its bytes."""
    for size, access in ((16, "st.global.v2.u64 [%rd0], {%rd5, %rd6};"),
                         (16, "st.global.v4.u32 [%rd0], {%r1,%r2,%r3,%r4};"),
                         (8, "st.global.u64 [%rd0], %rd5;"), (4, "st.global.u32 [%rd0], %r1;")):  # fmt: skip
        text = entry(access)
        assert run(node, function, text, PROBE_BYTES - size).result[0] == 0
        for short in (size - 1, size // 2, 1):
            faults(run(node, function, text, PROBE_BYTES - short))


def test_addresses_that_a_loop_walks(node: Attacked, function: str):
    """Bound: a kernel that walks from its memory upwards or downwards faults at the first step outside."""
    for step in (8, 4096, -8, 1 << 31):
        text = entry(f"L: st.global.u64 [%rd0], 7; add.u64 %rd0, %rd0, {step}; bra L;")
        faults(run(node, function, text, PROBE_BYTES // 2))


_SHARED = ".shared .align 16 .b8 s[64];"
_SHARED_OUTSIDE = [64, 72, 128, 1024, 48 * 1024, 233_472, 1 << 20, 1 << 30, (1 << 31) - 8, 1 << 31, -8, -4, -64, -4096]


@pytest.mark.parametrize("space", ["static", "dynamic"])
def test_shared_addresses_out_of_range(node: Attacked, function: str, space: str):
    """Bound: shared accesses reach what the launch declared: nothing of another kernel's, nothing of the gate's."""
    before, base, dynamic = (
        (_SHARED, "mov.u32 %r1, s;", 0)
        if space == "static"
        else (".extern .shared .align 16 .b8 s[];", "mov.u32 %r1, s;", 64)
    )
    accesses = {
        "load": "ld.shared.u32 %r3, [%r2]; st.global.u32 [0], %r3;",
        "store": "st.shared.u32 [%r2], -1;",
        "atomic": "atom.shared.add.u32 %r3, [%r2], 1; st.global.u32 [0], %r3;",
    }
    for access in accesses.values():
        text = entry(base + "cvt.u32.u64 %r2, %rd0; add.u32 %r2, %r1, %r2;" + access, before=before)
        assert run(node, function, text, 60, shared=dynamic).result[0] == 0
        for offset in _SHARED_OUTSIDE:
            faults(run(node, function, text, offset, shared=dynamic))


def test_generic_addresses_made_from_any_number(node: Attacked, function: str):
    """Bound: cvta of a number that is no address of its space gives a number; to use it is a fault."""
    for space in ("shared", "local", "const", "global", "param"):
        for way in (f"cvta.{space}.u64", f"cvta.to.{space}.u64"):
            text = entry(
                f"{way} %rd1, %rd0; ld.u64 %rd2, [%rd1]; st.global.u64 [0], %rd2;",
                before=_SHARED,
            )
            for number in (PROBE_BYTES + 8, 0x10_0000, 1 << 33, 1 << 34, -16, 1 << 63):
                answer = run(node, function, text, number)
                if answer.status == 200:  # refused when it is loaded, or turned into an address of its own zeros
                    assert answer.result[:2] in ([-4, 0], [0, 0]), (way, hex(number), answer.result)
                else:
                    faults(answer)


def test_windows_hold_the_kernels_own_variables_only(node: Attacked, function: str):
    """Bound: through a window's addresses a kernel sees its own variables; a neighbour's secret is never among them."""
    secret = 0x5EC2_E7C0_FFEE_0001
    neighbour = entry(
        f"mov.u64 %rd1, g; cvta.global.u64 %rd1, %rd1; st.u64 [%rd1], {secret}; mov.u64 %rd2, s;"
        f"cvta.shared.u64 %rd2, %rd2; st.u64 [%rd2], {secret};",
        before=".global .align 8 .u64 g; .shared .align 8 .b8 s[64];",
    )
    assert run(node, function, neighbour, 0).result[0] == 0
    # Its own variable's address, and from there on in both directions: inside, or a fault.
    own = entry(
        "mov.u64 %rd1, g; cvta.global.u64 %rd1, %rd1; add.u64 %rd1, %rd1, %rd0; ld.u64 %rd2, [%rd1];"
        "st.global.u64 [0], %rd2;",
        before=".global .align 8 .b8 g[16];",
    )
    assert run(node, function, own, 0).result[:2] == [0, 0]
    assert run(node, function, own, 8).result[:2] == [0, 0]
    for offset in (16, 24, 64, 1024, 1 << 16, 1 << 20, 1 << 31, -8, -16, -2048, -4096, -8192, -(1 << 20)):
        faults(run(node, function, own, offset))


def test_parameters_beyond_their_end(node: Attacked, function: str):
    """Bound: parameter memory ends with the parameters: what lies behind, the gate's, is not read."""
    text = entry("mov.u64 %rd1, a; add.u64 %rd1, %rd1, %rd0; ld.param.u64 %rd2, [%rd1]; st.global.u64 [0], %rd2;")
    for offset in (8, 16, 4096, 1 << 20, -8, -2048):
        answer = run(node, function, text, offset)
        assert answer.kind == "trap" or answer.result[0] == -4, answer.body


def test_local_memory_of_other_threads(node: Attacked, function: str):
    """Bound: a thread's local memory is its own: a step outside it is a fault, not a neighbour's variable."""
    text = entry(
        ".local .align 8 .b8 l[16]; mov.u64 %rd1, l; add.u64 %rd1, %rd1, %rd0; st.local.u64 [%rd1], 7;"
        "ld.local.u64 %rd2, [%rd1]; st.global.u64 [0], %rd2;"
    )
    assert run(node, function, text, 8, block=64).result[:2] == [0, 7]
    for offset in (16, 32, 1024, 1 << 20, -8, -1024, 1 << 40):
        faults(run(node, function, text, offset, block=64))


_WINDOWS = [
    (PROBE_BYTES, 1), (PROBE_BYTES - 4, 8), ((1 << 32) - 4, 8), ((1 << 32) - 1, 1), (0, (1 << 32) - 1),
    (1 << 31, 1 << 31),
    ((1 << 32) - 8, 8), (8, (1 << 32) - 8),
]  # fmt: skip


def test_pointers_and_lengths_of_argv(node: Attacked, function: str):
    """Bound: argv's ranges are checked without wrapping at 4 GiB; a bad one is a code, and no kernel runs."""
    text = entry("st.global.u64 [0], 7;", parameters=".param .u64 a")
    for offset, length in _WINDOWS:
        args, data = kernel_call(text, [(Tag.POINTER, offset, length)])
        assert node.invoke(function, "kernel", args, data).result[:2] == [-2, 0], (offset, length)
    for pointer, size in (
        (-1, 1),
        (-4, 8),
        (PROBE_BYTES, 13),
        (PROBE_BYTES - 12, 13),
        (0, -1),
        (0, 1 << 31),
        (-(1 << 31), 4),
    ):
        assert node.invoke(function, "launch", [0, 1, pointer, size]).result[0] in (-2, -3), (pointer, size)
    assert len(pack([(Tag.POINTER, 0, 8)])) == 9


def test_pointers_and_lengths_of_copies(node: Attacked, function: str):
    """Bound: alloc, free and copies take any 64 bits and answer with a code; nothing wraps, nothing is touched."""
    edges = (0, 1, -1, 1 << 31, (1 << 31) - 1, -(1 << 31))
    for low in edges:
        for high in edges:
            if (low, high) in ((1, 0), ((1 << 31) - 1, 0)):
                continue
            assert node.invoke(function, "alloc", [low % (1 << 32), high % (1 << 32)]).result[0] in (-6, -9), (
                low,
                high,
            )
    for pointer, length in ((PROBE_BYTES, 1), (-1, 1), (0, -1), (PROBE_BYTES - 1, 2), (-4, 8)):
        assert node.invoke(function, "up", [1, 0, pointer % (1 << 32), length % (1 << 32)]).result == [-11]


def test_a_hoard_of_device_memory(node: Attacked, function: str):
    """Bound: 4,096 pieces, and the instance's memory limit over guest and device together; all of it comes back."""
    before = node.resident_bytes
    answers = node.invoke_many(8, function, "hoard", [1])
    assert {answer.result[0] for answer in answers} == {4096}
    for size in (1 << 20, 40 << 20):
        expected = (64 * (1 << 20) - PROBE_BYTES) // size
        for answer in node.invoke_many(8, function, "hoard", [size]):
            assert expected - 4 <= answer.result[0] <= expected
    assert node.resident_bytes < before + (128 << 20)


_DEVICE_BYTES = 10_000


def device_call(
    node: Attacked, function: str, text: str, *records: tuple[object, ...], size: int = _DEVICE_BYTES
) -> Answer:
    """Three allocations, then a launch."""
    (_, _, _, *lengths), data = kernel_call(text, records)
    return node.invoke(function, "device", [size, 3, *lengths], data)


def test_places_in_device_memory(node: Attacked):
    """Bound: a launch takes handles of its own instance that were not freed, and offsets inside; else none runs."""
    function = node.deploy(device_probe())
    text = entry("st.global.u64 [0], 7; st.global.u8 [%rd0], 7;")
    assert device_call(node, function, text, (Tag.DEVICE_POINTER, 2, 0)).result == [0, 7, 0, 7, 0]
    for handle in (0, 4, 4097, 4098, 1 << 12, 1 << 31, 1 << 32, (1 << 32) + 2, 1 << 63, (1 << 63) + 2, (1 << 64) - 1):
        assert device_call(node, function, text, (Tag.DEVICE_POINTER, handle, 0)).result == [-11, 0, 0, 0, 0], handle
    for offset in (_DEVICE_BYTES + 1, 1 << 14, 1 << 32, (1 << 32) - _DEVICE_BYTES, 1 << 63, (1 << 64) - 1):
        assert device_call(node, function, text, (Tag.DEVICE_POINTER, 2, offset)).result == [-2, 0, 0, 0, 0], offset
    old, data = kernel_call(text, [(Tag.DEVICE_POINTER, 1, 0)])
    assert node.invoke(node.deploy(probe()), "kernel", old, data).result[:2] == [-9, 0]


def test_device_memory_around_an_allocation(node: Attacked):
    """Bound: a kernel that leaves an allocation, in any direction, by any distance, faults; others stay as they are."""
    function = node.deploy(device_probe())
    here = (Tag.DEVICE_POINTER, 2, 0)
    text = entry(
        "ld.param.u64 %rd1, [b]; add.u64 %rd0, %rd0, %rd1; st.global.u8 [%rd0], 7;", ".param .u64 a, .param .u64 b"
    )
    assert device_call(node, function, text, here, u64(_DEVICE_BYTES - 1)).result == [0, 0, 0, 7, 0]
    for distance in (
        _DEVICE_BYTES,
        _DEVICE_BYTES + 4096,
        1 << 16,
        1 << 20,
        1 << 31,
        1 << 32,
        1 << 40,
        -4096,
        -65_536,
        -(1 << 32),
    ):
        faults(device_call(node, function, text, here, u64(distance)))
    for step in (1, 8, -8, 4096, -4096):
        walk = entry(f"L: st.global.u8 [%rd0], 7; add.u64 %rd0, %rd0, {step}; bra L;")
        faults(device_call(node, function, walk, here))
    # What lies between the guest's memory and its device memory, and what an instance before had there.
    search = entry(
        "L: ld.global.u64 %rd1, [%rd0]; setp.ne.u64 %p0, %rd1, 0; @%p0 bra F; add.u64 %rd0, %rd0, 4096; bra L;"
        "F: st.global.u64 [0], %rd1;"
    )
    for start in (PROBE_BYTES, 1 << 31, (1 << 32) - (1 << 20)):
        faults(device_call(node, function, search, u64(start)))


def test_kernels_that_never_end(node: Attacked, function: str):
    """Bound: the deadline ends a kernel wherever it is: a loop, a barrier that somebody misses, a wait for a word."""
    loop = entry("L: bra L;")
    barrier = entry("mov.u32 %r1, %tid.x; setp.eq.u32 %p0, %r1, 0; @%p0 bra L; bar.sync 0; L: @%p0 bra L;")
    spin = entry("L: ld.volatile.global.u32 %r1, [%rd0]; setp.eq.u32 %p0, %r1, 0; @%p0 bra L;")
    for text in (loop, barrier, spin):
        args, data = kernel_call(text, [u64(0)], grid=64, block=64)
        for answer in node.invoke_many(4, function, "kernel", args, data, 300):
            assert answer.kind == "invoke_timeout", answer.body


def test_a_flood_of_printing(node: Attacked, function: str):
    """Bound: what kernels print counts as the guest's output: 64 KiB here, the rest is counted and dropped."""
    text = entry(
        """
        .local .align 8 .b8 v[8];
        mov.u64 %rd1, v; cvta.local.u64 %rd1, %rd1; mov.u32 %r1, 0;
        mov.u64 %rd2, f; cvta.global.u64 %rd2, %rd2;
        L: st.local.u32 [v], %r1;
        { .param .b64 p0; .param .b64 p1; .param .b32 r0;
          st.param.b64 [p0], %rd2; st.param.b64 [p1], %rd1;
          call.uni (r0), vprintf, (p0, p1); }
        add.u32 %r1, %r1, 1; setp.lt.u32 %p0, %r1, 20000; @%p0 bra L;
        """,
        before=".extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);\n"
        ".global .align 1 .b8 f[16] = {37,100,32,27,91,50,74,10,37,100,10,0,0,0,0,0};",
    )
    args, data = kernel_call(text, [u64(0)], block=32)
    for answer in node.invoke_many(4, function, "kernel", args, data):
        assert answer.result[0] == 0
        body = answer.json
        assert len(body["stderr"]) <= 64 * 1024
