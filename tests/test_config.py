from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from tensor_wasm.config import SETTINGS, Config, describe, load, settings_page, split_address
from tensor_wasm.errors import ConfigurationError


def test_every_field_has_its_row_and_every_row_its_field():
    assert [row.name for row in describe()] == [field.name for field in fields(Config)]


def test_defaults_are_those_of_the_contract():
    config = load({"HOME": "/home/somebody"}).config
    assert config.home == Path("/home/somebody/.local/share/tensor-wasm")
    assert (config.listen_host, config.listen_port) == ("127.0.0.1", 8080)
    assert (config.device, config.dispatch_permits, config.invoke_deadline_s) == ("auto", 64, 30.0)
    assert (config.max_body_bytes, config.log, config.log_format) == (64 * 1024 * 1024, "info", "text")
    assert config.workers >= 4
    assert config.api_tokens is None
    assert config.dev_mode is False


def test_defaults_pass_their_own_checks():
    defaults = load({"HOME": "/home/somebody"})
    written = {row.name: getattr(defaults.config, row.name) for row in SETTINGS}
    again = load({}, written)
    assert again.config == defaults.config


def test_the_data_directory_of_the_user_is_respected():
    assert load({"XDG_DATA_HOME": "/data", "HOME": "/h"}).config.home == Path("/data/tensor-wasm")
    assert load({"XDG_DATA_HOME": "relative", "HOME": "/h"}).config.home == Path("/h/.local/share/tensor-wasm")


def test_a_flag_goes_before_the_environment_and_sources_say_so():
    loaded = load({"TENSOR_WASM_WORKERS": "3", "TENSOR_WASM_DRAIN_S": "2.5"}, {"workers": 7, "log": None})
    assert loaded.config.workers == 7
    assert loaded.config.drain_s == 2.5
    assert (loaded.sources["workers"], loaded.sources["drain_s"], loaded.sources["log"]) == (
        "flag",
        "environment",
        "default",
    )


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("64KiB", 65_536), ("2 MiB", 2 << 20), ("1g", 1 << 30), ("1GiB", 1 << 30)]
)
def test_sizes_may_have_a_unit(text, size):
    assert load({"TENSOR_WASM_MAX_BODY_BYTES": text}).config.max_body_bytes == size


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DISPATCH_PERMITS", "0"),
        ("DISPATCH_PERMITS", "1000001"),
        ("DISPATCH_PERMITS", "9" * 5000),
        ("DISPATCH_PERMITS", "٣"),
        ("DISPATCH_PERMITS", "6_4"),
        ("WORKERS", "-1"),
        ("WORKERS", "four"),
        ("INVOKE_DEADLINE_S", "nan"),
        ("INVOKE_DEADLINE_S", "inf"),
        ("INVOKE_DEADLINE_S", "0"),
        ("MAX_BODY_BYTES", "2GiB"),
        ("MAX_BODY_BYTES", "64 XiB"),
        ("MAX_BODY_BYTES", "1.5MiB"),
        ("LISTEN_ADDR", "8080"),
        ("LISTEN_ADDR", "127.0.0.1"),
        ("LISTEN_ADDR", "127.0.0.1:65536"),
        ("LISTEN_ADDR", "::1:80"),
        ("LISTEN_ADDR", "[::1]:"),
        ("DEVICE", "gpu"),
        ("DEVICE", "cuda:"),
        ("DEVICE", "cuda:1000"),
        ("DEVICE", "cuda:GPU-2f1b0c1e"),
        ("DEVICE", "cuda:2f1b0c1e-0000-1111-2222-0123456789ab"),
        ("LOG", "loud"),
        ("LOG_FORMAT", "xml"),
        ("DEV_MODE", "2"),
        ("HOME", "/tmp/a\0b"),
        ("HOME", "~nobody-of-this-name/x"),
    ],
)
def test_a_bad_value_stops_with_name_form_and_range(name, text):
    with pytest.raises(ConfigurationError) as caught:
        load({f"TENSOR_WASM_{name}": text})
    row = next(row for row in SETTINGS if row.name == name.lower())
    assert f"TENSOR_WASM_{name}" in caught.value.message
    assert row.form.text in caught.value.message
    assert row.form.range in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("name", ["api_tokens", "api_metrics_token"])
def test_a_secret_is_shown_nowhere(name):
    loaded = load({f"TENSOR_WASM_{name.upper()}": "hunter2:tenant=*"})
    assert "hunter2" not in repr(loaded)
    assert "hunter2" not in str(loaded.rows())
    assert (f"TENSOR_WASM_{name.upper()}", "(set, not shown)", "environment") in loaded.rows()
    with pytest.raises(ConfigurationError) as caught:
        load({f"TENSOR_WASM_{name.upper()}": "hunter2\x07x"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda:0", "cuda:999", "cuda:GPU-2f1b0c1e-0000-1111-2222-0123456789AB"])
def test_a_device_goes_by_kind_number_or_uuid(text):
    assert load({"TENSOR_WASM_DEVICE": text}).config.device == text


def test_an_empty_variable_is_not_set_but_an_empty_secret_stops_the_start():
    loaded = load({"TENSOR_WASM_WORKERS": " "})
    assert loaded.sources["workers"] == "default"
    with pytest.raises(ConfigurationError, match="TENSOR_WASM_API_TOKENS is empty"):
        load({"TENSOR_WASM_API_TOKENS": ""})


def test_an_unknown_variable_is_a_warning_with_the_nearest_name():
    loaded = load({"TENSOR_WASM_WORKER": "3", "TENSOR_WASM_TOKEN": "t", "TENSOR_WASM_SERVER": "s", "OTHER": "x"})
    assert len(loaded.warnings) == 1
    assert "TENSOR_WASM_WORKER " in loaded.warnings[0]
    assert "TENSOR_WASM_WORKERS" in loaded.warnings[0]


def test_a_setting_that_is_none_cannot_be_overridden():
    with pytest.raises(ConfigurationError, match="no setting 'worker'"):
        load({}, {"worker": 3})


def test_settings_cannot_be_changed():
    config = load({}).config
    with pytest.raises(FrozenInstanceError):
        config.workers = 1


def test_ipv6_addresses_are_read():
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("localhost:0") == ("localhost", 0)


def test_the_page_of_the_documentation_is_fresh():
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    assert page.read_text() == settings_page(), "run: python -m tensor_wasm.config > docs/settings.md"
