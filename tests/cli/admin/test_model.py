from __future__ import annotations

import json

BOUND = {
    "name": "org/story:1",
    "tenant": 7,
    "function_id": "f-1",
    "function_name": "lm",
    "export": None,
    "created_at": 1_700_000_000.0,
}
LISTED = [BOUND, BOUND | {"name": "old", "function_name": None, "export": "speak\x1b[2J"}]


def test_set_binds_a_name_with_slashes_to_a_function(remote, node):
    node.answer("PUT /admin/models/7/org%2Fstory%3A1", BOUND)
    result = remote("admin", "model", "set", "org/story:1", "--tenant", "7", "--function", "f-1")
    assert (result.code, result.out) == (0, "org/story:1 of tenant 7 is answered by f-1\n")
    assert json.loads(node.asked[0].body) == {"function_id": "f-1"}
    assert "X-TensorWasm-Tenant" not in node.asked[0].headers
    result = remote(
        "admin", "model", "set", "org/story:1", "--tenant", "7", "--function", "f-1", "--export", "x", "--json"
    )
    assert result.json == BOUND
    assert json.loads(node.asked[1].body) == {"function_id": "f-1", "export": "x"}


def test_set_and_delete_want_to_know_whose_model_it_is(remote, node):
    for words in (("set", "m", "--function", "f-1"), ("delete", "m")):
        result = remote("admin", "model", *words)
        assert (result.code, node.asked) == (2, [])
        assert "--tenant NUMBER" in result.err


def test_a_list_shows_what_answers_and_what_does_no_more(remote, node):
    node.answer("GET /admin/models", {"models": LISTED})
    header, first, second = remote("admin", "model", "list").out.splitlines()
    assert header.split() == ["NAME", "TENANT", "FUNCTION", "NAMED", "EXPORT", "BOUND"]
    assert first.split()[:5] == ["org/story:1", "7", "f-1", "lm", "-"]
    assert second.split()[:5] == ["old", "7", "f-1", "(deleted)", "speak\\x1b[2J"]
    assert remote("admin", "model", "list", "--tenant", "7", "--json").json == {"models": LISTED}
    assert [asked.path for asked in node.asked] == ["/admin/models", "/admin/models?tenant=7"]


def test_delete_says_so_and_of_an_unknown_name_where_names_are(remote, node):
    node.answer("DELETE /admin/models/7/m", b"", 204)
    assert remote("admin", "model", "delete", "m", "--tenant", "7").out == "deleted m of tenant 7\n"
    assert remote("admin", "model", "delete", "m", "--tenant", "7", "--json").json == {"deleted": "m", "tenant": 7}
    node.answer("DELETE /admin/models/7/n", {"error": {"kind": "model_not_found", "message": "no such model"}}, 404)
    result = remote("admin", "model", "delete", "n", "--tenant", "7")
    assert (result.code, result.err) == (5, "error: model_not_found: no such model\n")
