"""What the documentation names exists: commands, options, settings, metrics, error kinds, codes, files."""

import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest

from tensor_wasm import abi, errors
from tensor_wasm.abi import Code, Tag, limits
from tensor_wasm.cli.root import COMMANDS, root
from tensor_wasm.config import CLIENT_VARIABLES, SETTINGS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
)
BY_NAME = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}
EACH_PAGE = pytest.mark.parametrize("page", list(BY_NAME))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")


def shell_lines(text: str) -> list[str]:
    """Commands in `sh` blocks, continued lines joined."""
    blocks = [body for language, body in FENCE.findall(text) if language == "sh"]
    return [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]


def spans(text: str) -> list[str]:
    return SPAN.findall(FENCE.sub("", text))


def invocations(text: str) -> list[str]:
    """Every `tensor-wasm …` in shell blocks and inline code, without what follows it in the shell."""
    found = []
    for line in shell_lines(text) + spans(text):
        for part in re.split(r"&&|\|\||[;|]", line):
            command = re.sub(r"\s+#.*", "", part).strip()
            match = re.match(r"(?:\S*/)?tensor-wasm(?:\s+(.*))?$", command)
            if match and match[1]:
                found.append(match[1])
    return found


def resolve(command_line: str) -> tuple[click.Command, list[str]]:
    """The command that a line calls, and its words after the command's name. Fails the test when there is none."""
    command: click.Command = root
    words = shlex.split(command_line)
    rest: list[str] = []
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            rest.append(word)
            if option(command, word).is_flag is False and "=" not in word and words:
                words.pop(0)
        elif isinstance(command, click.Group):
            command = child(command, word)
        else:
            rest.append(word)
    return command, rest


def child(group: click.Group, name: str) -> click.Command:
    following = group.get_command(click.Context(group, help_option_names=["-h", "--help"]), name)
    assert following is not None, f"{group.name} has no command {name!r}"
    return following


def option(command: click.Command, word: str) -> click.Option:
    name = word.partition("=")[0]
    known = {
        n: p
        for p in command.get_params(click.Context(command, help_option_names=["-h", "--help"]))
        for n in (*p.opts, *p.secondary_opts)
    }
    assert name in known, f"{command.name} has no option {name}; it has {sorted(known)}"
    return known[name]


@EACH_PAGE
def test_every_command_a_page_shows_exists_with_its_options(page):
    for line in invocations(BY_NAME[page]):
        if line.startswith("COMMAND"):
            continue
        resolve(line)


def test_commands_are_found_in_the_pages():
    found = {
        resolve(line)[0].name
        for page in ("README.md", "docs/getting-started.md")
        for line in invocations(BY_NAME[page])
    }
    assert {"demo", "run", "serve", "deploy", "invoke", "check", "doctor", "list", "metrics"} <= found


def cli_rows() -> list[str]:
    """The commands of cli.md: the first column of its tables of commands."""
    text = BY_NAME["docs/cli.md"].partition("## Without a server")[2]
    return [span for row in re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE) for span in SPAN.findall(row)]


def test_the_reference_of_commands_is_complete():
    documented = {row.split()[0] for row in cli_rows()}
    assert documented == {entry.name for entry in COMMANDS}
    leaves = {" ".join(word for word in row.split() if word.islower()) for row in cli_rows()}
    for entry in COMMANDS:
        command = child(root, entry.name)
        if isinstance(command, click.Group):
            children = command.list_commands(click.Context(command, help_option_names=["-h", "--help"]))
            assert {f"{entry.name} {child}" for child in children} <= leaves


def test_the_reference_s_options_are_the_commands_own():
    text = BY_NAME["docs/cli.md"].partition("## Without a server")[2]
    checked = 0
    for cells in re.findall(r"^\| (`.*?`) \| (.*) \|$", text, re.MULTILINE):
        for name in SPAN.findall(cells[0]):
            command, _ = resolve(" ".join(word for word in name.split() if word.islower()))
            for span in SPAN.findall(cells[1]):
                if span.startswith("--") and name != "invoke ID":
                    option(command, span.split()[0])
                    checked += 1
    assert checked > 8
    serve, _ = resolve("serve")
    for span in SPAN.findall(BY_NAME["docs/cli.md"].partition("Each setting is")[2].partition("##")[0]):
        if span.startswith("--"):
            option(serve, span)


@EACH_PAGE
def test_every_setting_a_page_names_exists(page):
    known = {setting.variable for setting in SETTINGS} | CLIENT_VARIABLES
    named = set(re.findall(r"\bTENSOR_WASM_[A-Z0-9_]+\b", BY_NAME[page]))
    assert named - known == set()


@EACH_PAGE
def test_every_metric_a_page_names_exists(page):
    source = "".join(p.read_text("utf-8") for p in (ROOT / "src" / "tensor_wasm" / "telemetry").glob("*.py"))
    families = set(re.findall(r'Family\(\s*"(\w+)"', source))
    assert "kernel_latency_seconds" in families
    for name in re.findall(r"\btensor_wasm_([a-z0-9_]+)\b", BY_NAME[page]):
        assert re.sub(r"_(bucket|sum|count)$", "", name) in families, name


@EACH_PAGE
def test_every_link_leads_somewhere(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCE.sub("", BY_NAME[page])):
        if not target.startswith(("http://", "https://")):
            assert (folder / target).exists(), target


@EACH_PAGE
def test_every_path_of_the_repository_a_page_names_exists(page):
    named = re.findall(r"(?<![\w/])(?:src|tests|docs|examples|benchmarks)/[\w./-]*\w", " ".join(spans(BY_NAME[page])))
    named += [
        n for line in shell_lines(BY_NAME[page]) for n in re.findall(r"\b(?:examples|docs|tests)/[\w./-]*\w", line)
    ]
    illustrations = {"src/tensor_wasm/ptx/lexer.py", "tests/ptx/test_lexer.py"}
    for path in set(named) - illustrations:
        assert (ROOT / path).exists(), path


# --- the house ------------------------------------------------------------------------------------------------


def setup_commands() -> list[str]:
    return [line for line in BY_NAME["README.md"].splitlines() if line.startswith("python3 -m venv")]


def test_the_readme_has_one_command_for_the_demo_and_one_for_the_tests():
    demo, tests = setup_commands()
    assert demo.endswith("tensor-wasm demo")
    assert "pytest" in tests


def test_ci_runs_the_readme_s_test_command():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    pattern = re.search(r"grep -E '([^']+)' README.md", script)[1]
    found = subprocess.run(["grep", "-E", pattern, "README.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [setup_commands()[1]]


def test_the_introduction_is_short():
    introduction = BY_NAME["README.md"].partition("# TensorWasm")[2].strip().partition("\n\n")[0]
    assert len(introduction.splitlines()) <= 7


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in required}
    rows = BY_NAME["RATIONALE.md"].partition("## Dependencies")[2]
    reasons = {span for row in re.findall(r"^\| (.*?) \|", rows, re.MULTILINE) for span in SPAN.findall(row)}
    missing = {name for name in names if name not in reasons and not (name.startswith("opentelemetry-"))}
    assert missing == set()
    assert {reason for reason in reasons if "*" not in reason} - names == {"sqlite3", *project["optional-dependencies"]}


def test_the_map_of_rooms_is_complete():
    package = ROOT / "src" / "tensor_wasm"
    rooms = {f"{p.name}/" for p in package.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    rows = re.findall(r"^\| `([\w./]+)` \|", BY_NAME["docs/architecture.md"], re.MULTILINE)
    assert set(rows) == rooms | {"errors.py", "config.py"}


# --- the guest's contract -------------------------------------------------------------------------------------


def number(text: str) -> int:
    return int(text.replace("−", "-"))


def section(title: str) -> str:
    """What stands under a heading, up to the next of any level."""
    return re.split(r"^#+ ", BY_NAME["docs/guest-abi.md"].partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[
        0
    ]


def test_the_codes_are_the_abi_s():
    rows = re.findall(r"^\| (−?\d+) \| ([A-Z_]+) \|", section("Codes"), re.MULTILINE)
    assert {name: number(value) for value, name in rows} == {code.name: code.value for code in Code}


def test_the_tags_are_the_abi_s():
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", section("Arguments"), re.MULTILINE)
    assert {name.upper(): int(value) for value, name in rows} == {tag.name: tag.value for tag in Tag}


@pytest.mark.parametrize("module", [abi.CUDA_MODULES[0], abi.CUDA_3_MODULE, *abi.TENSOR_MODULES, abi.SCHEDULER_MODULE])
def test_every_import_is_described_with_its_result(module):
    text = section(f"`{module}`")
    rows = {name: row for row, name in re.findall(r"^(\| `([\w-]+)(?:\(\))?` .*)$", text, re.MULTILINE)}
    signatures = abi.signatures(module)
    older = {abi.CUDA_3_MODULE: abi.CUDA_MODULES[0], abi.TENSOR_2_MODULE: abi.TENSOR_MODULE}.get(module, "")
    signatures = {name: s for name, s in signatures.items() if name not in abi.signatures(older)}
    assert rows.keys() == signatures.keys()
    for name, signature in signatures.items():
        assert re.search(rf"\| {signature.results[0]}\b", rows[name]), name


def test_the_limits_are_the_abi_s():
    text = BY_NAME["docs/guest-abi.md"]
    for shown in (
        f"PTX over {limits.PTX_MAX_BYTES >> 20} MiB",
        f"entry name over {limits.ENTRY_MAX_BYTES} bytes",
        f"more than {limits.KERNELS_MAX} kernels, or {limits.PTX_TOTAL_MAX_BYTES >> 20} MiB",
        f"at most {limits.LAST_ERROR_MAX_BYTES} bytes",
        f"shared_bytes at most {limits.SHARED_MAX_BYTES:,}",
        f"{limits.BLOCK_AXIS_MAX:,} × {limits.BLOCK_AXIS_MAX:,} × {limits.BLOCK_Z_MAX}",
        f"{limits.BLOCK_THREADS_MAX:,} threads",
        f"z at most {limits.GRID_YZ_MAX:,}",
        f"At most {limits.ARGV_MAX_BYTES:,} bytes and {limits.ARGV_MAX_RECORDS} records",
        f"{limits.ALLOCATION_MAX_BYTES >> 20} MiB at once and {limits.ALLOCATIONS_MAX:,} pieces",
        f"less than {limits.LAUNCH_MARGIN_MS} ms of the invocation",
    ):
        assert shown in " ".join(text.split()), shown


# --- the HTTP API ---------------------------------------------------------------------------------------------


def error_classes() -> list[type[errors.TensorWasmError]]:
    found, waiting = [], [errors.TensorWasmError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == errors.__name__]


def test_every_error_kind_is_described_with_its_status():
    text = BY_NAME["docs/http-api.md"].partition("## Errors")[2]
    documented = {
        kind: int(status)
        for status, kinds in re.findall(r"^\| (\d{3}) \| (.*?) \|", text, re.MULTILINE)
        for kind in SPAN.findall(kinds)
    }
    statuses = {kind.kind: kind.http_status for kind in error_classes()}
    assert documented.items() <= statuses.items()
    # These never reach a caller of the API: a start that stops, base classes, and what guests see as codes.
    assert statuses.keys() - documented.keys() == {
        "invalid_configuration",
        "device_unavailable",
        "kernel_error",
        "invalid_kernel_args",
    }


def test_the_table_of_routes_is_the_application_s():
    source = "".join(p.read_text("utf-8") for p in (ROOT / "src" / "tensor_wasm" / "http" / "routes").rglob("*.py"))
    served = set(re.findall(r'method="(\w+)",\s*path="([^"]+)"', source))
    rows = re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE) (/\S*)` \|", BY_NAME["docs/http-api.md"], re.MULTILINE)
    assert {(method, re.sub(r":(\w+)", r"{\1}", path)) for method, path in rows} == served


def test_modules_named_as_commands_can_be_run():
    modules = {
        m for text in BY_NAME.values() for line in shell_lines(text) for m in re.findall(r"-m (tensor_wasm\S*)", line)
    }
    assert modules
    for module in modules:
        import_module(module)


def snippet(page: str, holding: str) -> str:
    """The one shell block of a page that has this text."""
    (found,) = [body for language, body in FENCE.findall(BY_NAME[page]) if language == "sh" and holding in body]
    return found


def run_snippet(body: str, folder: Path) -> list[str]:
    """Run a page's commands with this Python; what they printed, by line."""
    python = shlex.quote(sys.executable)
    lines = [line for line in body.splitlines() if "pip install" not in line]
    script = re.sub(r"^tensor-wasm\b", f"{python} -m tensor_wasm", "\n".join(lines), flags=re.MULTILINE)
    script = re.sub(r"^python\b", python, script, flags=re.MULTILINE)
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_function_of_the_first_steps_is_built_and_runs_as_they_say(tmp_path):
    said = re.search(r"twice\.c.*?prints `(\d+)`", BY_NAME["docs/getting-started.md"], re.DOTALL)[1]
    assert run_snippet(snippet("docs/getting-started.md", "twice.c"), tmp_path) == [said]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("holding", "printed"),
    [("hello.wasm --export add", "42"), ("run examples/vector_add", "1000000"), ("kernel check", "supported")],
)
def test_the_commands_of_the_first_steps_print_what_they_say(holding, printed):
    assert run_snippet(snippet("docs/getting-started.md", holding), ROOT)[-1].endswith(printed)
    assert printed in BY_NAME["docs/getting-started.md"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hello", "vector_add", "saxpy"])
def test_the_commands_of_the_examples_pages_run(name):
    lines = run_snippet(snippet(f"examples/{name}/README.md", "tensor-wasm run"), ROOT)
    expected = {
        "hello": ["Hello from WebAssembly.", "ok", "42", "7540113804746346429"],
        "vector_add": ["1000000"],
        "saxpy": ["1000000.0", lines[-1]],
    }
    assert lines == expected[name]
    if name == "saxpy":
        assert float(lines[-1]) < 1e-4
