"""Kernels that try to leave their partition, by every way there is to address memory.

They run on processors, in a memory that holds their partition between canaries: what is read from outside would show
in their results, and what is written there in the canaries, which `FencedMachine` looks after.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from kernels.fenced import CANARY, FencedMachine
from tensor_wasm.device.fence import FAULT_BYTES, GUARD_BYTES, Partition, confine, fence, lay_out
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import Program, read
from tensor_wasm.runtime import Engine

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
#: Distances from the partition's own array at which a neighbour has something, and some that wrap.
DISTANCES = (
    -1 << 13, -1 << 16, 1 << 13, 1 << 14, 1 << 16, (1 << 16) + 64, 4096 - (1 << 20), 1 << 40, -1 << 63, (1 << 63) - 16,
)  # fmt: skip
SECRET = int.from_bytes(bytes([CANARY]) * 4, "little")


@pytest.fixture(scope="module")
def machine(engine: Engine) -> FencedMachine:
    return FencedMachine(engine)


def program(body: str, registers: str = "", before: str = "") -> Program:
    """A kernel ``k(array, distance)``: %rd1 is the array's address, %rd2 that plus the distance."""
    return read(
        f"""{HEAD}{before}
        .visible .entry k(.param .u64 array, .param .s64 distance) {{
        .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<32>; .reg .f32 %f<8>; .reg .b64 %rd<16>; .reg .f64 %d<4>;
        {registers}
        ld.param.u64 %rd1, [array]; ld.param.s64 %rd3, [distance]; add.s64 %rd2, %rd1, %rd3;
        {body}
        ret; }}"""
    )


def launch(machine: FencedMachine, whole: Program, distance: int = 0, **options: object) -> np.ndarray:
    array = np.zeros(64, np.uint32)
    machine.run_entry(whole, "k", 1, options.pop("block", 1), array, np.int64(distance), **options)
    return array


# --- reading --------------------------------------------------------------------------------------------------------

READS = {
    "global": "ld.global.u32 %r1, [%rd2];",
    "volatile": "ld.volatile.global.u32 %r1, [%rd2];",
    "relaxed": "ld.relaxed.gpu.global.u32 %r1, [%rd2];",
    "read only": "ld.global.nc.u32 %r1, [%rd2];",
    "uniform": "ldu.global.u32 %r1, [%rd2];",
    "generic": "ld.u32 %r1, [%rd2];",
    "guarded": "setp.ne.s64 %p1, %rd3, 0; @%p1 ld.global.u32 %r1, [%rd2];",
    "second of two": "ld.global.v2.u32 {%r2, %r1}, [%rd2];",
    "last of four": "ld.global.v4.u32 {%r2, %r3, %r4, %r1}, [%rd2];",
    "64 bits": "ld.global.u64 %rd4, [%rd2]; cvt.u32.u64 %r1, %rd4;",
    "with an offset": "ld.global.u32 %r1, [%rd2+4];",
    "below": "ld.global.u32 %r1, [%rd2+-4];",
    "converted": "cvta.to.global.u64 %rd4, %rd2; ld.global.u32 %r1, [%rd4];",
    "converted twice": "cvta.global.u64 %rd4, %rd2; cvta.to.global.u64 %rd5, %rd4; ld.global.u32 %r1, [%rd5];",
    "by an addition": "mov.u32 %r2, 0; atom.global.add.u32 %r1, [%rd2], %r2;",
    "by an exchange": "mov.u32 %r2, 0; atom.global.exch.b32 %r1, [%rd2], %r2;",
    "by a comparison": "mov.u32 %r2, 0; atom.cas.b32 %r1, [%rd2], %r2, %r2;",
    "by a maximum": "mov.u32 %r2, 0; atom.global.max.u32 %r1, [%rd2], %r2;",
    "by an asynchronous copy": """mov.u32 %r2, buffer; cp.async.ca.shared.global [%r2], [%rd2], 4;
        cp.async.commit_group; cp.async.wait_all; ld.shared.u32 %r1, [buffer];""",
}


@pytest.mark.parametrize("way", READS)
def test_nothing_is_read_from_outside(machine: FencedMachine, way: str) -> None:
    shared = ".shared .align 16 .b8 buffer[16];" if "buffer" in READS[way] else ""
    whole = program(f"{READS[way]} st.global.u32 [%rd1], %r1;", shared)
    for distance in DISTANCES:
        assert launch(machine, whole, distance)[0] != SECRET, distance


@pytest.mark.parametrize("distance", [GUARD_BYTES, -GUARD_BYTES - 4, 1 << 20, -(1 << 20), (1 << 31) - 4])
@pytest.mark.parametrize("base", ["%rd1", "%rd2"])
def test_nothing_is_read_by_offsets_that_the_text_has(machine: FencedMachine, distance: int, base: str) -> None:
    whole = program(f"ld.global.u32 %r1, [{base}+{distance}]; st.global.u32 [%rd1], %r1;")
    assert launch(machine, whole, 1 << 13)[0] != SECRET


@pytest.mark.parametrize("address", [0, 64, (1 << 20) - 4, (1 << 20) + (1 << 13), (1 << 32) - 4])
def test_nothing_is_read_at_addresses_that_the_text_has(machine: FencedMachine, address: int) -> None:
    whole = program(f"ld.global.u32 %r1, [{address}]; st.global.u32 [%rd1], %r1;")
    assert launch(machine, whole)[0] != SECRET


# --- writing --------------------------------------------------------------------------------------------------------

WRITES = {
    "global": "st.global.u32 [%rd2], %r1;",
    "volatile": "st.volatile.global.u32 [%rd2], %r1;",
    "released": "st.release.gpu.global.u32 [%rd2], %r1;",
    "generic": "st.u32 [%rd2], %r1;",
    "a byte": "st.global.u8 [%rd2], %r1;",
    "four": "st.global.v4.u32 [%rd2], {%r1, %r1, %r1, %r1};",
    "guarded": "setp.ne.s64 %p1, %rd3, 0; @%p1 st.global.u32 [%rd2], %r1;",
    "with an offset": "st.global.u32 [%rd2+8], %r1;",
    "by an addition": "red.global.add.u32 [%rd2], %r1;",
    "by a generic addition": "red.add.u32 [%rd2], %r1;",
    "by an exchange": "atom.global.exch.b32 %r2, [%rd2], %r1;",
    "by bits": "atom.global.or.b32 %r2, [%rd2], %r1;",
    "by a float": "mov.f32 %f1, 0f3F800000; red.global.add.f32 [%rd2], %f1;",
    "the register changes": "st.global.u32 [%rd1], %r1; mov.u64 %rd1, %rd2; st.global.u32 [%rd1], %r1;",
    "in a loop": """mov.u32 %r3, 0;
        again: st.global.u32 [%rd2], %r1; add.s64 %rd2, %rd2, %rd3; add.u32 %r3, %r3, 1;
        setp.lt.u32 %p1, %r3, 9; @%p1 bra again;""",
}


@pytest.mark.parametrize("way", WRITES)
def test_nothing_is_written_outside(machine: FencedMachine, way: str) -> None:
    whole = program(f"mov.u32 %r1, 305419896; {WRITES[way]}")
    for distance in DISTANCES:
        launch(machine, whole, distance)


def test_a_register_that_changes_is_confined_anew(machine: FencedMachine) -> None:
    whole = program("""mov.u32 %r1, 5; st.global.u32 [%rd1], %r1; add.s64 %rd1, %rd1, 8; st.global.u32 [%rd1], %r1;
        setp.ne.s64 %p1, %rd3, 0; @%p1 add.s64 %rd1, %rd1, 8; st.global.u32 [%rd1+4], %r1;""")
    assert launch(machine, whole, 1)[:6].tolist() == [5, 0, 5, 0, 0, 5]


def test_hints_to_caches_are_left_out(machine: FencedMachine) -> None:
    """`discard` would let what others wrote be forgotten."""
    whole = program(
        "discard.global.L2 [%rd2], 128; prefetch.global.L2 [%rd2]; applypriority.L2::evict_normal [%rd2], 128;"
    )
    launch(machine, whole, 1 << 16)
    ptx = fence(whole, "k", Partition(1 << 20, 1 << 13), 1 << 20).ptx
    assert not any(word in ptx for word in ("discard", "prefetch", "applypriority"))


# --- what is a thread's or a block's own ----------------------------------------------------------------------------


def test_registers_local_and_shared_memory_begin_as_zeros(machine: FencedMachine) -> None:
    """A second launch on memory that the first one filled finds nothing of it."""
    whole = program(
        """mov.u32 %r9, %tid.x; mul.wide.u32 %rd4, %r9, 4; add.s64 %rd5, %rd1, %rd4;
        ld.shared.u32 %r1, [buffer+124]; ld.local.u32 %r2, [mine+1020]; ld.local.u32 %r3, [few+4];
        or.b32 %r1, %r1, %r2; or.b32 %r1, %r1, %r3; or.b32 %r1, %r1, %r20;
        mov.u32 %r5, open; ld.shared.u8 %r4, [%r5+12]; or.b32 %r1, %r1, %r4;
        bar.sync 0;
        mov.u32 %r4, -1; mov.u32 %r20, %r4; st.shared.u32 [buffer+124], %r4; st.local.u32 [mine+1020], %r4;
        st.local.u32 [few+4], %r4; st.shared.u8 [%r5+12], %r4;
        st.global.u32 [%rd5], %r1;""",
        ".shared .align 4 .b8 buffer[128]; .local .align 4 .b8 mine[1024]; .local .align 4 .b8 few[8];",
        ".extern .shared .align 1 .b8 open[];",
    )
    first, others = fence(whole, "k", Partition(1 << 20, 1 << 13), 1 << 20).ptx.split("ld.param", 1)
    # What a processor's memory holds at the start is zeros anyway, so here the text is looked at.
    assert len(re.findall(r"mov\.b32 %v\d+, 0;", first)) == 1, "a register that nobody wrote"
    assert [*map(int, re.findall(r"\.local \.align 16 \.b8 vk\d+\[(\d+)\]", first))] == [1024 + 16]
    assert re.search(r"add\.u64 %v\d+, %v\d+, 1040;", first)
    assert re.search(r"st\.local\.b64 \[%v\d+\], 0;", first)
    assert len(re.findall(r"st\.shared\.b64 \[%v\d+\], 0;", first)) == 2
    assert len(re.findall(r"st\.shared\.b8 \[%v\d+\], 0;", first)) == 1
    assert first.rstrip().endswith("bar.sync 0;\nvB" + first.rsplit("\nvB", 1)[1].strip())
    assert "bar.sync" in others
    array = launch(machine, whole, block=33, shared_bytes=13)
    assert not array.any()


@pytest.mark.parametrize("distance", [-4, -64, 16, 1 << 12, 1 << 20, -(1 << 31), (1 << 31) - 4])
def test_local_addresses_stay_in_the_threads_own_variables(machine: FencedMachine, distance: int) -> None:
    """What lies beside them is other threads'."""
    whole = program(
        """mov.u64 %rd5, mine; add.s64 %rd5, %rd5, %rd3;
        mov.u32 %r4, 77; st.local.u32 [%rd5], %r4; ld.local.u32 %r5, [%rd5]; st.global.u32 [%rd1], %r5;""",
        ".local .align 4 .b8 mine[16];",
    )
    assert launch(machine, whole, distance)[0] == 77


def test_generic_addresses_of_local_and_shared_memory_are_left_alone(machine: FencedMachine) -> None:
    whole = program(
        """mov.u64 %rd4, mine; cvta.local.u64 %rd4, %rd4; mov.u64 %rd5, buffer; cvta.shared.u64 %rd5, %rd5;
        mov.u32 %r1, 11; st.u32 [%rd4+4], %r1; mov.u32 %r1, 22; st.u32 [%rd5+8], %r1; atom.add.u32 %r2, [%rd5+8], %r1;
        ld.local.u32 %r2, [mine+4]; ld.shared.u32 %r3, [buffer+8]; st.global.v2.u32 [%rd1], {%r2, %r3};""",
        ".local .align 4 .b8 mine[16]; .shared .align 4 .b8 buffer[16];",
    )
    assert launch(machine, whole)[:2].tolist() == [11, 44]


@pytest.mark.parametrize("distance", [0, 12, -8, 32, 4096, 1 << 30, -(1 << 40)])
def test_generic_addresses_beside_local_variables_are_confined(machine: FencedMachine, distance: int) -> None:
    whole = program(
        """mov.u64 %rd4, mine; cvta.local.u64 %rd4, %rd4; add.s64 %rd4, %rd4, %rd3;
        mov.u32 %r1, 11; st.u32 [%rd4], %r1; ld.u32 %r2, [%rd4]; st.global.u32 [%rd1], %r2;""",
        ".local .align 4 .b8 mine[16];",
    )
    assert launch(machine, whole, distance, is_checked=True)[0] == 11
    assert bool(machine.fault) == (not 0 <= distance < 32)


#: What a kernel has of shared memory: what it declares, and what a launch adds.
SHARED = {
    "fixed": (".shared .align 4 .b8 buffer[36]; .shared .align 1 .b8 more[3];", "", 0),
    "open": ("", ".extern .shared .align 4 .b8 buffer[];", 52),
    "both": (".shared .align 4 .b8 other[36];", ".extern .shared .align 1 .b8 buffer[];", 20),
}
SHARED_DISTANCES = (-1, -4, -36, 13, 33, 36, 48, 52, 64, 1024, 1 << 15, 1 << 18, 1 << 24, -1 << 31, (1 << 31) - 4)


@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize("access", [
    "st.shared.u32 [%r1], %r2; ld.shared.u32 %r3, [%r1];",
    "st.shared.u32 [%rd4], %r2; ld.shared.u32 %r3, [%rd4];",
    "atom.shared.exch.b32 %r4, [%r1+8], %r2; st.shared.u32 [%r1+4], %r2; ld.shared.u32 %r3, [%r1+8];",
    "setp.eq.u32 %p1, %r2, 77; @%p1 st.shared.u32 [%r1+-12], %r2; @!%p1 trap; ld.shared.u32 %r3, [%r1+-12];",
    "st.shared.v4.u32 [%r1+16], {%r2, %r2, %r2, %r2}; ld.shared.u8 %r3, [%r1+19]; ld.shared.u32 %r3, [%r1+16];",
    "cvta.shared.u64 %rd5, %rd4; st.u32 [%rd5+4], %r2; ld.u32 %r3, [%rd5+4];",
])  # fmt: skip
def test_shared_addresses_stay_in_the_blocks_own_memory(machine: FencedMachine, kind: str, access: str) -> None:
    """Outside, and where they are no multiple of the width, they would end the whole context."""
    own, before, shared_bytes = SHARED[kind]
    whole = program(
        f"""mov.u32 %r1, buffer; cvt.u32.u64 %r5, %rd3; add.u32 %r1, %r1, %r5; mov.u64 %rd4, buffer;
        add.s64 %rd4, %rd4, %rd3; mov.u32 %r2, 77; {access} st.global.u32 [%rd1], %r3;""",
        own,
        before,
    )
    for distance in SHARED_DISTANCES:
        assert launch(machine, whole, distance, shared_bytes=shared_bytes)[0] == 77, distance
        # What a generic address means outside is in the partition, perhaps just there.
        assert not machine.fault or "cvta" in access


@pytest.mark.parametrize(("access", "ends"), [
    ("ld.shared.u32 %r3, [%r1];", True),
    ("ld.shared.u32 %r3, [buffer+4];", True),
    ("atom.shared.add.u32 %r3, [%r1], %r2;", True),
    ("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r3}, [%r1];", True),
    ("cp.async.ca.shared.global [%r1], [%rd1], 4;", True),
    ("setp.eq.u32 %p1, %r2, 77; @%p1 ld.shared.u32 %r3, [%r1]; @!%p1 ld.shared.u32 %r3, [%r1+8];", False),
    ("cvta.shared.u64 %rd5, %rd4; ld.u32 %r3, [%rd5];", False),
])  # fmt: skip
@pytest.mark.parametrize("shared_bytes", [0, 3])
def test_a_launch_without_the_shared_memory_that_code_needs_ends_before_it(
    machine: FencedMachine, access: str, ends: bool, shared_bytes: int
) -> None:
    whole = program(
        f"""mov.u32 %r1, buffer; mov.u64 %rd4, buffer; mov.u32 %r2, 77; st.global.u32 [%rd1+4], %r2;
        setp.eq.s64 %p2, %rd3, 0; @%p2 bra on; {access} on: st.global.u32 [%rd1], %r2;""",
        before=".extern .shared .align 4 .b8 buffer[];",
    )
    array = launch(machine, whole, 0, shared_bytes=shared_bytes, block=32)
    assert array[:2].tolist() == [77, 77]
    assert not machine.fault
    array = launch(machine, whole, 8, shared_bytes=shared_bytes, block=32)
    assert array[:2].tolist() == [0 if ends else 77, 77]
    assert bool(machine.fault) == ends


def test_accesses_from_one_register_share_the_work() -> None:
    """In a loop over a tile the cost would be most of it."""
    many = " ".join(f"ld.shared.v2.f32 {{%f1, %f2}}, [%r1+{at}];" for at in range(-64, 64, 8))
    whole = program(f"mov.u32 %r1, buffer; {many}", ".shared .align 16 .b8 buffer[256];")
    ptx = fence(whole, "k", Partition(1 << 20, 1 << 13), 1 << 20).ptx
    assert ptx.count("min.u32") == 1
    assert len(re.findall(r"ld\.shared\.v2\.f32 \{.*\}, \[%v(\d+)(?:\+\d+)?\];", ptx)) == 16


def test_what_they_share_holds_for_each(machine: FencedMachine) -> None:
    """A register that changes, an access that may not happen, another alignment: each has its own."""
    whole = program(
        """mov.u32 %r1, buffer; mov.u32 %r2, 1; st.shared.u32 [%r1+124], %r2; add.u32 %r1, %r1, 120; mov.u32 %r2, 2;
        st.shared.u32 [%r1], %r2; setp.eq.u32 %p1, %r2, 3; @%p1 st.shared.u32 [%r1+512], %r2; mov.u32 %r2, 5;
        add.u32 %r1, %r1, -116; st.shared.u32 [%r1], %r2; st.shared.v2.u32 [%r1+4], {%r2, %r2};
        mov.u32 %r1, buffer; ld.shared.u32 %r3, [%r1+4]; ld.shared.v2.u32 {%r4, %r5}, [%r1+8];
        ld.shared.v2.u32 {%r6, %r7}, [%r1+120]; st.global.v4.u32 [%rd1], {%r3, %r4, %r5, %r6};
        st.global.u32 [%rd1+16], %r7;""",
        ".shared .align 16 .b8 buffer[128];",
    )
    assert launch(machine, whole)[:5].tolist() == [5, 5, 5, 2, 1]


# --- misaligned -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [1, 2, 3, 5, 7, 9, -1, (1 << 40) + 1])
@pytest.mark.parametrize(("access", "width"), [
    ("ld.global.u16 %h1, [%rd2];", 2),
    ("ld.global.u32 %r1, [%rd2];", 4),
    ("ld.global.u32 %r1, [%rd2+2];", 4),
    ("ld.global.u64 %rd4, [%rd2+4];", 8),
    ("ld.global.v4.u8 {%h1, %h2, %h3, %h4}, [%rd2];", 4),
    ("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd2+32];", 16),
    ("ld.global.nc.v2.u64 {%rd4, %rd5}, [%rd2];", 16),
    ("ld.u32 %r1, [%rd2];", 4),
    ("st.global.u64 [%rd2], %rd1;", 8),
    ("st.v2.u32 [%rd2], {%r1, %r2};", 8),
    ("red.global.add.u64 [%rd2], %rd1;", 8),
    ("atom.global.cas.b64 %rd4, [%rd2], %rd1, %rd1;", 8),
    ("atom.add.f32 %f1, [%rd2+1], %f1;", 4),
    ("cp.async.cg.shared.global [%r1], [%rd2], 16;", 16),
    ("cp.async.ca.shared.global [%r1+2], [%rd2+8], 8;", 8),
    ("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r2}, [%r1];", 16),
    ("st.local.u64 [%rd5], %rd1;", 8),
    ("st.local.u32 [mine+3], %r1;", 4),
    ("st.u64 [%rd6], %rd1;", 8),
    ("ld.const.u32 %r2, [%rd7];", 4),
    ("ld.const.u32 %r2, [table+5];", 4),
])  # fmt: skip
def test_no_access_is_misaligned(machine: FencedMachine, access: str, width: int, distance: int) -> None:
    """On a GPU that would end the context; here it would end the launch."""
    whole = program(
        f"""mov.u32 %r1, buffer; cvt.u32.u64 %r2, %rd3; add.u32 %r1, %r1, %r2; mov.u64 %rd5, mine;
        add.s64 %rd5, %rd5, %rd3; cvta.local.u64 %rd6, %rd5; mov.u64 %rd7, table; add.s64 %rd7, %rd7, %rd3;
        {access}""",
        ".local .align 8 .b8 mine[64]; .shared .align 16 .b8 buffer[64];",
        ".const .align 4 .u32 table[3] = {5, 6, 7};",
    )
    assert width
    launch(machine, whole, distance, block=32)


def test_a_misaligned_address_is_told_where_accesses_are_checked(machine: FencedMachine) -> None:
    whole = program("\nld.global.u32 %r1, [%rd2];\nld.global.u64 %rd4, [%rd1+4];")
    first, second = (
        i.line for b in whole.kernels[0].blocks for i in b.instructions if i.address and "param" not in i.text
    )
    launch(machine, whole, 2, is_checked=True)
    assert machine.fault == first
    launch(machine, whole, 4, is_checked=True)
    assert machine.fault == second


@pytest.mark.parametrize(("distance", "line"), [(0, 0), (16, 1), (-4, 1), (2, 1), (1 << 20, 1)])
def test_shared_accesses_outside_are_told_where_they_are_checked(
    machine: FencedMachine, distance: int, line: int
) -> None:
    whole = program(
        """mov.u32 %r1, buffer; cvt.u32.u64 %r2, %rd3; add.u32 %r1, %r1, %r2; ld.shared.v4.u32
        {%r3, %r4, %r5, %r6}, [%r1+16];""",
        ".shared .align 16 .b8 buffer[32];",
    )
    launch(machine, whole, distance, is_checked=True)
    assert bool(machine.fault) == bool(line)


# --- variables of the module ----------------------------------------------------------------------------------------


def test_variables_of_the_module_lie_in_the_partition(machine: FencedMachine) -> None:
    before = """.const .align 4 .u32 table[3] = {5, 6, 7}; .global .align 8 .u64 pointer = table+4;
        .global .align 4 .u32 count = 3;"""
    whole = program(
        """ld.global.u64 %rd4, [pointer]; ld.u32 %r1, [%rd4+4]; ld.const.u32 %r2, [table]; mov.u64 %rd5, table;
        cvta.const.u64 %rd5, %rd5; ld.u32 %r3, [%rd5+4]; ld.const.u32 %r5, [%rd5+8];
        mov.u32 %r4, 1; atom.global.add.u32 %r4, [count], %r4;
        st.global.v4.u32 [%rd1], {%r1, %r2, %r3, %r4}; st.global.u32 [%rd1+16], %r5;""",
        before=before,
    )
    assert launch(machine, whole)[:5].tolist() == [7, 5, 6, 3, 7]
    image = lay_out(whole)
    assert image.size_bytes >= FAULT_BYTES + 8 + 12 + 4
    assert ".global .align" not in fence(whole, "k", Partition(1 << 20, 1 << 13), 1 << 20).ptx


@pytest.mark.parametrize("image_base", [0, (1 << 20) + (1 << 13) - 256, (1 << 20) + 1, 1 << 21])
def test_an_image_that_does_not_fit_is_refused(image_base: int) -> None:
    whole = program("ld.global.u32 %r1, [big];", before=".global .align 4 .b8 big[1024];")
    with pytest.raises(PtxError, match="do not fit"):
        confine(whole, "k", Partition(1 << 20, 1 << 13), image_base)


# --- ways out -------------------------------------------------------------------------------------------------------


def test_a_trap_leaves_its_line_and_ends_the_thread(machine: FencedMachine) -> None:
    whole = program("mov.u32 %r1, 9; st.global.u32 [%rd1], %r1;\ntrap;\nst.global.u32 [%rd1+4], %r1;")
    assert launch(machine, whole)[:2].tolist() == [9, 0]
    (line,) = {block.terminator.line for block in whole.kernels[0].blocks if hasattr(block.terminator, "line")}
    assert machine.fault == line
    assert "trap" not in fence(whole, "k", Partition(1 << 20, 1 << 13), 1 << 20).ptx


def test_a_table_of_branches_is_entered_inside(machine: FencedMachine) -> None:
    whole = program(
        """cvt.u32.u64 %r1, %rd3; ways: .branchtargets one, two;
        brx.idx %r1, ways;
        one: mov.u32 %r2, 1; bra on;
        two: mov.u32 %r2, 2;
        on: st.global.u32 [%rd1], %r2;"""
    )
    assert [launch(machine, whole, index)[0] for index in (0, 1, 2, 1 << 31, -1)] == [1, 2, 2, 2, 2]


@pytest.mark.parametrize(("body", "wanted"), [
    ("bar.sync %r1;", r"and\.b32 (%v\d+), %v\d+, 15;\s+bar\.sync \1;"),
    ("barrier.sync 1, %r1;", r"-32;\s+min\.u32 .*, 1024;\s+max\.u32 (%v\d+), .*, 32;\s+barrier\.sync 1, \1;"),
    ("bar.red.and.pred %p1, 1, %r1, %p2;", r"max\.u32 (%v\d+), .*, 32;\s+bar\.red\.and\.pred %v\d+, 1, \1,"),
    ("bar.red.and.pred %p1, 1, %p2;", r"bar\.red\.and\.pred %v\d+, 1, %v\d+;"),
    ("bar.warp.sync %r1;", r"lanemask_eq;\s+or\.b32 (%v\d+), .*;\s+bar\.warp\.sync \1;"),
    ("shfl.sync.idx.b32 %r2, %r3, 0, 31, %r1;", r"lanemask_eq;\s+or\.b32 (%v\d+), .*;\s+shfl\.sync.*, \1;"),
    ("vote.sync.all.pred %p1, %p2, %r1;", r"lanemask_eq;\s+or\.b32 (%v\d+), .*;\s+vote\.sync.*, \1;"),
    ("redux.sync.add.u32 %r2, %r3, -1;", r"\[va1\];\s.*\s+redux\.sync\.add\.u32 %v\d+, %v\d+, -1;"),
])  # fmt: skip
def test_threads_meet_by_numbers_that_there_are(body: str, wanted: str) -> None:
    """Others end the context of a GPU."""
    assert re.search(wanted, fence(program(body), "k", Partition(1 << 20, 1 << 13), 1 << 20).ptx)


# --- checked --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "is_outside"), [
    ("\nld.global.u32 %r1, [%rd2];\nld.global.u32 %r1, [%rd2+4];", True),
    ("\nst.global.u32 [%rd2+65536], %r1;\n", True),
    ("setp.eq.s64 %p1, %rd3, 0;\n@%p1 ld.global.u32 %r1, [%rd2];", False),
    ("setp.eq.s64 %p1, %rd3, 0;\n@!%p1 ld.global.u32 %r1, [%rd2];", True),
    ("\nld.global.u32 %r1, [%rd1+8];", False),
])  # fmt: skip
def test_the_first_line_that_was_outside_is_told(machine: FencedMachine, body: str, is_outside: bool) -> None:
    whole = program(body)
    lines = [i.line for block in whole.kernels[0].blocks for i in block.instructions]
    first = next(i.line for b in whole.kernels[0].blocks for i in b.instructions if i.address and "param" not in i.text)
    launch(machine, whole, 1 << 20, is_checked=True)
    assert machine.fault == (first if is_outside else 0)
    assert first in lines


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "reason"), [
    ("ld.param.u32 %r1, [array+8];", "by its name, and inside"),
    ("ld.param.u32 %r1, [array+2];", "at a multiple"),
    ("mov.u64 %rd4, array; ld.param.u32 %r1, [%rd4];", "parameter is not supported"),
    ("mov.u64 %rd4, array; cvta.param.u64 %rd4, %rd4;", "parameter is not supported"),
    ("mov.u32 %r1, %pm0;", "%pm0 is not a tenant's"),
    ("mov.b32 %r1, %envreg3;", "%envreg3 is not a tenant's"),
    ("ld.mmio.relaxed.sys.global.u32 %r1, [%rd1];", "not a tenant's"),
    ("ld.local.u32 %r1, [mine+32];", "outside mine"),
    ("ld.local.u32 %r1, [mine+-4];", "outside mine"),
    ("mov.u32 %r2, mine; ld.local.u32 %r1, [%r2];", "64 bits"),
])  # fmt: skip
def test_what_cannot_be_confined_is_refused_with_its_place(body: str, reason: str) -> None:
    whole = program(f"\n{body}", ".local .align 4 .b8 mine[16];")
    with pytest.raises(PtxError, match=reason) as caught:
        fence(whole, "k", Partition(1 << 20, 1 << 13), 1 << 20)
    assert caught.value.line > 1


@pytest.mark.parametrize(("base", "size"), [(0, 16), (0, 3000), (4096, 8192), (-4096, 4096), (1 << 64, 4096)])
def test_only_powers_of_two_at_their_multiples_are_partitions(base: int, size: int) -> None:
    with pytest.raises(ValueError, match="no partition"):
        Partition(base, size)


@pytest.mark.parametrize(
    ("written", "target", "told"),
    [
        ("9.5", None, "8.4"),
        ("8.8", "sm_90", "8.4"),
        ("8.3", "sm_90a", "8.3"),
        ("7.0", "sm_90", "8.0"),
        ("8.0", "sm_100a", "8.6"),
        ("9.5", "sm_120", "8.7"),
    ],
)
def test_the_version_is_one_that_the_gpus_drivers_read(written: str, target: str | None, told: str) -> None:
    whole = read(f".version {written}\n.target sm_80\n.address_size 64\n.visible .entry k() {{ ret; }}")
    text = fence(whole, "k", Partition(1 << 20, 1 << 20), 1 << 20, target=target).ptx
    assert f".version {told}\n.target {target or 'sm_80'}\n" in text
