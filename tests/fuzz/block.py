"""Runs a block of threads that wait for each other, by the meaning of the PTX ISA. For tests only.

Each thread is a generator that stops at barriers and warp operations. One where everybody has come is carried out, and
its threads go on. Two choices where the ISA has none: who shuffles from a lane that takes no part gets its own value,
and threads run in ascending order (kernels whose result depends on it are none to compare with).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fuzz.integer_meaning import signed
from fuzz.interpreter import Code, Memories, Running, Thread, Wait
from tensor_wasm.ptx.program import Instruction

WARP = 32
_MASK = 0xFFFF_FFFF


class Stuck(Exception):
    """Threads wait, and nothing that they wait for can happen any more."""


class Block:
    """The threads of one block, of ``shape`` x, y, z; memory is changed in place."""

    def __init__(
        self,
        code: Code,
        memories: Memories,
        shape: tuple[int, int, int],
        special: Mapping[str, int],
        dynamic_bytes: int = 0,
    ) -> None:
        memories.shared = bytearray(-(-code.shared_bytes // 16) * 16 + dynamic_bytes)
        self._threads: dict[int, Running] = {}
        self._waits: dict[int, Wait] = {}
        self._arrived: dict[int, int] = {}
        for number, own in enumerate(_specials(shape)):
            self._threads[number] = Thread(code, memories, {**special, **own}).steps()

    def run(self, *, backwards: bool = False) -> None:
        """Until every thread has ended; ``backwards`` starts with the last. Raises :class:`Stuck`."""
        for number in sorted(self._threads, reverse=backwards):
            self._go_on(number, None)
        while self._threads:
            if not (self._warp_operation() or self._arrival() or self._barrier()):
                raise Stuck({number: wait.instruction.text for number, wait in self._waits.items()})

    def _go_on(self, number: int, results: Sequence[int] | None) -> None:
        thread = self._threads[number]
        self._waits.pop(number, None)
        try:
            self._waits[number] = next(thread) if results is None else thread.send(results)
        except StopIteration:
            del self._threads[number]

    # --- warps ----------------------------------------------------------------------------------------

    def _warp_operation(self) -> bool:
        """Carry out one for which all lanes of its mask that live have come with the same opcode and mask."""
        for number, wait in self._waits.items():
            if not wait.is_barrier:
                lanes = self._lanes(number // WARP, wait)
                if lanes is not None:
                    for lane, results in _together(wait.instruction, lanes).items():
                        self._go_on(number // WARP * WARP + lane, results)
                    return True
        return False

    def _lanes(self, warp: int, wait: Wait) -> dict[int, tuple[int, ...]] | None:
        """The operands of each lane of a warp that belongs to ``wait``'s mask; None while one is still to come."""
        found = {}
        mask = wait.mask
        for lane in range(WARP):
            number = warp * WARP + lane
            if not mask >> lane & 1 or number not in self._threads:
                continue
            other = self._waits[number]
            if other.kind != wait.kind or other.mask != mask:
                return None
            found[lane] = other.values
        return found or None  # a mask of nobody is waited for in vain

    # --- barriers -------------------------------------------------------------------------------------

    def _arrival(self) -> bool:
        """Let a warp whose threads that live are all at ``arrive`` go on."""
        for warp, members in self._warps().items():
            first = self._waits[members[0]]
            if "arrive" in first.instruction.modifiers and self._are_at(members, first):
                barrier = first.values[0]
                self._arrived[barrier] = (self._arrived.get(barrier, 0) + WARP) % first.values[1]
                for number in self._warps()[warp]:
                    self._go_on(number, ())
                return True
        return False

    def _barrier(self) -> bool:
        """Let the threads at a barrier go on where as many warps came as it is for."""
        for number, wait in self._waits.items():
            if not wait.is_barrier or "arrive" in wait.instruction.modifiers:
                continue
            barrier, has_count = wait.values[0], len(wait.values) > 1 + ("red" in wait.instruction.modifiers)
            warps = {warp: members for warp, members in self._warps().items() if self._are_at(members, wait)}
            came = WARP * len(warps) + self._arrived.get(barrier, 0)
            if number // WARP in warps and came == (wait.values[1] if has_count else WARP * len(self._warps())):
                self._arrived[barrier] = 0
                self._release(wait.instruction, [number for members in warps.values() for number in members])
                return True
        return False

    def _release(self, instruction: Instruction, members: Sequence[int]) -> None:
        results: tuple[int, ...] = ()
        if "red" in instruction.modifiers:
            predicates = [self._waits[number].values[-1] for number in members]
            count = sum(predicates)
            results = ({"popc": count, "and": count == len(members), "or": count > 0}[instruction.modifiers[-1]],)
        for number in members:
            self._go_on(number, results)

    def _warps(self) -> dict[int, list[int]]:
        """The threads that live, by warp."""
        warps: dict[int, list[int]] = {}
        for number in self._threads:
            warps.setdefault(number // WARP, []).append(number)
        return warps

    def _are_at(self, members: Sequence[int], wait: Wait) -> bool:
        """Whether threads all wait at the same barrier, for the same."""
        waits = [self._waits[number] for number in members]
        return all(other.kind == wait.kind and other.values[0] == wait.values[0] for other in waits)


def _specials(shape: tuple[int, int, int]) -> Iterator[dict[str, int]]:
    x, y, z = shape
    for number in range(x * y * z):
        lane = number % WARP
        own = 1 << lane
        yield {
            "tid.x": number % x,
            "tid.y": number // x % y,
            "tid.z": number // x // y,
            **{f"ntid.{axis}": size for axis, size in zip("xyz", shape, strict=True)},
            "laneid.": lane,
            "warpid.": number // WARP,
            "nwarpid.": -(-x * y * z // WARP),
            "lanemask_eq.": own,
            "lanemask_lt.": own - 1,
            "lanemask_le.": own * 2 - 1,
            "lanemask_ge.": -own & _MASK,
            "lanemask_gt.": -own * 2 & _MASK,
        }


# --- warp operations -----------------------------------------------------------------------------------------


def _together(instruction: Instruction, lanes: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """The results of each lane of a warp operation, with a predicate even where none is asked for."""
    firsts = {lane: values[0] for lane, values in lanes.items()}
    match instruction.root:
        case "bar":
            return dict.fromkeys(lanes, ())
        case "shfl":
            return {lane: _shuffle(instruction.modifiers[1], lane, lanes) for lane in lanes}
        case "vote":
            return dict.fromkeys(lanes, (_vote(instruction.modifiers[1], firsts),))
        case "redux":
            return dict.fromkeys(lanes, (_reduce(instruction, list(firsts.values())),))
    if "any" in instruction.modifiers:
        return {lane: (_mask(other for other in lanes if firsts[other] == firsts[lane]),) for lane in lanes}
    is_same = len(set(firsts.values())) == 1
    return dict.fromkeys(lanes, (_mask(lanes) if is_same else 0, int(is_same)))


def _mask(lanes: Iterator[int] | Mapping[int, object]) -> int:
    return sum(1 << lane for lane in lanes)


def _shuffle(mode: str, lane: int, lanes: Mapping[int, tuple[int, ...]]) -> tuple[int, int]:
    _, b, c, _ = lanes[lane]
    offset, clamp, segment = b & 31, c & 31, c >> 8 & 31
    first = lane & segment
    last = first | clamp & ~segment
    source = {
        "up": lane - offset,
        "down": lane + offset,
        "bfly": lane ^ offset,
        "idx": first | offset & ~segment,
    }[mode]
    is_inside = source >= last if mode == "up" else source <= last
    return lanes.get(source if is_inside else lane, lanes[lane])[0], int(is_inside)


def _vote(mode: str, predicates: Mapping[int, int]) -> int:
    match mode:
        case "ballot":
            return sum(predicate << lane for lane, predicate in predicates.items())
        case "all":
            return int(all(predicates.values()))
        case "any":
            return int(any(predicates.values()))
    return int(len(set(predicates.values())) == 1)


def _reduce(instruction: Instruction, values: Sequence[int]) -> int:
    mode = instruction.modifiers[-1]
    if instruction.type.is_signed:
        values = [signed(value, 32) for value in values]
    result = values[0]
    for value in values[1:]:
        result = {
            "add": result + value,
            "min": min(result, value),
            "max": max(result, value),
            "and": result & value,
            "or": result | value,
            "xor": result ^ value,
        }[mode]
    return result
