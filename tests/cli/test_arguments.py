from __future__ import annotations

import json
import os

import pytest

from tensor_wasm.cli.arguments import check_deadline, function_name, read_arguments, read_file
from tensor_wasm.cli.failures import Failure


def test_integers_keep_every_digit():
    assert read_arguments("[9007199254740993, -9223372036854775808, 18446744073709551615]") == [
        9007199254740993,
        -9223372036854775808,
        18446744073709551615,
    ]
    assert read_arguments('[1.5, "NaN", -0.0]') == [1.5, "NaN", 0.0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "character 0"),
        ("{}", "not an object"),
        ("1", "not a number"),
        ("null", "not null"),
        ('"x"', "not a string"),
        ("[1,", "character 3"),
        ("[NaN]", 'the string "NaN"'),
        ("[-Infinity]", 'the string "-Infinity"'),
        ("[1e999]", "beyond the range of f64"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "digits"),
        ("[" + "1," * 600_000 + "1]", "at most"),
        ("\x00", "character 0"),
    ],
)
def test_arguments_that_are_no_array_say_what_to_write(text, reason):
    with pytest.raises(Failure) as caught:
        read_arguments(text)
    assert caught.value.exit_code == 2
    assert reason in caught.value.message
    assert "'[1, 2.5, \"NaN\"]'" in caught.value.message


def test_a_file_is_read_whole_and_too_large_a_one_is_not(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(os.urandom(3 << 20))
    assert read_file(str(path)) == path.read_bytes()
    with pytest.raises(Failure, match="3145727 bytes, which is the limit") as caught:
        read_file(str(path), (3 << 20) - 1)
    assert caught.value.kind == "body_too_large"


def test_an_endless_file_ends_at_the_limit():
    with pytest.raises(Failure, match="the limit"):
        read_file("/dev/zero", 1 << 20)


@pytest.mark.parametrize("make", ["missing", "directory", "unreadable", "empty name", "long name"])
def test_what_is_no_readable_file_is_wrong_usage(tmp_path, make):
    paths = {
        "missing": tmp_path / "missing\x1b[2J",
        "directory": tmp_path,
        "unreadable": "/proc/self/mem",
        "empty name": "",
        "long name": "x" * 5000,
    }
    with pytest.raises(Failure) as caught:
        read_file(str(paths[make]))
    assert caught.value.exit_code == 2
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "path", "name"),
    [
        (None, "dir/vector_add.wasm", "vector_add"),
        (None, "my module (2).wasm", "my-module-2"),
        (None, "x" * 300 + ".wasm", "x" * 64),
        ("as given \x1b", "f.wasm", "as given \x1b"),
    ],
)
def test_a_function_is_named_after_its_file(given, path, name):
    assert function_name(given, path) == name


@pytest.mark.parametrize("path", ["-", "мир.wasm", "...."])
def test_a_name_that_cannot_be_made_must_be_given(path):
    with pytest.raises(Failure, match="--name"):
        function_name(None, path)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 86_401.0])
def test_a_deadline_outside_its_range_is_wrong_usage(value):
    with pytest.raises(Failure, match=r"0\.001 to 86400"):
        check_deadline(value)


def test_read_arguments_agrees_with_json_on_random_arrays():
    import random

    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    for _ in range(200):
        values = [source.choice([source.randint(-(1 << 64), 1 << 64), source.random(), "NaN"]) for _ in range(9)]
        assert read_arguments(json.dumps(values)) == values
