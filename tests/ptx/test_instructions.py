"""Instructions of the typed program: operands, types, immediates, names."""

from __future__ import annotations

import pytest

from ptx.spelling import DECLARATIONS, module
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import read
from tensor_wasm.ptx.program import (
    Address,
    Immediate,
    Instruction,
    Kernel,
    Parameter,
    Register,
    Space,
    Special,
    Symbol,
    Variable,
)

BEFORE = ".global .b32 cell; .const .f32 table[4]; .shared .b8 tile[64]; .extern .func f();"


def kernel(body: str) -> Kernel:
    text = module(f"{DECLARATIONS}\n{body}", before=BEFORE, parameters=".param .u64 first, .param .b32 second")
    return read(text).kernels[0]


def instruction(text: str) -> Instruction:
    return kernel(text).blocks[0].instructions[-1]


def names(found: Instruction) -> tuple[list[str | None], list[str]]:
    """Names of the destination registers, and what the sources are, in short."""
    destinations = [None if each is None else each.name for each in found.destinations]
    return destinations, [_short(each) for each in found.sources]


def _short(operand: object) -> str:
    match operand:
        case Register(name):
            return name
        case Immediate(bits, kind):
            return f"{bits:#x}:{kind.ptx_name}"
        case Special(name, axis):
            return f"{name}/{axis}"
        case Symbol(target, offset):
            return f"&{target.name}+{offset}"
    raise AssertionError(operand)


@pytest.mark.parametrize(
    ("text", "modifiers", "types", "destinations", "sources"),
    [
        ("add.s32 %s32, %s32, 5;", (), "s32", ["%s32"], ["%s32", "0x5:s32"]),
        ("add.rn.ftz.sat.f32 %f32, %b32, -1.5;", ("rn", "ftz", "sat"), "f32", ["%f32"], ["%b32", "0xbfc00000:f32"]),
        ("mul.wide.u16 %b32, %b16, 4;", ("wide",), "u16", ["%b32"], ["%b16", "0x4:u16"]),
        ("mad.wide.s32 %s64, %s32, -2, %b64;", ("wide",), "s32", ["%s64"], ["%s32", "0xfffffffe:s32", "%b64"]),
        ("mad.hi.cc.u32 %u32, %u32, 3, 4;", ("hi", "cc"), "u32", ["%u32"], ["%u32", "0x3:u32", "0x4:u32"]),
        ("shl.b64 %b64, %b64, 4;", (), "b64", ["%b64"], ["%b64", "0x4:u32"]),
        (
            "setp.lt.and.s32 %pred|%pred_, %s32, 0, !%pred;",
            ("lt", "and"),
            "s32",
            ["%pred", "%pred_"],
            ["%s32", "0x0:s32", "%pred"],
        ),
        ("setp.eq.f64 %pred|_, %f64, 0d0000000000000000;", ("eq",), "f64", ["%pred", None], ["%f64", "0x0:f64"]),
        ("set.gtu.u32.f32 %u32, %f32, %f32_;", ("gtu",), "u32 f32", ["%u32"], ["%f32", "%f32_"]),
        ("selp.b64 %s64, -1, %u64, %pred;", (), "b64", ["%s64"], ["0xffffffffffffffff:b64", "%u64", "%pred"]),
        ("slct.ftz.s16.f32 %s16, 1, %u16, %f32;", ("ftz",), "s16 f32", ["%s16"], ["0x1:s16", "%u16", "%f32"]),
        ("cvt.rzi.sat.u8.f32 %b64, %f32;", ("rzi", "sat"), "u8 f32", ["%b64"], ["%f32"]),
        ("cvt.s64.s8 %s64, %b32;", (), "s64 s8", ["%s64"], ["%b32"]),
        ("lop3.b32 %b32, %u32, %s32, %f32, 0x96;", (), "b32", ["%b32"], ["%u32", "%s32", "%f32", "0x96:u32"]),
        ("prmt.b32.f4e %b32, %b32, %b32, 1;", ("f4e",), "b32", ["%b32"], ["%b32", "%b32", "0x1:b32"]),
        ("popc.b64 %u32, %b64;", (), "b64", ["%u32"], ["%b64"]),
        ("bfi.b64 %b64, %b64, %b64, 1, 2;", (), "b64", ["%b64"], ["%b64", "%b64", "0x1:u32", "0x2:u32"]),
        ("dp4a.u32.s32 %s32, %u32, %s32, 7;", (), "u32 s32", ["%s32"], ["%u32", "%s32", "0x7:u32"]),
        ("mov.u32 %b32, %tid.x;", (), "u32", ["%b32"], ["tid/x"]),
        ("mov.u32 %b32, %tid.w;", (), "u32", ["%b32"], ["0x0:u32"]),
        ("mov.u64 %b64, %clock64;", (), "u64", ["%b64"], ["clock64/"]),
        ("mov.u32 %b32, %gridid;", (), "u32", ["%b32"], ["gridid/"]),
        ("mov.b32 %b32, %envreg31;", (), "b32", ["%b32"], ["envreg31/"]),
        ("mov.u32 %b32, WARP_SZ;", (), "u32", ["%b32"], ["0x20:u32"]),
        ("add.u32 %b32, %laneid, 1;", (), "u32", ["%b32"], ["laneid/", "0x1:u32"]),
        ("mov.pred %pred, -1;", (), "pred", ["%pred"], ["0x1:pred"]),
        ("mov.b32 %b32, 0f3F800000;", (), "b32", ["%b32"], ["0x3f800000:b32"]),
        ("mov.u64 %b64, cell;", (), "u64", ["%b64"], ["&cell+0"]),
        ("mov.u64 %b64, table+8;", (), "u64", ["%b64"], ["&table+8"]),
        ("mov.b64 %b64, first-4;", (), "b64", ["%b64"], ["&first+-4"]),
        ("mov.u32 %b32, tile;", (), "u32", ["%b32"], ["&tile+0"]),
        ("mov.u32 %b32, spot;", (), "u32", ["%b32"], ["&spot+0"]),
        ("cvta.global.u64 %b64, cell;", (), "u64", ["%b64"], ["&cell+0"]),
        ("mov.b64 %b64, {%b32, %f32};", (), "b64", ["%b64"], ["%b32", "%f32"]),
        ("mov.b64 {%b32, _}, %f64;", (), "b64", ["%b32", None], ["%f64"]),
        ("mov.b64 {%b16, %u16, %s16, %b16_}, %b64;", (), "b64", ["%b16", "%u16", "%s16", "%b16_"], ["%b64"]),
        ("mov.b32 %b32, {%b16, 3};", (), "b32", ["%b32"], ["%b16", "0x3:b16"]),
        ("mov.b32 %b32, {%b8, %b8, %b8, %b8_};", (), "b32", ["%b32"], ["%b8", "%b8", "%b8", "%b8_"]),
        (
            "shfl.sync.down.b32 %b32|%pred, %b32, 1, 31, -1;",
            ("sync", "down"),
            "b32",
            ["%b32", "%pred"],
            ["%b32", "0x1:b32", "0x1f:b32", "0xffffffff:b32"],
        ),
        ("vote.sync.ballot.b32 %b32, !%pred, -1;", ("sync", "ballot"), "b32", ["%b32"], ["%pred", "0xffffffff:b32"]),
        ("bar.red.popc.u32 %u32, 0, %pred;", ("red", "popc"), "u32", ["%u32"], ["0x0:u32", "%pred"]),
        (
            (
                "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f32,_,%f32,%f32}, "
                "{%b32,%b32,%b32,%b32}, {%b32,%b32}, {%f32,%f32,%f32,0f00000000};"
            ),
            ("sync", "aligned", "m16n8k16", "row", "col"),
            "f32 f16 f16 f32",
            ["%f32", None, "%f32", "%f32"],
            ["%b32"] * 6 + ["%f32"] * 3 + ["0x0:f32"],
        ),
        ("createpolicy.fractional.L2::evict_last.b64 %b64, 1.0;", (), "b64", ["%b64"], ["0x0:b64"]),
        ("nanosleep.u32 100;", (), "u32", [], ["0x64:u32"]),
        ("fence.acq_rel.gpu;", ("acq_rel", "gpu"), "", [], []),
    ],
)
def test_operands_become_what_the_typed_program_says(
    text: str, modifiers: tuple[str, ...], types: str, destinations: list[str | None], sources: list[str]
) -> None:
    found = instruction(text)
    assert found.modifiers == modifiers
    assert [kind.ptx_name for kind in found.types] == types.split()
    assert names(found) == (destinations, sources)


def test_negated_predicates_are_known_by_their_position() -> None:
    assert instruction("setp.lt.and.s32 %pred, %s32, 0, !%pred;").negated == {2}
    assert instruction("setp.lt.and.s32 %pred, %s32, 0, %pred;").negated == frozenset()
    assert instruction("vote.sync.all.pred %pred, !%pred, -1;").negated == {0}


def test_guards() -> None:
    found = instruction("@!%pred add.s32 %s32, %s32, 1;")
    assert found.guard is not None
    assert (found.guard.register.name, found.guard.negated) == ("%pred", True)
    assert instruction("add.s32 %s32, %s32, 1;").guard is None


@pytest.mark.parametrize(
    ("text", "space", "base", "offset", "destinations", "sources", "modifiers"),
    [
        ("ld.global.nc.f32 %f32, [%b64];", Space.GLOBAL, "%b64", 0, ["%f32"], [], ("nc",)),
        (
            "ld.global.L1::no_allocate.L2::128B.v2.b32 {%b32, _}, [%b64+-8];",
            Space.GLOBAL,
            "%b64",
            -8,
            ["%b32", None],
            [],
            ("L1::no_allocate", "L2::128B"),
        ),
        ("ld.f64 %f64, [%u64+16];", Space.GENERIC, "%u64", 16, ["%f64"], [], ()),
        ("ld.param.s32 %s64, [second];", Space.PARAM, "second", 0, ["%s64"], [], ()),
        ("ld.param::entry.b32 %b32, [first+4];", Space.PARAM, "first", 4, ["%b32"], [], ()),
        ("ld.const.f32 %b32, [table+12];", Space.CONST, "table", 12, ["%b32"], [], ()),
        ("ld.local.u8 %u16, [%b32];", Space.LOCAL, "%b32", 0, ["%u16"], [], ()),
        ("ld.global.b32 { %b32 }, [ %b64 + 0 ];", Space.GLOBAL, "%b64", 0, ["%b32"], [], ()),
        ("ld.global.b32 %b32, [4096];", Space.GLOBAL, None, 4096, ["%b32"], [], ()),
        ("ld.acquire.gpu.global.u32 %b32, [%b64];", Space.GLOBAL, "%b64", 0, ["%b32"], [], ("acquire", "gpu")),
        (
            "ld.global.L1::evict_last.L2::cache_hint.b32 %b32, [%b64], %b64_;",
            Space.GLOBAL,
            "%b64",
            0,
            ["%b32"],
            [],
            ("L1::evict_last", "L2::cache_hint"),
        ),
        (
            "st.global.v4.f32 [%b64], {%f32, %f32, 0f3F800000, %b32};",
            Space.GLOBAL,
            "%b64",
            0,
            [],
            ["%f32", "%f32", "0x3f800000:f32", "%b32"],
            (),
        ),
        ("st.volatile.u8 [%b64+3], %s32;", Space.GENERIC, "%b64", 3, [], ["%s32"], ("volatile",)),
        ("st.local.u64 [spot+8], cell;", Space.LOCAL, "spot", 8, [], ["&cell+0"], ()),
        (
            "st.global.L2::cache_hint.b32 [%b64], 1, %b64_;",
            Space.GLOBAL,
            "%b64",
            0,
            [],
            ["0x1:b32"],
            ("L2::cache_hint",),
        ),
        (
            "atom.global.cas.b32 %b32, [%b64], 0, 1;",
            Space.GLOBAL,
            "%b64",
            0,
            ["%b32"],
            ["0x0:b32", "0x1:b32"],
            ("cas",),
        ),
        ("atom.global.sys.add.u32 _, [%b64], 1;", Space.GLOBAL, "%b64", 0, [None], ["0x1:u32"], ("sys", "add")),
        ("red.shared::cta.add.f32 [tile], 0f3F800000;", Space.SHARED, "tile", 0, [], ["0x3f800000:f32"], ("add",)),
        ("prefetch.global.L2 [%b64];", Space.GLOBAL, "%b64", 0, [], [], ("L2",)),
        (
            "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%b32, %b32_}, [%b32];",
            Space.SHARED,
            "%b32",
            0,
            ["%b32", "%b32_"],
            [],
            ("sync", "aligned", "m8n8", "x2", "trans"),
        ),
        (
            "cp.async.cg.shared.global [%b32], [%b64+32], 16;",
            Space.SHARED,
            "%b32",
            0,
            [],
            ["%b64", "0x20:s64", "0x10:u32"],
            ("async", "cg"),
        ),
        (
            "tex.2d.v4.f32.s32 {%f32,%f32,%f32,%f32}, [%b64, {%s32, %s32_}];",
            Space.GENERIC,
            "%b64",
            0,
            ["%f32"] * 4,
            ["%s32", "%s32_"],
            ("2d", "v4"),
        ),
    ],
)
def test_memory_operations(
    text: str,
    space: Space,
    base: str | None,
    offset: int,
    destinations: list[str | None],
    sources: list[str],
    modifiers: tuple[str, ...],
) -> None:
    found = instruction(text)
    assert found.space is space
    assert isinstance(found.address, Address)
    assert (None if found.address.base is None else found.address.base.name, found.address.offset) == (base, offset)
    assert names(found) == (destinations, sources)
    assert found.modifiers == modifiers


def test_spaces_of_conversions_are_not_modifiers() -> None:
    to_global = instruction("cvta.to.global.u64 %b64, %b64;")
    assert (to_global.space, to_global.modifiers, to_global.address) == (Space.GLOBAL, ("to",), None)
    asked = instruction("isspacep.shared %pred, %b64;")
    assert (asked.space, asked.modifiers, asked.types) == (Space.SHARED, (), ())


def test_bases_are_the_declared_things_themselves() -> None:
    found = kernel("ld.param.u64 %b64, [first]; ld.local.b64 %b64, [spot];")
    first, second = found.blocks[0].instructions
    assert first.address is not None
    assert isinstance(first.address.base, Parameter)
    assert first.address.base is found.parameters[0]
    assert second.address is not None
    assert isinstance(second.address.base, Variable)
    assert second.address.base is found.variables[0]


def test_every_name_of_one_register_is_one_object() -> None:
    found = kernel("add.s32 %s32, %s32, %s32_;").blocks[0].instructions[0]
    assert found.destinations[0] is found.sources[0]
    assert found.sources[0] is not found.sources[1]


@pytest.mark.parametrize(
    ("text", "column", "part"),
    [
        ("frobnicate.u32 %u32;", 1, "unknown opcode 'frobnicate'"),
        ("add.f99 %u32, %u32, 1;", 1, "'add.f99' is not supported: no form of add has .f99 there"),
        ("add.rn.u32 %u32, %u32, 1;", 1, "no form of add has .u32 there"),
        ("add %u32, %u32, 1;", 1, "'add' is incomplete"),
        ("mul.u32 %u32, %u32, 1;", 1, "no form of mul has .u32 there"),
        ("add.u32 %u32, %u32;", 1, "'add.u32' has 3 operands, not 2"),
        ("bar.sync;", 1, "'bar.sync' has 1 to 2 operands, not 0"),
        ("add.u32 %u32, %u32, %nope;", 21, "'%nope' is not declared"),
        ("add.u32 %nope, %u32, 1;", 9, "'%nope' is not declared"),
        ("@%nope ret;", 1, "'%nope' is not declared"),
        ("@%u32 ret;", 1, "'%u32' is no predicate register"),
        ("@cell ret;", 1, "'cell' is no predicate register"),
        ("ld.global.u32 %u32, [nope];", 22, "'nope' is not declared"),
        ("mov.u64 %u64, nope+4;", 15, "'nope' is not declared"),
        ("add.u32 %u32, %u64, 1;", 15, "'%u64' is of type .u64; 'add.u32' needs one of .b32, .u32, .s32 here"),
        ("add.f32 %f32, %s32, %f32;", 15, "'%s32' is of type .s32"),
        ("add.s32 %f32, %s32, %s32;", 9, "'%f32' is of type .f32"),
        ("add.s32 %tid.x, %s32, %s32;", 9, "'%tid.x' is no register"),
        ("mov.u32 cell, 5;", 9, "'cell' is no register"),
        ("mov.u32 5, 5;", 9, "needs a register here"),
        ("add.f32 %f32, %f32, 1;", 21, "needs a float constant here"),
        ("add.s32 %s32, %s32, 1.0;", 21, "needs an integer constant of type .s32"),
        ("add.s32 %s32, !%pred, 1;", 15, "takes no negated predicate here"),
        ("add.s32 %s32|%pred, %s32, 1;", 9, "has no second destination"),
        ("add.s32 {%s32}, {%s32, %s32}, 1;", 17, "takes no vector here"),
        ("lop3.and.b32 %b32, %b32, %b32, %b32, 1, %pred;", 14, "needs a predicate beside its destination"),
        ("lop3.b32 %b32, %b32, %b32, %b32, %b32;", 34, "needs an integer constant here"),
        ("ld.global.v2.u32 %u32, [%b64];", 18, "needs 2 registers in braces"),
        ("ld.global.v2.u32 {%u32, %u32, %u32}, [%b64];", 18, "needs 2 elements here, not 3"),
        ("ld.global.u32 {%u32, %u32}, [%b64];", 15, "needs 1 elements here, not 2"),
        ("ld.global.u32 {}, [%b64];", 15, "nothing in these braces"),
        ("st.global.v2.u32 [%b64], %u32;", 26, "needs 2 values in braces"),
        ("ld.global.u32 %u32, %b64;", 21, "needs an address in brackets"),
        ("ld.global.u32 %u32, [%b32];", 22, "'%b32' is of type .b32"),
        ("ld.global.u32 %u32, [%f64];", 22, "'%f64' is of type .f64"),
        ("ld.global.u32 %u32, [table];", 22, "'table' is in the const space"),
        ("ld.local.u32 %u32, [second];", 21, "'second' is in the param space"),
        ("ld.global.u32 %u32, [%b64, {%u32}];", 28, "no coordinates"),
        ("ld.global.f32 %f64, [%b64];", 15, "'%f64' is of type .f64"),
        ("ld.global.u32 %u16, [%b64];", 15, "'%u16' is of type .u16"),
        ("st.param.u32 [second], 1;", 1, "the parameter 'second' cannot be written"),
        ("ld.global.u32 %u32, [%b64], %b64;", 1, "takes a cache policy only with"),
        ("ld.global.L2::cache_hint.u32 %u32, [%b64];", 1, "needs a cache policy"),
        ("mov.u32 %u32, cell;", 15, "the address of 'cell' has 64 bits or more"),
        ("mov.f64 %f64, cell;", 15, "the address of 'cell'"),
        ("mov.u16 %u16, tile;", 15, "the address of 'tile' has 32 bits or more"),
        ("mov.u64 %u64, %u64+4;", 15, "only a variable's address can have a number added"),
        ("mov.b64 %b64, {%b32, %b16};", 22, "'%b16' is of type .b16"),
        ("mov.b64 {%b32, %b32}, {%b32, %b32};", 1, "mov packs or unpacks, not both"),
        ("mov.b64 %b64, {%b32, %b32, %b32};", 15, "cannot pack 3 parts"),
        ("mov.u64 %b64, {%b32, %b32};", 15, "cannot pack 2 parts"),
        ("mov.u32 %u32, %pred;", 15, "'%pred' is of type .pred"),
        ("mov.pred %u32, 1;", 10, "'%u32' is of type .u32"),
        ("mov.f32 %f32, %tid.x;", 15, "'%tid.x' is of type .u32"),
        ("mov.u32 %u32, [%b64];", 15, "takes a register or a constant here"),
        ("mov.u32 %u32, %tid;", 15, "'%tid' is not declared"),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f32,%f32}, {%b32}, {%b32}, {%f32};",
            51,
            "needs 4 elements",
        ),
        ("add.s32 _, %s32, _;", 18, "'_' is not declared"),
    ],
)
def test_wrong_operands_are_refused_where_they_stand(text: str, column: int, part: str) -> None:
    with pytest.raises(PtxError) as caught:
        kernel(f"ret;\n{text}")
    assert part in caught.value.text
    lines = len(DECLARATIONS.splitlines()) + 5
    assert (caught.value.line, caught.value.column) == (lines + 2, column)


def test_calls_that_cannot_be_inlined_stay_with_their_names_checked() -> None:
    found = kernel(
        """{ .param .b64 argument; .param .align 4 .b8 result[4];
        st.param.b64 [argument+0], %b64; call.uni (result), f, (argument); ld.param.b32 %b32, [result]; }
        targets: .calltargets f, f;
        call %b64, (5, %b32, _), targets; call f; call (_), f;"""
    )
    roots = [each.root for each in found.blocks[0].instructions]
    assert roots == ["mov", "call", "mov", "call", "call", "call"]
    assert found.blocks[0].instructions[1].modifiers == ("uni",)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("call;", "call needs the name of a function"),
        ("call g;", "'g' is not declared"),
        ("call f, (nope);", "'nope' is not declared"),
        ("call (nope), f;", "'nope' is not declared"),
        ("call %b64, (_), missing;", "'missing' is no prototype"),
        ("call f, (_), (_);", "a prototype is expected here"),
        ("call.frob f;", "no form of call has .frob there"),
        ("call %b32;", "no function, nor a register with the address of one"),
        ("call tile;", "no function, nor a register"),
        ("call cell;", "no function, nor a register"),
        ("call f, (cell);", "not in the param space"),
        ("call (%tid.x), f;", "a result of a call goes to a register"),
        ("call f, (f+8);", "a name is expected here"),
        ("l: .calltargets g;", "'g' is not declared"),
    ],
)
def test_wrong_calls_are_refused(text: str, part: str) -> None:
    with pytest.raises(PtxError) as caught:
        kernel(text)
    assert part in caught.value.text
