"""The Grafana dashboard's rows, panels and queries."""

from __future__ import annotations

from dataclasses import dataclass

RUNBOOKS = "https://github.com/tensor-wasm/tensor-wasm/blob/main/docs/runbooks"
#: What every query of a node's own series is narrowed by. "All" is `.*`, which nodes without the label match too.
NODES = 'deployment=~"$deployment", instance=~"$instance"'
TENANTS = f'{NODES}, tenant=~"$tenant"'
INVOKE = f'{NODES}, route="/functions/:id/invoke", method="POST"'
FAILED_INVOKE = f'{INVOKE}, status=~"5.."'


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and how its series are called: a text with ``{{label}}`` in it."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Line:
    """A threshold that is drawn, in the panel's unit."""

    value: float
    colour: str = "red"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``kind`` and ``unit`` are Grafana's names; ``runbook`` a file of the runbooks without its end.

    ``lowest`` and ``highest`` bound the axis. A panel ``is_logarithmic`` where values go over decades, ``is_stacked``
    where their sum says something, and ``has_exemplars`` where traces are to be found.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    runbook: str | None = None
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    lines: tuple[Line, ...] = ()
    lowest: float | None = 0
    highest: float | None = None
    decimals: int | None = None
    is_logarithmic: bool = False
    is_stacked: bool = False
    has_exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels under it."""

    title: str
    panels: tuple[Panel, ...]


def quantile(q: float, histogram: str, narrowed: str = NODES, by: str = "") -> str:
    """A quantile over the nodes and tenants chosen; no sample where there was nothing to measure."""
    labels = f"le, {by}" if by else "le"
    rates = f"rate({histogram}_bucket{{{narrowed}}}[$__rate_interval])"
    return f"histogram_quantile({q}, sum by ({labels}) ({rates})) >= 0"


def quantiles(histogram: str, narrowed: str = NODES) -> tuple[Query, ...]:
    """The three of a latency panel."""
    return tuple(
        Query(quantile(q, histogram, narrowed), name) for q, name in ((0.5, "P50"), (0.95, "P95"), (0.99, "P99"))
    )


def rate(counter: str, narrowed: str = NODES, by: str = "") -> str:
    """How many a second over the nodes and tenants chosen."""
    return f"sum{f' by ({by}) ' if by else ''}(rate({counter}{{{narrowed}}}[$__rate_interval]))"


def total(gauge: str, narrowed: str = NODES, by: str = "") -> str:
    """How many or how much there is now."""
    return f"sum{f' by ({by}) ' if by else ''}({gauge}{{{narrowed}}})"


ROWS: tuple[Row, ...] = (
    Row(
        "Objectives",
        (
            Panel(
                "Availability",
                "Part of all answers in 30 days that were not 5xx. The objective is 99.5 %.",
                (Query('tensor_wasm:http_availability:ratio_30d{deployment=~"$deployment"}', "{{deployment}}"),),
                unit="percentunit",
                runbook="availability-fast-burn",
                kind="stat",
                width=4,
                lines=(Line(0.995, "green"),),
                lowest=None,
                decimals=3,
            ),
            Panel(
                "Error budget",
                "What is left of the failures that 30 days may have. Below zero the objective is missed.",
                (Query('tensor_wasm:http_error_budget:remaining_30d{deployment=~"$deployment"}', "{{deployment}}"),),
                unit="percentunit",
                runbook="availability-very-slow-burn",
                width=6,
                lines=(Line(0),),
                lowest=None,
                highest=1,
            ),
            Panel(
                "Burn rates",
                "How many times faster than the budget allows failures come, by window. An alert fires when both of its"
                " windows are above its line: 14.4 for 1 h and 5 m (page), 6 for 6 h and 30 m (page), 1 for 3 d and 6 h"
                " (ticket).",
                tuple(
                    Query(
                        f'tensor_wasm:http_errors:ratio_{window}{{deployment=~"$deployment"}} / 0.005',
                        f"{window} {{{{deployment}}}}",
                    )
                    for window in ("5m", "30m", "1h", "6h", "3d")
                ),
                unit="none",
                runbook="availability-slow-burn",
                width=10,
                lines=(Line(1, "yellow"), Line(6, "orange"), Line(14.4, "red")),
            ),
            Panel(
                "Alerts",
                "How many of this system's alerts are firing. They are marked on all panels, too.",
                (Query('count(ALERTS{alertname=~"TensorWasm.*", alertstate="firing"}) or vector(0)', "firing"),),
                unit="none",
                runbook="oncall-paging",
                kind="stat",
                width=4,
                lines=(Line(1),),
            ),
        ),
    ),
    Row(
        "HTTP",
        (
            Panel(
                "HTTP latency by route",
                "From a request's head to the end of its answer. Streams last as long as they stream.",
                tuple(
                    Query(
                        quantile(
                            q,
                            "tensor_wasm_http_request_duration_seconds",
                            f'{NODES}, route=~"$route"',
                            "route, method",
                        ),
                        f"{name} {{{{method}}}} {{{{route}}}}",
                    )
                    for q, name in ((0.5, "P50"), (0.95, "P95"), (0.99, "P99"))
                ),
                unit="s",
                runbook="invoke-latency-spike",
                width=16,
                lowest=None,
                is_logarithmic=True,
                has_exemplars=True,
            ),
            Panel(
                "Invoke latency",
                "POST /functions/:id/invoke. The objective for P95 is 100 ms on host-only nodes, 500 ms on GPUs.",
                quantiles("tensor_wasm_http_request_duration_seconds", INVOKE),
                unit="s",
                runbook="invoke-latency-spike",
                lines=(Line(0.1, "orange"), Line(0.5)),
                lowest=None,
                is_logarithmic=True,
                has_exemplars=True,
            ),
            Panel(
                "Invoke error rate",
                "Part of POST /functions/:id/invoke that was answered with a 5xx. The objective is 1 % over 5 minutes.",
                (
                    Query(
                        f"{rate('tensor_wasm_http_requests_total', FAILED_INVOKE)}"
                        f" / ({rate('tensor_wasm_http_requests_total', INVOKE)} > 0)",
                        "5xx",
                    ),
                ),
                unit="percentunit",
                runbook="availability-fast-burn",
                lines=(Line(0.01),),
            ),
            Panel(
                "Requests",
                "Answers a second by status: 499 for clients that left before it.",
                (Query(rate("tensor_wasm_http_requests_total", by="status"), "{{status}}"),),
                unit="reqps",
                is_stacked=True,
            ),
            Panel(
                "Requests and connections",
                "Requests without an answer yet, invocations that wait for a worker, and clients' connections.",
                (
                    Query(total("tensor_wasm_http_requests_in_flight"), "in flight"),
                    Query(total("tensor_wasm_queued_invocations"), "waiting for a worker"),
                    Query(total("tensor_wasm_http_connections"), "connections"),
                ),
                unit="none",
            ),
        ),
    ),
    Row(
        "Dispatch",
        (
            Panel(
                "Kernel latency",
                "The dispatch path: from a guest's launch call through checks and permit to its kernel. Not the time in"
                " the kernel. The objective for P95 is 50 µs on host-only nodes.",
                quantiles("tensor_wasm_kernel_latency_seconds", TENANTS),
                unit="s",
                runbook="dispatch-latency-spike",
                width=12,
                lines=(Line(0.00005),),
                lowest=None,
                is_logarithmic=True,
            ),
            Panel(
                "Back-pressure permit utilisation",
                "Part of a node's launch permits that were taken when it was scraped. At 100 % for long, launches wait:"
                " a tenant takes them all, or there are too few.",
                (
                    Query(
                        f"avg_over_time(tensor_wasm_dispatch_permits_used{{{NODES}}}[$__rate_interval])"
                        f" / avg_over_time(tensor_wasm_dispatch_permits{{{NODES}}}[$__rate_interval])",
                        "{{instance}}",
                    ),
                ),
                unit="percentunit",
                runbook="dispatch-latency-spike",
                width=12,
                lines=(Line(1),),
                highest=1,
            ),
            Panel(
                "Dispatches by tenant",
                "Launches a second of the ten busiest tenants. One far above all others is the usual cause of waiting.",
                (Query(f"topk(10, {rate('tensor_wasm_kernel_dispatches_total', TENANTS, 'tenant')})", "{{tenant}}"),),
                unit="ops",
                runbook="dispatch-latency-spike",
                width=12,
            ),
            Panel(
                "Launches waiting",
                "Launches that waited for a permit when the node was scraped, of the ten tenants with most.",
                (Query(f"topk(10, {total('tensor_wasm_dispatch_waiting', TENANTS, 'tenant')})", "{{tenant}}"),),
                unit="none",
                runbook="dispatch-latency-spike",
                width=12,
            ),
            Panel(
                "Execution and wait",
                "Time in the kernels themselves, and time that launches waited for a permit.",
                tuple(
                    Query(quantile(q, f"tensor_wasm_{histogram}_seconds", TENANTS), f"{what} {name}")
                    for histogram, what in (("kernel_execution", "execution"), ("dispatch_permit_wait", "wait"))
                    for q, name in ((0.5, "P50"), (0.95, "P95"))
                ),
                unit="s",
                runbook="dispatch-latency-spike",
                lowest=None,
                is_logarithmic=True,
            ),
            Panel(
                "Kernel latency by node",
                "P95 of each node: one that is slow can hide among many in the panel of all.",
                (Query(quantile(0.95, "tensor_wasm_kernel_latency_seconds", TENANTS, "instance"), "{{instance}}"),),
                unit="s",
                runbook="dispatch-latency-spike",
                lines=(Line(0.00005),),
                lowest=None,
                is_logarithmic=True,
            ),
            Panel(
                "Refused launches and faults",
                "Launches that got no permit, by reason, and kernels that faulted.",
                (
                    Query(rate("tensor_wasm_dispatch_rejections_total", TENANTS, "reason"), "{{reason}}"),
                    Query(rate("tensor_wasm_kernel_faults_total", TENANTS), "faults"),
                ),
                unit="ops",
            ),
        ),
    ),
    Row(
        "Instances and memory",
        (
            Panel(
                "Instances",
                "Instances that live now, of the ten tenants with most.",
                (Query(f"topk(10, {total('tensor_wasm_active_instances', TENANTS, 'tenant')})", "{{tenant}}"),),
                unit="none",
            ),
            Panel(
                "Spawns and terminations",
                "Instances started a second, and ended a second by how they ended.",
                (
                    Query(rate("tensor_wasm_instance_spawns_total", TENANTS), "spawned"),
                    Query(rate("tensor_wasm_instance_terminations_total", TENANTS, "outcome"), "{{outcome}}"),
                ),
                unit="ops",
            ),
            Panel(
                "Spawn time",
                "Time to make an instance ready to call.",
                quantiles("tensor_wasm_instance_spawn_seconds"),
                unit="s",
                runbook="invoke-latency-spike",
                lowest=None,
                is_logarithmic=True,
            ),
            Panel(
                "GPU memory",
                "Device memory that guests allocated, of the ten tenants with most. Without a GPU it is main memory.",
                (
                    Query(
                        f"topk(10, {total('tensor_wasm_gpu_memory_used_bytes', TENANTS, 'tenant, device')})",
                        "{{tenant}} {{device}}",
                    ),
                ),
                unit="bytes",
            ),
            Panel(
                "Guest memory",
                "Memory of live instances, of the ten tenants with most.",
                (Query(f"topk(10, {total('tensor_wasm_guest_memory_bytes', TENANTS, 'tenant')})", "{{tenant}}"),),
                unit="bytes",
            ),
            Panel(
                "Jobs",
                "Background jobs that run and that wait for their turn.",
                (
                    Query(total("tensor_wasm_jobs_active"), "running"),
                    Query(total("tensor_wasm_jobs_pending"), "waiting"),
                ),
                unit="none",
            ),
        ),
    ),
    Row(
        "Kernels and snapshots",
        (
            Panel(
                "Kernel cache",
                "Kernels that were found compiled, and that were not, a second and by tier. One that is in neither tier"
                " has to be compiled.",
                (
                    Query(rate("tensor_wasm_kernel_cache_hits_total", by="tier"), "hits in {{tier}}"),
                    Query(rate("tensor_wasm_kernel_cache_misses_total", by="tier"), "misses in {{tier}}"),
                ),
                unit="ops",
            ),
            Panel(
                "Kernel compilation",
                "Time to compile one kernel from PTX.",
                quantiles("tensor_wasm_kernel_compile_seconds"),
                unit="s",
                runbook="invoke-latency-spike",
                lowest=None,
                is_logarithmic=True,
            ),
            Panel(
                "Snapshots",
                "Time to capture an instance's state and to restore it.",
                tuple(
                    Query(quantile(q, f"tensor_wasm_snapshot_{what}_seconds"), f"{what} {name}")
                    for what in ("capture", "restore")
                    for q, name in ((0.5, "P50"), (0.95, "P95"))
                ),
                unit="s",
                runbook="dispatch-latency-spike",
                lowest=None,
                is_logarithmic=True,
            ),
            Panel(
                "Snapshots in progress",
                "Snapshots that are being written, and captures a second. On the kernel cache's disk they slow what"
                " loads from there.",
                (
                    Query(total("tensor_wasm_snapshots_in_progress"), "in progress"),
                    Query(rate("tensor_wasm_snapshot_capture_seconds_count"), "captures a second"),
                ),
                unit="none",
                runbook="dispatch-latency-spike",
            ),
            Panel(
                "Streams",
                "Chunks a second that guests emitted.",
                (Query(rate("tensor_wasm_streaming_chunks_emitted_total"), "chunks"),),
                unit="ops",
            ),
            Panel(
                "Refusals",
                "What tenants were refused a second, by the quota that was full, and requests that came too often.",
                (
                    Query(rate("tensor_wasm_quota_rejections_total", TENANTS, "quota"), "{{quota}}"),
                    Query(rate("tensor_wasm_rate_limited_total", TENANTS), "rate"),
                ),
                unit="ops",
            ),
        ),
    ),
    Row(
        "Nodes",
        (
            Panel(
                "Event-loop lag",
                "How late a timer of the event loop came, by node. High lag delays all of HTTP: something"
                " blocks the loop.",
                tuple(
                    Query(
                        quantile(q, "tensor_wasm_event_loop_lag_seconds", NODES, "instance"), f"{name} {{{{instance}}}}"
                    )
                    for q, name in ((0.95, "P95"), (0.99, "P99"))
                ),
                unit="s",
                runbook="healthz-slow",
                width=12,
                lowest=None,
                is_logarithmic=True,
            ),
            Panel(
                "Healthz latency",
                "P95 of GET /healthz by node: nothing but the event loop serves it. The objective is 10 ms.",
                (
                    Query(
                        quantile(
                            0.95,
                            "tensor_wasm_http_request_duration_seconds",
                            f'{NODES}, route="/healthz", method="GET"',
                            "instance",
                        ),
                        "{{instance}}",
                    ),
                ),
                unit="s",
                runbook="healthz-slow",
                width=12,
                lines=(Line(0.01),),
                lowest=None,
                is_logarithmic=True,
            ),
            Panel(
                "Build",
                "What each node runs. More than one version is a rollout, or one that stopped half way.",
                (Query(f"tensor_wasm_build_info{{{NODES}}}", ""),),
                runbook="rollback",
                kind="table",
                width=24,
                height=6,
            ),
        ),
    ),
)
