"""``tensor-wasm kernel run FILE``."""

from __future__ import annotations

import contextlib
import io
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tensor_wasm.abi import limits
from tensor_wasm.cli.arguments import check_deadline, read_file
from tensor_wasm.cli.failures import usage
from tensor_wasm.cli.outcome import as_json_number
from tensor_wasm.cli.output import print_guest_output, print_json, print_line, safe
from tensor_wasm.cli.session import Session, with_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tensor_wasm.device.kernel import Kernel

# The backspace keeps click from filling the lines.
_EXAMPLE = """\b
Example:
  tensor-wasm kernel run vector_add.ptx --grid 4 --block 256 --arg a.npy --arg b.npy \\
    --arg zeros:f32:1000 --arg 1000 --save 2=sum.npy"""

#: Elements of each array that are shown.
_SHOWN = 8


@click.command("run", epilog=_EXAMPLE)
@click.argument("file")
@click.option("--entry", metavar="NAME", help="The kernel; may be left out when the file has one.")
@click.option("--grid", required=True, metavar="X[,Y[,Z]]", help="Blocks.")
@click.option("--block", required=True, metavar="X[,Y[,Z]]", help="Threads in a block.")
@click.option("--shared", "shared_bytes", type=int, default=0, metavar="BYTES", help="Dynamic shared memory.")
@click.option(
    "--arg",
    "args",
    multiple=True,
    metavar="ARG",
    help="An argument, one for each parameter in order: FILE.npy, i32:5, f32:1.5, zeros:f32:1000, bytes:HEX, "
    "or a number, which takes the parameter's type.",
)
@click.option(
    "--save", "saves", multiple=True, metavar="POSITION=FILE", help="Write that argument's array afterwards, as .npy."
)
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="End the launch after this long.")
@click.option("--device", default="auto", metavar="NAME", help="auto, cpu, cuda:N or cuda:GPU-UUID.")
@with_session
@click.pass_context
def run(
    context: click.Context,
    *,
    file: str,
    entry: str | None,
    grid: str,
    block: str,
    shared_bytes: int,
    args: tuple[str, ...],
    saves: tuple[str, ...],
    timeout_s: float | None,
    device: str,
) -> None:
    """Run a kernel of the PTX file FILE (- is stdin) once, here, on arrays from .npy files.

    Arrays are copied to the device and back; files that were read are never changed: --save writes results.
    Positions count from 0.
    """
    session = context.find_object(Session) or Session()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    check_deadline(timeout_s)
    ptx = read_file(file, limits.PTX_MAX_BYTES)

    from tensor_wasm.cli.kernel_arguments import read_argument, read_axes, read_saves
    from tensor_wasm.cli.npy import write_npy
    from tensor_wasm.device.session import open_device

    grid_axes, block_axes = read_axes("--grid", grid), read_axes("--block", block)
    with open_device(device) as opened:
        kernel = opened.load_ptx(ptx, entry)
        if len(args) != len(kernel.parameters):
            raise usage(
                f"{safe(repr(kernel))} takes {len(kernel.parameters)} arguments, not {len(args)}: give --arg each"
            )
        values = [read_argument(text, opened.info.memory_bytes) for text in args]
        targets = read_saves(saves, values)
        for _, path in targets:
            if not Path(path).absolute().parent.is_dir():
                raise usage(f"the folder of {safe(path)} does not exist")
        started = time.perf_counter()
        printed = io.StringIO()  # what a kernel prints is shown like what a guest does
        try:
            with contextlib.redirect_stderr(printed):
                kernel.launch(grid_axes, block_axes, values, shared_bytes, timeout_s)
            duration_ms = (time.perf_counter() - started) * 1e3
        finally:
            print_guest_output(printed.getvalue().encode(errors="replace"), to_stderr=True)
        for position, path in targets:
            write_npy(path, values[position])  # type: ignore[arg-type]
        show = _print_json if session.is_json else _print
        show(kernel, values, targets, duration_ms)


def _print(kernel: Kernel, values: Sequence[object], targets: list[tuple[int, str]], duration_ms: float) -> None:
    print_line(f"{safe(kernel.name)} ran in {duration_ms:.3f} ms, copying included")
    saved = dict(targets)
    for position, (parameter, value) in enumerate(zip(kernel.parameters, values, strict=True)):
        where = f"  saved in {safe(saved[position])}" if position in saved else ""
        print_line(f"{position}  {safe(parameter.name)}  {_summary(value)}{where}")


def _summary(value: Any) -> str:
    import numpy as np

    if isinstance(value, np.ndarray):
        some = " ".join(f"{element}" for element in value.reshape(-1)[:_SHOWN])
        more = " ..." if value.size > _SHOWN else ""
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]: {some}{more}"
    return value.hex() if isinstance(value, bytes) else f"{value}"


def _print_json(kernel: Kernel, values: Sequence[object], targets: list[tuple[int, str]], duration_ms: float) -> None:
    import numpy as np

    saved = dict(targets)
    arguments = []
    for position, (parameter, value) in enumerate(zip(kernel.parameters, values, strict=True)):
        argument: dict[str, object] = {"position": position, "parameter": parameter.name, "type": parameter.type}
        if isinstance(value, np.ndarray):
            argument |= {"dtype": str(value.dtype), "shape": list(value.shape)}
            argument["first"] = [_as_json(element) for element in value.reshape(-1)[:_SHOWN]]
        else:
            argument["value"] = _as_json(value)
        if position in saved:
            argument["file"] = saved[position]
        arguments.append(argument)
    print_json({"kernel": kernel.name, "duration_ms": round(duration_ms, 3), "arguments": arguments})


def _as_json(value: Any) -> object:
    """A number as the API writes it; a struct as hexadecimal digits; anything else as text."""
    import numpy as np

    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, np.generic):
        value = value.item()
    return as_json_number(value) if isinstance(value, int | float) else str(value)
