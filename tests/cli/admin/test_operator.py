"""What holds for every admin command: refusals that say what to do, and a place in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tensor_wasm.cli.admin import admin

COMMANDS = {
    "instance list": ("GET /admin/instances", []),
    "instance terminate": ("POST /admin/instances/x/terminate", ["x"]),
    "tenant list": ("GET /admin/tenants", []),
    "tenant show": ("GET /admin/tenants/7", ["7"]),
    "tenant set": ("PATCH /admin/tenants/7", ["7", "--weight", "2"]),
    "token create": ("POST /admin/tokens", ["--scope", "tenant=7"]),
    "token list": ("GET /admin/tokens", []),
    "token revoke": ("DELETE /admin/tokens/x", ["x"]),
    "model list": ("GET /admin/models", []),
    "model set": ("PUT /admin/models/7/m", ["m", "--tenant", "7", "--function", "f"]),
    "model delete": ("DELETE /admin/models/7/m", ["m", "--tenant", "7"]),
    "drain": ("POST /admin/drain", []),
}
EACH = pytest.mark.parametrize("name", list(COMMANDS))


def leaves(group: click.Group, above: str = "") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        path = f"{above} {name}".strip()
        found |= leaves(command, path) if isinstance(command, click.Group) else {path: command}
    return found


def test_these_tests_know_every_admin_command():
    assert leaves(admin).keys() == COMMANDS.keys()


@EACH
def test_a_token_that_may_not_is_exit_code_4_and_says_which_may(remote, node, name):
    route, arguments = COMMANDS[name]
    node.answer(route, {"error": {"kind": "forbidden", "message": "not allowed.", "request_id": "r"}}, 403)
    result = remote("admin", *name.split(), *arguments, "--json")
    assert result.code == 4
    assert result.err.startswith("error: forbidden: ")
    assert "not allowed; give a token with role=admin (--token, TENSOR_WASM_TOKEN)" in result.err
    assert "role=admin" in result.out


@EACH
def test_no_token_and_no_such_route_say_what_to_do(remote, node, name):
    route, arguments = COMMANDS[name]
    node.answer(route, {"error": {"kind": "unauthorized", "message": "who?", "request_id": "r"}}, 401)
    result = remote("admin", *name.split(), *arguments)
    assert (result.code, "TENSOR_WASM_TOKEN" in result.err) == (4, True)
    node.answers.clear()
    result = remote("admin", *name.split(), *arguments)
    assert (result.code, "older" in result.err) == (5, True)


@EACH
def test_a_node_s_own_words_on_a_conflict_or_a_limit_are_kept(remote, node, name):
    route, arguments = COMMANDS[name]
    error = {"kind": "rate_limited", "message": "ask again in 3 s", "request_id": "r"}
    node.answer(route, {"error": error}, 429)
    result = remote("admin", *name.split(), *arguments)
    assert result.code == 1
    assert result.err.endswith("ask again in 3 s\n")


@EACH
def test_each_is_in_the_reference(name):
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text("utf-8")
    rows = re.findall(r"^\| `admin ([a-z ]+?)(?: [A-Z.]+)?` \|(.*)\|$", page, re.MULTILINE)
    described = dict(rows)
    assert name in described
    flags = {flag for option in leaves(admin)[name].params for flag in option.opts + option.secondary_opts}
    common = {"--server", "--token", "--json", "--ca-cert", "--client-cert", "--client-key"}
    for flag in flags - common:
        assert not flag.startswith("--") or f"`{flag}" in described[name] or f"/{flag}" in described[name], flag
