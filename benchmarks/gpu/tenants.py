"""64 tenants at once: does one meet another's memory, and do they get on alike?"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from nodes import Guest, gpu_node
from part import EMULATED, Findings, Options, attempt, run
from stage import index_of

from tensor_wasm.bench.sandbox import guest_wasm
from tensor_wasm.device.cuda.gpu import Gpu, Lane
from tensor_wasm.device.cuda.tenant import GpuKernel, GpuTenant

_TENANTS = 64
_FAIR = 0.10
_CANARY = 0xC5
#: Every thread reads and writes at ``at`` plus so many times ``step``, as its number says: anywhere in 64 bits.
_SCRIBBLE = b"""
.version 8.0
.target sm_52
.address_size 64
.visible .entry scribble(.param .u64 at, .param .u64 step)
{
    .reg .b32 %r<8>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [at];
    ld.param.u64 %rd2, [step];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r4, %r1, %r2, %r3;
    cvt.u64.u32 %rd3, %r4;
    mad.lo.u64 %rd4, %rd3, %rd2, %rd1;
    and.b64 %rd4, %rd4, -8;
    ld.global.u32 %r5, [%rd4];
    add.u32 %r5, %r5, %r4;
    st.global.u32 [%rd4], %r5;
    st.u32 [%rd4+4], %r4;
    red.add.u32 [%rd4], 1;
    red.global.xor.b32 [%rd4], %r4;
    ret;
}
"""


def measure(options: Options, findings: Findings) -> None:
    attempt(findings, "tenants beside a checker", lambda: _beside_a_checker(options, findings))
    attempt(findings, "tenants of a node", lambda: _in_a_node(options, findings))


# --- memory ------------------------------------------------------------------------------------------------


def _beside_a_checker(options: Options, findings: Findings) -> None:
    """All scribble wherever they can, while a tenant looks at its memory."""
    count = 8 if options.is_quick else _TENANTS
    size = 4 << 20 if options.is_quick else 64 << 20
    command = None
    if options.gpu == EMULATED:
        from device.cuda.emulated_worker import worker_command

        command = worker_command()
    gpu = Gpu(index_of(options.gpu), command=command)
    with ExitStack() as ends:
        ends.callback(gpu.close)
        # In the middle of the others, if memory is given out in turn.
        tenants = [GpuTenant(gpu, number, size) for number in range(1, count // 2 + 1)]
        checker = GpuTenant(gpu, 1000, size)
        tenants += [GpuTenant(gpu, number, size) for number in range(count // 2 + 1, count + 1)]
        partition = checker.partition
        canaries = np.full(partition.size_bytes, _CANARY, np.uint8)
        gpu.copy_in(checker.number, partition.base, memoryview(canaries))
        found = np.zeros_like(canaries)
        loaded = [(tenant, tenant.kernel(_SCRIBBLE, "scribble"), gpu.open_lane(tenant.number)) for tenant in tenants]
        ending = time.monotonic() + (1.0 if options.is_quick else 2 * options.seconds)
        blocks = 4 if options.is_quick else 1024
        with ThreadPoolExecutor(count) as pool:
            runs = [
                pool.submit(_scribble, tenant, kernel, lane, partition.base, blocks, ending)
                for tenant, kernel, lane in loaded
            ]
            checks = 0
            while True:
                is_last = all(each.done() for each in runs)
                gpu.copy_out(checker.number, partition.base, memoryview(found))
                checks += 1
                if not np.array_equal(found, canaries) or is_last:
                    break
            launches = [each.result() for each in runs]
        wrong = int(np.count_nonzero(found != canaries))
        findings.keep("scribbling", {"launches": launches, "checks": checks, "wrong_bytes": wrong})
        findings.add(
            f"{count} tenants write anywhere: bytes of a checker's {size >> 20} MiB that changed",
            f"{wrong} in {checks} looks", "none", wrong == 0, f"{sum(launches):,} launches",
        )  # fmt: skip


def _scribble(tenant: GpuTenant, kernel: GpuKernel, lane: Lane, target: int, blocks: int, ending: float) -> int:
    """Launch until then: at the checker's addresses, beside its own partition, over all 64 bits."""
    own, size = tenant.partition.base, tenant.partition.size_bytes
    starts = (
        (target, 8), (target, 4096), (own - size, 65_536), (own + size, 65_536), (target - (blocks << 9), 16),
        (0, 0x9E3779B97F4A7C15), (target, 0x9E3779B97F4A7C15),
    )  # fmt: skip
    done = 0
    while time.monotonic() < ending or not done:
        at, step = starts[done % len(starts)]
        parameters = (at & (1 << 64) - 1).to_bytes(8, "little") + step.to_bytes(8, "little")
        lane.launch(kernel.number, (blocks, 1, 1), (256, 1, 1), 0, parameters, (), None)
        done += 1
    return done


# --- shares ------------------------------------------------------------------------------------------------


def _in_a_node(options: Options, findings: Findings) -> None:
    """All launch ``vector_add`` with its windows without rest."""
    count = 4 if options.is_quick else _TENANTS
    each = 10  # launches of a call: what is counted is whole calls
    settings: dict[str, Any] = {} if options.gpu == EMULATED else {"cuda_partition_mib": 64}
    with gpu_node(options.gpu, workers=count, **settings) as (node, _):
        function = {tenant: node.functions.deploy("bench", guest_wasm(), tenant=tenant).id for tenant in range(count)}
        guests = [Guest(node, function[tenant], tenant) for tenant in range(count)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda guest: guest.call("prepare", 1), guests))
        start, launched = threading.Barrier(count), np.zeros(count, np.int64)
        duration_s = 0.5 if options.is_quick else max(2 * options.seconds, 5.0)

        def flood(number: int) -> None:
            start.wait()
            ending = time.monotonic() + duration_s
            while time.monotonic() < ending:
                guests[number].call("launch_loop", each)
                launched[number] += each

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(flood, range(count)))
        right = [guest.call("right_elements") for guest in guests]
    assert set(right) == {1024}, f"sums are wrong: {right}"
    middle = float(np.median(launched))
    low, high = (float(edge) / middle - 1 for edge in (launched.min(), launched.max()))
    findings.keep("launches of each tenant", launched.tolist())
    findings.add(
        f"{count} tenants' guests launch at once: the slowest and fastest to the median",
        f"{low:+.0%}, {high:+.0%}", f"within {_FAIR:.0%}", -low <= _FAIR and high <= _FAIR,
        f"{launched.sum() / duration_s:,.0f} launches/s in all",
    )  # fmt: skip


if __name__ == "__main__":
    run(measure, __doc__)
