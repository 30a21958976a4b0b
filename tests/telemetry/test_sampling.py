"""Samplers by OpenTelemetry's variables; and no client can have more traced than it may."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from tensor_wasm.errors import ConfigurationError
from tensor_wasm.telemetry.sampling import Decision, Sampler
from tensor_wasm.telemetry.trace_context import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = TraceContext(TRACE, SPAN, True, "a=b"), TraceContext(TRACE, SPAN, False)
#: A trace id that every ratio takes.
LOW = TraceContext("a" * 16 + "0" * 15 + "1", SPAN, False)


def sampler(name: str = "", argument: str = "", asked_qps: float = 1000.0) -> Sampler:
    return Sampler({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument}, asked_qps)


def share(of: Sampler, context: TraceContext | None = None, count: int = 4000) -> float:
    return sum(of.decide(context, 1) is not None for _ in range(count)) / count


@pytest.mark.parametrize(
    ("name", "argument", "of_roots", "of_sampled", "of_unsampled"),
    [
        ("", "", 1, 1, 0),
        ("always_on", "", 1, 1, 1),
        ("always_off", "", 0, 0, 0),
        ("traceidratio", "0", 0, 0, 0),
        ("traceidratio", "1", 1, 1, 1),
        ("traceidratio", "", 1, 1, 1),
        ("parentbased_always_on", "", 1, 1, 0),
        ("parentbased_always_off", "", 0, 1, 0),
        ("Parentbased_TraceIdRatio", "0", 0, 1, 0),
        ("parentbased_traceidratio", " 1.0 ", 1, 1, 0),
    ],
)
def test_a_sampler_takes_what_its_name_says(
    name: str, argument: str, of_roots: float, of_sampled: float, of_unsampled: float
) -> None:
    made = sampler(name, argument)
    assert share(made, None, 50) == of_roots
    assert share(made, SAMPLED, 50) == of_sampled
    assert share(made, NOT_SAMPLED, 50) == of_unsampled


def test_a_ratio_takes_about_so_many_and_the_same_as_the_sdks_sampler() -> None:
    made, theirs = sampler("traceidratio", "0.25"), TraceIdRatioBased(0.25)
    assert share(made) == pytest.approx(0.25, abs=0.05)
    for last in range(0, 1 << 64, 1 << 58):
        context = TraceContext(f"{1:016x}{last:016x}", SPAN, False)
        wanted = theirs.should_sample(None, int(context.trace_id, 16), "x").decision.is_sampled()
        assert (made.decide(context, 1) is not None) == wanted, hex(last)


def test_a_trace_goes_on_where_it_came_from_and_a_new_one_has_a_new_id() -> None:
    assert sampler().decide(SAMPLED, 1) == Decision(TRACE, SPAN, "a=b")
    found = [sampler().decide(None, 1) for _ in range(100)]
    assert all(decision and decision.parent_id == "" and len(decision.trace_id) == 32 for decision in found)
    assert len({decision.trace_id for decision in found if decision}) == 100


@pytest.mark.parametrize(
    ("name", "argument", "context"),
    [
        ("parentbased_always_off", "", SAMPLED),
        ("parentbased_traceidratio", "0.001", SAMPLED),
        ("traceidratio", "0.001", LOW),
    ],
)
def test_what_clients_ask_for_is_bounded_for_each_tenant(name: str, argument: str, context: TraceContext) -> None:
    made = sampler(name, argument, 0.001)
    taken = [made.decide(context, tenant) is not None for tenant in (1, 2) for _ in range(100)]
    assert taken[0]
    assert taken[100]
    assert sum(taken) <= 6  # and those that the ratio takes, one in a thousand
    assert share(sampler(name, argument, 0), context, 500) < 0.02


def test_what_the_sampler_takes_by_itself_is_not_bounded() -> None:
    assert share(sampler("parentbased_always_on", "", 0), SAMPLED, 100) == 1
    assert share(sampler("parentbased_traceidratio", "0.5", 0), SAMPLED) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("sometimes", ""),
        ("traceidratio", "2"),
        ("traceidratio", "-0.1"),
        ("parentbased_traceidratio", "nan"),
        ("traceidratio", "half"),
    ],
)
def test_variables_that_cannot_be_read_stop_the_start(name: str, argument: str) -> None:
    with pytest.raises(ConfigurationError, match=r"OTEL_TRACES_SAMPLER(_ARG)?='"):
        sampler(name, argument)
