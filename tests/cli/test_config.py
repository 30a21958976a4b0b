from __future__ import annotations

from tensor_wasm.config import SETTINGS


def test_every_setting_is_shown_with_value_and_source(cli, monkeypatch):
    monkeypatch.setenv("TENSOR_WASM_WORKERS", "3")
    rows = {row["name"]: row for row in cli("config", "show", "--json").json["settings"]}
    assert rows.keys() == {setting.variable for setting in SETTINGS}
    assert rows["TENSOR_WASM_WORKERS"] == {"name": "TENSOR_WASM_WORKERS", "value": "3", "source": "environment"}
    assert rows["TENSOR_WASM_DISPATCH_PERMITS"]["source"] == "default"


def test_secrets_are_masked_in_both_forms(cli, monkeypatch):
    monkeypatch.setenv("TENSOR_WASM_API_TOKENS", "hunter2:role=admin")
    monkeypatch.setenv("TENSOR_WASM_API_METRICS_TOKEN", "hunter2")
    for arguments in (["config", "show"], ["config", "show", "--json"]):
        result = cli(*arguments)
        assert result.code == 0
        assert "hunter2" not in result.out + result.err
        assert "not shown" in result.out


def test_a_misspelt_variable_is_a_warning_with_the_nearest_name(cli, monkeypatch):
    monkeypatch.setenv("TENSOR_WASM_WORKER", "3")
    assert "TENSOR_WASM_WORKERS" in cli("config", "show").err
    assert "TENSOR_WASM_WORKERS" in cli("config", "show", "--json").json["warnings"][0]


def test_a_bad_value_is_exit_code_2(cli, monkeypatch):
    monkeypatch.setenv("TENSOR_WASM_WORKERS", "many")
    result = cli("config", "show", "--json")
    assert result.code == 2
    assert result.json["error"]["kind"] == "invalid_configuration"
    assert "TENSOR_WASM_WORKERS" in result.err
