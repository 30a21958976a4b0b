"""``kernel compile`` and ``kernel run``: files in, files out, and every wrong word refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from device.ptx_texts import ENDLESS, SHAPED, STRUCT, store_parameter
from tensor_wasm.cli.kernel_arguments import DTYPES, read_argument
from tensor_wasm.runtime import Engine

ROOT = Path(__file__).resolve().parents[2]
VECTOR_ADD = ROOT / "examples" / "vector_add" / "vector_add.ptx"
CALLS = ROOT / "tests" / "kernels" / "calls.ptx"
LIMIT = 1 << 20


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.arange(1000, dtype=np.float32))
    np.save("b.npy", np.full((10, 100), 0.5, np.float32))
    return tmp_path


def run_add(cli, *more, a="a.npy", b="b.npy", c="zeros:f32:1000", n="1000"):
    arguments = [word for text in (a, b, c, n) for word in ("--arg", text)]
    return cli("kernel", "run", VECTOR_ADD, "--grid", "4", "--block", "256", *arguments, *more)


# --- run -----------------------------------------------------------------------------------------------------


def test_arrays_come_from_files_and_go_to_files(cli, files):
    before = (files / "a.npy").read_bytes()
    result = run_add(cli, "--save", "2=sum.npy", "--save", "0=copy.npy")
    assert (result.code, result.err) == (0, "")
    assert (np.load("sum.npy") == np.arange(1000, dtype=np.float32) + 0.5).all()
    assert (np.load("copy.npy") == np.load("a.npy")).all()
    assert (files / "a.npy").read_bytes() == before
    assert "float32[1000]: 0.5 1.5 2.5" in result.out
    assert "saved in sum.npy" in result.out
    assert sorted(path.name for path in files.iterdir()) == ["a.npy", "b.npy", "copy.npy", "sum.npy"]


def test_json_has_the_same(cli, files):
    np.save("a.npy", np.array([np.nan, np.inf, -np.inf, 1.0], np.float32))
    np.save("b.npy", np.zeros(4, np.float32))
    answer = run_add(cli, "--json", "--save", "2=sum.npy", c="zeros:f32:2x2", n="u32:4").json
    assert answer["kernel"] == "vector_add"
    assert answer["duration_ms"] > 0
    assert [argument["position"] for argument in answer["arguments"]] == [0, 1, 2, 3]
    assert answer["arguments"][2] == {
        "position": 2,
        "parameter": "vector_add_param_2",
        "type": "u64",
        "dtype": "float32",
        "shape": [2, 2],
        "first": ["NaN", "Infinity", "-Infinity", 1.0],
        "file": "sum.npy",
    }
    assert answer["arguments"][3]["value"] == 4


def test_files_of_other_layouts_are_read(cli, files):
    np.save("a.npy", np.arange(1000, dtype=">f4"))
    np.save("b.npy", np.asfortranarray(np.arange(1000, dtype=np.float32).reshape(20, 50)))
    assert run_add(cli, "--save", "2=sum.npy").code == 0
    assert (np.load("sum.npy") == 2 * np.arange(1000)).all()


def test_a_struct_is_written_in_hexadecimal(cli, files):
    Path("struct.ptx").write_text(STRUCT)
    raw = struct.pack("<ifI", -1, 2.5, 7)
    arguments = ["--arg", "zeros:u8:12", "--arg", f"bytes:{raw.hex()}", "--save", "0=out"]
    result = cli("kernel", "run", "struct.ptx", "--grid", "1", "--block", "1", *arguments, "--json")
    assert result.code == 0, result.err
    assert np.load("out").tobytes() == raw
    assert result.json["arguments"][1]["value"] == raw.hex()


@pytest.mark.parametrize("kind", ["f16", "f32", "f64", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"])
def test_scalars_of_every_type_reach_the_kernel(cli, files, kind):
    ptx_kind = kind.replace("i", "s")
    Path("keep.ptx").write_text(store_parameter(ptx_kind, DTYPES[kind].itemsize))
    arguments = ["--arg", f"zeros:{kind}:1", "--arg", f"{kind}:77", "--save", "0=out.npy"]
    assert cli("kernel", "run", "keep.ptx", "--grid", "1,1", "--block", "1,1,1", *arguments).code == 0
    assert np.load("out.npy")[0] == 77


def test_a_fault_says_where_and_saves_nothing(cli, files):
    result = run_add(cli, "--save", "2=sum.npy", c="zeros:f32:500")
    assert result.code == 1
    assert "trap: kernel vector_add faulted" in result.err
    assert "PTX line" in result.err
    assert not (files / "sum.npy").exists()


def test_a_timeout_has_its_exit_code(cli, files):
    Path("endless.ptx").write_text(ENDLESS)
    result = cli(
        "kernel", "run", "endless.ptx", "--grid", "1", "--block", "1", "--arg", "zeros:u32:1", "--timeout", "0.1"
    )
    assert result.code == 124
    assert "timeout" in result.err


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"n": "1.5"}, "argument 3 (vector_add_param_3, u32)"),
        ({"n": "i64:5"}, "argument 3 (vector_add_param_3, u32)"),
        ({"n": "0x1ffffffff"}, "out of the range of u32"),
        ({"a": "f64:1"}, "argument 0 (vector_add_param_0, u64)"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused_by_name(cli, files, more, reason):
    result = run_add(cli, **more)
    assert result.code == 1
    assert "invalid_kernel_args" in result.err
    assert reason in result.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--arg", "1"], "takes 4 arguments, not 1"),
        ([], "takes 4 arguments, not 0"),
        (["--save", "2"], "POSITION=FILE"),
        (["--save", "3=x.npy"], "only arrays can be saved, here 0, 1, 2"),
        (["--save", "9=x.npy"], "only arrays"),
        (["--save", "2=nowhere/x.npy"], "folder"),
        (["--timeout", "0"], "deadline"),
    ],
)
def test_wrong_usage_is_refused(cli, files, arguments, reason):
    good = ["--arg", "a.npy", "--arg", "b.npy", "--arg", "zeros:f32:1000", "--arg", "5"]
    given = arguments if arguments == [] or arguments[0] == "--arg" else good + arguments
    result = cli("kernel", "run", VECTOR_ADD, "--grid", "1", "--block", "1", *given)
    assert result.code == 2, result
    assert reason in result.err


@pytest.mark.parametrize("shape", ["", "1,", "1,2,3,4", "x", "-1", "1.5", "1;2"])
def test_a_shape_that_is_none_is_refused(cli, files, shape):
    result = cli("kernel", "run", VECTOR_ADD, f"--grid={shape}", "--block", "1")
    assert result.code == 2
    assert "--grid must be" in result.err


def test_the_device_s_limits_hold(cli, files):
    Path("shaped.ptx").write_text(SHAPED)
    assert cli("kernel", "run", "shaped.ptx", "--entry", "any", "--grid", "1", "--block", "8,4").code == 0
    result = cli("kernel", "run", "shaped.ptx", "--entry", "any", "--grid", "1", "--block", "1025")
    assert (result.code, "1,024" in result.err) == (1, True)
    result = cli("kernel", "run", "shaped.ptx", "--grid", "1", "--block", "1")
    assert (result.code, "name the entry" in result.err) == (1, True)
    result = cli("kernel", "run", "shaped.ptx", "--entry", "any", "--grid", "1", "--block", "1", "--device", "cuda:0")
    assert result.code == 2


# --- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5),
        ("-7", -7),
        ("0x10", 16),
        ("010", 10),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("i8:-128", np.int8(-128)),
        ("u64:0xffffffffffffffff", np.uint64((1 << 64) - 1)),
        ("f16:0.5", np.float16(0.5)),
        ("f32:0.1", np.float32(0.1)),
        ("+3", 3),
        ("f64:-inf", np.float64("-inf")),
        ("bytes:00ff", b"\x00\xff"),
        ("bytes:", b""),
    ],
)
def test_a_value_is_read_with_its_type(text, expected):
    value = read_argument(text, LIMIT)
    assert type(value) is type(expected)
    assert value == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "i32:",
        "i32:1.5",
        "i32:2147483648",
        "u8:-1",
        "u8:256",
        "f32:x",
        "f32:1e39",
        "f16:70000",
        "i128:1",
        "f8:1",
        "bytes:0",
        "bytes:zz",
        "zeros:f32",
        "zeros:f32:",
        "zeros:f32:-1",
        "zeros:f32:1x",
        "zeros:q:1",
        "zeros:f32:1x1x1x1x1x1x1x1x1",
        "npy:",
        "npy:.",
        "a\0.npy",
        "1" * 50,
        "i32:" + "9" * 5000,
    ],
)
def test_a_value_that_is_none_is_refused(cli, files, text):
    from tensor_wasm.cli.failures import Failure

    with pytest.raises(Failure) as caught:
        read_argument(text, LIMIT)
    assert caught.value.kind == "usage"
    assert len(str(caught.value)) < 400


def header(text: str, version: int = 1) -> bytes:
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(body)) + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x93NUMPY\x09\x00" + b"\0" * 100,
        b"PK\x03\x04" + b"\0" * 60,
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }") + b"\0" * 64,
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"\x80\x04N.",
        header("{'descr': '<f4', 'fortran_order': 1, 'shape': 5, }"),
        header("{'descr': 'zzz', 'fortran_order': False, 'shape': (1,), }"),
        header("[" * 100),
        header("__import__('os')"),
    ],
)
def test_a_file_that_is_no_npy_file_is_refused(files, content):
    from tensor_wasm.cli.failures import Failure

    (files / "bad.npy").write_bytes(content)
    with pytest.raises(Failure) as caught:
        read_argument("bad.npy", LIMIT)
    assert caught.value.kind == "usage"
    assert "bad.npy" in str(caught.value)


def test_what_is_larger_than_the_device_is_refused(files):
    from tensor_wasm.cli.failures import Failure

    np.save("large.npy", np.zeros(3 * LIMIT, np.uint8))
    for text in ("large.npy", "zeros:f64:999999999999999999", f"zeros:u8:{LIMIT + 1}"):
        with pytest.raises(Failure) as caught:
            read_argument(text, LIMIT)
        assert caught.value.kind == "too_large"
    for text in ("/dev/zero", "npy:/dev/null"):
        with pytest.raises(Failure) as caught:
            read_argument(text if text.startswith("npy:") else f"npy:{text}", LIMIT)
        assert "regular file" in str(caught.value)


# --- compile -------------------------------------------------------------------------------------------------


def test_compile_writes_a_module_and_says_what_it_takes(cli, files):
    result = cli("kernel", "compile", VECTOR_ADD, "-o", "add.wasm")
    assert (result.code, result.err) == (0, "")
    wasm = (files / "add.wasm").read_bytes()
    Engine().compile(wasm)  # raises when it is not valid
    assert b"block_x" in wasm
    assert f"{len(wasm):,} bytes" in result.out
    assert "vector_add_param_3  u32" in result.out
    answer = cli("kernel", "compile", VECTOR_ADD, "--entry", "vector_add", "--output", "add.wasm", "--json").json
    assert answer["size_bytes"] == len(wasm)
    assert answer["parameters"][3] == {"name": "vector_add_param_3", "type": "u32", "size_bytes": 4, "offset": 24}


def test_compile_refuses_what_it_cannot_do(cli, files):
    Path("shaped.ptx").write_text(SHAPED)
    Path("bad.ptx").write_text("nonsense")
    for arguments, code in (
        (["shaped.ptx", "-o", "x.wasm"], 1),
        (["shaped.ptx", "--entry", "no", "-o", "x.wasm"], 1),
        (["bad.ptx", "-o", "x.wasm"], 1),
        (["none.ptx", "-o", "x.wasm"], 2),
        (["shaped.ptx", "--entry", "any"], 2),
        (["shaped.ptx", "--entry", "any", "-o", "nowhere/x.wasm"], 1),
    ):
        result = cli("kernel", "compile", *arguments)
        assert result.code == code, (arguments, result)
        assert result.err.startswith("error: ")
        assert "internal" not in result.err
    assert not list(files.glob("*.wasm"))


# --- what kernels print --------------------------------------------------------------------------------------


def test_what_a_kernel_prints_goes_to_stderr(cli):
    words = ("kernel", "run", CALLS, "--grid", "1", "--block", "2")
    result = cli(*words, "--entry", "tell_often", "--arg", "1")
    assert result.code == 0
    assert result.err == "round 0 of thread 0\nround 0 of thread 1\n"
    assert "tell_often ran in" in result.out


def test_a_failed_assertion_is_told_and_fails(cli):
    words = ("kernel", "run", CALLS, "--grid", "1", "--block", "2")
    result = cli(*words, "--entry", "insist", "--arg", "zeros:i32:2", "--arg", "0")
    assert result.code == 1
    first, second = result.err.splitlines()
    assert first.endswith("insist: block: [0,0,0], thread: [0,0,0] Assertion `values[i] < n` failed.")
    assert "assertion `values[i] < n` failed at calls.cu" in second
