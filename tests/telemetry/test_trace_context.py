"""W3C trace context is read to the letter: what is not well-formed was not sent."""

from __future__ import annotations

import pytest

from tensor_wasm.telemetry.trace_context import STATE_BYTES_MAX, TraceContext, read

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def context(parent: str, *states: str) -> TraceContext | None:
    pairs = [(b"host", b"x"), (b"traceparent", parent.encode("latin-1"))]
    return read([*pairs, *((b"tracestate", state.encode("latin-1")) for state in states)])


@pytest.mark.parametrize(
    ("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True), ("fe", False)]
)
def test_the_sampled_flag_is_the_last_bit(flags: str, is_sampled: bool) -> None:
    assert context(f"00-{TRACE}-{SPAN}-{flags}") == TraceContext(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        GOOD.upper(),
        GOOD + "-",
        GOOD + "-extra",
        GOOD[:-1],
        GOOD + "1",
        GOOD.replace("-", "_"),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}g-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"01-{TRACE}-{SPAN}-01more",
        f"01-{TRACE}-{SPAN}-01-{'a' * 300}",
        f"{GOOD},{GOOD}",
        f"00-{TRACE}-{SPAN}-0١",
    ],
)
def test_what_is_malformed_counts_as_not_sent(parent: str) -> None:
    assert read([(b"traceparent", parent.encode()), (b"tracestate", b"a=b")]) is None


@pytest.mark.parametrize("parent", [f" \t{GOOD} ", f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-is-to-come"])
def test_space_around_and_later_versions_are_taken(parent: str) -> None:
    assert context(parent) == TraceContext(TRACE, SPAN, True)


def test_two_parents_are_none() -> None:
    assert read([(b"traceparent", GOOD.encode())] * 2) is None
    assert read([]) is None


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        (("rojo=00f067aa0ba902b7",), "rojo=00f067aa0ba902b7"),
        (("a=1, b=2", "c=3"), "a=1,b=2,c=3"),
        (("a=1,,b=2,",), "a=1,b=2"),
        (("fw529a3039@dt=x y",), "fw529a3039@dt=x y"),
        (("a=1,a=2",), ""),
        (("A=1",), ""),
        (("a=",), ""),
        (("a",), ""),
        (("a=1=2",), ""),
        (("a=\x7f",), ""),
        ((f"a={'x' * 257}",), ""),
        ((",".join(f"k{number}=v" for number in range(32)),), ",".join(f"k{number}=v" for number in range(32))),
        ((",".join(f"k{number}=v" for number in range(33)),), ""),
        ((f"a={'x' * 250},b={'x' * 250}", "c=1" * 4), ""),
        ((f"a={'x' * 200},b={'x' * 200},c={'x' * (STATE_BYTES_MAX - 408)}",), None),
    ],
)
def test_a_tracestate_is_whole_or_not_there(states: tuple[str, ...], kept: str | None) -> None:
    found = context(GOOD, *states)
    assert found is not None
    assert found.state == (states[0] if kept is None else kept)
    assert len(found.state) <= STATE_BYTES_MAX
