from __future__ import annotations

import pytest

ID = "00000000-0000-4000-8000-00000000000a"
OTHER = "00000000-0000-4000-8000-00000000000b"
INSTANCE = {
    "id": ID,
    "tenant": 18_446_744_073_709_551_615,
    "function_id": "f" * 36,
    "function_name": "adder",
    "export": "run",
    "age_s": 62.5,
    "deadline_left_s": 4.25,
    "state": "in_kernel",
    "launches": 1234,
    "launches_per_s": 56.78,
    "held_permits": 2,
    "memory_bytes": 3 << 19,
    "gpu_memory_bytes": 1,
    "is_ending": False,
}
ENDED = {"id": ID, "tenant": 7, "function_id": "f", "ended": True, "took_ms": 3.25}
NOT_FOUND = {"error": {"kind": "not_found", "message": "no live instance has this id", "request_id": "r"}}


def test_a_list_shows_all_that_is_known_of_an_instance(remote, node):
    node.answer("GET /admin/instances", {"instances": [INSTANCE]})
    header, row = remote("admin", "instance", "list").out.splitlines()
    columns = ["ID", "TENANT", "FUNCTION", "EXPORT", "AGE", "TIME LEFT", "STATE"]
    columns += ["LAUNCHES", "PER S", "PERMITS", "MEMORY", "GPU MEMORY"]
    cells = [row[header.index(name) :].split("  ")[0].strip() for name in columns]
    assert cells[:7] == [ID, str((1 << 64) - 1), "adder", "run", "1m 02s", "4.2s", "in kernel"]
    assert cells[7:] == ["1234", "56.8", "2", "1.5 MiB", "<0.1 MiB"]


def test_a_list_for_scripts_is_exact(remote, node):
    node.answer("GET /admin/instances", {"instances": [INSTANCE]})
    assert remote("admin", "instance", "list", "--json").json == {"instances": [INSTANCE]}


def test_an_instance_without_a_deadline_and_one_that_is_being_ended_say_so(remote, node):
    node.answer("GET /admin/instances", {"instances": [INSTANCE | {"deadline_left_s": None, "is_ending": True}]})
    out = remote("admin", "instance", "list").out
    assert "none" in out
    assert "in kernel, ending" in out


def test_names_of_tenants_functions_cannot_move_a_terminal(remote, node):
    evil = INSTANCE | {"function_name": "\x1b]0;x\x07", "export": "a\nb\u202e"}
    node.answer("GET /admin/instances", {"instances": [evil]})
    out = remote("admin", "instance", "list").out
    assert "\\x1b]0;x\\x07" in out
    assert "a\\x0ab\\u202e" in out
    assert not set("\x1b\x07\u202e") & set(out)


def test_a_tenant_is_chosen_by_a_flag_on_either_side(remote, node):
    node.answer("GET /admin/instances", {"instances": []})
    assert remote("admin", "instance", "list", "--tenant", "7").code == 0
    assert remote("--tenant", "7", "admin", "instance", "list").code == 0
    assert remote("--tenant", "7", "admin", "instance", "list", "--tenant", "8").code == 0
    assert [asked.path.partition("?")[2] for asked in node.asked] == ["tenant=7", "tenant=7", "tenant=8"]


def test_the_environment_s_tenant_hides_no_instance_and_is_not_acted_for(remote, node, monkeypatch):
    node.answer("GET /admin/instances", {"instances": []})
    monkeypatch.setenv("TENSOR_WASM_TENANT", "7")
    assert remote("admin", "instance", "list").code == 0
    (asked,) = node.asked
    assert asked.path == "/admin/instances"
    assert "X-TensorWasm-Tenant" not in asked.headers


@pytest.mark.parametrize("answer", [{}, {"instances": {}}, {"instances": [1]}, []])
def test_a_list_of_another_shape_is_no_node(remote, node, answer):
    node.answer("GET /admin/instances", answer)
    assert remote("admin", "instance", "list").code == 3


def test_a_list_survives_fields_of_another_shape(remote, node):
    wrong = {name: {"x": 1} for name in INSTANCE}
    node.answer("GET /admin/instances", {"instances": [{}, wrong, dict.fromkeys(INSTANCE)]})
    result = remote("admin", "instance", "list")
    assert result.code == 0
    assert len(result.out.splitlines()) == 4


def test_terminate_says_which_ended_and_how_fast(remote, node):
    node.answer(f"POST /admin/instances/{ID}/terminate", ENDED)
    result = remote("admin", "instance", "terminate", ID)
    assert (result.code, result.out, result.err) == (0, f"terminated {ID} (tenant 7) in 3.2 ms\n", "")
    assert remote("admin", "instance", "terminate", ID, "--json").json == {"instances": [ENDED]}


def test_terminate_of_an_unknown_id_says_where_ids_are(remote, node):
    node.answer(f"POST /admin/instances/{OTHER}/terminate", NOT_FOUND, 404)
    result = remote("admin", "instance", "terminate", OTHER)
    assert (result.code, result.out) == (5, "")
    assert result.err == (
        f"error: not_found: {OTHER}: no live instance has this id; list live ones with"
        " `tensor-wasm admin instance list`\n"
    )


def test_terminate_of_several_tries_each_and_ends_as_the_worst(remote, node):
    stuck = "00000000-0000-4000-8000-00000000000c"
    node.answer(f"POST /admin/instances/{OTHER}/terminate", NOT_FOUND, 404)
    node.answer(f"POST /admin/instances/{stuck}/terminate", ENDED | {"id": stuck, "ended": False, "took_ms": 1000.0})
    node.answer(f"POST /admin/instances/{ID}/terminate", ENDED)
    result = remote("admin", "instance", "terminate", OTHER, stuck, ID, ID, "--json")
    assert result.code == 1
    first, second, third = result.json["instances"]
    assert (first["id"], first["error"]["kind"]) == (OTHER, "not_found")
    assert (second["id"], second["error"]["kind"]) == (stuck, "still_ending")
    assert third == ENDED
    assert len(result.err.splitlines()) == 2
    assert len(node.asked) == 3
    assert remote("admin", "instance", "terminate", ID, OTHER).code == 5


def test_terminate_does_not_ask_again_and_again_where_it_is_denied(remote, node):
    error = {"error": {"kind": "forbidden", "message": "the token is no administrator's", "request_id": "r"}}
    for identity in (ID, OTHER):
        node.answer(f"POST /admin/instances/{identity}/terminate", error, 403)
    result = remote("admin", "instance", "terminate", ID, OTHER, "--json")
    assert result.code == 4
    assert [report["error"]["kind"] for report in result.json["instances"]] == ["forbidden", "forbidden"]
    assert "role=admin" in result.err
    assert len(node.asked) == 1


def test_an_id_cannot_leave_its_place_in_the_path(remote, node):
    assert remote("admin", "instance", "terminate", "../drain?x#\x1b[2J").code == 5
    assert node.asked[0].path == "/admin/instances/..%2Fdrain%3Fx%23%1B%5B2J/terminate"
