"""``kernel check`` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from system.front_door import ROOT, run_cli

EXAMPLES = sorted((ROOT / "examples").glob("*/*.ptx"))
CORPUS = sorted((ROOT / "tests" / "corpus").glob("*.ptx"))
SUPPORTED = {"vector_add", "numba_saxpy", "triton_add", "general"}
BARRIER = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry fine()
{
  ret;
}
.visible .entry waits()
{
  bar.sync 0;
  ret;
}
"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_supported(path):
    result = run_cli("kernel", "check", path)
    assert result.code == 0, result.out
    assert result.out.rstrip().endswith("supported")


def test_what_is_missing_is_named_by_line_column_opcode_and_reason():
    result = run_cli("kernel", "check", "-", stdin=BARRIER)
    assert result.code == 1
    assert "-: fine: supported" in result.out
    assert "-: waits: not supported" in result.out
    assert "-:10:3: bar" in result.out


def test_the_same_as_json():
    result = run_cli("kernel", "check", "--json", EXAMPLES[0], "-", stdin=BARRIER)
    assert result.code == 1
    first, second = result.json["files"]
    assert (first["supported"], second["supported"], second["error"]) == (True, False, None)
    fine, waits = second["kernels"]
    assert (fine["name"], fine["supported"], fine["missing"]) == ("fine", True, [])
    assert not waits["supported"]
    (missing,) = waits["missing"]
    assert (missing["line"], missing["column"]) == (10, 3)
    assert missing["opcode"].startswith("bar")
    assert missing["reason"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"garbage", "-:1:"),
        (BARRIER.replace(b"bar.sync 0", b"\x1b[2J"), "-:10:"),
        (b"", "-:1:1:"),
        (b"\xff\xfe", "-:"),
    ],
)
def test_what_is_no_ptx_is_an_error_with_its_place(text, place):
    result = run_cli("kernel", "check", "-", stdin=text)
    assert result.code == 1
    assert place in result.out
    assert "error" in result.out
    assert "\x1b" not in result.out


def test_a_file_too_large_and_one_that_is_missing(tmp_path):
    path = tmp_path / "huge.ptx"
    path.write_bytes(b" " * ((8 << 20) + 1))
    assert run_cli("kernel", "check", path).code == 1
    assert run_cli("kernel", "check", tmp_path / "missing.ptx").code == 2


def test_every_file_of_the_corpus_is_supported_or_told_what_is_missing_and_on_which_line():
    result = run_cli("kernel", "check", "--json", *CORPUS)
    assert result.code == 1
    files = {Path(report["file"]).stem: report for report in result.json["files"]}
    assert {name for name, report in files.items() if report["supported"]} == SUPPORTED
    for path in CORPUS:
        report = files[path.stem]
        assert report["error"] is None
        lines = path.read_text().splitlines()
        missing = [item for kernel in report["kernels"] for item in kernel["missing"]]
        assert bool(missing) is not report["supported"]
        for item in missing:
            root = item["opcode"].partition(".")[0]
            assert lines[item["line"] - 1][item["column"] - 1 :].startswith(root), (path.name, item)
            assert item["reason"]
