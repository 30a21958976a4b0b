"""The opcode table: that it holds together, and that what it says is what is read."""

from __future__ import annotations

import itertools

import pytest

from ptx.spelling import DECLARATIONS, module, spellings, statements
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import read, support
from tensor_wasm.ptx.forms import Form, RoleKind, Slot
from tensor_wasm.ptx.opcodes import FORMS, TABLE, find, reason_not_lowered
from tensor_wasm.ptx.plans import plan

SAMPLES = 24
LEAVING = ("bra", "brx", "ret", "exit", "trap", "brkpt")


def sample(form: Form) -> list[str]:
    """Some of the opcodes that match a row, spread over all of them."""
    found = list(spellings(form))
    return found[:: max(len(found) // SAMPLES, 1)]


def identify(form: Form) -> str:
    return f"{form.root}-{TABLE.index(form)}"


@pytest.mark.parametrize("form", TABLE, ids=identify)
def test_every_opcode_of_a_row_is_found_as_that_row(form: Form) -> None:
    for opcode in sample(form):
        found = find(opcode)
        assert found.form.reason == form.reason, opcode
        assert found.form.root == form.root
        assert reason_not_lowered(form.root, found.modifiers, found.types) == form.reason, opcode


@pytest.mark.parametrize("form", [form for form in TABLE if form.root != "call"], ids=identify)
def test_every_row_reads_with_the_operands_it_asks_for(form: Form) -> None:
    body = [text for opcode in sample(form) for text in statements(opcode)]
    assert body
    if form.root in LEAVING:
        body = [f"@%pred {text}" for text in body]
    lines = [DECLARATIONS, "places: .branchtargets somewhere;", *body, "somewhere: ret;"]
    program = read(module("\n".join(lines)))
    listed = {place.line for place in support(program)}
    first = len(DECLARATIONS.splitlines()) + 7
    instructions = [each for block in program.kernels[0].blocks for each in block.instructions]
    if form.root not in (*LEAVING, "pmevent"):
        assert [each.line for each in instructions] == list(range(first, first + len(body)))
    for each in instructions:
        assert (each.line not in listed) == form.is_lowered, each.text


@pytest.mark.parametrize("form", TABLE, ids=identify)
def test_one_operand_too_many_is_refused(form: Form) -> None:
    chosen = plan(sample(form)[0])
    with pytest.raises(PtxError, match=r"has \d+( to \d+)? operands, not"):
        chosen.expected(max(chosen.by_count) + 1)


@pytest.mark.parametrize("form", TABLE, ids=identify)
def test_parts_that_may_be_left_out_do_not_hide_those_after_them(form: Form) -> None:
    """Matching goes from left to right without going back, so neighbours must differ as far as parts are optional."""
    for place, slot in enumerate(form.parts):
        if slot.is_optional:
            for following in up_to_required(form.parts[place + 1 :]):
                assert slot.names.isdisjoint(following.names) or following.is_optional, (slot, following)


def up_to_required(slots: tuple[Slot, ...]) -> list[Slot]:
    optional = list(itertools.takewhile(lambda slot: slot.is_optional, slots))
    return [*optional, *slots[len(optional) : len(optional) + 1]]


def test_roots_are_plain_words() -> None:
    assert all(root.isalnum() and root.islower() for root in FORMS)
    assert sum(len(rows) for rows in FORMS.values()) == len(TABLE)


def test_no_opcode_is_both_lowered_and_not() -> None:
    reasons: dict[str, set[bool]] = {}
    for form in TABLE:
        for opcode in sample(form):
            reasons.setdefault(opcode, set()).add(form.is_lowered)
    assert {opcode for opcode, both in reasons.items() if len(both) > 1} == set()


def test_reasons_are_sentences_for_users() -> None:
    for form in TABLE:
        if form.reason is not None:
            assert form.reason.endswith("not supported in this release")


def test_branch_targets_are_for_control_flow_only() -> None:
    kinds = {role.kind: form.root for form in TABLE for role in form.roles}
    assert kinds[RoleKind.LABEL] == "bra"
    assert kinds[RoleKind.TABLE] == "brx"


@pytest.mark.parametrize(
    ("opcode", "is_lowered"),
    [
        ("add.sat.s32", True),
        ("madc.hi.cc.u64", True),
        ("fma.rm.ftz.sat.f32", True),
        ("div.full.ftz.f32", True),
        ("tanh.approx.f32", True),
        ("cvt.rni.ftz.sat.f32.f32", True),
        ("cvt.rp.f64.u64", True),
        ("shf.r.clamp.b32", True),
        ("ld.global.L1::evict_last.L2::128B.v4.f32", True),
        ("ld.relaxed.sys.global.u64", True),
        ("st.release.gpu.global.v2.b64", True),
        ("membar.gl", True),
        ("fence.sc.sys", True),
        ("brx.idx.uni", True),
        ("add.f16x2", True),
        ("fma.rn.relu.bf16x2", True),
        ("cvt.rna.tf32.f32", True),
        ("cvt.f32.f16", True),
        ("cvt.rn.satfinite.e4m3x2.f32", False),
        ("fma.rn.oob.f16", False),
        ("bar.sync", True),
        ("barrier.sync.aligned", True),
        ("shfl.sync.bfly.b32", True),
        ("match.all.sync.b64", True),
        ("redux.sync.add.s32", True),
        ("atom.shared.cta.cas.b64", True),
        ("red.global.add.noftz.f16x2", True),
        ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", True),
        ("mma.sync.aligned.m16n8k32.row.col.satfinite.s32.u8.s8.s32", True),
        ("wmma.load.a.sync.aligned.row.m16n16k16.shared.f16", False),
        ("cp.async.cg.shared.global.L2::128B", True),
        ("call.uni", True),
        ("tex.1d.v4.f32.s32", False),
        ("vabsdiff4.u32.u32.u32.add", False),
    ],
)
def test_what_compilers_emit_is_known(opcode: str, is_lowered: bool) -> None:
    assert find(opcode).form.is_lowered is is_lowered


@pytest.mark.parametrize(
    "opcode",
    [
        "add.f32.rn",
        "add.sat.u32",
        "mul.wide.u64",
        "fma.f32",
        "cvt.f32.s32",
        "cvt.s32.f32",
        "cvt.f32.f64",
        "cvt.rn.f64.f32",
        "setp.lo.s32",
        "setp.lt.b32",
        "setp.equ.u32",
        "div.f32",
        "sqrt.approx.f64",
        "ld.global.v3.f32",
        "ld.global.wb.f32",
        "st.nc.global.f32",
        "atom.add.s64",
        "wgmma.fence",
        "mov",
        "",
    ],
)
def test_what_is_no_form_is_refused(opcode: str) -> None:
    with pytest.raises(PtxError):
        find(opcode)
