"""Modules and PTX texts made to be dear: refused early, or compiled in another process within its time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from security import bombs
from security.attacked import MIB, Attacked
from security.guests import entry, kernel_call

_COMPILE_S = 8
_MALFORMED = -4


def _offer(node: Attacked, wasm: bytes) -> str:
    """The kind of the refusal, or "" when the module was taken; then it must run too."""
    began = time.monotonic()
    answer = node.offer(wasm)
    assert time.monotonic() - began < _COMPILE_S + 4
    assert answer.status in (201, 400), answer.body
    assert len(answer.body) < 4096
    if answer.status == 201:
        identity = answer.json["id"]
        assert node.invoke(identity).kind in ("", "missing_export", "invoke_timeout", "trap")
        assert node.ask("GET", f"/functions/{identity}").status == 200
        assert node.ask("DELETE", f"/functions/{identity}").status == 204
    else:
        assert answer.kind == "invalid_wasm"
    return answer.kind


@pytest.mark.slow
def test_100_000_functions(node: Attacked):
    """Bound: compiled in another process within TENSOR_WASM_COMPILE_TIMEOUT_S, or refused."""
    _offer(node, bombs.functions(100_000))


def test_10_000_functions(node: Attacked):
    """Bound: as above; the small brother of the module of 100,000 functions."""
    assert _offer(node, bombs.functions(10_000)) == ""


@pytest.mark.slow
def test_a_million_functions(node: Attacked):
    """Bound: refused when the compiler's time or memory is over; its process is ended and another takes its place."""
    _offer(node, bombs.functions(1_000_000))
    assert _offer(node, bombs.functions(1)) == ""


@pytest.mark.slow
def test_64_mib_of_nops(node: Attacked):
    """Bound: a function has 7,654,321 bytes at most; a larger one is refused in time linear in its size."""
    assert _offer(node, bombs.one_function(b"\x01" * (63 * MIB))) == "invalid_wasm"


def test_a_long_function(node: Attacked):
    """Bound: as above; what is just within the limit is compiled and runs."""
    assert _offer(node, bombs.one_function(b"\x01" * 7_700_000)) == "invalid_wasm"
    assert _offer(node, bombs.one_function(b"\x01" * 7_600_000)) == ""


def test_blocks_nested_deep(node: Attacked):
    """Bound: no depth of blocks overflows a stack: it compiles, or the compiler's memory ends."""
    for depth in (1_000, 50_000):
        _offer(node, bombs.nested_blocks(depth))


@pytest.mark.slow
def test_blocks_nested_a_million_deep(node: Attacked):
    """Bound: as above, where the compiler's process runs out of memory; the node does not."""
    assert _offer(node, bombs.nested_blocks(1_000_000)) == "invalid_wasm"


def test_a_branch_of_a_million_targets(node: Attacked):
    """Bound: a br_table has the targets that Wasmtime takes; more is refused."""
    for targets in (1_000_000, 7_000_000):
        assert _offer(node, bombs.wide_branch(targets)) == "invalid_wasm"


def test_a_million_locals(node: Attacked):
    """Bound: 50,000 locals a function, however few bytes say so."""
    for count in (50_001, 1_000_000, (1 << 32) - 1):
        assert _offer(node, bombs.many_locals(count)) == "invalid_wasm"
    _offer(node, bombs.many_locals(49_999))


def test_thousands_of_everything(node: Attacked):
    """Bound: each kind of entry has a limit that is checked before the module costs anything."""
    for wasm in (
        bombs.many_types(1_000_000), bombs.many_imports(100_000), bombs.many_globals(200_000),
        bombs.functions(40_000, exported=True), bombs.many_segments(200_000), bombs.functions(11, True, "x" * 99_000),
    ):  # fmt: skip
        began = time.monotonic()
        assert _offer(node, wasm) == "invalid_wasm"
        assert time.monotonic() - began < 2


def test_the_most_of_everything(node: Attacked):
    """Bound: what is just within those limits is compiled, shown and instantiated like any other module."""
    for wasm in (bombs.many_types(100_000), bombs.many_imports(10_000), bombs.many_globals(100_000)):
        _offer(node, wasm)


def _load(node: Attacked, function: str, text: str) -> int:
    """What loading a text gives, within time: PTX counts as guest's work, so the deadline may end it too."""
    args, data = kernel_call(text)
    began = time.monotonic()
    answer = node.invoke(function, "kernel", args, data)
    assert time.monotonic() - began < 5 + 1.5  # the node's deadline, and the way
    if answer.status != 200:
        assert answer.kind in ("invoke_timeout", "trap"), answer.body
        return _MALFORMED
    return int(answer.result[0])


_HUGE = 1_500_000
_PTX: dict[str, Callable[[], str]] = {
    "deep parentheses": lambda: entry(f"mov.u32 %r1, {'(' * 100_000}1{')' * 100_000};", parameters=""),
    "deep negations": lambda: entry(f"mov.u32 %r1, {'-' * _HUGE}1;", parameters=""),
    "deep conditions": lambda: entry(f"mov.u32 %r1, {'1?' * 200_000}1{':1' * 200_000};", parameters=""),
    "a long sum": lambda: entry(f"mov.u32 %r1, {'1+' * (_HUGE // 2)}1;", parameters=""),
    "shifts": lambda: entry("mov.u64 %rd1, (1<<63)*(1<<63)*0xFFFFFFFFFFFFFFFF<<9999999999;", parameters=""),
    "a long name": lambda: entry(f".reg .b32 {'x' * _HUGE};", parameters=""),
    "a long number": lambda: entry(f"mov.u32 %r1, {'9' * _HUGE};", parameters=""),
    "deep braces": lambda: entry("{" * 500_000 + "}" * 500_000, parameters=""),
    "many entries": lambda: entry("", parameters="") + ".visible .entry e() { ret; }\n" * 1 + "".join(
        f".visible .entry e{n}() {{ ret; }}\n" for n in range(10_000)
    ),
    "many registers": lambda: entry(".reg .b64 %q<2000000000>; mov.u64 %q1999999999, 1;", parameters=""),
    "a huge array": lambda: entry("", parameters="", before=".global .align 8 .b8 g[4000000000000];"),
    "a huge local": lambda: entry(".local .b8 l[2000000000];", parameters=""),
    "a huge shared": lambda: entry("", parameters="", before=".shared .b8 s[2000000000];"),
    "many labels": lambda: entry("".join(f"L{n}:\n" for n in range(50_000)), parameters=""),
    "many branches": lambda: entry(
        "".join(f"@%p0 bra L{n * 7919 % 3000}; L{n}:\n" for n in range(3000)), parameters=""
    ),
    "many instructions": lambda: entry("add.u32 %r1, %r1, 1;\n" * 15_000, parameters=""),
    "one line comment": lambda: entry("//" + "x" * _HUGE, parameters=""),
    "open comment": lambda: entry("/*" + "*" * _HUGE, parameters=""),
    "open string": lambda: entry('.file 1 "' + "\\" * _HUGE, parameters=""),
}  # fmt: skip


@pytest.mark.parametrize("name", _PTX)
def test_ptx_that_is_dear_to_read(node: Attacked, function: str, name: str):
    """Bound: PTX is read and compiled in another process, in time linear in the text or ended; a code says so."""
    assert _load(node, function, _PTX[name]()) in (0, _MALFORMED, -6, -12)


@pytest.mark.slow
def test_many_large_modules(node: Attacked):
    """Bound: compiled modules are kept within a number of bytes, and not at all when nobody's function has them."""
    before = node.resident_bytes
    for number in range(4):
        data = bytes((number,)) * (40 * MIB)
        large = bombs.module(
            bombs.NO_TYPE, bombs.section(bombs.FUNCTION, b"\x01\0"), bombs.RUN, bombs.section(12, b"\x01"),
            bombs.section(bombs.CODE, b"\x01\x02\0\x0b"),
            bombs.section(bombs.DATA, b"\x01\x01" + bombs.unsigned(len(data)) + data),
        )  # fmt: skip
        identity = node.deploy(large)
        node.ask("DELETE", f"/functions/{identity}")
    assert node.resident_bytes < before + 64 * MIB


@pytest.mark.slow
def test_lists_of_functions_with_many_exports(node: Attacked):
    """Bound: a page of functions has a size in bytes too."""
    wasm = bombs.functions(25_000, exported=True)
    identities = [node.deploy(wasm, X_TensorWasm_Tenant="77") for _ in range(4)]
    answer = node.ask("GET", "/functions?limit=1000", X_TensorWasm_Tenant="77")
    for identity in identities:
        node.ask("DELETE", f"/functions/{identity}", X_TensorWasm_Tenant="77")
    assert answer.status == 200
    assert len(answer.body) < 3 * MIB
