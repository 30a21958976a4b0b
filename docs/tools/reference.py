"""Reference pages made from the code: ``python docs/tools/reference.py``. A test compares them with it.

Settings, metrics and PTX opcodes have pages of their own, made by their rooms; CONTRIBUTING.md has the list.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import tensor_wasm
from tensor_wasm import errors
from tensor_wasm.abi.codes import CODE_TEXTS, Code
from tensor_wasm.cli.failures import ExitCode
from tensor_wasm.cli.root import root

DOCS = Path(__file__).resolve().parents[1]
_MADE = "Made from the code by `python docs/tools/reference.py`."
_PARAGRAPH = re.compile(r"\n\s*\n")
_ROLE = re.compile(r":\w+:`~?([^`]+)`")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _paragraphs(text: str | None) -> list[str]:
    """A docstring's paragraphs, each on one line, as Markdown; examples stay as they are."""
    found = []
    for paragraph in _PARAGRAPH.split(inspect.cleandoc(text or "")):
        plain = _ROLE.sub(r"`\1`", paragraph.replace("\b\n", "")).replace("``", "`")
        found.append(" ".join(plain.split()))
    return [paragraph for paragraph in found if paragraph]


# --- the command line -----------------------------------------------------------------------------------------


def _commands(context: click.Context) -> Iterator[click.Context]:
    command = context.command
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from _commands(click.Context(below, parent=context, info_name=name))


def cli_page() -> str:
    """Every command with its usage, its help and its options."""
    lines = ["# Commands", "", f"{_MADE} [cli.md](../cli.md) introduces them.", ""]
    for context in _commands(click.Context(root, info_name="tensor-wasm", **root.context_settings)):
        command, path = context.command, context.command_path
        lines += [f"## `{path}`", "", "```text"]
        lines += [f"{path} {' '.join(command.collect_usage_pieces(context))}".rstrip(), "```", ""]
        for paragraph in _paragraphs(command.help):
            lines += [paragraph.replace("<", "&lt;"), ""]
        records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
        rows = [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in filter(None, records)]
        if rows:
            lines += ["| option | |", "|---|---|", *rows, ""]
    lines += ["## Exit codes", "", "| code | |", "|---|---|"]
    lines += [f"| {code.value} | {code.name.lower().replace('_', ' ')} |" for code in ExitCode]
    return "\n".join(lines) + "\n"


# --- errors ---------------------------------------------------------------------------------------------------


def _classes(kind: type[errors.TensorWasmError]) -> Iterator[type[errors.TensorWasmError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _classes(below)


def errors_page() -> str:
    """Every error: its kind, its status, its exit code; and the codes that guests see."""
    lines = [
        *("# Errors", "", f"{_MADE} [http-api.md](../http-api.md#errors) says when each is answered.", ""),
        "`kind` is what a program goes by, in HTTP answers and in `--json` output; a message may change. In Python",
        "each is a class of `tensor_wasm.errors`; who catches a class catches those below it.",
        "",
        *("| class | below | `kind` | HTTP status | exit code | |", "|---|---|---|---|---|---|"),
    ]
    for kind in dict.fromkeys(_classes(errors.TensorWasmError)):
        parent = kind.__mro__[1].__name__
        (meaning, *_) = _paragraphs(kind.__doc__)
        lines.append(
            f"| `{kind.__name__}` | {'' if parent == 'Exception' else f'`{parent}`'} | `{kind.kind}` |"
            f" {kind.http_status} | {kind.exit_code} | {_cell(meaning)} |"
        )
    lines += [
        *("", "## Codes that guests see", ""),
        "What the imports of `wasi:cuda` return ([guest-abi.md](../guest-abi.md#codes)).",
        *("", "| code | name | |", "|---|---|---|"),
    ]
    lines += [f"| {code.value} | `{code.name}` | {_cell(CODE_TEXTS[code])} |" for code in Code]
    return "\n".join(lines) + "\n"


# --- HTTP -----------------------------------------------------------------------------------------------------


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(kind)
    return f"list of {_type(schema.get('items', {}))}" if kind == "array" else str(kind)


def _fields(schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """Rows of an object's fields, empty when it is none."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][_type(schema)]
    wanted = schema.get("required", [])
    rows = []
    for name, field in schema.get("properties", {}).items():
        needed, told = "yes" if name in wanted else "", _cell(field.get("description", ""))
        rows.append(f"| `{name}` | {_cell(_type(field))} | {needed} | {told} |")
    return rows


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    yield from (f"### {method.upper()} {path}", "", f"{operation['summary']}.", "")
    if operation.get("description"):
        yield from (operation["description"], "")
    if operation.get("parameters"):
        yield from ("| parameter | in | type | required | |", "|---|---|---|---|---|")
        for parameter in operation["parameters"]:
            found = parameter
            if "$ref" in found:
                found = document["components"]["parameters"][str(found["$ref"]).rpartition("/")[2]]
            needed = "yes" if found.get("required") else ""
            kind, told = _cell(_type(found.get("schema", {}))), _cell(found.get("description", ""))
            yield f"| `{found['name']}` | {found['in']} | {kind} | {needed} | {told} |"
        yield ""
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        rows = _fields(content.get("schema", {}), document)
        yield from (f"Body, `{media}`{':' if rows else '.'}", "")
        if rows:
            yield from ("| field | type | required | |", "|---|---|---|---|", *rows, "")
    yield from ("| status | answer |", "|---|---|")
    for status, response in operation["responses"].items():
        found = response
        if "$ref" in found:
            found = document["components"]["responses"][str(found["$ref"]).rpartition("/")[2]]
        yield f"| {status} | {_cell(found.get('description', ''))} |"
    yield ""


def http_page() -> str:
    """Every operation of the HTTP API, by tag, from its description."""
    document = json.loads((DOCS / "openapi.json").read_text("utf-8"))
    lines = ["# HTTP operations", ""]
    lines += [
        "Made from [openapi.json](../openapi.json), which a node serves at `/openapi.json` and shows at `/docs`, by"
    ]
    lines += ["`python docs/tools/reference.py`. [http-api.md](../http-api.md) introduces them.", ""]
    by_tag: dict[str, list[str]] = {tag["name"]: [] for tag in document.get("tags", [])}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if isinstance(operation, dict) and "responses" in operation:
                tag = (operation.get("tags") or ["other"])[0]
                by_tag.setdefault(tag, []).extend(_operation(path, method, operation, document))
    for tag, found in by_tag.items():
        if found:
            lines += [f"## {tag}", "", *found]
    return "\n".join(lines).rstrip() + "\n"


# --- Python ---------------------------------------------------------------------------------------------------


def _signature(what: object) -> str:
    try:
        found = inspect.signature(what)  # type: ignore[arg-type]  # what cannot be called has none
    except (TypeError, ValueError):
        return ""
    # Defaults that are objects of their own have an address in their text.
    text = re.sub(r"<([\w.]+) object at 0x\w+>", r"\1()", str(found))
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


def _members(owner: type) -> Iterator[tuple[str, Any]]:
    for name, member in inspect.getmembers(owner):
        if name.startswith("_") or not inspect.getdoc(member):
            continue
        if inspect.isfunction(member) or isinstance(member, property):
            yield name, member


def _described(name: str, what: Any) -> Iterator[str]:
    yield from (f"## `{name}`", "")
    if name == "errors":
        yield from ("The error tree: [errors](errors.md).", "")
        return
    if callable(what):
        yield from ("```python", f"{name}{_signature(what)}", "```", "")
    for paragraph in _paragraphs(what.__doc__):
        yield from (paragraph.replace("<", "&lt;"), "")
    if inspect.isclass(what):
        for member, found in _members(what):
            shown = f"{name}.{member}" if isinstance(found, property) else f"{name}.{member}{_signature(found)}"
            is_async = inspect.iscoroutinefunction(found)
            yield from ("```python", f"{'async ' if is_async else ''}{shown}", "```", "")
            for paragraph in _paragraphs(inspect.getdoc(found)):
                yield from (paragraph.replace("<", "&lt;"), "")


def python_page() -> str:
    """Every public name of the package, from its docstring."""
    lines = ["# Python names", "", f"{_MADE} [python-api.md](../python-api.md) introduces them.", ""]
    for name in tensor_wasm.__all__:
        if name != "__version__":
            lines += _described(name, getattr(tensor_wasm, name))
    return "\n".join(lines).rstrip() + "\n"


PAGES: typing.Final = {
    "cli.md": cli_page,
    "errors.md": errors_page,
    "http.md": http_page,
    "python.md": python_page,
}


def main() -> int:
    """Write the pages."""
    folder = DOCS / "reference"
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
