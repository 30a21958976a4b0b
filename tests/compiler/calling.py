"""Programs of functions at random, as PTX and as Python: what the one computes on the CPU device the other says.

All values are 32 bits. A function calls only those made before it, so that nothing calls itself.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field

_MASK = 0xFFFFFFFF
_VALUES = 5
_OPERATIONS = {
    "add.s32": lambda a, b: a + b,
    "sub.s32": lambda a, b: a - b,
    "mul.lo.s32": lambda a, b: a * b,
    "xor.b32": lambda a, b: a ^ b,
    "min.u32": min,
}
#: How an argument is passed: the parameter's declaration, the load in the function, and what arrives of a value.
_PASSED = {
    "word": ("ld.param.b32", lambda v: v),
    "byte": ("ld.param.u8", lambda v: v & 0xFF),
    "signed byte": ("ld.param.s8", lambda v: ((v & 0xFF) ^ 0x80) - 0x80 & _MASK),
    "half": ("ld.param.s16", lambda v: ((v & 0xFFFF) ^ 0x8000) - 0x8000 & _MASK),
    "register": ("", lambda v: v),
}

Statement = tuple[object, ...]


class Return(Exception):
    """A function ends before its end."""


@dataclass
class Routine:
    """A function: how its arguments are passed (one struct for all, or each its way), and what it does."""

    name: str
    arguments: list[str]
    is_struct: bool
    result: str
    body: list[Statement] = field(default_factory=list)


class Programs:
    """Makes a program; ``text`` is its PTX, :meth:`run` what it does for one thread."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._labels = 0
        self.routines: list[Routine] = []
        for number in range(self._random.randint(1, 6)):
            self.routines.append(self._routine(f"f{number}"))
        self.kernel = Routine("k", [], False, "", self._body(len(self.routines), 4))

    # --- making -----------------------------------------------------------------------------------------

    def _routine(self, name: str) -> Routine:
        choose = self._random
        routine = Routine(
            name,
            choose.choices(list(_PASSED), k=choose.randint(1, 3)),
            choose.random() < 0.3,
            choose.choice(["param", "register", "struct"]),
        )
        routine.body = self._body(len(self.routines), 3)
        return routine

    def _body(self, callable_: int, depth: int) -> list[Statement]:
        return [self._statement(callable_, depth) for _ in range(self._random.randint(2, 5))]

    def _statement(self, callable_: int, depth: int) -> Statement:
        choose = self._random
        value = choose.randrange(_VALUES)
        other = choose.randrange(_VALUES)
        kind = choose.choices(["operation", "call", "if", "loop", "return", "local"], [4, 4, 2, 1, 1, 1])[0]
        if kind == "call" and callable_:
            callee = self.routines[choose.randrange(callable_)]
            values = [choose.choice([choose.randrange(_VALUES), None]) for _ in callee.arguments]
            constants = [choose.getrandbits(32) for _ in values]
            return ("call", value, callee, values, constants, choose.choice([None, other]), choose.random() < 0.3)
        if kind == "if" and depth:
            return ("if", value, choose.randrange(8), self._body(callable_, depth - 1))
        if kind == "loop" and depth > 2:
            return ("loop", choose.randint(1, 3), self._body(callable_, depth - 2))
        if kind == "return":
            return ("return", value, choose.randrange(4))
        if kind == "local":
            return ("local", value, other)
        name = choose.choice(list(_OPERATIONS))
        return ("operation", value, name, other, choose.choice([choose.getrandbits(8), choose.randrange(_VALUES)]))

    # --- as Python --------------------------------------------------------------------------------------

    def run(self, thread: int) -> list[int]:
        """What a thread of the kernel has in the end."""
        values = [thread * (n + 1) & _MASK for n in range(_VALUES)]
        self._call(self.kernel, values)
        return values

    def _call(self, routine: Routine, values: list[int]) -> int:
        with contextlib.suppress(Return):
            self._execute(routine.body, values)
        return values[0] if routine.result != "struct" else values[0] ^ values[1]

    def _execute(self, body: list[Statement], values: list[int]) -> None:
        for statement in body:
            match statement:
                case ("operation", target, name, a, b):
                    values[target] = _OPERATIONS[name](values[a], values[b] if b < _VALUES else b) & _MASK
                case ("local", target, source):
                    values[target] = values[source] + 1 & _MASK
                case ("if", value, bit, inside):
                    if values[value] >> bit & 1:
                        self._execute(inside, values)
                case ("loop", count, inside):
                    for _ in range(count):
                        self._execute(inside, values)
                case ("return", value, bit):
                    if values[value] >> bit & 1:
                        raise Return
                case ("call", target, callee, given, constants, guard, _):
                    if guard is None or values[guard] & 1:
                        passed = [c if v is None else values[v] for v, c in zip(given, constants, strict=True)]
                        arrived = [_PASSED[way][1](value) for way, value in zip(_ways(callee), passed, strict=True)]
                        values[target] = self._call(callee, [*arrived, 7, 8, 9, 10, 11][:_VALUES])

    # --- as PTX -----------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The program; its kernel takes a pointer to what each thread writes: its values."""
        functions = [self._function(routine) for routine in self.routines]
        self._random.shuffle(functions)
        declared = "".join(f"{_signature(routine)};\n" for routine in self.routines)
        lines = [
            ".version 8.0\n.target sm_80\n.address_size 64",
            declared,
            *functions,
            ".visible .entry k(.param .u64 out)\n{",
            _REGISTERS,
            "mov.u32 v0, %tid.x;",
            *(f"mul.lo.s32 v{n}, v0, {n + 1};" for n in range(1, _VALUES)),
            *self._lines(self.kernel.body, "done"),
            "done:\nld.param.u64 d, [out]; mov.u32 t, %tid.x; mad.wide.u32 d, t, 20, d;",
            *(f"st.global.u32 [d+{4 * n}], v{n};" for n in range(_VALUES)),
            "ret;\n}",
        ]
        return "\n".join(lines)

    def _function(self, routine: Routine) -> str:
        lines = [_signature(routine), "{", _REGISTERS]
        arrived = []
        for n, way in enumerate(_ways(routine)):
            if way == "register":
                arrived.append(f"mov.b32 v{n}, a{n};")
            else:
                place = f"a+{4 * n}" if routine.is_struct else f"a{n}"
                arrived.append(f"{_PASSED[way][0]} v{n}, [{place}];")
        lines += arrived
        lines += [f"mov.b32 v{n}, {7 + n - len(arrived)};" for n in range(len(arrived), _VALUES)]
        lines += self._lines(routine.body, "done")
        lines.append("done:")
        lines.append(
            {
                "param": "st.param.b32 [o], v0;",
                "register": "mov.b32 o, v0;",
                "struct": "st.param.v2.b32 [o], {v0, v1};",
            }[routine.result]
        )
        return "\n".join([*lines, "ret;\n}"])

    def _label(self) -> str:
        self._labels += 1
        return f"L{self._labels}"

    def _lines(self, body: list[Statement], end: str) -> list[str]:
        lines: list[str] = []
        for statement in body:
            match statement:
                case ("operation", target, name, a, b):
                    lines.append(f"{name} v{target}, v{a}, {f'v{b}' if b < _VALUES else b};")
                case ("local", target, source):
                    lines.append(f"st.local.b32 [cell+8], v{source}; ld.local.b32 v{target}, [cell+8];")
                    lines.append(f"add.s32 v{target}, v{target}, 1;")
                case ("if", value, bit, inside):
                    label = self._label()
                    lines.append(f"and.b32 t, v{value}, {1 << bit}; setp.eq.u32 p, t, 0; @p bra {label};")
                    lines += [*self._lines(inside, end), f"{label}:"]
                case ("loop", count, inside):
                    label = self._label()
                    lines += ["{ .reg .b32 left; .reg .pred q;", f"mov.b32 left, {count};", f"{label}:"]
                    lines += [*self._lines(inside, end), "sub.s32 left, left, 1; setp.ne.s32 q, left, 0;"]
                    lines.append(f"@q bra {label}; }}")
                case ("return", value, bit):
                    lines.append(f"and.b32 t, v{value}, {1 << bit}; setp.ne.u32 p, t, 0; @p bra {end};")
                case ("call", target, callee, given, constants, guard, is_indirect):
                    lines += self._call_lines(target, callee, given, constants, guard, is_indirect)
        return lines

    def _call_lines(
        self,
        target: int,
        callee: Routine,
        given: list[int | None],
        constants: list[int],
        guard: int | None,
        is_indirect: bool,
    ) -> list[str]:
        lines = ["{"]
        sources = [f"v{v}" if v is not None else str(c) for v, c in zip(given, constants, strict=True)]
        if callee.is_struct:
            lines.append(f".param .align 4 .b8 s[{4 * len(sources)}];")
            lines += [f"st.param.b32 [s+{4 * n}], {source};" for n, source in enumerate(sources)]
            arguments = ["s"]
        else:
            arguments = []
            for n, (way, source) in enumerate(zip(callee.arguments, sources, strict=True)):
                if way == "register" or n % 2:
                    arguments.append(source)
                else:
                    lines.append(f".param .b32 p{n}; st.param.b32 [p{n}], {source};")
                    arguments.append(f"p{n}")
        result = {"param": ".param .b32 r;", "register": "", "struct": ".param .align 8 .b8 r[8];"}[callee.result]
        place = "r" if result else "t"
        call = f"call ({place}), {callee.name}, ({', '.join(arguments)});"
        if is_indirect:
            lines.append(f"list: .calltargets {callee.name};\nmov.u64 d, {callee.name};")
            call = f"call ({place}), d, ({', '.join(arguments)}), list;"
        prefix = ""
        if guard is not None:
            lines.append(f"and.b32 u, v{guard}, 1; setp.ne.u32 p, u, 0;")
            prefix = "@p "
        lines += [result, f"mov.b32 t, v{target};", prefix + call]
        lines.append(
            {
                "param": f"{prefix}ld.param.b32 v{target}, [r];",
                "register": f"mov.b32 v{target}, t;",
                "struct": f"{prefix}ld.param.v2.b32 {{t, u}}, [r]; {prefix}xor.b32 v{target}, t, u;",
            }[callee.result]
        )
        return [*lines, "}"]


_REGISTERS = ".reg .b32 v<5>, t, u; .reg .b64 d; .reg .pred p; .local .align 8 .b8 cell[16];"


def _ways(routine: Routine) -> list[str]:
    """How each argument arrives: in a struct there are no registers."""
    return [("word" if way == "register" and routine.is_struct else way) for way in routine.arguments]


def _signature(routine: Routine) -> str:
    result = {"param": ".param .b32 o", "register": ".reg .b32 o", "struct": ".param .align 8 .b8 o[8]"}[routine.result]
    if routine.is_struct:
        given = f".param .align 4 .b8 a[{4 * len(routine.arguments)}]"
    else:
        given = ", ".join(
            f"{'.reg' if way == 'register' else '.param'} .b32 a{n}" for n, way in enumerate(routine.arguments)
        )
    return f".func ({result}) {routine.name}({given})"
