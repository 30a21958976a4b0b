"""The root command: the table of commands, each imported when it is called, and how every failure is told."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import click

from tensor_wasm.cli.failures import ExitCode, Failure
from tensor_wasm.cli.output import print_error, print_line
from tensor_wasm.cli.session import global_options
from tensor_wasm.errors import TensorWasmError


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: its name, the module and attribute it is in, its line in the help."""

    name: str
    module: str
    attribute: str
    summary: str


COMMANDS: tuple[Entry, ...] = (
    Entry("demo", "tensor_wasm.cli.demo", "demo", "Start a node, run a kernel on it, check what comes out."),
    Entry("serve", "tensor_wasm.cli.serve", "serve", "Run a node; SIGTERM drains it."),
    Entry("run", "tensor_wasm.cli.run", "run", "Call an export of a module once, here, without a server."),
    Entry("deploy", "tensor_wasm.cli.deploy", "deploy", "Deploy a WebAssembly module as a function."),
    Entry("invoke", "tensor_wasm.cli.invoke", "invoke", "Call an export of a deployed function."),
    Entry("job", "tensor_wasm.cli.job", "job", "List, show and cancel background jobs."),
    Entry("instance", "tensor_wasm.cli.instance", "instance", "Keep instances between calls."),
    Entry("snapshot", "tensor_wasm.cli.snapshot", "snapshot", "Capture, restore and carry kept instances."),
    Entry("function", "tensor_wasm.cli.function", "function", "List, show and delete functions."),
    Entry("kernel", "tensor_wasm.cli.kernel", "kernel", "Check, compile and run PTX kernels; publish signed ones."),
    Entry("metrics", "tensor_wasm.cli.metrics", "metrics", "Print a node's metrics."),
    Entry("observe", "tensor_wasm.cli.observe", "observe", "Watch a node, also one that hangs; or print its state."),
    Entry("admin", "tensor_wasm.cli.admin", "admin", "See and end instances; quotas; tokens; models; drain a node."),
    Entry("bench", "tensor_wasm.cli.bench", "bench", "Measure dispatch, kernels, instances and invocations."),
    Entry("doctor", "tensor_wasm.cli.doctor", "doctor", "Say whether this host can run a node; find and mend damage."),
    Entry("backup", "tensor_wasm.cli.backup", "backup", "Copy a node's home, while it serves."),
    Entry("restore", "tensor_wasm.cli.backup", "restore", "Put a backup in the place of a node's home."),
    Entry("config", "tensor_wasm.cli.config", "config", "Show the settings and where each value comes from."),
    Entry("completions", "tensor_wasm.cli.completions", "completions", "Print a completion script for a shell."),
    Entry("man", "tensor_wasm.cli.man", "man", "Print the manual page of a command."),
    Entry("version", "tensor_wasm.cli.version", "version", "Print the versions of TensorWasm, Python and Wasmtime."),
)
_ENTRIES = {entry.name: entry for entry in COMMANDS}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; its help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the help."""
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command, None for a name there is not."""
        entry = _ENTRIES.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(import_module(entry.module), entry.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table of commands from the summaries alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.summary) for entry in COMMANDS])


def _print_version(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if is_asked and not context.resilient_parsing:
        from tensor_wasm import __version__

        print_line(f"tensor-wasm {__version__}")
        context.exit()


@click.group(
    cls=LazyGroup,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 the work failed, 2 wrong usage, 3 server unreachable, 4 denied, 5 not found, "
    "124 deadline. Global options may also stand after the command.",
)
@global_options(from_environment=True)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def root() -> None:
    """Run WebAssembly functions that launch GPU kernels, with or without a GPU.

    New here? `tensor-wasm demo` shows all of it in a few seconds.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Never shows a traceback, but with ``TENSOR_WASM_LOG=debug``."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a test's stream may have no encoding to change
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        result = root.main(given, prog_name="tensor-wasm", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else ExitCode.OK
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not try to flush into the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.FAILED
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except Exception as error:
        _show_traceback_if_asked()
        failure = _failure_of(error)
        with contextlib.suppress(OSError):
            print_error(failure, is_json="--json" in given)
        return failure.exit_code


def _failure_of(error: Exception) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, TensorWasmError):
        return Failure(error.kind, error.message, error.exit_code)
    if isinstance(error, click.ClickException):
        return Failure("usage", f"{error.format_message()}{_hint(error)}", error.exit_code)
    if isinstance(error, MemoryError):
        return Failure("out_of_memory", "this machine has no memory left for the command")
    if isinstance(error, OSError):
        return Failure("system", f"{error.strerror or error}{_file(error)}")
    return Failure("internal", f"{type(error).__name__}: {error}; TENSOR_WASM_LOG=debug shows where")


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see '{context.command_path} --help')" if context is not None else ""


def _file(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


def _show_traceback_if_asked() -> None:
    if os.environ.get("TENSOR_WASM_LOG", "").lower() == "debug":
        import traceback

        traceback.print_exc()
