from __future__ import annotations

import sys
import time
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fake_node import FakeDevice, FakeJobQueue, FakeLedger, Reading, no_statistics
from tensor_wasm.dispatch.ledger import LATENCY_BUCKETS_S, Histogram, LedgerView, TenantCounters
from tensor_wasm.node import Distribution, StatisticsView
from tensor_wasm.telemetry import Collector, HttpMetrics, LagMonitor, render
from tensor_wasm.telemetry.audit import AuditLog
from tensor_wasm.telemetry.connection_metrics import ConnectionMetrics
from tensor_wasm.telemetry.exposition import wants_openmetrics
from tensor_wasm.telemetry.families import Family, histogram, labels_text, sample
from tensor_wasm.telemetry.nvml import Gpu, GpuReader, NamedGpu
from tensor_wasm.telemetry.sheet import Sheet
from tensor_wasm.telemetry.tenants import SHOWN_MAX

BUCKETS = len(LATENCY_BUCKETS_S) + 1

#: Upper bounds of the histograms that operators' rules are written for.
LAUNCH_BOUNDS = (
    5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1, 5, 10,
)  # fmt: skip
REQUEST_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

#: Families that operators' rules and panels name: kind and labels.
CONTRACT = {
    "kernel_dispatches_total": ("counter", "tenant device"),
    "kernel_latency_seconds": ("histogram", "tenant"),
    "kernel_execution_seconds": ("histogram", "tenant device"),
    "dispatch_permit_wait_seconds": ("histogram", "tenant"),
    "dispatch_permits": ("gauge", ""),
    "dispatch_permits_used": ("gauge", ""),
    "dispatch_waiting": ("gauge", "tenant"),
    "dispatch_rejections_total": ("counter", "tenant reason"),
    "kernel_faults_total": ("counter", "tenant"),
    "kernel_compile_seconds": ("histogram", ""),
    "kernel_load_seconds": ("histogram", ""),
    "kernel_cache_hits_total": ("counter", "tier"),
    "kernel_cache_misses_total": ("counter", "tier"),
    "active_instances": ("gauge", "tenant"),
    "instance_spawns_total": ("counter", "tenant"),
    "instance_terminations_total": ("counter", "tenant outcome"),
    "instance_spawn_seconds": ("histogram", ""),
    "snapshot_capture_seconds": ("histogram", ""),
    "snapshot_restore_seconds": ("histogram", ""),
    "snapshots_in_progress": ("gauge", ""),
    "streaming_chunks_emitted_total": ("counter", ""),
    "functions": ("gauge", ""),
    "jobs_active": ("gauge", ""),
    "jobs_pending": ("gauge", ""),
    "device_restarts_total": ("counter", "device"),
    "queued_invocations": ("gauge", "tenant"),
    "quota_rejections_total": ("counter", "tenant quota"),
    "rate_limited_total": ("counter", "tenant"),
    "gpu_memory_used_bytes": ("gauge", "tenant device"),
    "guest_memory_bytes": ("gauge", "tenant"),
    "device_temperature_celsius": ("gauge", "device"),
    "device_utilization_ratio": ("gauge", "device"),
    "device_throttle_reasons": ("gauge", "device"),
    "device_ecc_errors_total": ("counter", "device"),
    "http_requests_total": ("counter", "route method status"),
    "http_request_duration_seconds": ("histogram", "route method status"),
    "http_requests_in_flight": ("gauge", "route method"),
    "http_connections": ("gauge", ""),
    "http_connections_closed_total": ("counter", "reason"),
    "event_loop_lag_seconds": ("histogram", ""),
    "audit_write_failures_total": ("counter", ""),
    "build_info": ("gauge", "version git_sha python wasmtime device"),
}

OPENMETRICS = "application/openmetrics-text"


def counters(tenant, dispatches=0, **more):
    counts = [0] * BUCKETS
    counts[6] = dispatches  # (2.5e-5, 5e-5]
    same = Histogram(tuple(counts), dispatches * 40_000)
    values = {
        "held": 0,
        "waiting": 0,
        "rejected_saturated": 0,
        "rejected_deadline": 0,
        "rejected_quota": 0,
        "faults": 0,
        "latency": same,
        "execution": same,
        "permit_wait": same,
    }
    return TenantCounters(tenant=tenant, dispatches=dispatches, **(values | more))


def node_with(rows=(), statistics=None, permits=64, used=0, queued=None):
    return SimpleNamespace(
        device=FakeDevice(),
        ledger=FakeLedger(LedgerView(permits, used, tuple(rows))),
        statistics=Reading(statistics or no_statistics()),
        intake=SimpleNamespace(queued=lambda: queued or {}),
        job_queue=FakeJobQueue(),
    )


class NoGpus(GpuReader):
    def read(self):
        return ()


def http_metrics():
    metrics = HttpMetrics()
    metrics.declare("/healthz", "GET", 200)
    return metrics


def samples(text):
    """Value by (sample name without prefix, labels)."""
    found = {}
    for family in parse_text(text):
        for item in family.samples:
            key = (item.name.removeprefix("tensor_wasm_"), tuple(sorted(item.labels.items())))
            assert key not in found, f"{key} twice"
            found[key] = item.value
    return found


def scrape(node, accept="", sources=()):
    body, _ = render([Collector(node), *sources], accept)
    return body.decode()


def value(found, name, **labels):
    return found[name, tuple(sorted(labels.items()))]


def everything():
    return [http_metrics(), LagMonitor(), ConnectionMetrics(), NoGpus(), AuditLog("none")]


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_every_family_of_the_contract_is_there_from_the_first_scrape_with_zeros(accept):
    body = scrape(node_with(), accept, everything())
    parse = parse_openmetrics if accept else parse_text
    families = {family.name.removeprefix("tensor_wasm_"): family for family in parse(body)}
    for name, (kind, labels) in CONTRACT.items():
        family = families.pop(name.removesuffix("_total"))
        assert family.type == kind
        assert family.documentation
        assert bool(family.samples) != name.startswith("device_"), f"{name}: {family.samples}"
        for item in family.samples:
            assert item.labels.keys() - {"le"} == set(labels.split()), name
            assert item.value == {"dispatch_permits": 64.0, "build_info": 1.0}.get(name, 0.0), name
    assert families == {}


def test_openmetrics_has_units_and_plain_text_has_not():
    body = scrape(node_with(), OPENMETRICS, everything())
    units = {family.name.removeprefix("tensor_wasm_"): family.unit for family in parse_openmetrics(body) if family.unit}
    assert units["kernel_latency_seconds"] == "seconds"
    assert units["guest_memory_bytes"] == "bytes"
    assert set(units) == {name for name in CONTRACT if name.endswith(("_seconds", "_bytes", "_celsius", "_ratio"))}
    assert "# UNIT" not in scrape(node_with())


@pytest.mark.parametrize(
    ("name", "bounds"), [("kernel_latency_seconds", LAUNCH_BOUNDS), ("kernel_execution_seconds", LAUNCH_BOUNDS),
    ("dispatch_permit_wait_seconds", LAUNCH_BOUNDS), ("http_request_duration_seconds", REQUEST_BOUNDS)],
)  # fmt: skip
def test_histograms_have_the_bounds_of_the_contract(name, bounds):
    body = scrape(node_with([counters(7, 3)]), sources=[http_metrics()])
    of_series = {}
    for found, labels in samples(body):
        if found == f"{name}_bucket":
            of_series.setdefault(tuple(label for label in labels if label[0] != "le"), []).append(dict(labels)["le"])
    assert of_series
    assert all(tuple(map(float, found)) == (*bounds, float("inf")) for found in of_series.values())


def test_bounds_are_written_as_rules_name_them():
    body = scrape(node_with([counters(7, 3)]))
    assert 'le="5e-05"' in body
    assert 'le="0.0005"' in body


def test_a_tenants_launches_are_its_own_series():
    rows = [
        counters(7, 30, waiting=2, rejected_saturated=4, rejected_deadline=5, rejected_quota=6, faults=1),
        counters(18446744073709551615, 1),
    ]
    found = samples(scrape(node_with(rows, permits=8, used=3)))
    assert value(found, "kernel_dispatches_total", tenant="7", device="cpu") == 30
    assert value(found, "kernel_dispatches_total", tenant="18446744073709551615", device="cpu") == 1
    assert value(found, "kernel_latency_seconds_count", tenant="7") == 30
    assert value(found, "kernel_latency_seconds_sum", tenant="7") == pytest.approx(30 * 40e-6)
    assert value(found, "kernel_latency_seconds_bucket", tenant="7", le="2.5e-05") == 0
    assert value(found, "kernel_latency_seconds_bucket", tenant="7", le="5e-05") == 30
    assert value(found, "kernel_latency_seconds_bucket", tenant="7", le="+Inf") == 30
    assert value(found, "kernel_execution_seconds_count", tenant="7", device="cpu") == 30
    assert value(found, "dispatch_permit_wait_seconds_count", tenant="7") == 30
    assert value(found, "dispatch_permits") == 8
    assert value(found, "dispatch_permits_used") == 3
    assert value(found, "dispatch_waiting", tenant="7") == 2
    for reason, count in (("saturated", 4), ("deadline", 5), ("quota", 6)):
        assert value(found, "dispatch_rejections_total", tenant="7", reason=reason) == count
    assert value(found, "kernel_faults_total", tenant="7") == 1


def test_instances_and_kernels_are_counted():
    statistics = StatisticsView(
        kernel_compile=Distribution((0.1, 1.0), (1, 2, 3), 9.5),
        kernel_load=Distribution((0.1, 1.0), (4, 2, 3), 9.25),
        spawn=Distribution((0.001,), (5, 1), 0.25),
        cache_hits={"memory": 8, "disk": 1},
        cache_misses={"memory": 2, "disk": 3},
        spawns={3: 6, None: 2},
        active={3: 1},
        terminations={(3, "returned"): 4, (3, "trapped"): 1, (None, "deadline"): 2},
        guest_memory_bytes={3: 65_536},
        gpu_memory_bytes={3: 4096},
        refusals={(3, "rate"): 7, (3, "instances"): 2, (None, "queue"): 5},
        functions=2,
        snapshot_capture=Distribution((0.25,), (3, 1), 2.5),
        snapshot_restore=Distribution((0.001,), (9, 0), 0.125),
        snapshots_in_progress=2,
        stream_chunks=41,
    )
    found = samples(scrape(node_with(statistics=statistics, queued={3: 4, 1 << 40: 1})))
    assert value(found, "kernel_compile_seconds_bucket", le="1.0") == 3
    assert value(found, "kernel_compile_seconds_sum") == 9.5
    assert value(found, "kernel_load_seconds_bucket", le="1.0") == 6
    assert value(found, "kernel_load_seconds_sum") == 9.25
    assert value(found, "instance_spawn_seconds_count") == 6
    assert value(found, "kernel_cache_hits_total", tier="memory") == 8
    assert value(found, "kernel_cache_misses_total", tier="disk") == 3
    assert value(found, "instance_spawns_total", tenant="3") == 6
    assert value(found, "instance_spawns_total", tenant="other") == 2
    assert value(found, "active_instances", tenant="3") == 1
    assert value(found, "instance_terminations_total", tenant="3", outcome="returned") == 4
    assert value(found, "instance_terminations_total", tenant="3", outcome="cancelled") == 0
    assert value(found, "instance_terminations_total", tenant="other", outcome="deadline") == 2
    assert value(found, "guest_memory_bytes", tenant="3") == 65_536
    assert value(found, "gpu_memory_used_bytes", tenant="3", device="cpu") == 4096
    assert value(found, "functions") == 2
    assert value(found, "snapshot_capture_seconds_bucket", le="0.25") == 3
    assert value(found, "snapshot_capture_seconds_sum") == 2.5
    assert value(found, "snapshot_restore_seconds_count") == 9
    assert value(found, "snapshots_in_progress") == 2
    assert value(found, "streaming_chunks_emitted_total") == 41
    assert value(found, "rate_limited_total", tenant="3") == 7
    assert value(found, "quota_rejections_total", tenant="3", quota="instances") == 2
    assert value(found, "quota_rejections_total", tenant="3", quota="functions") == 0
    assert value(found, "quota_rejections_total", tenant="other", quota="queue") == 5
    assert value(found, "queued_invocations", tenant="3") == 4
    assert value(found, "queued_invocations", tenant="other") == 1


def test_past_the_limit_the_least_busy_tenants_are_summed():
    rows = [counters(tenant, 1000 - tenant, faults=1) for tenant in range(SHOWN_MAX + 50)] + [counters(None, 9)]
    found = samples(scrape(node_with(rows)))
    shown = {dict(labels)["tenant"] for name, labels in found if name == "kernel_dispatches_total"}
    assert shown == {str(tenant) for tenant in range(SHOWN_MAX)} | {"other"}
    summed = sum(1000 - tenant for tenant in range(SHOWN_MAX, SHOWN_MAX + 50)) + 9
    assert value(found, "kernel_dispatches_total", tenant="other", device="cpu") == summed
    assert value(found, "kernel_latency_seconds_count", tenant="other") == summed
    assert value(found, "kernel_faults_total", tenant="other") == 50
    total = sum(row.dispatches for row in rows)
    assert sum(count for (name, _), count in found.items() if name == "kernel_dispatches_total") == total


def test_a_tenant_takes_anothers_place_only_when_much_busier():
    rows = dict.fromkeys(range(SHOWN_MAX), 100)
    node = node_with([counters(tenant, count) for tenant, count in rows.items()])
    collector = Collector(node)

    def shown_with(newcomer):
        everyone = [*rows.items(), (9999, newcomer)]
        node.ledger.view = LedgerView(64, 0, tuple(counters(tenant, count) for tenant, count in everyone))
        found = samples(render([collector], "")[0].decode())
        return ("kernel_dispatches_total", (("device", "cpu"), ("tenant", "9999"))) in found

    render([collector], "")
    assert not shown_with(150)
    assert shown_with(201)
    assert shown_with(201)


def test_a_scrape_with_200_tenants_is_quick():
    rows = [counters(tenant, 5) for tenant in range(200)]
    statistics = StatisticsView(
        **{
            **{name: getattr(no_statistics(), name) for name in StatisticsView.__slots__},
            "spawns": dict.fromkeys(range(200), 3),
            "terminations": {(tenant, "returned"): 3 for tenant in range(200)},
        }
    )
    collector = Collector(node_with(rows, statistics))
    render([collector], "")
    times = []
    for _ in range(7):
        started = time.process_time()
        body, _ = render([collector], "")
        times.append(time.process_time() - started)
    assert len(body) > 500_000
    assert min(times) <= 0.020


def test_openmetrics_is_chosen_by_weight():
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    assert wants_openmetrics(prometheus)
    assert wants_openmetrics("application/openmetrics-text")
    assert not wants_openmetrics("application/openmetrics-text;q=0.2, text/plain;q=0.9")
    assert not wants_openmetrics("application/openmetrics-text;q=0")
    assert not wants_openmetrics("application/openmetrics-text;q=much")
    assert not wants_openmetrics("text/plain")
    assert not wants_openmetrics("")
    assert not wants_openmetrics("*/*")


def test_content_types_are_the_formats_own():
    assert render([], "") == (b"", "text/plain; version=0.0.4; charset=utf-8")
    body, kind = render([], "application/openmetrics-text")
    assert body == b"# EOF\n"
    assert kind.startswith("application/openmetrics-text; version=1.0.0")


def test_build_info_says_what_runs():
    (labels,) = [dict(labels) for name, labels in samples(scrape(node_with())) if name == "build_info"]
    assert labels.keys() == {"version", "git_sha", "python", "wasmtime", "device"}
    assert labels["device"] == "cpu"
    assert all(labels.values())


def test_labels_cannot_break_a_line():
    family = Family("thing", "histogram", "A thing.")
    nasty = labels_text(route='a"b\\c\nd%s%')
    text = sample(family, nasty, 1) + histogram(family, nasty, (0.1,), (1, 0), 0.05)
    for line in text.splitlines():
        assert line.startswith("tensor_wasm_thing")
        assert 'route="a\\"b\\\\c\\nds"' in line


def test_random_histograms_read_back_exactly():
    seed = 20_240_601
    generator = np.random.default_rng(seed)
    family = Family("random_seconds", "histogram", "Random.")
    for _ in range(20):
        bounds = tuple(sorted({float(x) for x in generator.uniform(1e-9, 1e4, 9)}))
        counts = [int(x) for x in generator.integers(0, 1 << 50, len(bounds) + 1)]
        total = float(generator.uniform(0, 1e12))
        text = "# TYPE tensor_wasm_random_seconds histogram\n" + histogram(family, "", bounds, counts, total)
        (parsed,) = parse_text(text)
        values = [int(item.value) for item in parsed.samples if item.name.endswith("_bucket")]
        assert values == list(np.cumsum(counts)), f"seed {seed}"
        assert [float(item.labels["le"]) for item in parsed.samples[:-2]] == [*bounds, float("inf")], f"seed {seed}"
        assert parsed.samples[-2].value == total
        assert parsed.samples[-1].value == sum(counts)


def test_the_three_histograms_of_a_launch_are_not_mixed_up():
    def only(bucket, sum_ns):
        return Histogram(tuple(int(n == bucket) for n in range(len(LATENCY_BUCKETS_S) + 1)), sum_ns)

    row = counters(7, 1, latency=only(0, 400), execution=only(3, 5_000), permit_wait=only(6, 50_000))
    found = samples(scrape(node_with([row])))
    assert value(found, "kernel_latency_seconds_sum", tenant="7") == 400e-9
    assert value(found, "kernel_execution_seconds_sum", tenant="7", device="cpu") == 5_000e-9
    assert value(found, "dispatch_permit_wait_seconds_sum", tenant="7") == 50_000e-9


def test_a_gpu_has_a_sample_of_all_that_it_can_tell():
    class Gpus(GpuReader):
        def read(self):
            return Gpu("cuda:0", 64, 0.87, ("hw_slowdown", "sw_thermal_slowdown"), 4), Gpu("cuda:1", 41, None, (), None)

    found = samples(render([Gpus()], "")[0].decode())
    assert found == {
        ("device_temperature_celsius", (("device", "cuda:0"),)): 64,
        ("device_temperature_celsius", (("device", "cuda:1"),)): 41,
        ("device_utilization_ratio", (("device", "cuda:0"),)): 0.87,
        ("device_throttle_reasons", (("device", "cuda:0"),)): 0x28,
        ("device_throttle_reasons", (("device", "cuda:1"),)): 0,
        ("device_ecc_errors_total", (("device", "cuda:0"),)): 4,
    }


def test_a_gpu_s_restarts_are_counted_under_the_node_s_name_of_it():
    node = node_with()
    node.device = FakeDevice(name="cuda:2", kind="cuda", restarts=3)
    found = samples(scrape(node))
    assert value(found, "device_restarts_total", device="cuda:2") == 3
    assert value(found, "kernel_dispatches_total", tenant="other", device="cuda:2") == 0
    assert not [key for key in samples(scrape(node_with())) if key[0] == "device_restarts_total"]


class FakeNvml:
    """NVML on a machine that counts its GPUs in another order than CUDA."""

    NVML_TEMPERATURE_GPU = NVML_VOLATILE_ECC = 0
    NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 0, 1

    class NVMLError(Exception):
        pass

    NVMLError_FunctionNotFound = NVMLError_NotSupported = NVMLError_NoPermission = NVMLError_InvalidArgument = NVMLError

    nvmlInit = nvmlShutdown = staticmethod(lambda: None)
    nvmlDeviceGetCount = staticmethod(lambda: 2)
    nvmlDeviceGetHandleByIndex = staticmethod(lambda index: index)
    nvmlDeviceGetHandleByUUID = staticmethod(("GPU-a", "GPU-b").index)
    nvmlDeviceGetTemperatureV = staticmethod(lambda handle, _sensor: 40 + handle)
    nvmlDeviceGetUtilizationRates = staticmethod(lambda _handle: SimpleNamespace(gpu=0))
    nvmlDeviceGetCurrentClocksEventReasons = staticmethod(lambda _handle: 0)
    nvmlDeviceGetTotalEccErrors = staticmethod(lambda *_which: 0)


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (None, {"cuda:0": 40, "cuda:1": 41}),
        (NamedGpu("GPU-b", "cuda:0"), {"cuda:0": 41}),
    ],
)
def test_a_node_on_a_gpu_tells_of_that_one_alone_by_its_uuid(monkeypatch, only, expected):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml)
    reader = GpuReader(only=only, wait_s=30)
    assert {gpu.device: gpu.temperature_celsius for gpu in reader.read()} == expected


def test_many_series_at_once_are_written_as_they_are_one_by_one():
    seed = 20_250_711
    generator = np.random.default_rng(seed)
    sheet = Sheet()
    bounds = (0.001, 0.5, 30.0)
    timed, counted = Family("timed_seconds", "histogram", "T.", ("a",), bounds), Family("n", "gauge", "N.", ("a",))
    for _ in range(60):
        # Sometimes the same series as before, sometimes others, or as many others; sometimes text of several pieces.
        length = int(generator.integers(0, 4)) if generator.random() < 0.8 else 3000
        labels = tuple(labels_text(a=str(x)) for x in generator.integers(0, 3, length))
        rows = [([int(x) for x in generator.integers(0, 1 << 60, 4)], float(generator.uniform(0, 9))) for _ in labels]
        expected = "".join(histogram(timed, text, bounds, *row) for text, row in zip(labels, rows, strict=True))
        cumulative = [(list(accumulate(counts)), total) for counts, total in rows]
        assert b"".join(sheet.histograms(timed, labels, cumulative).text()).decode() == expected, f"seed {seed}"
        numbers = [counts[0] for counts, _ in rows]
        expected = "".join(sample(counted, text, number) for text, number in zip(labels, numbers, strict=True))
        written = sheet.samples(counted, labels, numbers).text()
        assert b"".join(written).decode() == expected, f"seed {seed}"
        assert max(map(len, written)) <= 1 << 16


def test_a_series_without_labels_has_no_braces():
    sheet = Sheet()
    assert b"".join(sheet.samples(Family("n", "gauge", "N."), ("",), [2]).text()) == b"tensor_wasm_n 2\n"
    metric = sheet.histograms(Family("t", "histogram", "T.", (), (0.5,)), ("",), [((1, 3), 0.25)])
    assert b"".join(metric.text()).decode() == histogram(Family("t", "histogram", "T."), "", (0.5,), (1, 2), 0.25)
