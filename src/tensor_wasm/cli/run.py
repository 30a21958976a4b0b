"""``tensor-wasm run FILE``."""

from __future__ import annotations

import os
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from tensor_wasm.cli import outcome
from tensor_wasm.cli.arguments import call_options, check_deadline, read_arguments, read_file
from tensor_wasm.cli.session import Session, with_session

if TYPE_CHECKING:
    from tensor_wasm.config import Config
    from tensor_wasm.node import InvocationResult


@click.command()
@click.argument("file")
@call_options
@click.option("--device", metavar="NAME", help="Device that runs kernels: auto, cpu, cuda:N or cuda:GPU-UUID.")
@with_session
@click.pass_obj
def run(
    session: Session,
    *,
    file: str,
    export: str | None,
    args: str,
    input_file: str | None,
    deadline_s: float | None,
    device: str | None,
) -> None:
    """Call an export of the module FILE (- is stdin) once, here, and print what it wrote and what it returned.

    The node that runs it lives in a temporary directory and leaves nothing behind.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended early, it still removes its directory
    values = read_arguments(args)
    check_deadline(deadline_s)
    wasm = read_file(file)
    guest_input = b"" if input_file is None else read_file(input_file)

    from tensor_wasm.config import load
    from tensor_wasm.node import Node

    with tempfile.TemporaryDirectory(prefix="tensor-wasm-run-") as home:
        overrides = {"home": home, "device": device, "invoke_deadline_s": deadline_s, "workers": 1}
        config: Config = load(os.environ, overrides).config
        # A thread runs the guest so that this one hears Ctrl-C; the node, closed first, then ends the guest.
        with ThreadPoolExecutor(1) as threads, Node(config) as node:
            function = node.functions.deploy("run", wasm, 0)
            result = threads.submit(
                node.invocations.invoke, function.id, export, values, tenant=0, input=guest_input
            ).result()
    outcome.show(_answer(result), session.is_json)


def _answer(result: InvocationResult) -> dict[str, object]:
    """The same shape as a node's answer to an invocation, less the function's id, which nobody could use."""
    answer: dict[str, object] = {
        "result": [outcome.as_json_number(value) for value in result.results] or "ok",
        "instance_id": result.instance_id,
        "duration_ms": round(result.duration_s * 1e3, 3),
        "launches": result.launches,
    }
    for name, data in (("stdout", result.stdout), ("stderr", result.stderr)):
        if data:
            answer[name] = data.decode(errors="replace")
    if result.dropped_output_bytes:
        answer["dropped_output_bytes"] = result.dropped_output_bytes
    return answer
