"""Calls replaced by what they call: what the kernels become, what is refused, and how large it may get."""

from __future__ import annotations

import time

import pytest

from ptx.spelling import module
from tensor_wasm.ptx import inline, printing, read, support
from tensor_wasm.ptx.calls import Call
from tensor_wasm.ptx.inline import INLINED_MAX, INLINED_TOTAL_MAX
from tensor_wasm.ptx.printing import PRINTING_MAX
from tensor_wasm.ptx.program import (
    Branch,
    Emit,
    Exit,
    Immediate,
    Jump,
    Kernel,
    Register,
    ScalarType,
    Space,
    Special,
    Symbol,
    Trap,
)

ADD = """.func (.param .b32 out) add(.param .b32 a, .param .b32 b)
{ .reg .b32 x, y;
ld.param.b32 x, [a]; ld.param.b32 y, [b];
add.s32 x, x, y;
st.param.b32 [out], x;
ret; }
"""
CALL = """{ .param .b32 p0; st.param.b32 [p0+0], r; .param .b32 p1; st.param.b32 [p1+0], 5; .param .b32 v;
call.uni (v), add, (p0, p1);
ld.param.b32 r, [v+0]; }
"""


def kernel(body: str, before: str = "") -> Kernel:
    found = read(module(f".reg .pred p; .reg .b32 r, s; .reg .b64 d; .reg .f32 real;\n{body}", before=before)).kernels[
        0
    ]
    for block in found.blocks:
        for instruction in block.instructions:
            for register in (*instruction.sources, *instruction.destinations):
                assert not isinstance(register, Register) or found.registers[register.index] is register
    return found


def roots(found: Kernel) -> list[list[str]]:
    return [[instruction.root for instruction in block.instructions] for block in found.blocks]


def reasons(body: str, before: str = "") -> list[str]:
    return [lack.reason for lack in support(kernel(body, before))]


def test_a_call_becomes_the_functions_code_with_its_lines() -> None:
    found = kernel(CALL, ADD)
    assert roots(found) == [["mov", "mov", "mov", "mov", "add", "mov", "mov"]]
    lines = [instruction.line for instruction in found.blocks[0].instructions]
    assert lines == [13, 13, 6, 6, 7, 8, 15]
    assert found.variables == ()
    assert support(found) == ()


def test_each_call_has_registers_of_its_own_and_local_variables_are_shared() -> None:
    function = """.func twice(.param .b32 a) { .local .b32 cell; .reg .b32 x;
        ld.param.b32 x, [a]; st.local.b32 [cell], x; ret; }"""
    found = kernel("call twice, (1); call twice, (2);", function)
    assert [(variable.name, variable.space) for variable in found.variables] == [("cell", Space.LOCAL)]
    stores = [instruction for instruction in found.blocks[0].instructions if instruction.root == "st"]
    assert len({store.sources[0] for store in stores}) == 2
    assert len({store.address.base for store in stores if store.address}) == 1


def test_values_and_registers_are_taken_as_arguments_and_results() -> None:
    function = """.func (.reg .b32 o, .param .f32 w) f(.reg .b32 a, .param .b32 b, .reg .f32 c)
        { .reg .b32 x; ld.param.b32 x, [b]; add.s32 o, a, x; st.param.f32 [w], c; ret; }"""
    found = kernel("call (r, real), f, (%tid.x, 7, 0f3F800000);", function)
    moved = [i.sources[0] for i in found.blocks[0].instructions if i.root == "mov"]
    assert Immediate(7, ScalarType.B32) in moved
    assert Immediate(0x3F800000, ScalarType.F32) in moved
    assert support(found) == ()


def test_a_predicated_call_is_branched_around() -> None:
    found = kernel("@!p call add1; mov.b32 r, 1;", ".func add1() { .reg .b32 x; add.s32 x, x, 1; ret; }")
    branch = found.blocks[0].terminator
    assert isinstance(branch, Branch)
    assert branch.guard.negated
    assert roots(found) == [[], ["add"], ["mov"]]


def test_ret_goes_on_exit_ends_and_trap_fails() -> None:
    function = """.func f(.param .b32 a) { .reg .b32 x; .reg .pred q; ld.param.b32 x, [a];
        setp.eq.s32 q, x, 0; @q ret; setp.eq.s32 q, x, 1; @q exit; setp.eq.s32 q, x, 2;\n@q trap; mov.b32 x, 9; }"""
    found = kernel("call f, (r); mov.b32 s, 3;", function)
    ends = [block.terminator for block in found.blocks]
    assert sum(isinstance(end, Trap) for end in ends) == 1
    assert sum(type(end) is Exit for end in ends) == 2  # that of the function, and the kernel's own
    (last,) = [b for b in found.blocks if any(i.destinations[0].name == "s" for i in b.instructions if i.destinations)]  # type: ignore[union-attr]
    assert type(last.terminator) is Exit


def test_a_kernel_may_be_one_endless_loop() -> None:
    found = kernel("L: call f; bra L;", ".func f() { .reg .b32 x; add.s32 x, x, 1; ret; }")
    assert roots(found) == [["add"]]
    assert found.blocks[0].terminator == Jump(0)


def test_a_body_may_follow_a_call_and_have_another_name() -> None:
    before = """.func (.param .b32 o) late(.param .b32 a); .func (.param .b32 o) other(.param .b32 a);
        .func (.param .b32 o) late(.param .b32 a) { st.param.b32 [o], 4; ret; } .alias other, late;"""
    for name in ("late", "other"):
        found = kernel(f"{{ .param .b32 v; call (v), {name}, (1); ld.param.b32 r, [v]; }}", before)
        assert support(found) == ()
        assert Immediate(4, ScalarType.B32) in [i.sources[0] for i in found.blocks[0].instructions]


def test_a_struct_becomes_registers_where_its_parts_are_named() -> None:
    function = """.func (.param .align 8 .b8 o[16]) swap(.param .align 8 .b8 a[16]) { .reg .b64 x, y;
        ld.param.v2.b64 {x, y}, [a]; st.param.b64 [o+8], x; st.param.b64 [o], y; ret; }"""
    found = kernel(
        """.reg .b64 e; { .param .align 8 .b8 a[16]; st.param.b64 [a], d; st.param.b64 [a+8], 7;
        .param .align 8 .b8 v[16]; call (v), swap, (a); ld.param.v2.b64 {d, e}, [v]; }""",
        function,
    )
    assert {root for block in roots(found) for root in block} == {"mov"}


def test_a_struct_whose_address_is_taken_is_a_local_variable() -> None:
    function = """.func pick(.param .align 8 .b8 a[16]) { .reg .b64 x; .reg .b32 y;
        mov.b64 x, a; ld.param.b32 y, [x+4]; ret; }"""
    found = kernel(
        "{ .param .align 8 .b8 a[16]; st.param.b64 [a], d; st.param.b64 [a+8], 7; call pick, (a); }", function
    )
    (variable,) = found.variables
    assert (variable.space, variable.size_bytes) == (Space.LOCAL, 16)
    spaces = [i.space for i in found.blocks[0].instructions if i.address is not None]
    assert spaces == [Space.LOCAL, Space.LOCAL, Space.GENERIC]
    assert any(isinstance(s, Symbol) and s.target is variable for i in found.blocks[0].instructions for s in i.sources)


def test_kernels_without_calls_are_what_they_were() -> None:
    body = ".reg .b32 x;\nadd.s32 x, x, 1;\n"
    alone, beside = read(module(body)).kernels[0], read(module(body, before=ADD.replace("\n", " "))).kernels[0]
    assert roots(alone) == roots(beside)
    assert [i.line for i in alone.blocks[0].instructions] == [i.line for i in beside.blocks[0].instructions]


# --- indirect calls ----------------------------------------------------------------------------------------

CHOICES = """.func (.param .b32 o) one(.param .b32 a) { st.param.b32 [o], 1; ret; }
.func (.param .b32 o) two(.param .b32 a) { st.param.b32 [o], 2; ret; }
.func (.param .b32 o) unused(.param .b32 a) { st.param.b32 [o], 3; ret; }
.func other(.param .b32 a) { ret; }
.global .u64 table[3] = {one, two, other};
"""


def stored(found: Kernel) -> set[int]:
    sources = [i.sources[0] for b in found.blocks for i in b.instructions if i.root == "mov"]
    return {source.bits for source in sources if isinstance(source, Immediate) and source.bits < 10}


def test_an_indirect_call_chooses_among_functions_of_that_kind_whose_address_is_taken() -> None:
    found = kernel(
        """mov.u64 d, table; ld.global.u64 d, [d]; { .param .b32 v;
        kind: .callprototype (.param .b32 _) _ (.param .b32 _);
        call (v), d, (r), kind; ld.param.b32 r, [v]; }""",
        CHOICES,
    )
    assert stored(found) == {1, 2}
    assert [type(block.terminator) for block in found.blocks].count(Trap) == 1
    assert support(found) == ()
    (symbol,) = [i.sources[0] for b in found.blocks for i in b.instructions if i.root == "mov" and len(i.sources) == 1
                 and isinstance(i.sources[0], Symbol)]  # fmt: skip
    assert isinstance(symbol, Symbol)
    assert symbol.target.pointers == ()  # type: ignore[union-attr]
    assert len({symbol.target.initial[place : place + 8] for place in (0, 8, 16)}) == 3  # type: ignore[union-attr, index]


def test_an_indirect_call_chooses_among_what_is_listed() -> None:
    body = "{ .param .b32 v; these: .calltargets unused, two; call (v), d, (r), these; ld.param.b32 r, [v]; }"
    assert stored(kernel(body, CHOICES)) == {2, 3}


def test_an_indirect_call_of_nothing_that_there_is_traps() -> None:
    found = kernel("kind: .callprototype _ (.param .b64 _);\ncall d, (d), kind;", CHOICES)
    assert [type(block.terminator) for block in found.blocks] == [Trap]


# --- refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "before", "part"),
    [
        ("call add, (1);", ADD, "add has 2 arguments, not 1"),
        ("call add, (1, 2);", ADD, "add has 1 results, not 0"),
        ("{ .param .b16 v; call (v), add, (1, 2); }", ADD, "the result of add has 4 bytes, not 2"),
        ("{ .param .b8 a; call (r), add, (a, 2); }", ADD, "argument 1 of add has 4 bytes, not 1"),
        ("{ .param .b32 a; call (a), add, (a, 2); }", ADD, "both an argument and the result"),
        ("call f, (1);", ".func f(.param .b8 a[8]) { ret; }", "argument 1 of f is a struct"),
        ("call f, (1);", ".func f(.param .b8 a[]) { ret; }", "variable number of arguments"),
        ("call add, (0f3F800000, 1);", ADD.replace("(.param .b32 out)", "").replace("st.param.b32 [out], x;", ""), ""),
        ("call f, (0f3F800000);", ".func f(.reg .s32 a) { ret; }", "argument 1 of f is no such constant"),
        ("call d;", ADD, "an indirect call needs"),
        ("these: .calltargets add, g; call d, these;", ADD + ".func g();", "add has 2 arguments"),
        ("these: .calltargets g; call d, these;", ADD + ".func g();", "g is defined in another module"),
        (
            "call (r), vprintf, (d);",
            ".extern .func (.param .b32 o) vprintf(.param .b64 a, .param .b64 b);",
            "other arg",
        ),
        ("call f;", ".func f() { call f; ret; }", "f calls itself, at line 4"),
    ],
)
def test_calls_that_do_not_fit_say_why(body: str, before: str, part: str) -> None:
    found = reasons(body, before)
    if part:
        (reason,) = found
        assert part in reason
    else:
        assert found == []


def test_functions_that_call_each_other_are_refused_from_outside_too() -> None:
    before = """.func g(); .func h(); .func f() {
        call g; ret; }
        .func g() { call h; ret; } .func h() {
        call f; ret; } .func outside() { call f; ret; }"""
    said = {"f": "f calls itself through g, at line 7", "g": "g calls itself through h, at line 5"}
    said |= {"h": "h calls itself through f, at line 6", "outside": said["f"]}
    for name, part in said.items():
        (reason,) = reasons(f"call {name};", before)
        assert part in reason
    assert reasons("ret;", before) == []


def test_a_function_that_may_call_itself_through_its_address_is_refused() -> None:
    before = """.func f(.param .b64 a) { .reg .b64 x; ld.param.b64 x, [a];
        kind: .callprototype _ (.param .b64 _); call x, (x), kind; ret; }"""
    (reason,) = reasons("mov.u64 d, f; call f, (d);", before)
    assert "f calls itself, at line 5" in reason


def test_one_kernel_that_cannot_be_inlined_leaves_the_others_alone() -> None:
    text = module("call f;", before=".func f() { call f; ret; }\n") + ".entry fine() { ret; }"
    first, second = read(text).kernels
    assert len(support(first)) == 1
    assert support(second) == ()


# --- bounds ------------------------------------------------------------------------------------------------


def chain(depth: int, calls: int) -> str:
    """Functions that each call the next ``calls`` times."""
    functions = [".func f0() { .reg .b32 x; add.s32 x, x, 1; ret; }"]
    functions += [f".func f{n}() {{ {f'call f{n - 1}; ' * calls} ret; }}" for n in range(1, depth + 1)]
    return "\n".join(functions) + "\n"


def test_doubling_chains_are_refused_at_once() -> None:
    before = chain(3000, 2)
    started = time.process_time()
    (reason,) = reasons("call f3000;", before)
    assert time.process_time() - started < 5
    assert f"more than {INLINED_MAX:,} instructions" in reason


def test_long_chains_of_single_calls_are_inlined() -> None:
    found = kernel("call f5000;", chain(5000, 1))
    assert roots(found) == [["add"]]


def test_many_ways_into_recursion_are_refused_at_once() -> None:
    count = 8000
    functions = "".join(f".func f{n}();\n" for n in range(count))
    functions += "".join(f".func f{n}() {{ call f{(n + 1) % count}; ret; }}\n" for n in range(count))
    started = time.process_time()
    found = reasons("".join(f"call f{n};" for n in range(count)), functions)
    assert time.process_time() - started < 8
    assert len(found) == count
    assert set(found) == {found[0]}


@pytest.mark.parametrize("total", [50_000, pytest.param(INLINED_TOTAL_MAX, marks=pytest.mark.slow)])
def test_what_all_kernels_of_a_text_inline_is_bounded_together(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    monkeypatch.setattr(inline, "INLINED_TOTAL_MAX", total)
    before = chain(12, 2)
    started = time.process_time()
    program = read(
        module("call f12;", before=before) + "".join(f".entry k{n}() {{ call f12; }}" for n in range(total // 5000))
    )
    duration_s = time.process_time() - started
    lacks = [support(each) for each in program.kernels]
    assert [bool(lack) for lack in lacks] == sorted(bool(lack) for lack in lacks)
    assert lacks[0] == ()
    assert "the kernels have more than" in lacks[-1][0].reason
    assert duration_s < 20


def test_only_the_kernel_that_is_asked_for_has_its_calls_replaced() -> None:
    text = module(CALL.join([".reg .b32 r; ", ""]), before=ADD) + ".entry other() { call (_), add, (1, 2); }"
    asked, other = read(text, "k").kernels
    assert support(asked) == ()
    assert [lack.reason for lack in support(other)] == ["the calls of this kernel were not asked for"]
    assert [len(support(each)) for each in read(text).kernels] == [0, 0]


def test_many_indirect_calls_among_many_functions_are_refused_at_once() -> None:
    functions = "\n".join(f".func g{n}(.param .b32 a) {{ ret; }}" for n in range(2000))
    table = f".global .u64 table[2000] = {{{', '.join(f'g{n}' for n in range(2000))}}};\n"
    calls = "kind: .callprototype _ (.param .b32 _);\n" + "call d, (r), kind;\n" * 3000
    started = time.process_time()
    found = kernel(calls, functions + table)
    assert time.process_time() - started < 5
    assert all("more than" in lack.reason for lack in support(found))
    assert len(support(found)) == 3000


PRINTF = ".extern .func (.param .b32 o) vprintf(.param .b64 a, .param .b64 b);\n"


def printed(body: str, before: str) -> list[Emit]:
    found = kernel(f".reg .b64 e; {body}", PRINTF + before)
    assert support(found) == ()
    return [i for block in found.blocks for i in block.instructions if isinstance(i, Emit)]


def text(name: str, content: str) -> str:
    return f".global .b8 {name}[{len(content) + 1}] = {{{', '.join(str(ord(c)) for c in content)}}};\n"


def test_the_values_of_a_format_are_loaded_from_aligned_places() -> None:
    body = "mov.u64 d, t; cvta.global.u64 d, d; call (r), vprintf, (d, e);"
    found = kernel(f".reg .b64 e; {body}", PRINTF + text("t", "%d %f %c %lld %d"))
    (emit,) = [i for i in found.blocks[0].instructions if isinstance(i, Emit)]
    assert (emit.modifiers, emit.format) == (("print",), b"%d %f %c %lld %d")
    assert [kind.size_bytes for kind in emit.types] == [4, 8, 4, 8, 4]
    loads = [i.address.offset for i in found.blocks[0].instructions if i.root == "ld" and i.address]
    assert loads == [0, 8, 16, 24, 32]


def test_a_choice_of_formats_is_a_record_for_each() -> None:
    body = """mov.u64 d, a; mov.u64 e, b; selp.b64 d, d, e, p; .reg .b64 c; mov.u64 c, b; @p bra L; add.s64 c, d, 1;
        L: call (r), vprintf, (c, 0);"""
    emits = printed(body.replace("selp.b64 d, d, e, p;", ""), text("a", "xone") + text("b", "two"))
    assert {emit.format for emit in emits} == {b"one", b"two"}
    assert all(emit.guard is not None for emit in emits)


@pytest.mark.parametrize(
    ("body", "before"),
    [
        ("ld.global.u64 d, [e];", text("t", "x")),  # from memory
        ("ld.global.u64 e, [e]; mov.u64 d, t; @p mov.u64 d, e;", text("t", "x")),  # perhaps from elsewhere
        ("mov.u64 d, t; add.s64 d, d, e;", text("t", "x")),
        ("mov.u64 d, t; add.s64 d, d, 99;", text("t", "x")),  # past its end
        ("mov.u64 d, t;", ".global .b8 t[4];"),  # no initial value
        ("mov.u64 d, t; @p mov.u64 d, u;", text("t", "x") + ".global .b8 u[4];"),  # or one without
        ("mov.u64 d, t;", ".global .b8 t[2] = {65, 66};"),  # no end
        ("mov.u64 d, t; L: add.s64 d, d, 1; @p bra L;", text("t", "x" * 40)),  # too many
    ],
)
def test_any_other_format_is_known_by_its_address_only(body: str, before: str) -> None:
    (emit,) = printed(f"{body} call (r), vprintf, (d, 0);", before)
    assert (emit.modifiers, emit.types) == (("text",), (ScalarType.B64,))


def test_an_assertion_has_its_place() -> None:
    before = ".extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);\n"
    (emit,) = printed("call __assertfail, (d, d, 12, d, 1);", before)
    assert emit.modifiers == ("assert",)
    assert emit.sources[2] == Immediate(12, ScalarType.B32)
    assert [source.axis for source in emit.sources if isinstance(source, Special)] == list("xyzxyz")


def test_a_programs_own_vprintf_is_called() -> None:
    found = kernel("call (r), vprintf, (d, d);", ".func (.param .b32 o) vprintf(.param .b64 a, .param .b64 b) { ret; }")
    assert not any(isinstance(i, Emit) for block in found.blocks for i in block.instructions)
    assert support(found) == ()


@pytest.mark.parametrize("most", [20_000, pytest.param(PRINTING_MAX, marks=pytest.mark.slow)])
def test_printing_in_very_many_places_is_refused_soon(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(printing, "PRINTING_MAX", most)
    choices = "".join(text(f"t{n}", "%d" * 32) for n in range(16))
    chosen = "mov.u64 d, t0; " + "".join(f"mov.u64 e, t{n}; selp.b64 d, d, e, p; " for n in range(1, 16))
    started = time.process_time()
    found = kernel(f".reg .b64 e; {chosen}" + "call (r), vprintf, (d, e);\n" * (most // 5), PRINTF + choices)
    assert time.process_time() - started < 10
    lacks = support(found)
    assert "what is printed needs more than" in lacks[-1].reason
    assert sum(len(block.instructions) for block in found.blocks) < 2 * most


def test_formats_have_a_bound_together() -> None:
    started = time.process_time()
    body = "".join(f"mov.u64 d{n}, t+{n}; call (r), vprintf, (d{n}, 0);\n" for n in range(3000))
    found = kernel(f".reg .b64 d<3000>; {body}", PRINTF + text("t", "y" * 8000))
    assert time.process_time() - started < 5
    assert len(support(found)) > 2000


def test_refused_calls_are_all_that_stays() -> None:
    found = kernel("call f; call g;", ".func f() { call f; ret; } .func g() { ret; }")
    (left,) = [i for block in found.blocks for i in block.instructions]
    assert isinstance(left, Call)
    assert left.callee == "f"
