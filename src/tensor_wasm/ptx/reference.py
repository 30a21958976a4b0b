"""The text of ``docs/ptx-support.md``: what PTX is read and compiled, from the tables of this package.

``python -m tensor_wasm.ptx.reference > docs/ptx-support.md`` writes the page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tensor_wasm.ptx import constants, declarations, formats, inline, printing, statements, variables
from tensor_wasm.ptx.forms import SPACES, TYPES, Category, Form, Pairing, Role, RoleKind, Slot
from tensor_wasm.ptx.opcodes import FORMS, TABLE
from tensor_wasm.ptx.program import Special
from tensor_wasm.ptx.specials import SPECIALS

_L1: Final = "L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate"
_GEOMETRY: Final = "1d|2d|3d|a1d|a2d|cube|acube|2dms|a2dms"

#: Names for the parts of opcodes that many forms share, with what may stand there, in the order of the page.
PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".rnd": "rn|rz|rm|rp",
        ".irnd": "rni|rzi|rmi|rpi",
        ".cmp": "eq|ne|lt|le|gt|ge",
        ".ucmp": "eq|ne|lt|le|gt|ge|lo|ls|hi|hs",
        ".fcmp": "eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan",
        ".bool": "and|or|xor",
        ".bits": "b16|b32|b64",
        ".signed": "s16|s32|s64",
        ".unsigned": "u16|u32|u64",
        ".int": "u16|u32|u64|s16|s32|s64",
        ".int8": "u8|u16|u32|u64|s8|s16|s32|s64",
        ".int3264": "u32|u64|s32|s64",
        ".half": "f16|f16x2|bf16|bf16x2",
        ".value": "b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64",
        ".data": "b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64",
        ".space": "|".join(SPACES),
        ".scope": "cta|cluster|gpu|sys",
        ".order": "relaxed|acquire|release|acq_rel",
        ".atomspace": "global|shared|shared::cta|shared::cluster",
        ".l1": _L1,
        ".l2": "L2::evict_last|L2::evict_normal|L2::evict_first",
        ".fetch": "L2::64B|L2::128B|L2::256B",
        ".vec": "v2|v4",
        ".shape": "m8n8k4|m16n8k4|m16n8k8|m16n8k16|m8n8k16|m16n8k32|m8n8k32|m16n8k64|m8n8k128|m16n8k128|m16n8k256",
        ".wshape": "m16n16k16|m8n32k16|m32n8k16|m8n8k32|m8n8k128|m16n16k8|m8n8k4",
        ".geometry": _GEOMETRY,
    }
)
_NAMES: Final = MappingProxyType({frozenset(text.split("|")): name for name, text in PARTS.items()})
_TYPE_ORDER: Final = MappingProxyType({name: place for place, name in enumerate(TYPES)})
_SOURCE_LETTERS: Final = "abcefghijk"
_ORDINALS: Final = MappingProxyType({"t0": ":1st", "t1": ":2nd", "t2": ":3rd", "w": ":wide", "t": "", "any": ""})
_FIXED: Final = MappingProxyType(
    {RoleKind.IMMEDIATE: "constant", RoleKind.POLICY: "policy", RoleKind.LABEL: "label", RoleKind.TABLE: "table"}
)

_INTRODUCTION: Final = """\
# PTX that runs here

For whoever writes kernels, or wonders why one is refused: every instruction that the front end reads, and whether it
is compiled. `tensor-wasm kernel check FILE` answers the same for a file, with lines. What is not on this page is
refused when a kernel is loaded, with line and column. The meaning of an instruction is that of NVIDIA's PTX ISA 8.

Made from the table in `src/tensor_wasm/ptx/opcodes.py` by
`python -m tensor_wasm.ptx.reference > docs/ptx-support.md`.

## How to read the forms

```
setp.fcmp{.ftz}.f32                      d{|p}, a, b
```

- `{ }` may be left out; `(a|b)` is one of these. A part such as `.fcmp` stands for one of a list, which follows the
  forms it is used in.
- `d` is written; `a`, `b`, `c` … are read: registers, constants or special registers. `d|p` writes a predicate
  beside it. `!p` is a predicate that may be negated. `[a]` is an address: a register or variable, with an
  offset or without.
- Operands have the opcode's last type, unless they say another: `a:u32` that type, `a:1st` `a:2nd` `a:3rd` the
  opcode's first, second, third, `d:wide` twice the width.
- `a~`: the register may be wider than the type. `a...`: one register, or several in braces, as the opcode says.
- Any instruction may have a guard, `@p` or `@!p`.
"""

_SPACES_TEXT: Final = """\
## State spaces

| space | |
|---|---|
| `.global` | the memory of the guest, or the arrays of the launch; variables too, with initial values \
and addresses in them |
| `.shared` | static, and `extern` with the size that the launch gives. \
`.shared::cta` and `.shared::cluster` are the same, for a cluster is one block |
| `.local` | variables of each thread |
| `.const` | variables with initial values; there is no host that could write them |
| `.param` | parameters of kernels, read by `ld.param`; arguments and results of calls |
| generic | addresses of any of them, by `cvta`; those of global memory are the same numbers |

Every access is checked: one outside its space, or misaligned, ends the launch and names kernel, block, thread and line.
Variables defined in another module (`.extern .global`) are not supported.
"""

_DIRECTIVES_TEXT: Final = """\
## Directives

| directive | |
|---|---|
| `.version`, `.target` | any; what an instruction does depends on neither |
| `.address_size` | 64 |
| `.entry`, `.func`, `.visible`, `.weak`, `.extern`, `.common`, `.alias` | read |
| `.reg`, `.global`, `.const`, `.shared`, `.local`, `.param`, `.align` | read |
| `.maxntid`, `.reqntid` | a launch with another block is refused |
| `.branchtargets`, `.calltargets`, `.callprototype` | read |
| `.minnctapersm`, `.maxnctapersm`, `.maxnreg`, `.maxclusterrank`, `.reqnctapercluster`, \
`.noreturn`, `.pragma`, `.attribute`, `.unified` and others that guide a compiler for GPUs | read, without effect |
| `.loc`, `.file`, `.section` | read, without effect: lines in messages are those of the PTX text |
"""

_CALLS_TEXT: Final = """\
## Calls

Every call is replaced by the function that it calls, when the text is read. `.func` with `.param` or `.reg` parameters
and results, structs among them, forward declarations, `.weak`, `.alias`; `ret` goes on behind the call, `exit` ends the
thread, `trap` the launch. Lines in messages are those of the function's text.

- A call through a register needs a `.calltargets`, or a `.callprototype`: then it may be of any function of the text
  with those sizes whose address is taken. An address of none of them ends the launch as `trap` does.
- `vprintf` (CUDA's `printf`) and `__assertfail` (`assert`) are there without a definition; see
  [printing](#printing). `malloc` and `free` are not.
- Refused: functions that call themselves, directly or through others; functions of other modules; a variable number
  of arguments; kernels that have, with all that is called, more than {inlined:,} instructions, or {total:,} together in
  one text.

## Printing

What a kernel prints goes to stderr: that of the guest, at its next call of a `wasi_cuda_` function other than
`wasi_cuda_launch`, or when it ends; in a Python program to `sys.stderr`, when the launch has ended. Until then it is in
a buffer of {buffer} KiB, one for each kernel that prints. Records that find no room there are dropped, and a line says
how many. What one thread prints is in its order, what several do as it comes.

- The format should be a constant, or a choice of up to {choices} constants, as it nearly always is. For any other the
  text is printed as it stands, without the values.
- Conversions are those of C, with `%lld`, `%p`, `%c`, `%a` and `*`; up to {values} values; a format is cut after
  {format:,} bytes, a width or precision is at most {width:,}. `%s` prints constants; of other strings it prints the
  address. `%n` does nothing. The result is the number of conversions.
- A failed assertion prints the line that CUDA prints, and ends the launch as a fault that names the assertion.
"""

_LIMITS_TEXT: Final = """\
## Limits

| of | at most |
|---|---|
| the text | 8 MiB |
| initial values of all variables | {initial} MiB |
| one variable | {variable} MiB |
| parameters of a kernel | {parameters:,} bytes |
| dimensions of an array | {dimensions} |
| an alignment | {alignment:,} |
| a name | {name:,} characters |
| an opcode | {opcode} characters |
| operands of an instruction | {operands:,} |
| nested scopes in braces | {scopes} |
| terms of a constant expression | {terms}, {depth} levels of parentheses |

Those of a launch (threads in a block, the grid, shared memory, arguments) are in
[guest-abi.md](guest-abi.md#launching). A kernel so large that its code passes the limits of a WebAssembly function is
refused by name.
"""


def page() -> str:
    """The text of ``docs/ptx-support.md``."""
    sections = [_INTRODUCTION, _summary()]
    sections += [_section(category) for category in Category if any(row.category is category for row in TABLE)]
    sections += [_specials(), _SPACES_TEXT, _DIRECTIVES_TEXT, _calls(), _limits()]
    return "\n".join(sections)


def spell(form: Form) -> str:
    """A form in the notation of the page: ``add{.ftz}.f32``, padded, then its operands."""
    opcode = form.root + "".join(_part(slot) for slot in form.parts)
    operands = _operands(form.roles)
    return f"{opcode:<40} {operands}".rstrip()


def _part(slot: Slot) -> str:
    names = slot.names
    shown = _NAMES.get(names)
    if shown is None:
        ordered = _in_order(names)
        shown = f".{ordered[0]}" if len(ordered) == 1 else f".({'|'.join(ordered)})"
    return f"{{{shown}}}" if slot.is_optional else shown


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (_TYPE_ORDER.get(name, -1), name))


def _operands(roles: Sequence[Role]) -> str:
    text = ""
    letters = iter(_SOURCE_LETTERS)
    for role in roles:
        shown = _operand(role, letters)
        separator = ", " if text else ""
        text += f"{{{separator}{shown}}}" if role.is_optional else separator + shown
    return text


def _operand(role: Role, letters: Iterable[str]) -> str:
    if role.kind in _FIXED:
        return _FIXED[role.kind]
    if role.kind is RoleKind.DESTINATION:
        pair = {Pairing.NONE: "", Pairing.OPTIONAL: "{|p}", Pairing.REQUIRED: "|p"}[role.pairing]
        return f"d{_suffix(role)}{pair}"
    letter = next(iter(letters))
    if role.kind is RoleKind.ADDRESS:
        return f"[{letter}]"
    if role.is_negatable:
        return "!p"
    return letter + _suffix(role)


def _suffix(role: Role) -> str:
    kind = _ORDINALS.get(role.type, f":{role.type}" if role.type else "")
    return kind + ("~" if role.is_relaxed else "") + ("..." if role.many else "")


def _summary() -> str:
    """Which roots there are, at a glance."""
    groups: dict[str, list[str]] = {"compiled": [], "in part": [], "refused": []}
    for root, rows in sorted(FORMS.items()):
        lowered = sum(row.is_lowered for row in rows)
        groups["compiled" if lowered == len(rows) else "in part" if lowered else "refused"].append(f"`{root}`")
    lines = ["## At a glance", "", "| instructions | |", "|---|---|"]
    lines += [f"| {name} | {' '.join(roots)} |" for name, roots in groups.items() if roots]
    return "\n".join(lines) + "\n"


def _section(category: Category) -> str:
    rows = [row for row in TABLE if row.category is category]
    lines = [f"## {category.value.capitalize()}", ""]
    lowered = [row for row in rows if row.is_lowered]
    if lowered:
        lines += ["Compiled:", "", *_block(lowered), ""]
    for reason in dict.fromkeys(row.reason for row in rows if row.reason is not None):
        lines += [f"Refused: {reason}.", "", *_block([row for row in rows if row.reason == reason]), ""]
    return "\n".join(lines)


def _block(rows: Sequence[Form]) -> list[str]:
    """Forms in a fenced block, those of a root together, then the lists that they use."""
    by_root: dict[str, list[str]] = {}
    for row in rows:
        by_root.setdefault(row.root, []).append(spell(row))
    lines = [line for root in by_root for line in dict.fromkeys(by_root[root])]
    used = {slot.names for row in rows for slot in row.parts} & _NAMES.keys()
    where = [f"{name:<11}= {text.replace('|', ' ')}" for name, text in PARTS.items() if _set(text) in used]
    return ["```", *lines, *(["", *where] if where else []), "```"]


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split("|"))


def _specials() -> str:
    lines = ["## Special registers", "", "| type | registers |", "|---|---|"]
    by_type: dict[str, dict[str, None]] = {}
    for text, register in SPECIALS.items():
        if isinstance(register, Special):
            shown = f"%{register.name}.(x\\|y\\|z)" if register.axis else text
            by_type.setdefault(f".{register.type.ptx_name}", {})[shown] = None
    lines += [f"| `{kind}` | {' '.join(f'`{name}`' for name in names)} |" for kind, names in by_type.items()]
    lines += [
        "",
        "The machine is one multiprocessor (`%smid` 0 of `%nsmid` 1); a warp is 32 threads of ascending number, x",
        "fastest. A cluster is one block. `%clock` and `%globaltimer` rise with every read and measure no time;",
        "`%pm` and `%envreg` are 0. `WARP_SZ` is 32.",
    ]
    return "\n".join(lines) + "\n"


def _calls() -> str:
    return _CALLS_TEXT.format(
        inlined=inline.INLINED_MAX,
        total=inline.INLINED_TOTAL_MAX,
        buffer=printing.BUFFER_BYTES >> 10,
        choices=printing.CHOICES_MAX,
        values=formats.VALUES_MAX,
        format=formats.FORMAT_BYTES_MAX,
        width=formats.WIDTH_MAX,
    )


def _limits() -> str:
    return _LIMITS_TEXT.format(
        initial=variables.INITIAL_BYTES_MAX >> 20,
        variable=declarations.VARIABLE_BYTES_MAX >> 20,
        parameters=variables.PARAMETER_BYTES_MAX,
        dimensions=declarations.DIMENSIONS_MAX,
        alignment=declarations.ALIGNMENT_MAX,
        name=declarations.NAME_LENGTH_MAX,
        opcode=statements.OPCODE_LENGTH_MAX,
        operands=statements.OPERANDS_MAX,
        scopes=statements.SCOPE_DEPTH_MAX,
        terms=constants.EXPRESSION_TERMS_MAX,
        depth=constants.EXPRESSION_DEPTH_MAX,
    )


if __name__ == "__main__":
    sys.stdout.write(page())
