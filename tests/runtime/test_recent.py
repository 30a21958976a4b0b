"""What is kept, and what goes when there is too much."""

from __future__ import annotations

from tensor_wasm.runtime import Recent


def kept(recent: Recent[str, bytes]) -> str:
    return "".join(key for key in "abcdef" if key in recent)


def test_what_was_used_last_is_kept_within_a_number() -> None:
    recent: Recent[str, bytes] = Recent(3, 100, len)
    for key in "abc":
        recent.put(key, b"x")
    assert recent.get("a") == b"x"
    recent.put("d", b"x")
    assert kept(recent) == "acd"
    assert recent.size_bytes == 3


def test_and_within_a_size() -> None:
    recent: Recent[str, bytes] = Recent(100, 10, len)
    for key in "abc":
        recent.put(key, b"xxxx")
    assert kept(recent) == "bc"
    recent.put("d", b"x" * 9)
    assert kept(recent) == "d"
    recent.put("e", b"x" * 11)
    assert (kept(recent), recent.size_bytes) == ("", 0)


def test_a_key_put_again_or_dropped_counts_once() -> None:
    recent: Recent[str, bytes] = Recent(100, 10, len)
    recent.put("a", b"xxxx")
    recent.put("a", b"xx")
    assert recent.size_bytes == 2
    recent.drop("a")
    recent.drop("a")
    assert (len(recent), recent.size_bytes) == (0, 0)


def test_a_look_does_not_count_as_use() -> None:
    recent: Recent[str, bytes] = Recent(2, 10, len)
    recent.put("a", b"x")
    recent.put("b", b"x")
    assert recent.peek("a") == b"x"
    recent.put("c", b"x")
    assert kept(recent) == "bc"
