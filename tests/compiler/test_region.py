"""Variables in a kernel's own region: statics with initial values, constants, local memory, and their addresses."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.launch import LaunchFault, Machine
from compiler.text import compiled, kernel_text, line_of
from tensor_wasm.compiler import Fault
from tensor_wasm.errors import PtxError

_OUT = "    ld.param.u64 %rd1, [out];\n"


def test_initial_values_are_there_and_the_rest_is_zero(machine: Machine) -> None:
    before = ".global .align 4 .u32 table[6] = {10, 20, 30};\n.const .f64 half = 0d3FE0000000000000;"
    body = (
        _OUT
        + """
    ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [table];
    st.global.v4.u32 [%rd1], {%r1, %r2, %r3, %r4};
    ld.const.f64 %fd1, [half];
    st.global.f64 [%rd1+16], %fd1;
    ld.global.u32 %r5, [table+20];
    st.global.u32 [%rd1+24], %r5;
    ret;"""
    )
    out = np.full(32, 0xFF, np.uint8)
    machine.run(compiled(kernel_text(body, before=before.replace("align 4", "align 16"))), 1, 1, out)
    assert list(out[:16].view(np.uint32)) == [10, 20, 30, 0]
    assert out[16:24].view(np.float64)[0] == 0.5
    assert out[24:28].view(np.uint32)[0] == 0


def test_a_static_is_reached_by_its_address_in_every_way(machine: Machine) -> None:
    before = ".global .align 4 .u32 table[4] = {1, 2, 3, 4};\n.const .align 4 .u32 fixed[4] = {5, 6, 7, 8};"
    body = (
        _OUT
        + """
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    mov.u64 %rd3, table;
    add.u64 %rd4, %rd3, %rd2;
    ld.global.u32 %r2, [%rd4];
    cvta.global.u64 %rd5, %rd4;
    ld.u32 %r3, [%rd5];
    cvta.to.global.u64 %rd6, %rd5;
    ld.global.u32 %r4, [%rd6];
    mov.u64 %rd7, fixed+4;
    add.u64 %rd8, %rd7, %rd2;
    ld.const.u32 %r5, [%rd8+-4];
    cvta.const.u64 %rd9, %rd8;
    ld.u32 %r6, [%rd9+-4];
    add.u32 %r2, %r2, %r3;
    add.u32 %r2, %r2, %r4;
    add.u32 %r5, %r5, %r6;
    add.u64 %rd10, %rd1, %rd2;
    st.global.u32 [%rd10], %r2;
    st.global.u32 [%rd10+16], %r5;
    ret;"""
    )
    out = np.zeros(8, np.uint32)
    machine.run(compiled(kernel_text(body, before=before)), 1, 4, out)
    assert list(out) == [3, 6, 9, 12, 10, 12, 14, 16]


def test_a_static_keeps_what_was_written_from_thread_to_thread_and_launch_to_launch(machine: Machine) -> None:
    before = ".global .u32 counter = 100;"
    body = (
        _OUT
        + """
    atom.global.add.u32 %r1, [counter], 1;
    add.u32 %r1, %r1, 1;
    atom.global.max.u32 %r2, [%rd1], %r1;
    ret;"""
    )
    out = np.zeros(1, np.uint32)
    prepared = machine.prepare(compiled(kernel_text(body, before=before)), 2, 5, out)
    prepared.call()
    prepared.call()
    prepared.copy_back()
    prepared.store.close()
    assert out[0] == 120


def test_an_initial_value_may_be_an_address(machine: Machine) -> None:
    before = """.global .align 4 .u32 first[2] = {11, 12};
.global .align 4 .u32 second[2] = {21, 22};
.global .align 8 .u64 list[3] = {second, first+4, generic(first)};"""
    body = (
        _OUT
        + """
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 8;
    mov.u64 %rd3, list;
    add.u64 %rd4, %rd3, %rd2;
    ld.global.u64 %rd5, [%rd4];
    ld.u32 %r2, [%rd5];
    add.u64 %rd6, %rd1, %rd2;
    st.global.u32 [%rd6], %r2;
    ret;"""
    )
    out = np.zeros(6, np.uint32)
    machine.run(compiled(kernel_text(body, before=before)), 1, 3, out)
    assert list(out[::2]) == [21, 12, 11]


def test_local_memory_is_read_as_it_was_written(machine: Machine) -> None:
    body = (
        """
    .local .align 8 .b8 depot[32];
    .reg .b64 %SP, %SPL;
    mov.u64 %SPL, depot;
    cvta.local.u64 %SP, %SPL;"""
        + _OUT
        + """
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.u64 %rd3, %SPL, %rd2;
    st.local.u32 [depot], 7; st.local.u32 [%SPL+4], 8; st.local.v2.u32 [%SPL+8], {%r1, %r1};
    st.local.u32 [%rd3], 50;
    add.u64 %rd4, %SP, 0;
    ld.u32 %r2, [%rd4];
    ld.u32 %r3, [%SP+4];
    ld.local.v2.u32 {%r4, %r5}, [depot+8];
    cvta.to.local.u64 %rd5, %SP;
    ld.local.u32 %r6, [%rd5+12];
    mul.wide.u32 %rd6, %r1, 16;
    add.u64 %rd7, %rd1, %rd6;
    st.global.v4.u32 [%rd7], {%r2, %r3, %r4, %r6};
    ret;"""
    )
    out = np.zeros((5, 4), np.uint32)
    machine.run(compiled(kernel_text(body)), 1, 5, out)
    expected = [[7, 8, n, n] for n in range(5)]
    for n in range(4):
        expected[n][n] = 50
    assert out.tolist() == expected


@pytest.mark.parametrize(
    ("offset", "fault"),
    [
        (32, Fault.ADDRESS), (30, Fault.ADDRESS), (-4, Fault.ADDRESS), (1 << 20, Fault.ADDRESS),
        (1 << 32, Fault.ADDRESS), (-(1 << 32), Fault.ADDRESS), (2, Fault.MISALIGNED), (26, Fault.MISALIGNED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("access", ["st.local.u32 [%rd3], 1;", "ld.local.u32 %r1, [%rd3];", "st.u32 [%rd3], 1;"])
def test_nothing_outside_the_region_can_be_reached(machine: Machine, access: str, offset: int, fault: Fault) -> None:
    body = f"""
    .local .align 8 .b8 depot[32];
    ld.param.u64 %rd2, [offset];
    mov.u64 %rd1, depot;
    add.u64 %rd3, %rd1, %rd2;
    {access}
    ret;"""
    text = kernel_text(body, "u64 offset")
    kernel = compiled(text)
    machine.run(kernel, 1, 1, 28)
    with pytest.raises(LaunchFault) as caught:
        machine.run(kernel, 1, 1, offset, guest_pages=0)
    # Without the high half it is an address of guest memory for a generic access, and there is none of that here.
    is_guest = offset == -(1 << 32) and access.startswith("st.u32")
    assert caught.value.fault == (Fault.NONE if is_guest else fault)
    assert caught.value.line == line_of(text, access)


def test_a_constant_place_outside_a_variable_faults_when_it_runs(machine: Machine) -> None:
    body = "    .local .align 4 .b8 depot[16];\n    st.local.u32 [depot+16], 1;\n    ret;"
    with pytest.raises(LaunchFault) as caught:
        machine.run(compiled(kernel_text(body, "")), 1, 1)
    assert caught.value.fault == Fault.ADDRESS


def test_isspacep_tells_the_spaces_apart(machine: Machine) -> None:
    before = ".global .u32 table[4];\n.const .u32 fixed[4] = {1};"
    body = "    .local .align 4 .b8 depot[16];\n" + _OUT
    addresses = ["%rd1", "table+12", "fixed", "depot+15", "table+16", "4294967296"]
    spaces = ["global", "const", "local", "shared"]
    place = 0
    for address in addresses:
        body += f"    mov.u64 %rd2, {address};\n"
        for space in spaces:
            body += f"    isspacep.{space} %p1, %rd2;\n    selp.u32 %r1, 1, 0, %p1;\n"
            body += f"    st.global.u8 [%rd1+{place}], %r1;\n"
            place += 1
    out = np.zeros((len(addresses), len(spaces)), np.uint8)
    machine.run(compiled(kernel_text(body + "    ret;", before=before)), 1, 1, out)
    assert out.tolist() == [
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 1, 0, 0],  # the constants come right after
        [0, 0, 0, 0],
    ]


def test_variables_that_a_kernel_does_not_use_take_no_room() -> None:
    before = ".global .b8 large[100000];\n.global .u32 small;"
    used = compiled(kernel_text("    st.global.u32 [small], 1;\n    ret;", "", before=before))
    assert used.work_bytes == 16
    assert compiled(kernel_text("    ret;", "", before=before)).work_bytes == 0


def test_variables_too_large_for_any_instance_are_refused() -> None:
    body = "    .local .b8 depot[1073741824];\n    st.local.u8 [depot], 1;\n    ret;"
    with pytest.raises(PtxError, match="at most"):
        compiled(kernel_text(body, ""))
