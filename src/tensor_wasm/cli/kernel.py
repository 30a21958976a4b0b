"""``tensor-wasm kernel``: the group, and ``kernel check FILE...``."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import click

from tensor_wasm.abi import limits
from tensor_wasm.cli.arguments import read_file
from tensor_wasm.cli.failures import ExitCode
from tensor_wasm.cli.kernel_compile import compile_
from tensor_wasm.cli.kernel_registry import delete, keygen, list_kernels, publish, verify
from tensor_wasm.cli.kernel_run import run
from tensor_wasm.cli.output import paint, print_json, print_line, safe
from tensor_wasm.cli.session import Session, with_session


@dataclass(frozen=True, slots=True)
class Missing:
    """An instruction that this release does not run. ``line`` and ``column`` count from 1."""

    line: int
    column: int
    opcode: str
    reason: str


@dataclass(frozen=True, slots=True)
class KernelReport:
    """A kernel and all that it is missing; nothing when it is supported."""

    name: str
    supported: bool
    missing: tuple[Missing, ...]


@dataclass(frozen=True, slots=True)
class ReadError:
    """Why a file could not be read as PTX; ``line`` and ``column`` are 0 when it is not at one place."""

    line: int
    column: int
    message: str


@dataclass(frozen=True, slots=True)
class FileReport:
    """A file: its kernels, or the error that kept it from being read."""

    file: str
    supported: bool
    kernels: tuple[KernelReport, ...] = ()
    error: ReadError | None = None


@click.group(no_args_is_help=False)
def kernel() -> None:
    """Check, compile and run PTX kernels, without a server; publish signed ones on a node."""


for command in (compile_, run, keygen, publish, list_kernels, verify, delete):
    kernel.add_command(command)


@kernel.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@with_session
@click.pass_context
def check(context: click.Context, files: tuple[str, ...]) -> None:
    """Say of each kernel in the PTX files (- is stdin) that it is supported, or what is missing and on which line.

    Ends with exit code 1 when something is not supported.
    """
    session = context.find_object(Session) or Session()
    reports = [_check(file) for file in files]
    if session.is_json:
        print_json({"files": [asdict(report) for report in reports]})
    else:
        for report in reports:
            _show(report)
    if not all(report.supported for report in reports):
        context.exit(ExitCode.FAILED)


def _check(file: str) -> FileReport:
    from tensor_wasm.errors import PtxError
    from tensor_wasm.ptx import read, support

    try:
        program = read(read_file(file, limits.PTX_MAX_BYTES))
    except PtxError as error:
        return FileReport(file, supported=False, error=ReadError(error.line, error.column, error.text))
    kernels = []
    for found in program.kernels:
        missing = tuple(Missing(item.line, item.column, item.opcode, item.reason) for item in support(found))
        kernels.append(KernelReport(found.name, not missing, missing))
    error_found = None if kernels else ReadError(0, 0, "the file has no kernel (.entry)")
    return FileReport(file, bool(kernels) and all(k.supported for k in kernels), tuple(kernels), error_found)


def _show(report: FileReport) -> None:
    file = safe(report.file)
    if report.error is not None:
        place = f":{report.error.line}:{report.error.column}" if report.error.line else ""
        print_line(f"{file}{place}: {paint('error', 'fail')}: {safe(report.error.message)}")
    for found in report.kernels:
        name = safe(found.name)
        if found.supported:
            print_line(f"{file}: {name}: {paint('supported', 'ok')}")
            continue
        places = "1 place" if len(found.missing) == 1 else f"{len(found.missing)} places"
        print_line(f"{file}: {name}: {paint('not supported', 'fail')}, {places}")
        for item in found.missing:
            print_line(f"{file}:{item.line}:{item.column}: {safe(item.opcode)}: {safe(item.reason)}")
