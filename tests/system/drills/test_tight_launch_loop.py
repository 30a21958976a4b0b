"""Guests that launch again and again and let their kernels do nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from collector import Collector, Span
from system.drills.drill import CULPRIT, NEIGHBOUR, OBJECTIVE_S, SLOW_DISPATCH, Drill
from system.drills.guests import FOR_EVER, LONG, SHORT

pytestmark = pytest.mark.slow

LOOPS = 8
MANY_PER_S = 1000


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Where the node's traces go."""
    collector = Collector()
    yield collector
    collector.close()


def launches_of(collector: Collector, instance: str) -> list[Span]:
    """The spans of an instance's launches that came so far, in order."""
    spans = [span for span in collector.spans if span.name == "wasi_cuda.launch"]
    return sorted((span for span in spans if span.attributes["instance_id"] == instance), key=lambda span: span.start)


def test_the_loops_are_ended(drill: Drill, collector: Collector):
    drill.start(
        TENSOR_WASM_DISPATCH_PERMITS="1",
        TENSOR_WASM_WORKERS="16",
        TENSOR_WASM_OTLP_ENDPOINT=collector.url,
    )
    work = drill.deploy(NEIGHBOUR)
    drill.call(1, NEIGHBOUR, drill.launching(work, LONG, 2), pause_s=0.05)
    usual = drill.usual_rate()
    loop = drill.deploy(CULPRIT)
    first = drill.call(1, CULPRIT, drill.launching(loop, SHORT, FOR_EVER), again=False)
    drill.brings_about(f"tenant {CULPRIT} has a loop that launches a kernel which does nothing")
    drill.until(lambda: drill.now(2) > 10 * usual, "the loop makes most launches")
    assert next(iter(drill.by_tenant(3))) == CULPRIT
    assert drill.value(1) < OBJECTIVE_S, "its quick launches outvote the others'"
    (instance,) = drill.instances(CULPRIT)
    assert instance["launches_per_s"] > 10 * usual
    drill.diagnoses(drill.observes(), "tight_launch_loop")

    more = drill.call(LOOPS - 1, CULPRIT, drill.launching(loop, SHORT, FOR_EVER), again=False)
    drill.brings_about(f"{LOOPS} such loops, and one permit")
    drill.fires(SLOW_DISPATCH, "page")
    assert drill.value(1) > OBJECTIVE_S
    assert drill.value(2) > 10 * usual
    launches = drill.by_tenant(3)
    assert launches[CULPRIT] > 10 * launches.get(NEIGHBOUR, 0)
    drill.by_tenant(3, which=2)
    assert drill.value(5) > OBJECTIVE_S
    drill.diagnoses(drill.observes(), "tight_launch_loop")
    drill.pauses()

    drill.does("tensor-wasm admin instance list --tenant 7")
    ids = [instance["id"] for instance in drill.instances(CULPRIT)]
    drill.does("tensor-wasm admin instance terminate", *ids)
    drill.recovers()
    for loops in (first, more):
        loops.join()
        assert set(loops.outcomes) == {"terminated"}

    spans = drill.until(lambda: launches_of(collector, instance["id"])[:100], "the first loop's trace has come")
    rate = len(spans) / ((spans[-1].end - spans[0].start) / 1e9)
    drill.narrator.answered(f"its trace: {rate:.0f} spans wasi_cuda.launch a second, execution_us {shown(spans)}")
    assert rate > MANY_PER_S


def shown(spans: list[Span]) -> str:
    """The middle of their times in the kernel."""
    return str(sorted(span.attributes["execution_us"] for span in spans)[len(spans) // 2])
