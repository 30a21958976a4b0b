"""``tensor-wasm demo``."""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from tensor_wasm.cli.client import Client
from tensor_wasm.cli.exposition import quantile
from tensor_wasm.cli.failures import ExitCode, Failure
from tensor_wasm.cli.output import print_error, print_json, print_line
from tensor_wasm.cli.session import Session, with_session

if TYPE_CHECKING:
    from tensor_wasm.node import Node

_GUEST = "vector_add.wasm"
_LATENCY = "tensor_wasm_kernel_latency_seconds"
#: Small invocations after the large one, so that the histogram has something to say.
_SMALL_INVOCATIONS = 200
_SMALL_ELEMENTS = 1024
#: Three vectors of floats of this length fit an instance's memory.
_MAX_ELEMENTS = 80_000_000
_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Report:
    """What the demo did and measured."""

    device: str
    url: str
    function_id: str
    wasm_bytes: int
    deploy_ms: float
    elements: int
    right_sums: int
    invoke_ms: float
    guest_ms: float
    launches: int
    dispatch_p50_us: float | None
    dispatch_p95_us: float | None
    ok: bool


@click.command()
@click.option("--keep", is_flag=True, help="Leave the node up, and say what to type next.")
@click.option(
    "--elements",
    type=click.IntRange(1, _MAX_ELEMENTS),
    default=1_000_000,
    show_default=True,
    metavar="N",
    help="Length of the vectors.",
)
@with_session
@click.pass_context
def demo(context: click.Context, keep: bool, elements: int) -> None:
    """Start a node, deploy a guest compiled from C, add two vectors with a CUDA kernel, check every sum.

    The node listens on a free port of this machine and lives in a temporary directory.
    """
    session = context.find_object(Session) or Session()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended early, it still removes its directory
    wasm = guest()
    from tensor_wasm.config import load
    from tensor_wasm.http.server import Server
    from tensor_wasm.node import Node
    from tensor_wasm.telemetry import logs

    logs.configure("error", "text")
    with tempfile.TemporaryDirectory(prefix="tensor-wasm-demo-") as home:
        overrides = {"home": home, "listen_addr": "127.0.0.1:0", "invoke_deadline_s": _DEADLINE_S}
        # The demo is the same everywhere: settings of a real node in the environment are not its business.
        config = load({}, overrides).config
        with Node(config) as node:
            server = Server(node, config)
            server.start_in_thread()
            try:
                report = _measure(node, "http://{}:{}".format(*server.address), wasm, elements)
                _show(report, session.is_json)
                if keep and report.ok:
                    _keep(report, session.is_json)
            finally:
                server.stop()
    if not report.ok:
        print_error(Failure("wrong_result", f"{report.right_sums} of {elements} sums are right"), is_json=False)
        context.exit(ExitCode.FAILED)


def guest() -> bytes:
    """The demo's guest: from the installed package, else from a source tree's examples."""
    packaged = files("tensor_wasm") / "_examples" / _GUEST
    in_source_tree = Path(__file__).parents[3] / "examples" / "vector_add" / _GUEST
    for place in (packaged, in_source_tree):
        if place.is_file():
            return place.read_bytes()
    raise Failure("incomplete_installation", f"{_GUEST} is missing from this installation; install tensor-wasm again")


def _measure(node: Node, url: str, wasm: bytes, elements: int) -> Report:
    client = Client(url)
    started = time.perf_counter()
    function_id = str(client.deploy("vector_add", wasm)["id"])
    deployed = time.perf_counter()
    answer = client.invoke(function_id, {"export": "run", "args": [elements]}, _DEADLINE_S)
    invoked = time.perf_counter()
    for _ in range(_SMALL_INVOCATIONS):
        client.invoke(function_id, {"export": "run", "args": [_SMALL_ELEMENTS]}, _DEADLINE_S)
    metrics = client.metrics()
    return Report(
        device=node.device.name,
        url=url,
        function_id=function_id,
        wasm_bytes=len(wasm),
        deploy_ms=(deployed - started) * 1e3,
        elements=elements,
        right_sums=int(answer["result"][0]),
        invoke_ms=(invoked - deployed) * 1e3,
        guest_ms=float(answer["duration_ms"]),
        launches=int(answer["launches"]),
        dispatch_p50_us=_dispatch_us(metrics, 0.5),
        dispatch_p95_us=_dispatch_us(metrics, 0.95),
        ok=answer["result"] == [elements],
    )


def _dispatch_us(metrics: str, fraction: float) -> float | None:
    seconds = quantile(metrics, _LATENCY, fraction)
    return None if seconds is None else seconds * 1e6


def _show(report: Report, is_json: bool) -> None:
    if is_json:
        print_json(asdict(report))
        return
    from tensor_wasm.device.processor import processor_name

    dispatch = ", ".join(
        f"{name} {'no samples' if value is None else f'{value:.2f} µs'}"
        for name, value in (("P50", report.dispatch_p50_us), ("P95", report.dispatch_p95_us))
    )
    machine = f"{processor_name()}, {os.cpu_count()} cores"
    lines = (
        ("device", f"{report.device}: {machine}"),
        ("node", f"{report.url}, state in a temporary directory"),
        ("deploy", f"{_GUEST} (C, {report.wasm_bytes:,} bytes) in {report.deploy_ms:.0f} ms"),
        (
            "invoke",
            f"run({report.elements}) in {report.invoke_ms:.0f} ms over HTTP, {report.guest_ms:.0f} ms in the guest",
        ),
        (
            "launches",
            f"{report.launches} of vector_add: CUDA C, compiled to PTX by NVRTC, and that to WebAssembly here",
        ),
        ("result", f"{report.right_sums:,} of {report.elements:,} sums are right"),
        ("dispatch", f"{dispatch} a launch, over {_SMALL_INVOCATIONS} more invocations"),
        ("", f"(from {_LATENCY} at {report.url}/metrics)"),
    )
    print_line("One node, one function, one CUDA kernel")
    print_line()
    for name, text in lines:
        print_line(f"  {name:<9} {text}")


def _keep(report: Report, is_json: bool) -> None:
    """Wait for SIGINT or SIGTERM, having said what to try."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if not is_json:
        command = f"tensor-wasm --server {shlex.quote(report.url)}"
        print_line()
        print_line("The node stays up until Ctrl-C. In another terminal:")
        print_line()
        print_line(f"  {command} invoke {report.function_id} --args '[4096]'")
        print_line(f"  {command} function show {report.function_id}")
        print_line(f"  {command} metrics --filter kernel")
        body = "-H 'Content-Type: application/json' -d '{\"args\": [4096]}'"
        print_line(f"  curl {report.url}/functions/{report.function_id}/invoke {body}")
    stopped.wait()
