"""Launching on NumPy and device arrays: what goes in, what comes back, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensor_wasm as tw
from device.memory_use import used_bytes
from device.ptx_texts import ALIASES, COUNTER, INCREMENT, PEEK, PLACE, SHAPED, STUCK, line_of, store_parameter
from tensor_wasm.device.guarded import GUARD_BYTES

ROOT = Path(__file__).resolve().parents[2]
VECTOR_ADD = (ROOT / "examples" / "vector_add" / "vector_add.ptx").read_bytes()


@pytest.fixture(scope="module")
def add(dev):
    return dev.load_ptx(VECTOR_ADD, entry="vector_add")


@pytest.fixture(scope="module")
def increment(dev):
    return dev.load_ptx(INCREMENT)


@pytest.fixture(scope="module")
def peek(dev):
    return dev.load_ptx(PEEK)


@pytest.mark.parametrize("count", [1, 31, 257, 1000, 100_003])
def test_arrays_go_in_and_come_back(add, count):
    numbers = np.random.default_rng(count)
    a, b = numbers.random(count, np.float32), numbers.random(count, np.float32)
    before = a.copy(), b.copy()
    c = np.full(count, np.nan, np.float32)
    assert add.launch(grid=-(-count // 256), block=256, args=[a, b, c, np.int32(count)]) is None
    assert (c == a + b).all()
    assert (a == before[0]).all()
    assert (b == before[1]).all()


def test_parameters_are_the_text_s(add):
    assert [(p.type, p.size) for p in add.parameters] == [("u64", 8)] * 3 + [("u32", 4)]
    assert add.parameters[0] == ("vector_add_param_0", "u64", 8)
    assert add.name == "vector_add"


def test_one_array_twice_is_one_array_in_device_memory(add):
    x = np.arange(100, dtype=np.float32)
    add.launch(1, 128, [x, x, x, 100])
    assert (x == 2 * np.arange(100)).all()


def test_overlapping_views_stay_aliases(dev):
    aliases = dev.load_ptx(ALIASES)
    base = np.arange(8, dtype=np.uint32)
    aliases.launch(1, 1, [base[1:], base[:-1]])
    assert base.tolist() == [0, 5, 5, 3, 4, 5, 6, 7]
    table = np.zeros((4, 2), np.uint32)
    aliases.launch(1, 1, [table.reshape(-1)[3:].view(np.uint8), table[1:]])
    assert table.tolist() == [[0, 0], [0, 5], [5, 0], [0, 0]]


def test_arrays_that_overlap_in_a_chain_are_one(dev):
    base = np.zeros(64, np.uint32)
    add = dev.load_ptx(VECTOR_ADD, "vector_add")
    # The first and the last do not touch; the one between makes one piece of them, with no guard inside.
    add.launch(1, 16, [base[:24].view(np.float32), base[40:].view(np.float32), base[20:44].view(np.float32), 16])
    assert not base.any()


def test_a_read_only_view_of_a_writable_array_sees_its_writes(increment):
    base = np.zeros(8, np.uint32)
    view = base[:]
    view.flags.writeable = False
    increment.launch(1, 8, [view, base])
    assert (base == 1).all()
    increment.launch(1, 8, [view, base])
    assert (view == 2).all()


@pytest.mark.only_on("cpu")  # a GPU's fence knows partitions, not arrays
def test_neighbouring_views_are_apart(increment):
    base = np.zeros(64, np.uint32)
    with pytest.raises(tw.errors.KernelFault, match="right past the end of argument"):
        increment.launch(1, 33, [base[:32], base[32:]])
    assert not base.any()


def test_a_read_only_array_is_read_and_never_written(dev, increment):
    source = np.arange(8, dtype=np.uint32)
    source.flags.writeable = False
    target = np.zeros(8, np.uint32)
    increment.launch(1, 8, [source, target])
    assert (target == np.arange(1, 9)).all()
    if dev.info.kind == "cpu":
        with pytest.raises(tw.errors.KernelFault) as caught:
            increment.launch(1, 8, [target, source])
        assert "write to argument 1 (target), which is a read-only array, at byte 0" in str(caught.value)
    else:
        increment.launch(1, 8, [target, source])
    assert (source == np.arange(8)).all()


def test_what_is_read_only_may_lie_before_or_after_what_is_written(increment):
    base = np.arange(300, dtype=np.uint32)
    for source, target in ((base[:100], base[200:]), (base[200:], base[:100])):
        expected = source + 1
        source.flags.writeable = False
        increment.launch(1, 100, [source, target])
        assert (target == expected).all()


def test_arrays_of_every_layout_keep_their_order(increment):
    cube = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)
    target = np.zeros((4, 6), np.uint32)
    increment.launch(1, 24, [cube, target])
    assert (target.ravel() == np.arange(1, 25)).all()
    scalar = np.array(41, np.uint32)
    increment.launch(1, 1, [scalar, scalar])
    assert scalar == 42


def test_an_empty_array_has_no_element_to_touch(dev, add, increment):
    empty = np.zeros((0, 5), np.float32)
    add.launch(1, 32, [empty, empty, empty, 0])
    if dev.info.kind == "cuda":
        return
    with pytest.raises(tw.errors.KernelFault, match=r"argument 0 \(source\), an array of 0 bytes"):
        increment.launch(1, 1, [empty, np.zeros(1, np.uint32)])


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(8, np.float32)[::2], "ascontiguousarray"),
        (np.zeros((4, 4), np.float32).T, "ascontiguousarray"),
        (np.broadcast_to(np.float32(1), (8,)), "ascontiguousarray"),
        (np.array([{}], object), "object"),
        (np.zeros(4, [("a", object)]), "no bytes a kernel could use"),
        (np.zeros(4, ">f4"), "byte order"),
        (np.ma.masked_array(np.zeros(4, np.float32)), "masked"),
    ],
)
def test_an_array_that_cannot_be_pointed_to_is_refused(dev, add, array, reason):
    good = np.ones(8, np.float32)
    with pytest.raises(tw.errors.KernelArgumentError) as caught:
        add.launch(1, 8, [good, array, good, 0])
    assert "argument 1 (vector_add_param_1, u64) of vector_add: " in str(caught.value)
    assert reason in str(caught.value)
    with pytest.raises(tw.errors.KernelArgumentError, match=reason):
        dev.array(array)


@pytest.mark.parametrize("args", [[], [1, 2, 3], [0] * 5, None, 7, {1: 2}])
def test_a_wrong_count_names_what_is_taken(add, args):
    with pytest.raises(tw.errors.KernelArgumentError, match=r"takes 4 arguments.*vector_add_param_3: u32"):
        add.launch(1, 1, args)


# --- shape ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "block"),
    [(6, 5), ((6,), (5,)), ((2, 3), (3, 2)), ((2, 3, 2), (4, 2, 3)), ([2, 2], np.int64(3)), ((1, 1, 3), (1, 1, 64))],
)
def test_every_thread_of_a_shape_runs_once(dev, grid, block):
    def total(extent):
        return int(np.prod(extent))

    target = np.zeros(total(grid) * total(block), np.uint32)
    dev.load_ptx(PLACE).launch(grid, block, [target])
    assert (target == np.arange(1, len(target) + 1)).all()


@pytest.mark.parametrize(
    ("grid", "block", "shared", "reason"),
    [
        (0, 1, 0, "grid"),
        (-1, 1, 0, "grid"),
        (1 << 31, 1, 0, "2,147,483,647"),
        ((1, 65_536), 1, 0, "65,535"),
        ((1, 1, 65_536), 1, 0, "65,535"),
        (1, 0, 0, "block"),
        (1, 1025, 0, "1,024"),
        (1, (1, 1, 65), 0, "64"),
        (1, (32, 33), 0, "1,056 threads"),
        (1, (), 0, "1 to 3 ints"),
        ((1, 1, 1, 1), 1, 0, "1 to 3 ints"),
        (1.0, 1, 0, "1 to 3 ints"),
        ("1", 1, 0, "1 to 3 ints"),
        (1, (1, None), 0, "1 to 3 ints"),
        (1, 1, -1, "shared_mem"),
        (1, 1, 1 << 20, "shared_mem must be from 0 to {most:,} bytes"),
        (1, 1, "0", "shared_mem"),
    ],
)
def test_a_shape_out_of_bounds_is_refused(dev, grid, block, shared, reason):
    with pytest.raises(tw.errors.KernelArgumentError, match=reason.format(most=dev.info.max_shared_bytes)):
        dev.load_ptx(SHAPED, "any").launch(grid, block, [], shared)


def test_the_kernel_s_own_bounds_are_kept(dev):
    exactly, at_most = dev.load_ptx(SHAPED, "exactly"), dev.load_ptx(SHAPED, "at_most")
    exactly.launch(1, (8, 4))
    at_most.launch(1, (8, 8))
    with pytest.raises(tw.errors.KernelArgumentError, match="reqntid"):
        exactly.launch(1, (4, 8))
    with pytest.raises(tw.errors.KernelArgumentError, match="maxntid"):
        at_most.launch(1, 65)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "1", 1e30])
def test_a_timeout_that_is_none_is_refused(dev, timeout):
    with pytest.raises(tw.errors.KernelArgumentError, match="timeout"):
        dev.load_ptx(SHAPED, "any").launch(1, 1, timeout=timeout)


# --- faults --------------------------------------------------------------------------------------------------


@pytest.mark.only_on("cpu")  # a GPU does not tell the thread
def test_a_fault_names_kernel_block_thread_and_line(increment):
    source = np.zeros(100, np.uint32)
    target = np.full(70, 9, np.uint32)
    with pytest.raises(tw.errors.KernelFault) as caught:
        increment.launch((2, 1, 1), (64, 1, 1), [source, target])
    text = str(caught.value)
    assert "kernel increment faulted: out-of-bounds access" in text
    assert "argument 1 (target), an array of 280 bytes" in text
    # 280 bytes are rounded up to 288: the first two elements past the end are nobody's, the third is closed.
    assert "block (1, 0, 0), thread (8, 0, 0)" in text
    assert f"PTX line {line_of(INCREMENT, 'st.global.u32')}" in text
    assert (target == 9).all()


@pytest.mark.only_on("cpu")  # a GPU does not tell the thread
@pytest.mark.parametrize("block", [1, 3, 8, 16, 64, 96])
@pytest.mark.parametrize("short", [9, 1000])
def test_a_fault_of_blocks_run_together_names_the_thread_s_own_block(increment, block, short):
    grid = 4000 // block
    source, target = np.zeros(grid * block, np.uint32), np.zeros(grid * block - short, np.uint32)
    with pytest.raises(tw.errors.KernelFault) as caught:
        increment.launch(grid, block, [source, target])
    # Up to the next 16 bytes behind the array is nobody's.
    first = -(-target.nbytes // 16) * 4
    expected = f"block ({first // block}, 0, 0), thread ({first % block}, 0, 0)"
    assert expected in str(caught.value)
    assert "argument 1 (target)" in str(caught.value)


@pytest.mark.only_on("cpu")  # a GPU does not tell the thread
@pytest.mark.parametrize("block", [1, 8, 16, 96])
def test_a_fault_in_a_later_iteration_names_the_thread_that_goes_around(dev, block):
    saxpy = (Path(__file__).parents[2] / "examples" / "saxpy" / "saxpy.ptx").read_bytes()
    grid = 3000 // block
    threads = grid * block
    count = 2 * threads + 1001  # leaves memory in the third iteration
    x = np.ones(-(-count // 8) * 8, np.float32)
    y = np.zeros(3 * threads, np.float32)
    with pytest.raises(tw.errors.KernelFault) as caught:
        dev.load_ptx(saxpy, "saxpy").launch(grid, block, [np.int32(y.size), 2.0, x, y])
    first = x.size - 2 * threads
    assert f"block ({first // block}, 0, 0), thread ({first % block}, 0, 0)" in str(caught.value)
    assert "argument 2 (saxpy_param_2)" in str(caught.value)


@pytest.mark.only_on("cpu")  # a GPU's fence knows partitions, not arrays
@pytest.mark.parametrize("size", [4, 64, 4096, 65_536, 1 << 20])
@pytest.mark.parametrize("offset", [0, 4, 4096 - 4, 65_532])
def test_reading_past_an_array_faults_up_to_its_guard(peek, size, offset):
    array = np.zeros(size // 4, np.uint32)
    other = np.zeros(size // 4, np.uint32)
    slack = -size % 16
    with pytest.raises(tw.errors.KernelFault, match=r"argument 0 \(address\)|argument 2"):
        peek.launch(1, 1, [array, size + slack + offset, other])


@pytest.mark.only_on("cpu")  # a GPU's fence knows partitions, not arrays
def test_what_lies_before_an_array_is_no_other_array(dev, peek):
    marker = 0xAAAAAAAA
    kept = [dev.array(np.full(5000, marker, np.uint32)) for _ in range(3)]
    array, got = dev.array(np.zeros(4, np.uint32)), np.zeros(1, np.uint32)
    faults = 0
    for offset in range(-GUARD_BYTES, 0, 256):
        try:
            peek.launch(1, 1, [array, offset, got])
        except tw.errors.KernelFault:
            faults += 1
        assert got[0] != marker
    assert faults >= 200  # all but what is left of the array's first page
    assert all((other.to_numpy() == marker).all() for other in kept)


@pytest.mark.only_on("cpu")  # a GPU's fence knows partitions, not arrays
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (0, "a null pointer"),
        (12, "a null pointer"),
        (0xFFFFFFFC, "out-of-bounds access at 0xfffffffc"),
        (1 << 32, "address outside device memory"),
        (-4, "address outside device memory"),
        (2, "misaligned access"),
    ],
)
def test_an_address_that_is_no_array_s_faults(peek, address, reason):
    with pytest.raises(tw.errors.KernelFault, match=reason) as caught:
        peek.launch(1, 1, [address, 0, np.zeros(1, np.uint32)])
    assert f"PTX line {line_of(PEEK, 'ld.global.u32')}" in str(caught.value)


@pytest.mark.only_on("cpu")  # on a GPU it is an endless kernel
def test_a_barrier_that_cannot_fill_faults_with_its_line(dev):
    stuck = dev.load_ptx(STUCK)
    stuck.launch(2, 64)
    with pytest.raises(tw.errors.KernelFault, match="a barrier that can never fill") as caught:
        stuck.launch(2, 32)
    assert f"block (0, 0, 0), thread (0, 0, 0), PTX line {line_of(STUCK, 'bar.sync')}" in str(caught.value)
    stuck.launch(2, 64)


def test_a_fault_harms_nothing_that_comes_later(dev):
    counter = dev.load_ptx(COUNTER)
    target = np.zeros(1, np.uint32)
    counter.launch(1, 1, [target, 0])
    counter.launch(1, 1, [target, 0])
    assert target[0] == 102
    with pytest.raises(tw.errors.KernelFault, match="trap instruction"):
        counter.launch(1, 1, [target, 1])
    assert target[0] == 102
    counter.launch(1, 1, [target, 0])
    assert target[0] == 101  # its variables have their initial values again


def test_each_load_has_variables_of_its_own(dev):
    first, second = dev.load_ptx(COUNTER), dev.load_ptx(COUNTER)
    target = np.zeros(1, np.uint32)
    first.launch(1, 1, [target, 0])
    second.launch(1, 1, [target, 0])
    assert target[0] == 101


# --- kernels -------------------------------------------------------------------------------------------------


def test_the_entry_may_be_left_out_when_there_is_one(dev):
    assert dev.load_ptx(VECTOR_ADD.decode()).name == "vector_add"
    assert dev.load_ptx(VECTOR_ADD + b"\0").name == "vector_add"
    with pytest.raises(tw.errors.PtxError, match=r"3 kernels; name the entry: exactly, at_most, any"):
        dev.load_ptx(SHAPED)
    with pytest.raises(tw.errors.PtxError):
        dev.load_ptx(SHAPED, "nothing")
    with pytest.raises(tw.errors.PtxError, match="no kernel"):
        dev.load_ptx(".version 8.0\n.target sm_80\n.address_size 64\n")


def test_bad_ptx_is_an_error_with_its_place(dev):
    with pytest.raises(tw.errors.PtxError) as caught:
        dev.load_ptx(store_parameter("u32", 4).replace("st.global", "sst.global"))
    assert caught.value.line == line_of(store_parameter("u32", 4), "st.global")
    with pytest.raises(tw.errors.PtxError, match="at most"):
        dev.load_ptx(b" " * ((8 << 20) + 1))
    for wrong in (None, 7, Path("x")):
        with pytest.raises(tw.errors.PtxError, match="str or bytes"):
            dev.load_ptx(wrong)
    with pytest.raises(tw.errors.PtxError):
        dev.load_ptx("\ud800", "x")
    for entry in ("\ud800", b"vector_add", 7, ""):
        with pytest.raises(tw.errors.PtxError):
            dev.load_ptx(VECTOR_ADD, entry)


def test_many_loads_do_not_add_up(dev):
    target = np.zeros(1, np.uint32)
    used = []
    for _ in range(60):
        kernel = dev.load_ptx(COUNTER)
        kernel.launch(1, 1, [target, 0])
        used.append(used_bytes(dev, of_kernels=True))
    assert max(used[10:]) <= max(used[:10])
