from __future__ import annotations

import json

import pytest

from tensor_wasm.cli.admin.tenant import QUOTA_OPTIONS
from tensor_wasm.tenancy.quotas import QUOTA_FIELDS, Quotas

QUOTAS = {
    "weight": 1,
    "permits": None,
    "instances": 8,
    "guest_memory_bytes": 1 << 28,
    "gpu_memory_bytes": None,
    "functions": None,
    "stored_bytes": None,
    "rate_qps": 2.5,
    "rate_burst": None,
    "cuda": True,
}
USAGE = {
    "instances": 3,
    "queued": 5,
    "permits_held": 2,
    "launches_waiting": 6,
    "guest_memory_bytes": 3 << 19,
    "gpu_memory_bytes": 0,
    "functions": 1,
    "stored_bytes": 12_345,
}
TENANT = {"tenant": 7, "quotas": QUOTAS, "overrides": ["instances"], "usage": USAGE}
DEFAULT = {"tenant": None, "quotas": QUOTAS, "overrides": ["rate_qps"], "usage": None}


def test_every_quota_of_a_node_has_its_option_in_the_same_order():
    assert [option.field for option in QUOTA_OPTIONS] == list(QUOTA_FIELDS)
    booleans = {option.field for option in QUOTA_OPTIONS if option.read is None}
    assert booleans == {name for name, field in QUOTA_FIELDS.items() if field.type == "boolean"}
    for option in QUOTA_OPTIONS:
        is_limit = getattr(Quotas(), option.field) is None
        assert is_limit or option.field in ("weight", "cuda")
        assert option.usage is None or option.usage in USAGE


def test_a_list_has_the_defaults_and_then_each_tenant(remote, node):
    answer = {"defaults": QUOTAS, "tenants": [TENANT]}
    node.answer("GET /admin/tenants", answer)
    header, default, row = remote("admin", "tenant", "list").out.splitlines()
    assert default.startswith("default  1")
    for column, limit, held in [
        ("PERMITS", "- / -", "2 / -"),
        ("INSTANCES", "- / 8", "3 / 8"),
        ("GUEST MEMORY", "- / 256.0 MiB", "1.5 MiB / 256.0 MiB"),
        ("STORED", "- / -", "<0.1 MiB / -"),
        ("CUDA", "yes", "yes"),
        ("QUEUED", "-", "5"),
    ]:
        place = header.index(column)
        assert default[place:].split("  ")[0] == limit, column
        assert row[place:].split("  ")[0] == held, column
    assert remote("admin", "tenant", "list", "--json").json == answer


def test_show_says_what_a_tenant_holds_may_and_whose_rule_it_is(remote, node):
    node.answer("GET /admin/tenants/7", TENANT)
    result = remote("admin", "tenant", "show", "7")
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in result.out.splitlines()]
    assert ["tenant 7"] in lines
    assert ["instances", "3", "8", "own"] in lines
    assert ["permits", "2", "no limit", "default"] in lines
    assert ["guest-memory", "1.5 MiB", "256.0 MiB", "default"] in lines
    assert ["rate-qps", "-", "2.5", "default"] in lines
    assert ["rate-burst", "-", "one second's worth", "default"] in lines
    assert "5 invocations for a worker, 6 launches for a permit" in result.out
    assert remote("admin", "tenant", "show", "7", "--json").json == TENANT


def test_show_default_says_what_was_set(remote, node):
    node.answer("GET /admin/tenants/default", DEFAULT)
    lines = [line.split() for line in remote("admin", "tenant", "show", "default").out.splitlines()]
    assert ["tenant", "default"] in lines
    assert ["rate-qps", "-", "2.5", "set"] in lines
    assert ["weight", "-", "1", "built", "in"] in lines


def test_set_sends_what_was_said_and_nothing_else(remote, node):
    node.answer("PATCH /admin/tenants/7", TENANT)
    arguments = [
        "--weight",
        "3",
        "--permits",
        "4",
        "--instances",
        "0",
        "--guest-memory",
        "512MiB",
        "--gpu-memory",
        "1g",
    ]
    arguments += ["--functions", "9", "--stored", "1048576", "--rate-qps", "0.5", "--no-cuda", "--unset", "rate-burst"]
    result = remote("admin", "tenant", "set", "7", *arguments)
    assert result.code == 0
    assert "tenant 7" in result.out
    (asked,) = node.asked
    assert asked.headers["Content-Type"] == "application/json"
    assert json.loads(asked.body) == {
        "weight": 3,
        "permits": 4,
        "instances": 0,
        "guest_memory_bytes": 512 << 20,
        "gpu_memory_bytes": 1 << 30,
        "functions": 9,
        "stored_bytes": 1 << 20,
        "rate_qps": 0.5,
        "cuda": False,
        "rate_burst": None,
    }


@pytest.mark.parametrize("name", ["guest-memory", "guest_memory_bytes", "--guest-memory"])
def test_a_quota_is_unset_under_each_of_its_names(remote, node, name):
    node.answer("PATCH /admin/tenants/default", DEFAULT)
    assert remote("admin", "tenant", "set", "default", "--unset", name, "--cuda", "--json").json == DEFAULT
    assert json.loads(node.asked[0].body) == {"cuda": True, "guest_memory_bytes": None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["7"], "say what to change"),
        (["seven", "--weight", "1"], "`default`"),
        (["18446744073709551616", "--weight", "1"], "18446744073709551615"),
        (["7", "--weight", "-1"], "'-1' is no whole number"),
        (["7", "--weight", "1.5"], "'1.5' is no whole number"),
        (["7", "--weight", "٣"], "is no whole number"),
        (["7", "--permits", "9" * 5000], "is no whole number"),
        (["7", "--guest-memory", "12 parsecs"], "KiB, MiB or GiB"),
        (["7", "--rate-qps", "nan"], "'nan' is no number"),
        (["7", "--rate-qps", "-1"], "'-1' is no number"),
        (["7", "--unset", "colour"], "there are weight, permits, instances"),
        (["7", "--weight", "2", "--unset", "weight"], "contradict"),
        (["7", "--no-cuda", "--unset", "cuda"], "contradict"),
    ],
)
def test_wrong_usage_says_what_is_right_and_changes_nothing(remote, node, arguments, said):
    result = remote("admin", "tenant", "set", *arguments)
    assert result.code == 2
    assert said in result.err
    assert node.asked == []


def test_a_range_is_the_node_s_to_know(remote, node):
    error = {"kind": "invalid_request", "message": "weight must be a whole number, 1 to 1000", "request_id": "r"}
    node.answer("PATCH /admin/tenants/7", {"error": error}, 400)
    result = remote("admin", "tenant", "set", "7", "--weight", "0")
    assert (result.code, result.err) == (1, "error: invalid_request: weight must be a whole number, 1 to 1000\n")


@pytest.mark.parametrize("answer", [{}, {"quotas": [], "overrides": 1, "usage": []}, {"quotas": {"weight": "\x1b"}}])
def test_an_answer_of_another_shape_is_shown_all_the_same(remote, node, answer):
    node.answer("GET /admin/tenants/7", answer)
    result = remote("admin", "tenant", "show", "7")
    assert result.code == 0
    assert "\x1b" not in result.out
