"""JSON bombs: whatever a body holds, reading it costs little, holds up nobody, and answers are small."""

from __future__ import annotations

import pytest

from security import bombs
from security.attacked import MIB, Answer, Attacked, check_calm

_BODY_BYTES = 16 * MIB
_ANSWER_BYTES = 64 * 1024


def _send(node: Attacked, function: str, body: bytes) -> Answer:
    answer = node.ask("POST", f"/functions/{function}/invoke", body, Content_Type="application/json")
    assert 400 <= answer.status < 500, answer.body[:300]
    assert len(answer.body) < _ANSWER_BYTES
    return answer


def _array(item: bytes, size_bytes: int = _BODY_BYTES) -> bytes:
    return b'{"export":"nothing","args":[' + (item + b",") * (size_bytes // (len(item) + 1)) + b"0]}"


def test_slow_numbers(node: Attacked, function: str):
    """Bound: arguments are counted before they are decoded; 1e308 takes 13 µs of the interpreter lock each."""
    for size_bytes in (60 * 1024, 512 * 1024):  # the event loop decodes the first itself
        answer = _send(node, function, _array(b"1e308", size_bytes))
        check_calm(node.worst())
        assert answer.kind == "too_many_args"


def test_millions_of_arguments(node: Attacked, function: str):
    """Bound: arguments are counted before there is a Python object for each."""
    before = node.resident_bytes
    assert _send(node, function, _array(b"0")).kind == "too_many_args"
    assert node.worst().resident_bytes < before + 4 * _BODY_BYTES


def test_numbers_of_millions_of_digits(node: Attacked, function: str):
    """Bound: an integer has at most as many digits as a float can have; no number takes more than linear time."""
    for number in (b"9" * _BODY_BYTES, b"0." + b"9" * _BODY_BYTES):
        _send(node, function, b'{"export":"trap","args":[' + number + b"]}")


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"args":['], ids=["arrays", "objects", "args"])
def test_deep_nesting(node: Attacked, function: str, opening: bytes):
    """Bound: nesting is refused where it starts, or where the decoder's own limit is; no stack overflows."""
    for start in (b"", b'{"args":', b'{"export":'):
        assert _send(node, function, start + opening * (16 * MIB // len(opening))).kind == "invalid_json"


def test_many_keys(node: Attacked, function: str):
    """Bound: the first key that is not of the contract ends the reading."""
    assert _send(node, function, b"{" + b'"a":1,' * (4 * MIB) + b'"b":1}').kind == "invalid_json"


def test_duplicate_keys(node: Attacked, function: str):
    """Bound: time linear in the body, memory none; the last one counts."""
    body = b"{" + b'"export":"absent",' * MIB + b'"export":"gone"}'
    assert "gone" in _send(node, function, body).message


def test_a_giant_string_is_not_given_back(node: Attacked, function: str):
    """Bound: what an error says of a caller's text is short, however long that is."""
    assert _send(node, function, b'{"export":"' + b"a" * (16 * MIB) + b'"}').kind == "missing_export"


def test_giant_names_of_exports_are_not_given_back(node: Attacked):
    """Bound: what an error says of a module's names is short, however long those are."""
    identity = node.deploy(bombs.functions(10, exported=True, letters="x" * 99_000))
    assert len(node.invoke(identity, "absent").body) < _ANSWER_BYTES


_NO_UNICODE = [
    b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\\ud800",
    b"\\udc00\\ud800", b"\\ud800\\u0041",
]  # fmt: skip


def test_text_that_is_no_unicode(node: Attacked, function: str):
    """Bound: overlong forms, surrogates alone and broken UTF-8 are invalid_json; never a 500, never another name."""
    for text in _NO_UNICODE:
        assert _send(node, function, b'{"export":"nothing' + text + b'"}').kind == "invalid_json"


def test_memory_of_refused_bodies_comes_back_at_once(node: Attacked, function: str):
    """Bound: what a request held is freed when it is answered, not when a collector of cycles happens to run."""
    body = b'{"export":"absent","input_b64":"' + b"A" * (24 * MIB) + b'"}'
    _send(node, function, body)
    before = node.resident_bytes
    for _ in range(4):
        _send(node, function, body)
    assert node.resident_bytes < before + 48 * MIB


def test_memory_of_inputs_comes_back_at_once(node: Attacked, function: str):
    """Bound: as above, for invocations that return."""
    data = bytes(12 * MIB)
    assert node.invoke(function, "nothing", data=data).status == 200
    before = node.resident_bytes
    for _ in range(8):
        assert node.invoke(function, "nothing", data=data).status == 200
    assert node.resident_bytes < before + 48 * MIB
