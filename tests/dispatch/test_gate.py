"""The gate: each check with its code, in the contract's order; what a kernel is given; permits under every ending."""

from __future__ import annotations

import struct
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from dispatch.rig import ARGV_AT, GOOD_ARGV, TAGS, Rig, RigGuest, kernel_module
from tensor_wasm.abi import Code, Tag, pack
from tensor_wasm.dispatch import KernelEntry
from tensor_wasm.errors import DeadlineExceeded, Terminated
from tensor_wasm.runtime import CallFailed, Engine

MEMORY_BYTES = 2 * 65_536
#: Enough that they take a third of a second: the thread that watches is there long before they are over.
LAUNCHES = 1_000_000


@pytest.fixture(scope="module")
def rig(engine: Engine) -> Rig:
    return Rig(engine)


@pytest.fixture
def guest(rig: Rig) -> Iterator[RigGuest]:
    guest = RigGuest(rig, kernel_module(rig.engine))
    yield guest
    guest.close()


def test_a_launch_gives_the_kernel_its_parameters(guest: RigGuest) -> None:
    assert guest.launch() == Code.OK
    assert guest.read(0, 32) == struct.pack("<i4xQf4xd", -5, 64, 1.5, -2.5)
    assert guest.slot.dispatches == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"kernel": 1}, Code.UNKNOWN_KERNEL),
        ({"kernel": -1}, Code.UNKNOWN_KERNEL),
        ({"kernel": 1 << 32}, Code.UNKNOWN_KERNEL),
        ({"length": -1}, Code.INVALID_POINTER),
        ({"pointer": MEMORY_BYTES, "length": 1}, Code.INVALID_POINTER),
        ({"pointer": -1, "length": 2}, Code.INVALID_POINTER),
        ({"grid": (0, 1, 1)}, Code.INVALID_DIMENSIONS),
        ({"grid": (-1, 1, 1)}, Code.INVALID_DIMENSIONS),
        ({"grid": (-(2**31), 1, 1)}, Code.INVALID_DIMENSIONS),
        ({"grid": (1, 65_536, 1)}, Code.INVALID_DIMENSIONS),
        ({"grid": (1, 1, 65_536)}, Code.INVALID_DIMENSIONS),
        ({"block": (0, 1, 1)}, Code.INVALID_DIMENSIONS),
        ({"block": (1025, 1, 1)}, Code.INVALID_DIMENSIONS),
        ({"block": (1, 1, 65)}, Code.INVALID_DIMENSIONS),
        ({"block": (32, 33, 1)}, Code.INVALID_DIMENSIONS),
        ({"block": (1024, 1024, 64)}, Code.INVALID_DIMENSIONS),
        ({"shared": -1}, Code.INVALID_DIMENSIONS),
        ({"shared": 233_473}, Code.INVALID_DIMENSIONS),
        ({"argv": b""}, Code.INVALID_ARGUMENTS),
        ({"argv": GOOD_ARGV[:-1]}, Code.INVALID_ARGUMENTS),
        ({"argv": GOOD_ARGV[:-9]}, Code.INVALID_ARGUMENTS),
        ({"argv": GOOD_ARGV + b"\x01\0\0\0\0"}, Code.INVALID_ARGUMENTS),
        ({"argv": GOOD_ARGV + b"\x01"}, Code.INVALID_ARGUMENTS),
        ({"argv": b"\x00\0\0\0\0"}, Code.INVALID_ARGUMENTS),
        ({"argv": b"\xff\0\0\0\0"}, Code.INVALID_ARGUMENTS),
        ({"argv": pack([(Tag.I32, 1), (Tag.DEVICE_POINTER, 1, 0)])}, Code.INVALID_ARGUMENTS),
        ({"argv": pack([(Tag.I32, 1), (Tag.STRUCT, bytes(8))])}, Code.INVALID_ARGUMENTS),
        ({"argv": pack([(Tag.F16, 1), (Tag.POINTER, MEMORY_BYTES, 1)])}, Code.INVALID_ARGUMENTS),
        ({"argv": pack([(Tag.I32, 1)] * 129)}, Code.ARGV_TOO_LARGE),
        ({"argv": bytes(4097)}, Code.ARGV_TOO_LARGE),
        ({"argv": pack([(Tag.I32, 1), (Tag.POINTER, MEMORY_BYTES, 1)])}, Code.INVALID_POINTER),
        ({"argv": pack([(Tag.I32, 1), (Tag.POINTER, 2**32 - 1, 2**32 - 1)])}, Code.INVALID_POINTER),
        ({"argv": pack([(Tag.F32, 1), (Tag.POINTER, 0, 0), (Tag.F32, 1), (Tag.F64, 1)])}, Code.INVALID_ARGUMENTS),
        ({"argv": pack([(Tag.I32, 1), (Tag.F64, 0), (Tag.F32, 1), (Tag.F64, 1)])}, Code.INVALID_ARGUMENTS),
    ],
)
def test_a_bad_launch_gets_its_code_and_the_next_one_works(guest: RigGuest, change: dict, code: Code) -> None:
    assert guest.launch(**change) == code
    assert guest.gate is not None
    assert guest.gate.last_code == code
    guest.write(ARGV_AT, GOOD_ARGV)
    assert guest.launch() == Code.OK
    assert guest.gate.last_code == Code.OK
    assert guest.rig.ledger.read().used == 0


@pytest.mark.parametrize(
    "argv",
    [
        pack([(Tag.U32, 2**32 - 5), (Tag.U64, 2**64 - 1), (Tag.F32, 1), (Tag.F64, 1)]),
        pack([(Tag.I32, 1), (Tag.I64, -1), (Tag.F32, 1), (Tag.F64, 1)]),
        pack([(Tag.I32, 1), (Tag.POINTER, MEMORY_BYTES, 0), (Tag.F32, 1), (Tag.F64, 1)]),
    ],
)
def test_either_signedness_and_plain_numbers_for_pointers_are_taken(guest: RigGuest, argv: bytes) -> None:
    assert guest.launch(argv) == Code.OK


@pytest.mark.parametrize(
    "axes", [{"block": (1024, 1, 1)}, {"block": (16, 1, 64)}, {"grid": (2**31 - 1, 65_535, 65_535)}]
)
def test_dimensions_at_their_limits_are_taken(guest: RigGuest, axes: dict) -> None:
    assert guest.launch(**axes, shared=233_472) == Code.OK


def test_checks_come_in_the_contracts_order(rig: Rig) -> None:
    kernel = kernel_module(rig.engine)
    incapable = RigGuest(rig, kernel, capable=False)
    assert incapable.launch(length=-1, kernel=9, grid=(0, 0, 0)) == Code.NOT_AVAILABLE
    incapable.close()
    guest = RigGuest(rig, kernel)
    assert guest.launch(length=-1, kernel=9, grid=(0, 0, 0)) == Code.INVALID_POINTER
    assert guest.launch(b"\xff", kernel=9, grid=(0, 0, 0)) == Code.UNKNOWN_KERNEL
    assert guest.launch(b"\xff", grid=(0, 0, 0)) == Code.INVALID_DIMENSIONS
    guest.close()
    late = RigGuest(rig, kernel, left_ms=10)
    assert late.launch(b"\xff") == Code.DEADLINE
    late.close()


def test_the_directives_of_a_kernel_bound_its_blocks(rig: Rig) -> None:
    kernel = kernel_module(rig.engine)
    required = RigGuest(rig, kernel, entry=KernelEntry(TAGS, reqntid=(8, 2, 1)))
    assert required.launch(block=(8, 2, 1)) == Code.OK
    assert required.launch(block=(16, 1, 1)) == Code.INVALID_DIMENSIONS
    required.close()
    bounded = RigGuest(rig, kernel, entry=KernelEntry(TAGS, maxntid=(8, 2, 1)))
    assert bounded.launch(block=(16, 1, 1)) == Code.OK
    assert bounded.launch(block=(17, 1, 1)) == Code.INVALID_DIMENSIONS
    bounded.close()


def test_no_python_runs_between_launch_and_kernel(rig: Rig) -> None:
    """With the GIL held by another thread throughout, a guest's launches still complete."""
    guest = RigGuest(rig, kernel_module(rig.engine))
    assert guest.launch() == Code.OK  # binds the gate, which is Python's work
    done_at: list[float] = []
    started = threading.Event()

    def work() -> None:
        started.set()
        guest.loop(LAUNCHES)

    before = sys.getswitchinterval()
    thread = threading.Thread(target=work)
    sys.setswitchinterval(1000)  # nobody is asked to give the GIL up
    try:
        thread.start()
        started.wait()
        time.sleep(0.005)  # lets the worker into its call, which releases the GIL
        dispatches = guest.slot.dispatches
        until = time.monotonic() + 60
        while guest.slot.dispatches < 1 + LAUNCHES and time.monotonic() < until:
            pass  # holds the GIL: this loop neither blocks nor yields
        done_at.append(time.monotonic())
        seen = guest.slot.dispatches
    finally:
        sys.setswitchinterval(before)
    thread.join()
    assert dispatches < 1 + LAUNCHES, "the loop was over before the GIL was held: nothing was proved"
    assert seen == 1 + LAUNCHES
    assert rig.binds >= 1
    guest.close()


def test_a_trap_in_a_kernel_returns_its_permit(rig: Rig) -> None:
    guest = RigGuest(rig, kernel_module(rig.engine, "trap"))
    with pytest.raises(CallFailed):
        guest.launch()
    assert rig.ledger.read().used == 1  # held until the instance is settled
    guest.close()
    assert rig.ledger.read().used == 0


def test_an_order_to_end_a_running_kernel_returns_its_permit(rig: Rig) -> None:
    guest: RigGuest

    def interrupt() -> Terminated | None:
        return Terminated("by order") if guest.slot.terminate_asked else None

    guest = RigGuest(rig, kernel_module(rig.engine, "spin"), interrupt=interrupt)
    timer = threading.Timer(0.05, guest.slot.ask_to_terminate)
    timer.start()
    with pytest.raises(Terminated):
        guest.launch()
    timer.join()
    guest.close()
    assert rig.ledger.read().used == 0


def test_a_host_error_while_a_permit_is_held_returns_it(rig: Rig) -> None:
    """The epoch callback is the host's only code that runs during a kernel: an error there must not lose a permit."""

    def broken() -> None:
        raise RuntimeError("host defect")

    guest = RigGuest(rig, kernel_module(rig.engine, "spin"), interrupt=broken)
    with pytest.raises(RuntimeError, match="host defect"):
        guest.launch()
    guest.close()
    assert rig.ledger.read().used == 0


def held_permits(rig: Rig, count: int) -> list[tuple[RigGuest, threading.Thread]]:
    """Guests that hold ``count`` permits in endless kernels until they are told to end."""
    held = []
    for _ in range(count):
        guest: RigGuest | None = None

        def interrupt(owner: list[RigGuest]) -> Terminated | None:
            return Terminated("by order") if owner and owner[0].slot.terminate_asked else None

        owner: list[RigGuest] = []
        guest = RigGuest(rig, kernel_module(rig.engine, "spin"), interrupt=lambda owner=owner: interrupt(owner))
        owner.append(guest)

        def run(guest: RigGuest = guest) -> None:
            with pytest.raises(Terminated):
                guest.launch()

        thread = threading.Thread(target=run)
        thread.start()
        held.append((guest, thread))
    until = time.monotonic() + 10
    while rig.ledger.read().used < count:
        assert time.monotonic() < until
        time.sleep(0.005)
    return held


def let_go(held: list[tuple[RigGuest, threading.Thread]]) -> None:
    for guest, thread in held:
        guest.slot.ask_to_terminate()
        thread.join()
        guest.close()


def test_without_a_free_permit_a_launch_waits_until_one_comes_back(engine: Engine) -> None:
    rig = Rig(engine, permits=1)
    held = held_permits(rig, 1)
    guest = RigGuest(rig, kernel_module(engine), tenant=8)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(guest.launch()))
    thread.start()
    until = time.monotonic() + 10
    while sum(tenant.waiting for tenant in rig.ledger.read().tenants) < 1:
        assert time.monotonic() < until
        time.sleep(0.002)
    time.sleep(0.05)
    assert codes == []
    let_go(held)
    thread.join(10)
    assert codes == [Code.OK]
    guest.close()
    tenant = next(t for t in rig.ledger.read().tenants if t.tenant == 8)
    assert tenant.waiting == 0
    assert tenant.permit_wait.sum_ns > 40_000_000
    assert tenant.latency.sum_ns > 40_000_000
    assert rig.ledger.read().used == 0


def test_a_bounded_wait_ends_as_saturated(engine: Engine) -> None:
    rig = Rig(engine, permits=1, max_wait_ms=30)
    held = held_permits(rig, 1)
    guest = RigGuest(rig, kernel_module(engine), tenant=8)
    assert guest.launch() == Code.SATURATED
    guest.close()
    let_go(held)
    tenant = next(t for t in rig.ledger.read().tenants if t.tenant == 8)
    assert (tenant.rejected_saturated, tenant.waiting, tenant.dispatches) == (1, 0, 0)


def test_a_wait_ends_before_the_deadline(engine: Engine) -> None:
    rig = Rig(engine, permits=1)
    held = held_permits(rig, 1)
    guest = RigGuest(rig, kernel_module(engine), tenant=8, left_ms=150)
    began = time.monotonic()
    assert guest.launch() == Code.DEADLINE
    assert time.monotonic() - began >= 0.09
    guest.close()
    let_go(held)
    tenant = next(t for t in rig.ledger.read().tenants if t.tenant == 8)
    assert tenant.rejected_deadline == 1


def test_an_instance_that_waits_can_be_ended_and_leaves_no_waiter(engine: Engine) -> None:
    rig = Rig(engine, permits=1)
    held = held_permits(rig, 1)
    guest = RigGuest(rig, kernel_module(engine), tenant=8)
    threading.Timer(0.05, guest.slot.ask_to_terminate).start()
    with pytest.raises(CallFailed):
        guest.launch()
    guest.close()
    view = rig.ledger.read()
    assert next(t for t in view.tenants if t.tenant == 8).waiting == 0
    assert view.used == 1
    let_go(held)
    assert rig.ledger.read().used == 0


def test_a_deadline_in_a_kernel_returns_its_permit(engine: Engine) -> None:
    rig = Rig(engine, permits=1)
    until = time.monotonic() + 0.1
    guest = RigGuest(
        rig,
        kernel_module(engine, "spin"),
        interrupt=lambda: DeadlineExceeded("over") if time.monotonic() > until else None,
    )
    with pytest.raises(DeadlineExceeded):
        guest.launch()
    guest.close()
    assert rig.ledger.read().used == 0


def test_permits_are_never_lost_or_invented_by_many_guests(engine: Engine) -> None:
    rig = Rig(engine, permits=2)
    codes: list[int] = []

    def work(tenant: int) -> None:
        guest = RigGuest(rig, kernel_module(engine), tenant=tenant)
        codes.append(guest.loop(3000))
        guest.close()

    threads = [threading.Thread(target=work, args=(n % 3,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view = rig.ledger.read()
    assert codes == [0] * 12
    assert view.used == 0
    assert sum(t.dispatches for t in view.tenants) == 36_000
    assert all(t.held == 0 and t.waiting == 0 for t in view.tenants)
    for tenant in view.tenants:
        for histogram in (tenant.latency, tenant.execution, tenant.permit_wait):
            assert sum(histogram.counts) == tenant.dispatches
