"""``kernel check`` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from system.front_door import ROOT, run_cli

EXAMPLES = sorted((ROOT / "examples").glob("*/*.ptx"))
CORPUS = sorted((ROOT / "tests" / "corpus").glob("*.ptx"))
ALLOCA = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry fine()
{
  ret;
}
.visible .entry waits()
{
  .reg .u64 %r;
  alloca.u64 %r, 16;
  ret;
}
"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_supported(path):
    result = run_cli("kernel", "check", path)
    assert result.code == 0, result.out
    assert result.out.rstrip().endswith("supported")


def test_what_is_missing_is_named_by_line_column_opcode_and_reason():
    result = run_cli("kernel", "check", "-", stdin=ALLOCA)
    assert result.code == 1
    assert "-: fine: supported" in result.out
    assert "-: waits: not supported" in result.out
    assert "-:11:3: alloca" in result.out


def test_the_same_as_json():
    result = run_cli("kernel", "check", "--json", EXAMPLES[0], "-", stdin=ALLOCA)
    assert result.code == 1
    first, second = result.json["files"]
    assert (first["supported"], second["supported"], second["error"]) == (True, False, None)
    fine, waits = second["kernels"]
    assert (fine["name"], fine["supported"], fine["missing"]) == ("fine", True, [])
    assert not waits["supported"]
    (missing,) = waits["missing"]
    assert (missing["line"], missing["column"]) == (11, 3)
    assert missing["opcode"].startswith("alloca")
    assert missing["reason"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"garbage", "-:1:"),
        (ALLOCA.replace(b"alloca.u64 %r, 16", b"\x1b[2J"), "-:11:"),
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


def test_every_file_of_the_corpus_is_supported():
    result = run_cli("kernel", "check", "--json", *CORPUS)
    assert result.code == 0
    reports = result.json["files"]
    assert [Path(report["file"]) for report in reports] == CORPUS
    for report in reports:
        assert report["supported"], report
        assert report["kernels"]
        assert all(kernel["missing"] == [] for kernel in report["kernels"])
