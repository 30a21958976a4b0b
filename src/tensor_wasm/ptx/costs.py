"""How large kernels become when their calls are replaced by what they call, known before any of it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tensor_wasm.ptx.calls import Call, Function, Linkage, Prototype
from tensor_wasm.ptx.program import Block, Switch

#: What is called: a function by its name, or any of several, by a number.
Node = str | int

#: Characters of a function's name that a reason shows.
_NAME_SHOWN = 64
#: Operands that count as much as an instruction.
_OPERANDS = 8


class Costs:
    """The weight of everything that can be called, in instructions, everything that it calls included.

    ``taken`` are the functions whose addresses are taken anywhere. Takes time linear in the text, however many ways
    lead through its functions; sizes above ``limit`` are only known to be that.
    """

    def __init__(self, linkage: Linkage, taken: Iterable[str], limit: int) -> None:
        self._functions = linkage.functions
        self._aliases = linkage.aliases
        self._limit = limit
        self._sets: dict[int, tuple[str, ...]] = {}
        self._by_prototype: dict[Prototype, tuple[str, ...]] = {}
        by_prototype: dict[Prototype, list[str]] = {}
        for name in taken:
            function = self.find(name)
            if function is not None:
                by_prototype.setdefault(function.formals.prototype, []).append(name)
        self._by_prototype = {prototype: tuple(names) for prototype, names in by_prototype.items()}
        self._own: dict[Node, int] = {}
        self._callees: dict[Node, Mapping[Node, int]] = {}
        self._lines: dict[tuple[Node, Node], int] = {}
        self._cycles: dict[Node, str] = {}
        for name, function in self._functions.items():
            self._own[name], self._callees[name] = self._look(name, function.blocks)
        for number, names in self._sets.items():
            self._own[number] = 2 * len(names)
            self._callees[number] = Counter(function.name for name in names if (function := self.find(name)))
        self._totals = self._add_up()

    def find(self, name: str) -> Function | None:
        """The function of a name, or of what that is another name of; None where there is no body."""
        return self._functions.get(name) or self._functions.get(self._aliases.get(name, ""))

    def candidates(self, call: Call) -> tuple[str, ...]:
        """The functions that an indirect call may be of."""
        if call.candidates is not None:
            return call.candidates
        return () if call.prototype is None else self._by_prototype.get(call.prototype, ())

    def total(self, blocks: Sequence[Block]) -> int:
        """The weight of a kernel with all that it calls; what calls itself is left out."""
        own, callees = self._look("", blocks)
        for number in callees:
            if isinstance(number, int) and number not in self._totals:
                self._totals[number] = self._limit  # a list that only kernels name: known below
                names = self._sets[number]
                totals = [self._totals.get(found.name) for name in names if (found := self.find(name))]
                if None in totals:
                    self._totals.pop(number)
                else:
                    self._totals[number] = 2 * len(names) + sum(total or 0 for total in totals)
        return own + sum(count * self._totals.get(node, 0) for node, count in callees.items())

    def cycle(self, call: Call) -> str | None:
        """Why a call never ends by being replaced: a function that calls itself, and where; else None."""
        node = self._node(call)
        if node is None or node in self._totals:
            return None
        if node not in self._callees and isinstance(node, int):
            self._callees[node] = Counter(found.name for name in self._sets[node] if (found := self.find(name)))
        if node not in self._cycles:
            self._cycles[node] = self._describe(node)
        return self._cycles[node]

    def _node(self, call: Call) -> Node | None:
        if call.callee:
            function = self.find(call.callee)
            return None if function is None else function.name
        names = self.candidates(call)
        if not names:
            return None
        self._sets[id(names)] = names
        return id(names)

    def _look(self, caller: Node, blocks: Sequence[Block]) -> tuple[int, Counter[Node]]:
        """What a routine itself weighs, and how often it calls what."""
        own = 0
        callees: Counter[Node] = Counter()
        for block in blocks:
            own += 1 + len(block.instructions)
            if isinstance(block.terminator, Switch):
                own += len(block.terminator.targets)
            for instruction in block.instructions:
                own += (len(instruction.sources) + len(instruction.destinations)) // _OPERANDS
                if isinstance(instruction, Call):
                    own += len(instruction.arguments) + len(instruction.results)
                    node = self._node(instruction)
                    if node is not None:
                        callees[node] += 1
                        self._lines.setdefault((caller, node), instruction.line)
        return own, callees

    def _add_up(self) -> dict[Node, int]:
        """Totals, callees first; what is left without one calls itself, or what does."""
        totals: dict[Node, int] = {}
        callers: dict[Node, list[Node]] = {}
        missing: dict[Node, int] = {}
        for node, callees in self._callees.items():
            missing[node] = len(callees)
            for callee in callees:
                callers.setdefault(callee, []).append(node)
        ready = [node for node, count in missing.items() if not count]
        while ready:
            node = ready.pop()
            total = self._own[node] + sum(count * totals[callee] for callee, count in self._callees[node].items())
            totals[node] = min(total, self._limit + 1)
            for caller in callers.get(node, ()):
                missing[caller] -= 1
                if not missing[caller]:
                    ready.append(caller)
        return totals

    def _describe(self, start: Node) -> str:
        """Follow what has no total until something comes again, or something that was described."""
        way: dict[Node, None] = {}
        node = start
        while node not in way and node not in self._cycles:
            way[node] = None
            node = next(callee for callee in self._callees[node] if callee not in self._totals)
        text = self._cycles.get(node) or self._around([*way][[*way].index(node) :])
        self._cycles.update(dict.fromkeys(way, text))
        return text

    def _around(self, nodes: list[Node]) -> str:
        """What to say of nodes of which each calls the next, and the last the first."""
        while isinstance(nodes[0], int):  # begin with a name
            nodes.append(nodes.pop(0))
        last = nodes[-1]
        # What calls a list of functions is what stands before the list.
        caller = (last, nodes[0]) if isinstance(last, str) else (nodes[-2], last)
        names = [name[:_NAME_SHOWN] for name in nodes if isinstance(name, str)]
        through = f" through {names[1]}" if len(names) > 1 else ""
        where = f"the function {names[0]} calls itself{through}, at line {self._lines[caller]}"
        return f"{where}: recursion is not supported in this release"
