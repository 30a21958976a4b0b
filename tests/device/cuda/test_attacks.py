"""One tenant's kernels see nothing of two others', change nothing there, and end nobody's work.

The engine runs them on the emulated driver, or on the GPU whose index ``TENSOR_WASM_TEST_GPU`` is. Where that is set a
process goes through the attacks, and another goes on after one that ended the context; ``emulated`` tries that.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import pytest

from device.cuda.attacks import HEAD, READS, WRITES, Attack
from device.cuda.boards import STAGING_BYTES, Board
from device.cuda.emulated import EmulatedDriver
from tensor_wasm.device.cuda.board import Result
from tensor_wasm.device.cuda.driver import Driver
from tensor_wasm.device.fence import GUARD_BYTES, Partition, fence
from tensor_wasm.errors import PtxError
from tensor_wasm.ptx import read

ATTACKS = {**READS, **WRITES}
GPU = os.environ.get("TENSOR_WASM_TEST_GPU", "")
IS_REAL = GPU.isdigit()

CANARY = 0x5C
#: What a kernel must not see: canaries in any number of bytes, and what memory holds that nobody cleared.
SECRETS = {CANARY, CANARY * 0x101, CANARY * 0x101_0101, 0xDBDBDBDB}
BEFORE, ATTACKER, AFTER = 1, 2, 3
LANE, OTHER_LANE = 5, 6
#: Of the attacker's partition: an array that is his, and where his modules' variables are.
ARRAY, IMAGE = 4096, 1 << 16
#: The staging area's part that is other tenants'.
STAGED = STAGING_BYTES // 2
ANSWER_S = 120

#: Leaves canaries wherever a kernel can leave something on a GPU's processors.
TRACES = f"""{HEAD}.extern .shared .align 16 .b8 buffer[];
    .visible .entry traces(.param .u64 out) {{
    .reg .b32 %r<80>; .reg .b64 %rd<8>; .reg .pred %p<2>; .local .align 16 .b8 mine[4096];
    mov.u32 %r1, {CANARY * 0x101_0101}; mov.u32 %r2, %tid.x; shl.b32 %r3, %r2, 2; mov.u32 %r4, buffer;
    add.u32 %r3, %r3, %r4; mov.u32 %r5, 0; mov.u64 %rd1, mine;
    again: st.shared.u32 [%r3], %r1; add.u32 %r3, %r3, 1024; add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 48;
    @%p1 bra again;
    more: st.local.u32 [%rd1], %r1; add.s64 %rd1, %rd1, 4; add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 1072;
    @%p1 bra more;
    ld.param.u64 %rd2, [out]; ld.local.u32 %r6, [mine+64]; ld.shared.u32 %r7, [buffer+64];
    st.global.v2.u32 [%rd2], {{%r6, %r7}}; ret; }}"""


def open_driver() -> Driver:
    """That of the GPU under test, else an emulated one."""
    if IS_REAL:
        from tensor_wasm.device.cuda.bindings import CudaDriver

        return CudaDriver()
    return EmulatedDriver(memory_bytes=16 << 20, granularity_bytes=1 << 16)


class Scene:
    """An attacker between two tenants whose memory is all canaries."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.board = Board(driver).open()
        size = (8 << 20) if IS_REAL else (512 << 10)
        for tenant in (BEFORE, ATTACKER, AFTER):
            self.board.open_tenant(tenant, size)
        self.partition = self.board.partitions[ATTACKER]
        self.others = [self.board.partitions[tenant] for tenant in (BEFORE, AFTER)]
        self.board.engine.open_lane(LANE, ATTACKER)
        self.board.engine.open_lane(OTHER_LANE, BEFORE)
        self.board.staging[STAGED:] = bytes([CANARY]) * (STAGING_BYTES - STAGED)
        self.array = self.partition.base + ARRAY
        self._traces = self.board.kernel(BEFORE, TRACES, image=size // 2)
        for tenant in (BEFORE, AFTER):
            self.board.engine.set_memory(tenant, self.board.partitions[tenant].base, CANARY, size)

    @functools.cached_property
    def targets(self) -> list[int]:
        """Addresses that are not the attacker's, and some that are nobody's."""
        own, (before, after) = self.partition, self.others
        end = own.base + own.size_bytes
        nearby = [own.base - 4, own.base - GUARD_BYTES - 16, end, end + GUARD_BYTES, end + 2 * GUARD_BYTES]
        theirs = [each.base + place for each in (before, after) for place in (0, 4096, 8191, each.size_bytes - 16)]
        pinned = [self.board.address + 64, self.board.address + len(self.board.view) - 64]
        nowhere = [0, 8, 1, (1 << 32) + 4096, 1 << 47, 1 << 63, (1 << 64) - 4, own.base + ARRAY + (1 << 48)]
        return [*theirs, *nearby, *pinned, *nowhere]

    @property
    def theirs(self) -> list[int]:
        """Of them, one in each other partition."""
        return [each.base + 4096 for each in self.others]

    def run(self, attack: Attack, *, is_fenced: bool = True) -> None:
        """Have an attack at every target. Raises AssertionError where it has an effect."""
        if attack.refused:
            with pytest.raises(PtxError, match=attack.refused):
                self.kernel(attack.ptx(0, 0))
            return
        targets = self.theirs if attack.is_written_for_a_target or not is_fenced else self.targets
        self.leave_traces()
        kernel = 0
        for target in targets:
            if not kernel or attack.is_written_for_a_target:
                kernel = self.kernel(attack.ptx(target, target - self.array), is_fenced=is_fenced)
            self.launch(attack, kernel, target)
            if attack.is_written_for_a_target:
                self.board.engine.remove_kernel(kernel)
                kernel = 0
        self.look_after_others()
        if kernel:
            self.board.engine.remove_kernel(kernel)

    def kernel(self, ptx: str, *, is_fenced: bool = True) -> int:
        """A kernel of the attacker's."""
        program = read(ptx)
        text, image = ptx, bytes(16)
        if is_fenced:
            target = self.board.engine.facts.sm if IS_REAL else None
            fenced = fence(program, "k", self.partition, self.partition.base + IMAGE, target=target)
            text, image = fenced.ptx, fenced.image
        module = self.board.engine.assemble(text.encode())
        return self.board.engine.add_kernel(ATTACKER, module, "k", self.partition.base + IMAGE, image, True)[0]

    def launch(self, attack: Attack, kernel: int, target: int) -> None:
        """One launch, and what it saw."""
        board = self.board
        if IS_REAL:
            self.leave_traces()
        board.engine.set_memory(ATTACKER, self.partition.base, 0, ARRAY + 256)
        numbers = (self.array, target, (target - self.array) % (1 << 64))
        result, _ = board.launch(LANE, kernel, *numbers, block=(attack.block, 1, 1), shared_bytes=attack.shared_bytes)
        assert result is Result.OK, target
        seen = np.frombuffer(board.read(ATTACKER, self.array, 256), np.uint32)
        assert SECRETS.isdisjoint(seen.tolist()), f"{target:#x}: {seen[:4]}"

    def leave_traces(self) -> None:
        """Have another tenant's kernel leave its canaries on the processors."""
        grid, out = (4 * self.board.engine.facts.multiprocessors if IS_REAL else 1), self.others[0].base
        done = self.board.launch(
            OTHER_LANE, self._traces, out, grid=(grid, 1, 1), block=(256, 1, 1), shared_bytes=48 << 10
        )
        assert done == (Result.OK, 0)
        if IS_REAL:
            return
        assert self.board.read(BEFORE, out, 8) == bytes([CANARY]) * 8

    def look_after_others(self) -> None:
        """All canaries are alive."""
        for tenant in (BEFORE, AFTER):
            partition = self.board.partitions[tenant]
            for start in range(0, partition.size_bytes, STAGED):
                size_bytes = min(STAGED, partition.size_bytes - start)
                data = np.frombuffer(self.board.read(tenant, partition.base + start, size_bytes), np.uint8)
                wrong = np.flatnonzero(data != CANARY) + start
                assert not wrong.size, f"tenant {tenant}: {wrong[:8]}"
        staged = np.frombuffer(bytes(self.board.staging[STAGED:]), np.uint8)
        assert (staged == CANARY).all(), "the staging area"

    def close(self) -> None:
        """Give all of it back."""
        engine = self.board.engine
        engine.close_lane(LANE)
        engine.close_lane(OTHER_LANE)
        for tenant in (BEFORE, ATTACKER, AFTER):
            engine.close_tenant(tenant)
        self.board.close()


# --- in this process, emulated --------------------------------------------------------------------------------------


class Scenes:
    """A scene, and another after one that an attack broke."""

    def __init__(self) -> None:
        self._scene: Scene | None = None

    def run(self, attack: Attack, *, is_fenced: bool = True) -> None:
        if self._scene is None:
            self._scene = Scene(open_driver())
        scene = self._scene
        try:
            scene.run(attack, is_fenced=is_fenced)
        except BaseException:
            self._scene = None
            assert isinstance(scene.driver, EmulatedDriver)
            scene.driver.close()
            raise

    def close(self) -> None:
        if self._scene is not None:
            driver = self._scene.driver
            self._scene.close()
            assert isinstance(driver, EmulatedDriver)
            with driver:
                pass


@pytest.fixture(scope="module")
def scenes() -> Iterator[Scenes]:
    made = Scenes()
    yield made
    made.close()


# --- in processes of their own, on a GPU ----------------------------------------------------------------------------


@functools.cache
def outcomes() -> dict[str, str]:
    """What came of each attack on the GPU: nothing, or what went wrong."""
    found: dict[str, str] = {}
    while left := [name for name in ATTACKS if name not in found]:
        found |= _outcomes_of(left)
    return found


def _outcomes_of(names: Sequence[str]) -> dict[str, str]:
    """As many as one process gets through."""
    found: dict[str, str] = {}
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(list(names)))
        process.stdin.close()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.select(ANSWER_S) and (line := process.stdout.readline()):
                name, text = json.loads(line)
                found[name] = text
        process.kill()
    if len(found) < len(names) and not any(found.values()):
        found[names[len(found)]] = "its process ended, or did not go on"
    return found


def main() -> None:
    """Go through the attacks whose names stand on the standard input, up to the first that has an effect."""
    names = json.load(sys.stdin)
    scene = Scene(open_driver())
    for name in names:
        text = ""
        try:
            scene.run(ATTACKS[name])
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(1, (json.dumps([name, text]) + "\n").encode())
        if text:
            os._exit(1)  # nothing can be given back once a context is lost
    scene.close()


# --- tests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_has_no_effect(scenes: Scenes, name: str) -> None:
    if GPU:
        assert not outcomes()[name]
    else:
        scenes.run(ATTACKS[name])


#: What an attack has to do to memory that is not fenced, for these tests to be worth something.
SEEN = (
    "load ", "generic load ", "read only", "four", "an added distance", "with an offset", "from a number",
    "from memory", "where threads part", "atomic addition", "atomic exchange", "asynchronous copy of 16",
)  # fmt: skip
CHANGED = (
    "store ", "generic store ", "store four", "reduction by addition", "swap what is known", "store in a function",
)  # fmt: skip


@pytest.mark.skipif(IS_REAL, reason="without a fence it would have an effect")
@pytest.mark.parametrize("name", [*SEEN, *CHANGED])
def test_an_attack_without_a_fence_would_be_noticed(name: str) -> None:
    scenes = Scenes()
    with pytest.raises(AssertionError, match="tenant" if name in CHANGED else "0x"):
        scenes.run(ATTACKS[name], is_fenced=False)
    scenes.close()


def test_a_partition_is_where_these_tests_think(scenes: Scenes) -> None:
    """The guard zones show the partition itself; the others' are near."""
    if GPU:
        pytest.skip("looked at in this process")
    scenes.run(Attack(""))
    scene = scenes._scene
    assert scene is not None
    own: Partition = scene.partition
    assert all(abs(each.base - own.base) < 1 << 23 for each in scene.others)
    assert len(scene.targets) == len(set(scene.targets))


if __name__ == "__main__":
    main()
