"""Kernels that go for other tenants' memory, by every way that PTX has to name memory.

All of them are ``k(array, target, distance)``: %rd1 is the address of 256 bytes of the tenant's own, %rd2 an address
that is not its to use, %rd3 the latter less the former. What they get to see they leave in %r9 to %r12.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


@dataclass(frozen=True)
class Attack:
    """``body`` is the code, ``own`` what the kernel declares, ``before`` what the module does.

    ``{target}`` and ``{distance}`` in them are numbers, for an address that is known when the text is written.
    ``refused`` is a part of the reason where the fence does not take it.
    """

    body: str
    own: str = ""
    before: str = ""
    block: int = 1
    shared_bytes: int = 0
    refused: str = ""

    @property
    def is_written_for_a_target(self) -> bool:
        return any("{target" in text or "{distance" in text for text in (self.body, self.own, self.before))

    def ptx(self, target: int, distance: int) -> str:
        """The text for a target."""
        low = (distance + (1 << 31)) % (1 << 32) - (1 << 31)
        numbers = {"{target}": target, "{distance}": distance, "{distance32}": low}
        body, own, before = self.body, self.own, self.before
        for name, number in numbers.items():
            body, own, before = (text.replace(name, str(number)) for text in (body, own, before))
        return f"""{HEAD}{before}
            .visible .entry k(.param .u64 array, .param .u64 target, .param .s64 distance) {{
            .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<32>; .reg .f32 %f<8>; .reg .b64 %rd<16>; .reg .f64 %d<4>;
            {own}
            ld.param.u64 %rd1, [array]; ld.param.u64 %rd2, [target]; ld.param.s64 %rd3, [distance];
            mov.u32 %r1, 305419896; mov.u64 %rd15, 1311768467463790320; mov.u32 %r8, %tid.x; cvt.u32.u64 %r7, %rd3;
            mov.u32 %r9, 0; mov.u32 %r10, 0; mov.u32 %r11, 0; mov.u32 %r12, 0;
            {body}
            setp.ne.u32 %p7, %r8, 0; @%p7 bra end;
            st.global.v4.u32 [%rd1], {{%r9, %r10, %r11, %r12}};
            end: ret; }}"""


_ALL = "{%r9, %r10, %r11, %r12}"
_ONE = "mov.u32 %r2, 1;"
_SHARED = ".shared .align 16 .b8 buffer[64];"
_OPEN = ".extern .shared .align 16 .b8 buffer[];"
_LOCAL = ".local .align 16 .b8 mine[64];"
_CONST = ".const .align 8 .u32 table[4] = {5, 6, 7, 8};"
_GLOBAL = ".global .align 8 .b8 table[16];"
#: A register that is ``buffer`` and so much more.
_IN_SHARED = "mov.u32 %r3, buffer; add.u32 %r3, %r3, %r7;"
_IN_LOCAL = "mov.u64 %rd4, mine; add.s64 %rd4, %rd4, %rd3;"
_LOADS = {
    "": "ld{}.u32", "volatile": "ld.volatile{}.u32", "relaxed": "ld.relaxed.gpu{}.u32",
    "acquired": "ld.acquire.sys{}.u32", "uncached": "ld{}.cv.u32", "streamed": "ld{}.cs.u32",
}  # fmt: skip
_ATOMS = {
    "addition": "add.u32", "exchange": "exch.b32", "and": "and.b32", "or": "or.b32", "xor": "xor.b32",
    "minimum": "min.s32", "maximum": "max.u32", "increment": "inc.u32", "decrement": "dec.u32",
}  # fmt: skip

READS: dict[str, Attack] = {
    **{f"load {name}": Attack(how.format(".global") + " %r9, [%rd2];") for name, how in _LOADS.items()},
    **{f"generic load {name}": Attack(how.format("") + " %r9, [%rd2];") for name, how in _LOADS.items()},
    "read only": Attack("ld.global.nc.u32 %r9, [%rd2];"),
    "uniform": Attack("ldu.global.u32 %r9, [%rd2];"),
    "a byte": Attack("ld.global.u8 %r9, [%rd2];"),
    "half a word": Attack("ld.global.u16 %h1, [%rd2]; cvt.u32.u16 %r9, %h1;"),
    "two words": Attack("ld.global.u64 %rd4, [%rd2]; mov.b64 {%r9, %r10}, %rd4;"),
    "a double": Attack("ld.global.f64 %d1, [%rd2]; mov.b64 {%r9, %r10}, %d1;"),
    "two": Attack("ld.global.v2.u32 {%r9, %r10}, [%rd2];"),
    "four": Attack(f"ld.global.v4.u32 {_ALL}, [%rd2];"),
    "four, read only": Attack(f"ld.global.nc.v4.u32 {_ALL}, [%rd2];"),
    "four, generic": Attack(f"ld.v4.u32 {_ALL}, [%rd2];"),
    "two of two words": Attack("ld.global.v2.u64 {%rd4, %rd5}, [%rd2]; mov.b64 {%r9, %r10}, %rd5;"),
    "an added distance": Attack("add.s64 %rd4, %rd1, %rd3; ld.global.u32 %r9, [%rd4];"),
    "a multiplied distance": Attack("mul.lo.s64 %rd4, %rd3, -1; sub.s64 %rd4, %rd1, %rd4; ld.global.u32 %r9, [%rd4];"),
    "step by step": Attack(
        """mov.u64 %rd4, %rd1; shr.s64 %rd5, %rd3, 2; mov.u32 %r2, 0;
        again: ld.global.u32 %r9, [%rd4]; add.s64 %rd4, %rd4, %rd5; add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, 5;
        @%p1 bra again;"""
    ),
    "with an offset": Attack("ld.global.u32 %r9, [%rd2+4]; ld.global.u32 %r10, [%rd2+-4];"),
    "with offsets that wrap": Attack(
        "ld.global.u32 %r9, [%rd2+65532]; ld.global.u32 %r10, [%rd2+-65536]; ld.global.u32 %r11, [%rd2+65536];"
    ),
    "with large offsets": Attack(
        """ld.global.u32 %r9, [%rd2+2147483644]; ld.global.u32 %r10, [%rd2+-2147483648];
        ld.global.u32 %r11, [%rd1+524288];"""
    ),
    "with an offset that is the distance": Attack("ld.global.u32 %r9, [%rd1+{distance32}];"),
    "with an odd offset": Attack("ld.global.u32 %r9, [%rd2+1]; ld.global.u64 %rd4, [%rd2+3]; cvt.u32.u64 %r10, %rd4;"),
    "from a number": Attack("mov.u64 %rd4, {target}; ld.global.u32 %r9, [%rd4]; ld.u32 %r10, [%rd4];"),
    "from a number in brackets": Attack("ld.global.u32 %r9, [{target}]; ld.u32 %r10, [{target}];"),
    "from a float": Attack("mov.b64 %d1, %rd2; mov.b64 %rd4, %d1; ld.global.u32 %r9, [%rd4];"),
    "from halves": Attack("mov.b64 {%r2, %r3}, %rd2; mov.b64 %rd4, {%r2, %r3}; ld.global.u32 %r9, [%rd4];"),
    "from another thread": Attack(
        """mov.b64 {%r2, %r3}, %rd2; shfl.sync.idx.b32 %r4, %r2, 3, 31, -1; shfl.sync.idx.b32 %r5, %r3, 3, 31, -1;
        mov.b64 %rd4, {%r4, %r5}; ld.global.u32 %r9, [%rd4];""",
        block=32,
    ),
    "from memory": Attack("st.global.u64 [%rd1+64], %rd2; ld.global.u64 %rd4, [%rd1+64]; ld.global.u32 %r9, [%rd4];"),
    "from shared memory": Attack(
        "st.shared.u64 [buffer], %rd2; ld.shared.u64 %rd4, [buffer]; ld.u32 %r9, [%rd4];", _SHARED
    ),
    "from local memory": Attack("st.local.u64 [mine], %rd2; ld.local.u64 %rd4, [mine]; ld.u32 %r9, [%rd4];", _LOCAL),
    "chosen": Attack("setp.ne.s64 %p1, %rd3, 0; selp.b64 %rd4, %rd2, %rd1, %p1; ld.global.u32 %r9, [%rd4];"),
    "where a predicate holds": Attack("setp.ne.s64 %p1, %rd3, 0; @%p1 ld.global.u32 %r9, [%rd2];"),
    "where threads part": Attack(
        """and.b32 %r2, %r8, 1; setp.eq.u32 %p1, %r2, 1; mov.u64 %rd4, %rd1; @%p1 mov.u64 %rd4, %rd2;
        ld.global.u32 %r9, [%rd4]; shfl.sync.idx.b32 %r10, %r9, 1, 31, -1;""",
        block=32,
    ),
    "all threads of a row": Attack(
        "mul.wide.u32 %rd4, %r8, 4; add.s64 %rd4, %rd4, %rd2; ld.global.u32 %r9, [%rd4];", block=64
    ),
    "converted": Attack("cvta.to.global.u64 %rd4, %rd2; ld.global.u32 %r9, [%rd4];"),
    "converted back": Attack("cvta.global.u64 %rd4, %rd2; ld.u32 %r9, [%rd4];"),
    "a constant's space": Attack("ld.const.u32 %r9, [%rd2];", before=_CONST),
    "beside a constant": Attack(
        """ld.const.u32 %r9, [table+{distance32}]; mov.u64 %rd4, table; add.s64 %rd4, %rd4, %rd3;
        ld.const.u32 %r10, [%rd4];""",
        before=_CONST,
    ),
    "converted from a constant": Attack("cvta.const.u64 %rd4, %rd2; ld.u32 %r9, [%rd4];", before=_CONST),
    "beside a variable": Attack(
        """ld.global.u32 %r9, [table+{distance32}]; mov.u64 %rd4, table; add.s64 %rd4, %rd4, %rd3;
        ld.global.u32 %r10, [%rd4];""",
        before=_GLOBAL,
    ),
    "a variable that points": Attack(
        "ld.global.u64 %rd4, [pointer]; ld.u32 %r9, [%rd4];",
        before=f"{_GLOBAL} .global .align 8 .u64 pointer = generic(table)+1048576;",
    ),
    "a variable that is an address": Attack(
        "ld.global.u64 %rd4, [pointer]; ld.global.u32 %r9, [%rd4];", before=".global .align 8 .u64 pointer = {target};"
    ),
    **{
        f"atomic {name}": Attack(f"{_ONE} atom.global.{kind} %r9, [%rd2], %r2; atom.{kind} %r10, [%rd2+4], %r2;")
        for name, kind in _ATOMS.items()
    },
    "atomic comparison": Attack("atom.global.cas.b32 %r9, [%rd2], %r1, %r1; atom.cas.b64 %rd4, [%rd2], %rd1, %rd1;"),
    "atomic float": Attack("mov.f32 %f1, 0f00000000; atom.global.add.f32 %f2, [%rd2], %f1; mov.b32 %r9, %f2;"),
    "atomic double": Attack(
        "mov.f64 %d1, 0d0000000000000000; atom.global.add.f64 %d2, [%rd2], %d1; mov.b64 {%r9, %r10}, %d2;"
    ),
    "atomic halves": Attack("mov.u32 %r2, 0; atom.global.add.noftz.f16x2 %r9, [%rd2], %r2;"),
    "atomic half": Attack("mov.u16 %h1, 0; atom.add.noftz.f16 %h2, [%rd2], %h1; cvt.u32.u16 %r9, %h2;"),
    "atomic two words": Attack("atom.global.exch.b64 %rd4, [%rd2], %rd15; mov.b64 {%r9, %r10}, %rd4;"),
    **{
        f"asynchronous copy of {size}": Attack(
            f"""mov.u32 %r2, buffer; cp.async.{cache}.shared.global [%r2], [%rd2], {size};
            cp.async.commit_group; cp.async.wait_all; ld.shared.u32 %r9, [buffer];""",
            _SHARED,
        )
        for size, cache in ((4, "ca"), (8, "ca"), (16, "cg"))
    },
    "asynchronous copy of more than all": Attack(
        """mov.u32 %r2, buffer; mov.u32 %r3, 64; cp.async.cg.shared.global [%r2], [%rd2+8], 16, %r3;
        cp.async.commit_group; cp.async.wait_all; ld.shared.v4.u32 {%r9, %r10, %r11, %r12}, [buffer+16];""",
        _SHARED,
    ),
    # A number that is no address of shared or local memory, taken for one.
    "a number as a shared address": Attack("cvt.u32.u64 %r2, %rd2; ld.shared.u32 %r9, [%r2];"),
    "a number as a shared address of 64 bits": Attack("ld.shared.u32 %r9, [%rd2];"),
    "a number as a local address": Attack("ld.local.u32 %r9, [%rd2];"),
    "shared made generic": Attack("cvta.shared.u64 %rd4, %rd2; ld.u32 %r9, [%rd4];", _SHARED),
    "shared made generic, without any": Attack("cvta.shared.u64 %rd4, %rd2; ld.u32 %r9, [%rd4];"),
    "generic made shared": Attack("cvta.to.shared.u64 %rd4, %rd2; ld.shared.u32 %r9, [%rd4];", _SHARED),
    "local made generic": Attack("cvta.local.u64 %rd4, %rd2; ld.u32 %r9, [%rd4];", _LOCAL),
    "local made generic, without any": Attack("cvta.local.u64 %rd4, %rd2; ld.u32 %r9, [%rd4];"),
    "generic made local": Attack("cvta.to.local.u64 %rd4, %rd2; ld.local.u32 %r9, [%rd4];", _LOCAL),
    "asked for the space": Attack(
        """isspacep.global %p1, %rd2; @%p1 ld.global.u32 %r9, [%rd2]; isspacep.shared %p2, %rd2;
        @%p2 ld.u32 %r10, [%rd2];"""
    ),
    # Out of shared and local memory.
    "beside shared memory": Attack(
        f"{_IN_SHARED} ld.shared.u32 %r9, [%r3]; ld.shared.v2.u32 {{%r10, %r11}}, [%r3+-64];", _SHARED
    ),
    "beside open shared memory": Attack(
        f"{_IN_SHARED} ld.shared.u32 %r9, [%r3]; ld.shared.v2.u32 {{%r10, %r11}}, [%r3+32];", "", _OPEN, shared_bytes=40
    ),
    "open shared memory that is not there": Attack(f"{_IN_SHARED} ld.shared.v4.u32 {_ALL}, [%r3];", "", _OPEN),
    "all around shared memory": Attack(
        """mov.u32 %r2, buffer; ld.shared.u32 %r9, [%r2+-64]; ld.shared.u32 %r10, [%r2+64]; ld.shared.u32 %r11,
        [%r2+1024]; ld.shared.u32 %r12, [buffer+49152];""",
        _SHARED,
    ),
    "a generic address beside shared memory": Attack(
        "mov.u64 %rd4, buffer; cvta.shared.u64 %rd4, %rd4; add.s64 %rd4, %rd4, %rd3; ld.u32 %r9, [%rd4];", _SHARED
    ),
    "shared memory of all": Attack(
        """mul.wide.u32 %rd4, %r8, 64; mov.u64 %rd5, buffer; cvta.shared.u64 %rd5, %rd5; add.s64 %rd4, %rd4, %rd5;
        ld.u32 %r9, [%rd4]; mov.u32 %r2, buffer; shl.b32 %r3, %r8, 6; add.u32 %r2, %r2, %r3; ld.shared.u32 %r10, [%r2];
        or.b32 %r9, %r9, %r10; redux.sync.or.b32 %r9, %r9, -1;""",
        _SHARED,
        block=1024,
    ),
    "matrices beside shared memory": Attack(
        f"{_IN_SHARED} ldmatrix.sync.aligned.m8n8.x4.shared.b16 {_ALL}, [%r3+3];", _SHARED, block=32
    ),
    "beside local memory": Attack(f"{_IN_LOCAL} ld.local.u32 %r9, [%rd4]; ld.local.u32 %r10, [%rd4+64];", _LOCAL),
    "a generic address beside local memory": Attack(
        f"{_IN_LOCAL} cvta.local.u64 %rd5, %rd4; ld.u32 %r9, [%rd5]; ld.u64 %rd6, [%rd5+60]; cvt.u32.u64 %r10, %rd6;",
        _LOCAL,
    ),
    "what local memory held": Attack(
        """mov.u32 %r2, 0; mov.u64 %rd4, mine;
        again: ld.local.u32 %r3, [%rd4]; or.b32 %r9, %r9, %r3; add.s64 %rd4, %rd4, 4; add.u32 %r2, %r2, 1;
        setp.lt.u32 %p1, %r2, 1024; @%p1 bra again;""",
        ".local .align 16 .b8 mine[4096];",
    ),
    "what shared memory held": Attack(
        """mov.u32 %r2, buffer; mov.u32 %r3, %ntid.x; shl.b32 %r4, %r8, 2; add.u32 %r2, %r2, %r4; mov.u32 %r5, 0;
        again: ld.shared.u32 %r6, [%r2]; or.b32 %r9, %r9, %r6; add.u32 %r2, %r2, 1024; add.u32 %r5, %r5, 1;
        setp.lt.u32 %p1, %r5, 48; @%p1 bra again; redux.sync.or.b32 %r9, %r9, -1;""",
        before=_OPEN,
        block=256,
        shared_bytes=48 << 10,
    ),
    "what registers held": Attack("mov.u32 %r9, %r20; mov.u32 %r10, %r21; mov.u32 %r11, %r22; mov.u32 %r12, %r23;"),
    # Refused.
    "a parameter's address": Attack("mov.u64 %rd4, array; ld.param.u32 %r9, [%rd4+4096];", refused="parameter"),
    "past the parameters": Attack("ld.param.u32 %r9, [distance+8];", refused="inside"),
    "a parameter made generic": Attack("mov.u64 %rd4, array; cvta.param.u64 %rd4, %rd4;", refused="parameter"),
    "a counter": Attack("mov.u32 %r9, %pm0;", refused="not a tenant's"),
    "what the driver tells kernels": Attack("mov.b32 %r9, %envreg0;", refused="not a tenant's"),
    "a device's registers": Attack("ld.mmio.relaxed.sys.global.u32 %r9, [%rd2];", refused="not a tenant's"),
}

_STORES = {
    "": "st{}.u32", "volatile": "st.volatile{}.u32", "relaxed": "st.relaxed.gpu{}.u32",
    "released": "st.release.sys{}.u32", "through": "st{}.wt.u32",
}  # fmt: skip
_FUNCTION = ".func f(.param .b64 a) { .reg .b64 %x<2>; ld.param.b64 %x1, [a]; st.global.u32 [%x1], 305419896; ret; }"
_KIND = "kind: .callprototype _ (.param .b64 _);"

WRITES: dict[str, Attack] = {
    **{f"store {name}": Attack(how.format(".global") + " [%rd2], %r1;") for name, how in _STORES.items()},
    **{f"generic store {name}": Attack(how.format("") + " [%rd2], %r1;") for name, how in _STORES.items()},
    "store a byte": Attack("st.global.u8 [%rd2], %r1; st.global.u8 [%rd2+-1], %r1;"),
    "store half a word": Attack("mov.u16 %h1, 4660; st.global.u16 [%rd2+1], %h1;"),
    "store two words": Attack("st.global.u64 [%rd2], %rd15; st.u64 [%rd2+4], %rd15;"),
    "store two": Attack("st.global.v2.u32 [%rd2+-4], {%r1, %r1};"),
    "store four": Attack("st.global.v4.u32 [%rd2], {%r1, %r1, %r1, %r1}; st.v4.u32 [%rd2+16], {%r1, %r1, %r1, %r1};"),
    "store with offsets": Attack(
        "st.global.u32 [%rd2+65532], %r1; st.global.u32 [%rd2+-65536], %r1; st.global.u32 [%rd2+2147483644], %r1;"
    ),
    "store at the distance": Attack("st.global.u32 [%rd1+{distance32}], %r1;"),
    "store at a number": Attack("st.global.u32 [{target}], %r1; mov.u64 %rd4, {target}; st.u32 [%rd4], %r1;"),
    "store beside a variable": Attack("st.global.u32 [table+{distance32}], %r1;", before=_GLOBAL),
    "store where a variable points": Attack(
        "ld.global.u64 %rd4, [pointer]; st.u32 [%rd4], %r1;",
        before=f"{_GLOBAL} .global .align 8 .u64 pointer = generic(table)+1048576;",
    ),
    "store by all threads": Attack("mad.wide.u32 %rd4, %r8, 4096, %rd2; st.global.u32 [%rd4], %r1;", block=256),
    "store in a loop": Attack(
        """mov.u32 %r3, 0; mov.u64 %rd4, %rd1;
        again: st.global.u32 [%rd4], %r1; add.s64 %rd4, %rd4, %rd3; add.u32 %r3, %r3, 1;
        setp.lt.u32 %p1, %r3, 9; @%p1 bra again;"""
    ),
    "store where a register changes": Attack(
        "mov.u64 %rd4, %rd1; st.global.u32 [%rd4], %r1; mov.u64 %rd4, %rd2; st.global.u32 [%rd4], %r1;"
    ),
    "store in a function": Attack("call f, (%rd2);", before=_FUNCTION),
    "store in a function by its address": Attack(
        f"mov.u64 %rd4, f; {_KIND} call %rd4, (%rd2), kind;", before=_FUNCTION
    ),
    **{
        f"reduction by {name}": Attack(f"red.global.{kind} [%rd2], %r1; red.{kind} [%rd2+4], %r1;")
        for name, kind in _ATOMS.items()
        if "exch" not in kind
    },
    "reduction of doubles": Attack("mov.f64 %d1, 0d3FF0000000000000; red.global.add.f64 [%rd2+4], %d1;"),
    "reduction of halves": Attack("red.add.noftz.bf16x2 [%rd2+2], %r1;"),
    "swap what is known": Attack(
        "mov.u32 %r2, 1549556828; atom.global.cas.b32 %r3, [%rd2], %r2, %r1; atom.cas.b32 %r3, [%rd2+4], %r2, %r1;"
    ),
    "have it forgotten": Attack(
        """discard.global.L2 [%rd2], 128; prefetch.global.L2 [%rd2]; prefetchu.L1 [%rd2];
        applypriority.global.L2::evict_normal [%rd2], 128;"""
    ),
    "store beside shared memory": Attack(
        f"{_IN_SHARED} st.shared.u32 [%r3], %r1; st.shared.v4.u32 [%r3+49152], {{%r1, %r1, %r1, %r1}};", _SHARED
    ),
    "store beside open shared memory": Attack(
        f"{_IN_SHARED} st.shared.u32 [%r3], %r1; setp.ne.u32 %p1, %r1, 0; @%p1 st.shared.u64 [%r3+3], %rd15;",
        "",
        _OPEN,
        shared_bytes=4,
    ),
    "store to open shared memory that is not there": Attack(
        f"{_IN_SHARED} setp.ne.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%r3], %r1; @!%p1 red.shared.add.u32 [%r3], %r1;",
        "",
        _OPEN,
    ),
    "shared memory's atomics": Attack(
        f"{_IN_SHARED} atom.shared.add.u32 %r9, [%r3], %r1; red.shared.max.u64 [%r3+-8], %rd15;", _SHARED
    ),
    "asynchronous copy beside shared memory": Attack(
        f"{_IN_SHARED} cp.async.cg.shared.global [%r3+5], [%rd1], 16; cp.async.commit_group; cp.async.wait_all;",
        _SHARED,
    ),
    "store generic beside shared memory": Attack(
        "mov.u64 %rd4, buffer; cvta.shared.u64 %rd4, %rd4; add.s64 %rd4, %rd4, %rd3; st.u32 [%rd4], %r1;", _SHARED
    ),
    "store beside local memory": Attack(
        f"{_IN_LOCAL} st.local.u32 [%rd4], %r1; st.local.u64 [%rd4+57], %rd15;", _LOCAL
    ),
    "store generic beside local memory": Attack(
        f"{_IN_LOCAL} cvta.local.u64 %rd5, %rd4; st.u32 [%rd5], %r1; st.u64 [%rd5+-9], %rd15;", _LOCAL
    ),
    "store in shared memory made generic": Attack("cvta.shared.u64 %rd4, %rd2; st.u32 [%rd4], %r1;", _SHARED),
    "store in local memory made generic": Attack("cvta.local.u64 %rd4, %rd2; st.u32 [%rd4], %r1;", _LOCAL),
    "a branch to anywhere": Attack(
        """ways: .branchtargets one, two; brx.idx %r7, ways; one: mov.u32 %r9, 1; bra on;
        two: st.global.u32 [%rd2], %r1; on:"""
    ),
    "a call of anything": Attack(f"{_KIND} call %rd2, (%rd2), kind;", before=_FUNCTION),
    "a call beside a function": Attack(
        f"mov.u64 %rd4, f; add.s64 %rd4, %rd4, %rd3; {_KIND} call %rd4, (%rd2), kind;", before=_FUNCTION
    ),
    "barriers that there are not": Attack(
        """bar.sync %r7; mov.u32 %r2, 33; barrier.sync 3, %r2; mov.u32 %r2, 0; barrier.sync 4, %r2;
        setp.ne.u32 %p1, %r8, 99; bar.red.and.pred %p1, %r7, %r2, %p1;""",
        block=32,
    ),
    "masks without the thread": Attack(
        """mov.u32 %r2, 1; shl.b32 %r2, %r2, %r8; not.b32 %r2, %r2; bar.warp.sync %r2; setp.ne.u32 %p1, %r8, 99;
        vote.sync.ballot.b32 %r9, %p1, %r2; shfl.sync.idx.b32 %r10, %r9, 5, 31, %r2;""",
        block=32,
    ),
    "a trap": Attack("st.global.u32 [%rd2], %r1; trap;"),
    "a break point": Attack("brkpt; st.global.u32 [%rd2], %r1;"),
}
