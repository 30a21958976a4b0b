"""What a page may not do: name something that is not there. Each check gives what is wrong, in words."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from docs.pages import Page
from docs.program import OF_PROMETHEUS, OF_THE_SCRAPE, ROOT, Program, release_parser
from tensor_wasm.cli.root import root

#: Programs that are not ours, which an operator's machine has.
PROGRAMS = {
    "cat", "chown", "cp", "curl", "date", "df", "dmesg", "docker", "echo", "git", "head", "install", "iostat",
    "journalctl", "jq", "kubectl", "nvidia-smi", "openssl", "pip", "prometheus", "promtool", "smartctl", "systemctl",
    "tail", "top",
}  # fmt: skip
_WORDS = {
    "and", "or", "unless", "on", "ignoring", "by", "without", "group_left", "group_right", "offset", "bool",
    "inf", "nan",
    "sum", "avg", "min", "max", "count", "group", "topk", "bottomk", "quantile", "stddev", "stdvar", "count_values",
}  # fmt: skip
_METRIC = re.compile(r"\btensor_wasm_[a-z0-9_]+\b(?!\s*\()")
_RULE = re.compile(r"\btensor_wasm:[a-z0-9_]+(?::[a-z0-9_]+)*\b")
_ALERT = re.compile(r"(?<!X-)\bTensorWasm[A-Z]\w+")
_SETTING = re.compile(r"\bTENSOR_WASM_[A-Z0-9_]*[A-Z0-9]\b")
_ROUTE = re.compile(r"(?:(GET|POST|PUT|PATCH|DELETE) )?(/[a-z0-9][\w:./-]*)")
_PANELS = re.compile(r"((?:\*\*[^*]+\*\*(?:,| and| or)?\s+)+)panels?\b")
_FOLDERS = ("/backups", "/dev", "/etc", "/opt", "/proc", "/run", "/sys", "/tmp", "/usr", "/var")
_ENDINGS = (".db", ".json", ".key", ".lock", ".log", ".md", ".sock", ".yml")
_FOREIGN = re.compile(r"\b(?:tokio|cargo|crates?|rustc?|reactor)\b", re.IGNORECASE)
_JOINED = re.compile(r"\.([a-z_]\w*(?:(?:\[\])?\.[a-z_]\w*)*)")

Check = Callable[[Page, Program], Iterator[str]]


def problems(page: Page, program: Program) -> list[str]:
    """All that a page names and is not there."""
    return [f"{page.name}: {text}" for check in CHECKS for text in check(page, program)]


# --- Prometheus -----------------------------------------------------------------------------------------------


def metrics(page: Page, program: Program) -> Iterator[str]:
    """Metrics and recording rules, anywhere."""
    for name in sorted(set(_METRIC.findall(page.text))):
        if name not in program.metrics and name != "tensor_wasm_":
            yield f"there is no metric {name}"
    for name in sorted(set(_RULE.findall(page.text))):
        if name not in program.rules:
            yield f"there is no recording rule {name}"


def queries(page: Page, program: Program) -> Iterator[str]:
    """Series, labels and label values of queries."""
    for expression in page.blocks("promql"):
        for text in query(expression, program):
            yield f"{text}, in {' '.join(expression.split())}"


def query(expression: str, program: Program) -> Iterator[str]:
    """What one query names and is not there. Whether it is one at all, promtool says."""
    known = program.metrics | program.rules | OF_PROMETHEUS
    plain = re.sub(r'"[^"]*"', '""', expression)
    names = set(re.findall(r"(?<![\w:])[a-zA-Z_:][\w:]*", re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", plain)))
    called = set(re.findall(r"([a-zA-Z_]\w*)\s*\(", plain))
    grouped = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", plain)
    labels = {label.strip() for group in grouped for label in group.split(",")} - {""}
    series = {name for name in names - called - _WORDS - labels if not re.fullmatch(r"\d.*|[smhdw]", name)}
    may: set[str] = set(OF_THE_SCRAPE)
    for name in sorted(series):
        if name in known:
            may |= known[name]
        else:
            yield f"there is no series {name}"
    for label in sorted(labels - may):
        yield f"there is no label {label}"
    for name, inside in re.findall(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}", expression):
        for label, value in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', inside):
            if label not in known.get(name, set()) | OF_THE_SCRAPE:
                yield f"{name} has no label {label}"
            yield from _value(label, value, program)


def _value(label: str, value: str, program: Program) -> Iterator[str]:
    values = {
        "route": {route for _, route in program.routes},
        "method": {method for method, _ in program.routes},
        "outcome": program.outcomes,
        "alertname": program.alerts.keys() | {"TensorWasm.*"},
        "job": {"tensor-wasm"},
        "deployment": {"host", "cuda"},
    }
    for alternative in value.split("|") if label in values else ():
        if alternative not in values[label] | {".*"}:
            yield f"{label} is never {alternative!r}"


def alerts(page: Page, program: Program) -> Iterator[str]:
    """Alerts, anywhere."""
    for name in sorted(set(_ALERT.findall(page.text)) - program.alerts.keys()):
        yield f"there is no alert {name}"


def panels(page: Page, program: Program) -> Iterator[str]:
    """Panels of the dashboard: what is bold before the word."""
    for found in _PANELS.findall(page.prose):
        for title in re.findall(r"\*\*([^*]+)\*\*", found):
            if title not in program.panels:
                yield f"the dashboard has no panel {title!r}"


# --- the program ----------------------------------------------------------------------------------------------


def settings(page: Page, program: Program) -> Iterator[str]:
    """Settings, anywhere."""
    for name in sorted(set(_SETTING.findall(page.text)) - program.settings):
        yield f"there is no setting {name}"


def routes(page: Page, program: Program) -> Iterator[str]:
    """Routes in inline code, and paths of URLs of the node."""
    paths = {path for _, path in program.routes}
    for code in page.code:
        found = _ROUTE.fullmatch(code.partition("?")[0])
        if found is None or found[2].startswith(_FOLDERS):
            continue
        if found[2] not in paths if found[1] is None else (found[1], found[2]) not in program.routes:
            yield f"there is no route {code}"
    for path in re.findall(r"http://(?:127\.0\.0\.1:8080|node)(/[\w/:-]*)", page.text):
        if path not in paths:
            yield f"there is no route {path}"


def commands(page: Page, program: Program) -> Iterator[str]:
    """Commands of shell blocks, and ours in inline code."""
    for words in page.commands:
        name = words[0].rpartition("/")[2]
        if name == "tensor-wasm":
            yield from command_line(words[1:])
        elif name == "tensor-wasm-release":
            yield from _release(words[1:])
        elif name == "make":
            yield from _drill(words[1:])
        elif name not in PROGRAMS:
            yield f"{name} is not a program that every operator has"
        elif name in ("systemctl", "journalctl"):
            yield from _unit(words)
    known = set(_all_options(root))
    for code in page.code:
        if re.fullmatch(r"--[a-z][a-z-]*(?: [\w.]+)?", code) and code.split()[0] not in known:
            yield f"no command has the option {code}"


def command_line(words: list[str]) -> Iterator[str]:
    """What of a command of ours is not there."""
    command: click.Command = root
    words = words[:]
    while words:
        word = words.pop(0)
        options = {
            n: p
            for p in command.get_params(click.Context(command, help_option_names=["-h", "--help"]))
            for n in (*p.opts, *p.secondary_opts)
        }
        if word.startswith("-") and word != "-":
            option = options.get(word.partition("=")[0])
            if option is None:
                yield f"tensor-wasm {command.name} has no option {word}"
            elif not getattr(option, "is_flag", False) and "=" not in word and words:
                words.pop(0)
        elif isinstance(command, click.Group):
            following = command.get_command(click.Context(command, help_option_names=["-h", "--help"]), word)
            if following is None:
                yield f"tensor-wasm has no command {word!r} in {command.name}"
                return
            command = following


def _release(words: list[str]) -> Iterator[str]:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            release_parser().parse_args(words)
        except SystemExit as ended:
            if ended.code:
                yield f"tensor-wasm-release {' '.join(words)}: {said.getvalue().strip().splitlines()[-1]}"


def _drill(words: list[str]) -> Iterator[str]:
    drills = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "system" / "drills").glob("test_*.py")}
    named = [word.removeprefix("NAME=") for word in words if word.startswith("NAME=")]
    if words[:1] != ["drill"] or set(named) - drills:
        yield f"there is no make {' '.join(words)}"


def _unit(words: list[str]) -> Iterator[str]:
    units = {path.name.partition(".")[0] for path in (ROOT / "deploy" / "systemd").glob("*.service")}
    named = words[words.index("-u") + 1 :][:1] if "-u" in words else [w for w in words[2:] if not w.startswith("-")]
    for unit in named:
        if unit.removesuffix(".service") not in units:
            yield f"there is no unit {unit}"


def _all_options(command: click.Command) -> Iterator[str]:
    context = click.Context(command, help_option_names=["-h", "--help"])
    for parameter in command.get_params(context):
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            following = command.get_command(context, name)
            assert following is not None
            yield from _all_options(following)
    yield from ("--force", "--raise-database", "--no-restart")


def spans(page: Page, program: Program) -> Iterator[str]:
    """Spans in inline code, and their attributes in a table whose first column is a span."""
    for code in page.code:
        if re.fullmatch(r"(?:wasi_cuda|tensor_wasm)\.[a-z_]+|http\.request", code) and code not in program.spans:
            yield f"there is no span {code}"
    for row in re.findall(r"^\| (`(?:wasi_cuda|tensor_wasm|http)\.\w+` \|.*)\|$", page.text, re.MULTILINE):
        cells = [re.findall(r"`([^`]+)`", cell) for cell in row.split("|")]
        name, told = cells[0][0], set(cells[-1])
        ends = re.search(r"`grid_x` to `block_z`", row)
        has = program.spans.get(name, set())
        told |= {attribute for attribute in has if ends and attribute.startswith(("grid_", "block_"))}
        if told != has:
            yield f"{name} has the attributes {sorted(has)}, not {sorted(told)}"


def observed(page: Page, program: Program) -> Iterator[str]:
    """Fields of the document that ``observe`` prints: in filters of jq behind it, and as ``part.field`` in prose."""
    tops = set(_properties(program.observation, program.observation))
    for line in page.pipelines:
        if len(line) > 1 and "observe" in line[0] and line[1][:1] == ["jq"]:
            text = line[1][-1]
            paths = [re.split(r"(?:\[\])?\.", path) for path in _JOINED.findall(text)]
            paths += [[name] for name in re.findall(r"\w+", "".join(re.findall(r"\{([^}]*)\}", text)))]
            yield from _missing(paths, program.observation)
    dotted = [code for code in page.code if re.fullmatch(r"[a-z_]+(?:\.[a-z0-9_]+)+", code)]
    traced = program.spans.keys() | {attribute for attributes in program.spans.values() for attribute in attributes}
    others = {code for code in dotted if code in traced or code.endswith(_ENDINGS)}
    paths = [code.split(".") for code in dotted if code not in others]
    yield from _missing([path for path in paths if path[0] in tops], program.observation)


def _missing(paths: list[list[str]], schema: dict[str, Any]) -> Iterator[str]:
    for path in paths:
        node: Any = schema
        for name in path:
            node = _properties(node, schema).get(name)
            if node is None:
                yield f"observe has no field {'.'.join(path)}"
                break


def _properties(node: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """What a schema's node has below it, through references, alternatives and arrays."""
    if "$ref" in node:
        target: Any = schema
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return _properties(target, schema)
    found: dict[str, Any] = dict(node.get("properties", {}))
    for part in (*node.get("anyOf", ()), *node.get("allOf", ()), *([node["items"]] if "items" in node else [])):
        found |= _properties(part, schema)
    return found


# --- the repository -------------------------------------------------------------------------------------------


def links(page: Page, program: Program) -> Iterator[str]:
    """Files and anchors of links."""
    folder = (ROOT / page.name).parent
    for target in page.links:
        if target.startswith(("http://", "https://")):
            continue
        path, _, name = target.partition("#")
        found = (folder / path).resolve()
        if path and not found.exists():
            yield f"there is no file {target}"
        elif name and name not in (Page.read(found) if path else page).anchors:
            yield f"there is no heading for {target}"


def files(page: Page, program: Program) -> Iterator[str]:
    """Paths of the repository in code of either kind."""
    text = " ".join([*page.code, *page.blocks("sh")])
    for path in sorted(set(re.findall(r"(?<![\w/.-])(?:src|tests|docs|deploy|examples)/[\w./-]*\w", text))):
        if not Path(ROOT / path).exists():
            yield f"there is no file {path}"


def foreign(page: Page, program: Program) -> Iterator[str]:
    """Words of another system's."""
    for word in _FOREIGN.findall(page.text):
        yield f"{word!r} is not of this system"


CHECKS: tuple[Check, ...] = (
    metrics, queries, alerts, panels, settings, routes, commands, spans, observed, links, files, foreign,
)  # fmt: skip
