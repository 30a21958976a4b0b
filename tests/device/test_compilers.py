"""Compiler processes: what they give, what they cost the node, and how they end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from device.texts import long_kernel, nonsense, vector_add
from tensor_wasm.device import compilers
from tensor_wasm.device.compilation import compile_ptx
from tensor_wasm.device.compilers import Compilers
from tensor_wasm.device.cpu import CpuDevice
from tensor_wasm.device.protocol import LoadedKernel
from tensor_wasm.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    InternalError,
    InvalidWasm,
    NotReady,
    PtxError,
    TensorWasmError,
)
from tensor_wasm.runtime import Engine, ModuleCache, SealedFiles
from tensor_wasm.wasm import Module, ValType

KEY = bytes(32)
#: Little more than a compiler process has after its start.
MEMORY_BYTES = 48 << 20
#: A text that takes a compiler about four seconds.
SLOW = nonsense()
MakePool = Callable[..., Compilers]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    """Pools with a process that is ready; closed at the end."""
    made: list[Compilers] = []

    def make(count: int = 1, limit_s: float = 120.0, *, is_warm: bool = True, **options: int) -> Compilers:
        pool = Compilers(count, limit_s, **options)
        made.append(pool)
        if is_warm:
            pool.warm_up()
            until(lambda: pool.is_warm)
        return pool

    yield make
    for pool in made:
        pids = pool.processes
        pool.close()
        assert not [pid for pid in pids if is_there(pid)]


@pytest.fixture(scope="module")
def ready_pool() -> Iterator[Compilers]:
    """A pool for the tests that do it no harm, with one process that is ready."""
    pool = Compilers(1, 30.0)
    pool.warm_up()
    until(lambda: pool.is_warm)
    yield pool
    pool.close()


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What devices log; at their own logger, for another test may have kept records from the root's."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, logger = Lines(), logging.getLogger("tensor_wasm.device")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def until(condition: Callable[[], bool], limit_s: float = 100.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def is_there(pid: int) -> bool:
    """Whether a thread of a process runs: it is neither gone nor waiting for its parent to notice that it ended."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return any((thread / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX" for thread in threads)
    except (FileNotFoundError, ProcessLookupError):
        return False


def make_device(engine: Engine, home: Path, pool: Compilers | None) -> CpuDevice:
    elsewhere = None if pool is None else pool.machine_code
    modules = ModuleCache(engine, SealedFiles(home / "modules", KEY), compile_elsewhere=elsewhere)
    return CpuDevice(modules, SealedFiles(home / "kernels", KEY), pool)


# --- results ---------------------------------------------------------------------------------------------


def test_a_kernel_from_a_process_is_the_one_that_would_be_made_here(
    engine: Engine, tmp_path: Path, ready_pool: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make_device(engine, tmp_path, ready_pool)
    here = compile_ptx(vector_add(), "vector_add")

    def refuse(_wasm: bytes) -> None:
        raise AssertionError("the node itself compiled a module")

    monkeypatch.setattr(engine, "compile", refuse)
    assert device.load(vector_add(), "vector_add").compiled == here
    assert sum(device.statistics.compile_counts) == 1
    assert 0 < device.statistics.compile_sum_s < 10
    again = make_device(engine, tmp_path, None)
    assert again.load(vector_add(), "vector_add").compiled == here
    assert again.statistics.hits == {"memory": 0, "disk": 1}


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        (vector_add().replace(b"add.f32", b"frobnicate.f32"), "vector_add"),
        (vector_add(), "no_such_é"),
        (vector_add(), "\udc80"),
        (b"", "k"),
        (bytes(range(256)), "k"),
        (b"{" * 100_000, "k"),
    ],
    ids=["opcode", "entry", "surrogate", "empty", "bytes", "braces"],
)
def test_errors_of_a_text_are_as_here(
    engine: Engine, tmp_path: Path, ready_pool: Compilers, text: bytes, entry: str
) -> None:
    caught = []
    for number, pool in enumerate((ready_pool, None)):
        with pytest.raises(PtxError) as error:
            make_device(engine, tmp_path / str(number), pool).load(text, entry)
        caught.append((error.value.text.encode("utf-8", "replace"), error.value.line, error.value.column))
    assert caught[0] == caught[1]


def test_modules_are_compiled_by_a_process_as_well(ready_pool: Compilers, engine: Engine) -> None:
    module = Module()
    module.function([], [ValType.I32], export="run").code.i32_const(1)
    code = ready_pool.machine_code(module.encode().wasm)
    assert code is not None
    engine.deserialize(code)
    with pytest.raises(InvalidWasm, match="offset"):
        ready_pool.machine_code(b"\0asm\1\0\0\0\xff")


def test_many_callers_of_one_text_cause_one_compilation(engine: Engine, tmp_path: Path, ready_pool: Compilers) -> None:
    device = make_device(engine, tmp_path, ready_pool)
    text = long_kernel(2000)
    gate = threading.Barrier(8)

    def load(_number: int) -> LoadedKernel:
        gate.wait()
        return device.load(text, "k")

    with ThreadPoolExecutor(8) as threads:
        kernels = list(threads.map(load, range(8)))
    assert all(kernel is kernels[0] for kernel in kernels)
    assert sum(device.statistics.compile_counts) == 1


def test_all_callers_of_a_bad_text_get_its_error(engine: Engine, tmp_path: Path, ready_pool: Compilers) -> None:
    device = make_device(engine, tmp_path, ready_pool)
    text = nonsense(1 << 20)
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(device.load, text, "k") for _ in range(4)]
    assert {type(future.exception()) for future in futures} == {PtxError}


def test_a_small_text_does_not_wait_for_the_first_process_and_a_large_one_starts_it(
    engine: Engine, tmp_path: Path, make_pool: MakePool
) -> None:
    pool = make_pool(is_warm=False)
    device = make_device(engine, tmp_path, pool)
    device.load(vector_add(), "vector_add")
    assert pool.processes == []
    device.load(long_kernel(3000), "k")
    assert len(pool.processes) == 1
    assert pool.is_warm


def test_without_processes_everything_is_compiled_here(engine: Engine, tmp_path: Path, make_pool: MakePool) -> None:
    pool = make_pool(0, is_warm=False)
    pool.warm_up()
    device = make_device(engine, tmp_path, pool)
    device.load(long_kernel(3000), "k")
    assert pool.processes == []


# --- limits ----------------------------------------------------------------------------------------------


def test_a_kernel_that_takes_too_long_is_refused_and_the_next_one_compiled(
    engine: Engine, tmp_path: Path, make_pool: MakePool
) -> None:
    pool = make_pool(limit_s=0.5)
    device = make_device(engine, tmp_path, pool)
    (first,) = pool.processes
    started = time.monotonic()
    with pytest.raises(PtxError, match=r"takes too long to compile: the limit is 0\.5 s"):
        device.load(SLOW, "k")
    assert time.monotonic() - started < 2
    device.load(vector_add(), "vector_add")
    assert pool.processes != [first]
    assert not is_there(first)


def test_a_module_that_takes_too_long_is_invalid(make_pool: MakePool) -> None:
    wasm = compile_ptx(long_kernel(5000), "k").wasm
    with pytest.raises(InvalidWasm, match="takes too long to compile"):
        make_pool(limit_s=0.02).machine_code(wasm)


@pytest.mark.parametrize(
    "make_text",
    [
        lambda: SLOW,
        pytest.param(lambda: nonsense(6 << 20), marks=pytest.mark.slow),
        pytest.param(lambda: long_kernel(40_000), marks=pytest.mark.slow),
    ],
    ids=["operands", "long", "instructions"],
)
def test_a_kernel_that_needs_too_much_memory_is_refused_and_the_next_one_compiled(
    engine: Engine, tmp_path: Path, make_pool: MakePool, make_text: Callable[[], bytes]
) -> None:
    device = make_device(engine, tmp_path, make_pool(memory_bytes=MEMORY_BYTES))
    with pytest.raises(PtxError, match="needs too much memory"):
        device.load(make_text(), "k")
    device.load(vector_add(), "vector_add")


def test_a_slow_kernel_does_not_hold_up_a_small_one(engine: Engine, tmp_path: Path, make_pool: MakePool) -> None:
    pool = make_pool(2)
    device = make_device(engine, tmp_path, pool)
    slow = [pool.kernel(nonsense(salt=number), "k") for number in range(2)]
    until(slow[0].running)
    device.load(vector_add(), "vector_add")
    assert not any(future.done() for future in slow)
    assert not slow[1].running(), "the last process is for small texts"


def test_the_queue_is_bounded_and_those_who_left_do_not_count(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilers, "_QUEUE_MAX", 2)
    pool = make_pool()
    running = pool.kernel(SLOW, "k")
    until(running.running)
    waiting = [pool.kernel(vector_add(number), "vector_add") for number in range(2)]
    with pytest.raises(CapacityExhausted, match="2 compilations already wait"):
        pool.kernel(vector_add(), "vector_add")
    assert waiting[0].cancel()
    pool.kernel(vector_add(), "vector_add")


# --- ends ------------------------------------------------------------------------------------------------


def test_a_process_killed_at_work_fails_that_job_only(
    engine: Engine, tmp_path: Path, make_pool: MakePool, log: list[str]
) -> None:
    pool = make_pool()
    device = make_device(engine, tmp_path, pool)
    (first,) = pool.processes
    with ThreadPoolExecutor(1) as threads:
        before_s = processor_s(first)
        future = threads.submit(device.load, SLOW, "k")
        until(lambda: processor_s(first) > before_s + 0.5)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(InternalError, match="ended while it compiled this kernel"):
            future.result()
    assert any("SIGKILL" in line for line in log)
    device.load(vector_add(), "vector_add")
    assert pool.processes != [first]


def processor_s(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def test_a_process_killed_at_rest_costs_no_job(engine: Engine, tmp_path: Path, make_pool: MakePool) -> None:
    pool = make_pool()
    device = make_device(engine, tmp_path, pool)
    (first,) = pool.processes
    os.kill(first, signal.SIGKILL)
    until(lambda: not is_there(first))
    device.load(vector_add(), "vector_add")


def test_closing_ends_what_runs_and_what_waits(make_pool: MakePool) -> None:
    pool = make_pool()
    futures: list[Future[compilers.KernelCode]] = [pool.kernel(nonsense(salt=number), "k") for number in range(2)]
    until(futures[0].running)
    pids = pool.processes
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 2
    for future in futures:
        assert isinstance(future.exception(), NotReady)
    assert not any(map(is_there, pids))
    with pytest.raises(NotReady):
        pool.kernel(SLOW, "k")


_PARENT = """
import sys, time
from device.texts import nonsense
from tensor_wasm.device.compilers import Compilers
pool = Compilers(1, 60)
pool.warm_up()
while not pool.is_warm:
    time.sleep(0.01)
if sys.argv[1] == "busy":
    future = pool.kernel(nonsense(), "k")
    while not future.running():
        time.sleep(0.01)
print(pool.processes[0], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_no_process_outlives_a_node_that_was_killed(state: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen([sys.executable, "-c", _PARENT, state], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_there(pid)
        parent.kill()
        until(lambda: not is_there(pid), limit_s=2.0)


# --- what a process has ----------------------------------------------------------------------------------


def test_a_process_has_neither_the_nodes_secrets_nor_its_files(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TENSOR_WASM_API_TOKENS", "very-secret:role=admin")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    with (tmp_path / "node.db").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        (pid,) = make_pool().processes
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        names = {entry.partition(b"=")[0] for entry in environment.split(b"\0") if entry}
        assert names <= {
            b"PYTHONPATH",
            b"RAYON_NUM_THREADS",
            b"OPENBLAS_NUM_THREADS",
            b"OMP_NUM_THREADS",
            b"LD_LIBRARY_PATH",
        }
        assert b"very-secret" not in environment
        assert b"very-secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        open_files = {path.readlink().as_posix().partition(":")[0] for path in Path(f"/proc/{pid}/fd").iterdir()}
        assert open_files <= {"pipe", "/memfd", "anon_inode"}
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)


# --- waiting ---------------------------------------------------------------------------------------------


def test_a_caller_that_gives_up_does_so_at_once_and_leaves_the_kernel_to_the_others(
    engine: Engine, tmp_path: Path, ready_pool: Compilers
) -> None:
    device = make_device(engine, tmp_path, ready_pool)
    text = long_kernel(20_000)
    end = time.monotonic() + 0.2

    def interrupt() -> TensorWasmError | None:
        return DeadlineExceeded("the deadline came") if time.monotonic() >= end else None

    with ThreadPoolExecutor(1) as threads:
        patient = threads.submit(device.load, text, "k")
        with pytest.raises(DeadlineExceeded):
            device.load(text, "k", interrupt)
        assert not patient.done()
        assert patient.result() is device.load(text, "k")
    assert sum(device.statistics.compile_counts) == 1


def test_a_kernel_that_was_begun_is_kept_though_nobody_waited_for_it(
    engine: Engine, tmp_path: Path, ready_pool: Compilers
) -> None:
    device = make_device(engine, tmp_path, ready_pool)
    text = long_kernel(5000)
    asked: list[float] = []

    def interrupt() -> TensorWasmError | None:
        asked.append(time.monotonic())
        return DeadlineExceeded("the deadline came") if len(asked) > 3 else None

    with pytest.raises(DeadlineExceeded):
        device.load(text, "k", interrupt)
    assert max(later - earlier for earlier, later in pairwise(asked)) < 0.1
    until(lambda: sum(device.statistics.compile_counts) == 1)
    device.load(text, "k")
    assert sum(device.statistics.compile_counts) == 1


def test_a_kernel_that_waits_in_the_queue_and_interests_nobody_is_not_compiled(
    engine: Engine, tmp_path: Path, make_pool: MakePool
) -> None:
    pool = make_pool()
    device = make_device(engine, tmp_path, pool)
    first = pool.kernel(nonsense(2 << 20), "k")
    until(first.running)
    with pytest.raises(DeadlineExceeded):
        device.load(vector_add("left"), "vector_add", lambda: DeadlineExceeded("now"))
    device.load(vector_add("stayed"), "vector_add")
    assert sum(device.statistics.compile_counts) == 1
    device.load(vector_add("left"), "vector_add")
    assert sum(device.statistics.compile_counts) == 2


def test_eight_mebibytes_of_nonsense_do_not_hold_up_the_event_loop(
    engine: Engine, tmp_path: Path, make_pool: MakePool
) -> None:
    device = make_device(engine, tmp_path, make_pool(limit_s=1.5))
    lags: list[float] = []

    async def watch(loading: asyncio.Future[LoadedKernel]) -> None:
        while not loading.done():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - before - 0.001)

    async def main() -> None:
        loading = asyncio.get_running_loop().run_in_executor(None, device.load, SLOW, "k")
        await watch(loading)
        with pytest.raises(PtxError):
            await loading

    asyncio.run(main())
    lags.sort()
    worst, p99 = lags[-1], lags[len(lags) * 99 // 100]
    print(f"event loop's lag over {len(lags)} looks: worst {worst * 1e3:.1f} ms, P99 {p99 * 1e3:.2f} ms")
    # Reading the text in this process makes them 200 ms and 100 ms. A busy machine alone is good for the worst.
    assert p99 < 0.02
    assert worst < 0.15
