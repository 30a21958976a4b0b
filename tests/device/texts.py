"""PTX texts that take a while."""

from __future__ import annotations

from pathlib import Path

VECTOR_ADD = (Path(__file__).parents[1] / "corpus" / "vector_add.ptx").read_bytes()

_HEAD = ".version 7.0\n.target sm_80\n.address_size 64\n"


def vector_add(salt: object = "") -> bytes:
    """A small text, another for each salt; its entry is ``vector_add``."""
    return VECTOR_ADD.rstrip(b"\0") + f"\n// {salt}\n".encode()


def long_kernel(instructions: int, salt: object = "") -> bytes:
    """A kernel ``k`` of that many instructions. 10,000 of them are 300 kB and take about half a second."""
    lines = [
        f"{_HEAD}// {salt}\n.visible .entry k(.param .u64 p) {{\n.reg .u32 %r<16>; .reg .u64 %d<4>;",
        "ld.param.u64 %d0,[p]; mov.u32 %r0, %tid.x; mul.wide.u32 %d1,%r0,4; add.u64 %d2,%d0,%d1;",
        *(f"add.u32 %r{number + 8},%r0,{number};" for number in range(8)),
        *(
            f"mad.lo.u32 %r{8 + i % 8},%r{8 + (3 * i + 1) % 8},%r{8 + (5 * i + 2) % 8},{i};"
            for i in range(instructions)
        ),
        *(f"add.u32 %r8,%r8,%r{number + 9};" for number in range(7)),
        "st.global.u32 [%d2],%r8; ret; }\n",
    ]
    return "\n".join(lines).encode()


def nonsense(size_bytes: int = 8 << 20, salt: object = "") -> bytes:
    """A text that looks like PTX until its end is missing: all of it is read before that is known."""
    head = f"{_HEAD}// {salt}\n.visible .entry k() {{\n.reg .u32 %r<4>;\n".encode()
    line = b"add.u32 %r1,%r2,3;\n"
    return head + line * ((size_bytes - len(head)) // len(line))
