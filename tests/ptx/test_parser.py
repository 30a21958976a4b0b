"""Directives, and where errors in the structure of a text are reported."""

from __future__ import annotations

import pytest

from ptx.spelling import module
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import read
from tensor_wasm.ptx.program import Kernel, ScalarType, Space

HEADING = ".version 8.0\n.target sm_80\n.address_size 64\n"


def kernel(text: str) -> Kernel:
    return read(text).kernels[0]


def refused(text: str) -> PtxError:
    with pytest.raises(PtxError) as caught:
        read(text)
    return caught.value


def test_the_heading_gives_version_and_target() -> None:
    program = read(".version 9.5\n.target sm_90a, texmode_independent, debug\n")
    assert (program.version, program.target) == ("9.5", "sm_90a")
    assert program.kernels == ()
    assert program.variables == ()


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("", 1, 1, "the text is empty"),
        (" \n\t", 1, 1, "the text is empty"),
        ("\0", 1, 1, "the text is empty"),
        ("int main() {}", 1, 1, "expected '.version': is this PTX?, found 'int'"),
        (".version x", 1, 10, "expected a version"),
        (".version 1e5", 1, 10, "expected a version"),
        (".version 0123456789.0", 1, 10, "no version of PTX"),
        (".version 8.0\n.entry", 2, 1, "expected '.target'"),
        (".version 8.0\n.target 80", 2, 9, "expected a target"),
        (".version 8.0 .target sm_80 .address_size 32", 1, 42, "only .address_size 64"),
        (HEADING + ".version 8.0", 4, 1, "only once"),
        (HEADING + "ret;", 4, 1, "expected a directive"),
        (HEADING + ".visible .reg .b32 x;", 4, 10, "expected '.entry', '.func' or a state space"),
        (HEADING + ".entry 5()", 4, 8, "expected a name"),
        (HEADING + ".entry k(.param .u32 a .param .u32 b) {}", 4, 24, "expected ',' or ')'"),
        (HEADING + ".entry k(.reg .u32 a) {}", 4, 10, "expected '.param'"),
        (HEADING + ".entry k(.param u32 a) {}", 4, 17, "expected a type"),
        (HEADING + ".entry k(.param .pred a) {}", 4, 17, "expected a type"),
        (HEADING + ".entry k(.param .u32 a[2][2]) {}", 4, 22, "at most one dimension"),
        (HEADING + ".entry k() .maxntid 0 {}", 4, 23, "1 thread or more"),
        (HEADING + ".entry k() .reqntid 1,2 .reqntid 3 {}", 4, 25, "stands twice"),
        (HEADING + ".entry k() .unknown 1 {}", 4, 12, "expected '{' or a directive of a kernel"),
        (HEADING + ".entry k()", 4, 11, "expected '{', found the end of the text"),
        (HEADING + ".entry k() {\nret;\n", 6, 1, "a } is missing"),
        (HEADING + ".entry k() {\nret\n}", 6, 1, "expected an operand, found '}'"),
        (HEADING + ".entry k() {\nmov.b32 a, b\nret; }", 6, 1, "expected ',' or ';', found 'ret'"),
        (HEADING + ".entry k() {\n  @ret;\n}", 5, 7, "expected an instruction"),
        (HEADING + ".entry k() {\n  @!5 ret;\n}", 5, 5, "expected a predicate register"),
        (HEADING + ".entry k() {\n .version 8.0 }", 5, 2, "expected an instruction, a label or a declaration"),
        (HEADING + ".entry k() {\n add.x: ret; }", 5, 2, "'add.x' is no label"),
        (HEADING + ".entry k() {\n .loc 1 2; }", 5, 10, "expected a number"),
        (HEADING + ".entry k() {\n .loc 1 2 3, somewhere 4; }", 5, 14, "expected 'function_name' or 'inlined_at'"),
        (HEADING + ".entry k() {\n .pragma nounroll; }", 5, 10, "expected a string"),
        (HEADING + ".entry k() {\n ld.u32 x, [y; }", 5, 14, "expected ']'"),
        (HEADING + ".entry k() {\n ld.u32 x, [[y]]; }", 5, 13, "expected a number"),
        (HEADING + ".entry k() {\n mov.b64 {x, {y}}, z; }", 5, 14, "expected a register or a constant"),
        (HEADING + ".entry k() {" + "{" * 40, 4, 44, "nested deeper than 32"),
        (HEADING + ".section .debug_info {", 4, 22, "never closed"),
        (HEADING + ".section 5 {}", 4, 10, "expected a section name"),
        (HEADING + ".file x", 4, 7, "expected a file number"),
        (HEADING + ".file 1 x", 4, 9, "expected a file name"),
        (HEADING + ".alias a b;", 4, 10, "expected ','"),
        (HEADING + ".entry " + "k" * 5000 + "() {}", 4, 8, "longer than 4096 characters"),
    ],
)
def test_malformed_text_is_refused_with_its_place(text: str, line: int, column: int, part: str) -> None:
    error = refused(text)
    assert part in error.text
    assert (error.line, error.column) == (line, column)
    assert str(error) == f"{line}:{column}: {error.text}"


def test_messages_stay_short_and_printable() -> None:
    error = refused(HEADING + ".entry k() { " + "x" * 10_000 + "\u00e9; }")
    assert len(str(error)) < 200
    assert str(error).isascii()
    assert str(error).isprintable()


def test_directives_without_effect_are_read() -> None:
    found = kernel(
        HEADING
        + """
        .file 1 "a.cu", 123, 456
        .file 2 "b { } ; .cu"
        .pragma "used_bytes_mask", "x";
        .section .debug_abbrev { .b8 1 // }
          .b32 .debug_line+4 }
        .section .debug_macinfo {	}
        .alias f, g;
        .visible .entry k(.param .u64 .ptr .global .align 16 a, .param .b64 .ptr b, .param .u64 .ptr.const.align 4 c)
        .minnctapersm 2 .maxnctapersm 4 .maxnreg 32 .noreturn .pragma "nounroll";
        .maxclusterrank 8 .explicitcluster .reqnctapercluster 1, 2, 1 .blocksareclusters .attribute(.unified(1, 2))
        {
            .loc 1 8 0
            .loc 1 8 0, function_name $L__info_string0+4, inlined_at 2 3 4
            .pragma "nounroll";
            ;;
            ret; ;
        };
        .loc 1 1 1
        """.replace(".attribute(.unified(1, 2))", ".unified(1, 2)")
    )
    assert [(each.name, each.offset) for each in found.parameters] == [("a", 0), ("b", 8), ("c", 16)]


def test_thread_limits_have_three_axes() -> None:
    found = kernel(HEADING + ".entry k() .maxntid 128, 2 .reqntid 64 { ret; }")
    assert found.maxntid == (128, 2, 1)
    assert found.reqntid == (64, 1, 1)
    assert kernel(HEADING + ".entry k() { ret; }").maxntid is None


def test_parameters_lie_at_their_natural_alignment() -> None:
    parameters = """.param .u8 a, .param .f64 b, .param .align 2 .b8 c[2], .param .u32 d, .param .align 16 .b8 e[20],
        .param .u16 f[3], .param .b8 g[]"""
    found = kernel(module("ret;", parameters=parameters))
    assert [
        (each.name, each.type, each.size_bytes, each.alignment, each.offset, each.is_array) for each in found.parameters
    ] == [
        ("a", ScalarType.U8, 1, 1, 0, False),
        ("b", ScalarType.F64, 8, 8, 8, False),
        ("c", ScalarType.B8, 2, 2, 16, True),
        ("d", ScalarType.U32, 4, 4, 20, False),
        ("e", ScalarType.B8, 20, 16, 32, True),
        ("f", ScalarType.B8, 6, 2, 52, True),
        ("g", ScalarType.B8, 0, 1, 58, True),
    ]
    assert found.parameter_bytes == 58


def test_too_many_bytes_of_parameters_are_refused() -> None:
    assert "at most 32764 bytes" in refused(module("ret;", parameters=".param .b8 a[32765]")).text


def test_a_kernel_may_have_no_parameters_at_all() -> None:
    assert kernel(HEADING + ".visible .entry k { ret; }").parameters == ()


def test_line_ends_of_windows_and_a_nul_at_the_end_are_read() -> None:
    text = module("\tadd.s32 %s32, %s32, 1;\n\tret;".replace("%s32", "r"), before="").replace("{", "{ .reg .s32 r;")
    found = read(text.replace("\n", "\r\n").encode() + b"\0")
    instruction = found.kernels[0].blocks[0].instructions[0]
    assert (instruction.line, instruction.column) == (6, 2)


def test_opcodes_may_have_blanks_before_their_modifiers() -> None:
    found = kernel(module(".reg .b32 r; add .s32 r, r, 1; mov.b32 r , 5 ; ret ;"))
    assert [each.text for each in found.blocks[0].instructions] == ["add.s32", "mov.b32"]


def test_functions_are_read_and_checked_but_are_no_kernels() -> None:
    text = """.extern .func (.param .b32 func_retval0) vprintf (.param .b64 a, .param .b64 b);
        .func (.param .b32 out) twice(.param .b32 x)
        { .reg .b32 %r<3>; ld.param.b32 %r1, [x]; add.s32 %r2, %r1, %r1; st.param.b32 [out], %r2; ret; }
        .func (.reg .b32 out) thrice(.reg .b32 x) { mul.lo.s32 out, x, 3; ret; }
        .func nothing() .noreturn { trap; }
        """
    program = read(module("ret;", before=text))
    assert [each.name for each in program.kernels] == ["k"]
    assert program.variables == ()
    assert "'y' is not declared" in refused(module("ret;", before=".func f(.reg .b32 x) { mov.b32 x, y; }")).text


def test_variables_of_a_module_and_a_kernel_keep_apart() -> None:
    program = read(
        module(
            ".local .align 16 .b8 stack[64]; .shared .f32 tile[4][8]; ret;",
            before=".visible .global .align 8 .u64 pad; .const .f32 c[2]; .extern .shared .align 16 .b8 dyn[];",
        )
    )
    assert [(each.name, each.space, each.size_bytes, each.alignment, each.is_extern) for each in program.variables] == [
        ("pad", Space.GLOBAL, 8, 8, False),
        ("c", Space.CONST, 8, 4, False),
        ("dyn", Space.SHARED, 0, 16, True),
    ]
    assert [(each.name, each.space, each.size_bytes, each.alignment) for each in program.kernels[0].variables] == [
        ("stack", Space.LOCAL, 64, 16),
        ("tile", Space.SHARED, 128, 4),
    ]
