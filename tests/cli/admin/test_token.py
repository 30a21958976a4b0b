from __future__ import annotations

import json
import subprocess
import sys

SECRET = "tw_" + "A" * 43
CREATED = {"id": "id-1", "token": SECRET, "name": "ci", "scope": "tenant=7", "created_at": 1_700_000_000.0}
LISTED = [
    {"id": "settings-1", "name": "", "scope": "role=admin", "source": "settings", "created_at": None}
    | {"last_used_at": None},
    {"id": "id-1", "name": "ci \x1b[2J", "scope": "tenant=7", "source": "database", "created_at": 1_700_000_000.0}
    | {"last_used_at": 1_700_000_060.0},
]


def test_create_prints_the_secret_alone_and_says_elsewhere_that_it_is_shown_once(remote, node):
    node.answer("POST /admin/tokens", CREATED, 201)
    result = remote("admin", "token", "create", "--scope", "tenant=7", "--name", "ci")
    assert (result.code, result.out) == (0, f"{SECRET}\n")
    assert "once" in result.err
    assert "tensor-wasm admin token revoke id-1" in result.err
    assert SECRET not in result.err
    assert json.loads(node.asked[0].body) == {"scope": "tenant=7", "name": "ci"}


def test_a_shell_takes_the_secret_as_it_stands(node):
    node.answer("POST /admin/tokens", CREATED, 201)
    command = f"{sys.executable} -m tensor_wasm --server {node.url} admin token create --scope tenant=7"
    script = f'TOKEN=$({command} 2> /dev/null) && printf "<%s>" "$TOKEN"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"<{SECRET}>"


def test_create_without_a_name_sends_none_and_json_is_one_document(remote, node):
    node.answer("POST /admin/tokens", CREATED, 201)
    result = remote("admin", "token", "create", "--scope", "role=admin", "--json")
    assert (result.json, result.err) == (CREATED, "")
    assert json.loads(node.asked[0].body) == {"scope": "role=admin"}


def test_create_prints_no_secret_that_the_node_did_not_give(remote, node):
    node.answer("POST /admin/tokens", {"id": "id-1"}, 201)
    result = remote("admin", "token", "create", "--scope", "tenant=7")
    assert (result.code, result.out) == (3, "")


def test_the_first_token_s_rule_comes_in_the_node_s_words(remote, node):
    error = {"kind": "conflict", "message": "the first token must be role=admin", "request_id": "r"}
    node.answer("POST /admin/tokens", {"error": error}, 409)
    result = remote("admin", "token", "create", "--scope", "tenant=7")
    assert (result.code, result.err) == (1, "error: conflict: the first token must be role=admin\n")


def test_a_list_says_where_a_token_is_from_and_when_it_was_used(remote, node):
    node.answer("GET /admin/tokens", {"tokens": LISTED})
    result = remote("admin", "token", "list")
    header, first, second = result.out.splitlines()
    assert header.split() == ["ID", "NAME", "SCOPE", "FROM", "CREATED", "LAST", "USED"]
    assert first.split() == ["settings-1", "role=admin", "settings", "-", "never"]
    assert "ci \\x1b[2J" in second
    assert "2023-11-14 22:13:20 UTC  2023-11-14 22:14:20 UTC" in second
    assert remote("admin", "token", "list", "--json").json == {"tokens": LISTED}


def test_revoke_says_so_and_of_an_unknown_id_where_ids_are(remote, node):
    node.answer("DELETE /admin/tokens/id-1", b"", 204)
    assert remote("admin", "token", "revoke", "id-1").out == "revoked id-1\n"
    assert remote("admin", "token", "revoke", "id-1", "--json").json == {"revoked": "id-1"}
    node.answer("DELETE /admin/tokens/id-2", {"error": {"kind": "not_found", "message": "no such token"}}, 404)
    result = remote("admin", "token", "revoke", "id-2")
    assert result.code == 5
    assert result.err == "error: not_found: no such token; list tokens with `tensor-wasm admin token list`\n"
