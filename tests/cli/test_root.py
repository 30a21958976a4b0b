from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time

import click
import pytest

from tensor_wasm import errors
from tensor_wasm.cli import root
from tensor_wasm.cli.failures import exit_code_of


def _python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_help_names_every_command_and_the_exit_codes(cli):
    result = cli("--help")
    assert result.code == 0
    for entry in root.COMMANDS:
        assert entry.name in result.out
    assert "124 deadline" in " ".join(result.out.split())
    assert cli().out == result.out


def test_help_imports_neither_a_command_nor_the_runtime():
    script = (
        "import sys; from tensor_wasm.cli import main; main(['--help'])\n"
        "heavy = {'wasmtime', 'numpy', 'httpx', 'rich', 'typer', 'ssl', 'starlette', 'tensor_wasm.config'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)), 'tensor_wasm.cli.demo' in sys.modules)"
    )
    assert _python("-c", script).stdout.splitlines()[-1] == "LOADED [] False"


def test_help_is_quick():
    def measure() -> float:
        started = time.perf_counter()
        assert _python("-m", "tensor_wasm", "--help").returncode == 0
        return time.perf_counter() - started

    # The bar is 0.2 s on an idle machine; the best of several with room for a busy one catches a heavy import.
    assert min(measure() for _ in range(4)) < 0.4


@pytest.mark.parametrize("entry", root.COMMANDS, ids=lambda entry: entry.name)
def test_each_command_can_be_imported_and_has_help(entry, cli):
    command = root.root.get_command(click.Context(root.root, help_option_names=["-h", "--help"]), entry.name)
    assert isinstance(command, click.Command)
    if entry.name != "bench":
        result = cli(entry.name, "--help")
        assert result.code == 0
        assert "--help" in result.out
        assert importlib.import_module(entry.module).__doc__


def test_importing_the_package_imports_nothing_else():
    script = "import sys; before = set(sys.modules); import tensor_wasm; print(sorted(set(sys.modules) - before))"
    loaded = _python("-c", script).stdout.strip()
    assert loaded in ("['tensor_wasm']", "['__future__', 'tensor_wasm']")


def test_the_version_is_there_and_an_unknown_attribute_is_not():
    import tensor_wasm

    assert tensor_wasm.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tensor_wasm.nothing  # noqa: B018


def test_version_command_and_option_agree(cli):
    versions = cli("version", "--json").json
    assert cli("--version").out.split() == ["tensor-wasm", versions["tensor-wasm"]]
    assert versions["wasmtime"] == "50.0.1"


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["--json"],
        ["function"],
        ["function", "no-such-command"],
        ["run"],
        ["--no-such-option"],
        ["invoke", "an-id", "--deadline", "soon"],
        ["--tenant", "-1", "function", "list"],
        ["--tenant", "18446744073709551616", "function", "list"],
        ["--tenant", "١", "function", "list"],
        ["--token", "a\nb", "function", "list"],
        ["--server", "ftp://127.0.0.1", "function", "list"],
        ["--server", "127.0.0.1:8080", "function", "list"],
        ["--server", "http://user:secret@127.0.0.1", "function", "list"],
        ["--server", "http://127.0.0.1:99999", "function", "list"],
        ["--server", "http://[::1", "function", "list"],
        ["function", "list", "--limit", "0"],
        ["completions", "cobol"],
        ["admin"],
        ["admin", "instance"],
        ["admin", "instance", "terminate"],
        ["admin", "instance", "list", "--tenant", "x"],
        ["admin", "tenant", "show", "-1"],
        ["admin", "token", "create"],
        ["admin", "token", "revoke"],
        ["admin", "drain", "--timeout", "nan"],
        ["admin", "drain", "--timeout", "-1"],
        ["admin", "drain", "--tenant", "7"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(cli, arguments):
    result = cli(*arguments)
    assert result.code == 2
    assert result.err.startswith("error: usage: ")
    assert result.err.count("\n") == 1
    assert "secret" not in result.err


def test_wrong_usage_with_json_is_an_error_object_too(cli):
    result = cli("run", "--json")
    assert result.code == 2
    assert result.json["error"]["kind"] == "usage"


def test_a_command_is_suggested_where_the_arguments_are_wrong(cli):
    assert "tensor-wasm run --help" in cli("run").err


def test_every_error_of_the_tree_has_the_exit_code_it_declares():
    waiting, seen = [errors.TensorWasmError], 0
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if "kind" in vars(error):
            seen += 1
            assert exit_code_of(error.kind, 500) == error.exit_code, error
    assert seen > 20


@pytest.mark.parametrize(("status", "code"), [(401, 4), (403, 4), (404, 5), (504, 124), (500, 1), (418, 1)])
def test_a_kind_of_a_newer_node_is_judged_by_its_status(status, code):
    assert exit_code_of("a_kind_from_the_future", status) == code


def test_a_defect_is_one_line_without_a_traceback_unless_asked(cli, monkeypatch, tmp_path):
    def explode(*_):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("tensor_wasm.cli.run.read_arguments", explode)
    result = cli("run", "x.wasm")
    assert result.code == 1
    assert result.err == "error: internal: ZeroDivisionError: a defect; TENSOR_WASM_LOG=debug shows where\n"
    monkeypatch.setenv("TENSOR_WASM_LOG", "debug")
    assert "Traceback" in cli("run", "x.wasm").err


def test_a_reader_that_leaves_early_is_no_error_message():
    command = f'{sys.executable} -c \'from tensor_wasm.cli import main; raise SystemExit(main(["config", "show"]))\''
    result = subprocess.run(["bash", "-c", f"{command} | true"], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_output_survives_a_terminal_that_knows_only_ascii(tmp_path):
    result = _python(
        "-m", "tensor_wasm", "run", "файл-\u202e.wasm", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C"
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "there is no file" in result.stderr


def every_command(group: click.Group, context: click.Context, above: tuple[str, ...] = ()):
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from every_command(command, context, (*above, name))


COMMAND_PATHS = [(), *every_command(root.root, click.Context(root.root, help_option_names=["-h", "--help"]))]


@pytest.mark.parametrize("path", COMMAND_PATHS, ids=" ".join)
def test_every_command_has_a_manual_page(cli, path):
    page = cli("man", *path).out
    lines = page.splitlines()
    assert lines[0].startswith('.TH "TENSOR')
    sections = [line for line in lines if line.startswith(".SH")]
    assert sections[:3] == [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"]
    assert sections[-2:] == [".SH OPTIONS", ".SH EXIT STATUS"]
    requests = {line.split()[0] for line in lines if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".TP", ".PP"}
    assert ("\\fBinvoke\\fR" in lines) == (path in ((), ("instance",), ("bench",)))


def test_a_manual_page_of_nothing_is_wrong_usage(cli):
    assert cli("man", "nothing").code == 2
    assert cli("man", "invoke", "deeper").code == 2


@pytest.mark.parametrize(("shell", "text"), [("bash", "complete"), ("zsh", "#compdef"), ("fish", "complete")])
def test_completions_name_the_command(cli, shell, text):
    result = cli("completions", shell)
    assert result.code == 0
    assert text in result.out
    assert "_TENSOR_WASM_COMPLETE" in result.out


def test_completion_answers_with_the_names_of_commands():
    result = _python(
        "-m",
        "tensor_wasm",
        _TENSOR_WASM_COMPLETE="bash_complete",
        COMP_WORDS="tensor-wasm fun",
        COMP_CWORD="1",
    )
    assert "function" in result.stdout
