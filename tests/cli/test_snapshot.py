"""Snapshots on the command line: what is sent and shown, files that come whole or not at all, and a second node."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import sys
import threading
import tracemalloc
import uuid

import pytest
import wasmtime

from administered import administered
from tensor_wasm.cli import main
from tensor_wasm.store.signing import node_signing_key

ID = "00000000-0000-4000-8000-000000000000"
OTHER = "00000000-0000-4000-8000-000000000001"
ERROR = {"kind": "not_found", "message": "no such snapshot for this tenant", "request_id": "r"}
BLOCK = os.urandom(1 << 16)
#: Far more than a command may hold, which is what HELD_MAX_BYTES bounds: its imports and a few blocks.
LARGE_BYTES = 48 << 20
HELD_MAX_BYTES = 12 << 20


def names(directory):
    return sorted(path.name for path in directory.iterdir())


# --- what is sent and shown -----------------------------------------------------------------------------------


def test_save_prints_the_snapshot_s_id(remote, node):
    answer = {"snapshot_id": OTHER, "bytes": 65536, "sha": "ab" * 32}
    node.answer(f"POST /instances/{ID}/snapshot", answer)
    result = remote("snapshot", "save", ID)
    assert (result.code, result.out) == (0, f"{OTHER}\n")
    assert remote("snapshot", "save", ID, "--json").json == answer


def test_restore_says_how_long_it_may_be_idle_and_prints_the_instance_s_id(remote, node):
    node.answer(f"POST /snapshots/{ID}/restore", {"instance_id": OTHER})
    result = remote("snapshot", "restore", ID, "--idle-timeout", "2.5")
    assert (result.code, result.out) == (0, f"{OTHER}\n")
    assert json.loads(node.asked[0].body) == {"idle_timeout_s": 2.5}
    assert remote("snapshot", "restore", ID, "--json").json == {"instance_id": OTHER}
    assert json.loads(node.asked[1].body) == {}
    for command in ("snapshot", "restore"), ("instance", "spawn"):
        refused = remote(*command, ID, "--idle-timeout", "nan")
        assert (refused.code, "--idle-timeout" in refused.err) == (2, True)
    assert len(node.asked) == 2


def test_list_shows_a_row_for_each_and_nothing_a_terminal_obeys(remote, node):
    items = [
        {"id": ID, "function_name": "counter", "bytes": 3 << 20, "created_at": 1_700_000_000.0},
        {"id": OTHER, "function_name": "\x1b[2J", "bytes": "?", "created_at": None},
        {},
    ]
    node.answer("GET /snapshots", {"snapshots": items})
    lines = remote("snapshot", "list").out.splitlines()
    assert lines[0].split() == ["ID", "FUNCTION", "MEMORY", "TAKEN"]
    assert lines[1].split() == [ID, "counter", "3.0", "MiB", "2023-11-14", "22:13:20", "UTC"]
    assert lines[2].split() == [OTHER, "\\x1b[2J", "?"]
    assert remote("snapshot", "list", "--json").json == {"snapshots": items}


def test_delete_deletes_and_ids_are_escaped(remote, node):
    node.answer(f"DELETE /snapshots/{ID}", b"", 204)
    assert remote("snapshot", "delete", ID).out == f"deleted {ID}\n"
    assert remote("snapshot", "delete", ID, "--json").json == {"deleted": ID}
    assert remote("snapshot", "delete", "../functions?x").code == 5
    assert node.asked[-1].path == "/snapshots/..%2Ffunctions%3Fx"


@pytest.mark.parametrize(
    ("command", "route"),
    [
        (("save", ID), f"POST /instances/{ID}/snapshot"),
        (("restore", ID), f"POST /snapshots/{ID}/restore"),
        (("list",), "GET /snapshots"),
    ],
)
def test_what_is_no_node_is_told_so(remote, node, command, route):
    node.answer(route, {"hello": "world"})
    result = remote("snapshot", *command)
    assert (result.code, "is not a TensorWasm node" in result.err) == (3, True)


def test_deploy_warms_up_and_show_says_so(remote, node, tmp_path):
    (tmp_path / "warm.wasm").write_bytes(b"\0asm")
    node.answer("POST /functions", {"id": ID}, 201)
    assert remote("deploy", tmp_path / "warm.wasm", "--prewarm", "in&it").code == 0
    assert node.asked[0].path == "/functions?name=warm&prewarm=in%26it"
    node.answer(f"GET /functions/{ID}", {"id": ID, "settings": {"prewarm": "in\x1bit"}})
    assert "prewarm   in\\x1bit\n" in remote("function", "show", ID).out
    node.answer(f"GET /functions/{OTHER}", {"id": OTHER, "settings": {"prewarm": None}})
    assert "prewarm" not in remote("function", "show", OTHER).out


# --- files ----------------------------------------------------------------------------------------------------


def test_export_writes_the_file_and_leaves_nothing_beside_it(remote, node, tmp_path):
    node.answer(f"GET /snapshots/{ID}", BLOCK)
    file = tmp_path / "state.twsnap"
    file.write_bytes(b"older")
    result = remote("snapshot", "export", ID, file)
    assert (result.code, result.out) == (0, f"{file}: 0.1 MiB\n")
    assert file.read_bytes() == BLOCK
    result = remote("snapshot", "export", ID, file, "--json")
    assert result.json == {"snapshot_id": ID, "file": str(file), "file_bytes": len(BLOCK)}
    assert names(tmp_path) == ["state.twsnap"]


def test_export_to_stdout_is_the_file_alone(node, capfdbinary):
    node.answer(f"GET /snapshots/{ID}", BLOCK)
    assert main(["--server", node.url, "snapshot", "export", ID, "-"]) == 0
    assert capfdbinary.readouterr() == (BLOCK, b"")


def test_a_refused_export_leaves_what_was_there(remote, node, tmp_path):
    node.answer(f"GET /snapshots/{ID}", {"error": ERROR}, 404)
    file = tmp_path / "state.twsnap"
    file.write_bytes(b"older")
    assert remote("snapshot", "export", ID, file).code == 5
    assert (file.read_bytes(), names(tmp_path)) == (b"older", ["state.twsnap"])


def test_what_cannot_be_written_is_not_asked_for(remote, node, tmp_path):
    for file in ("", tmp_path, tmp_path / "none" / "state.twsnap"):
        assert remote("snapshot", "export", ID, file).code == 2
    result = remote("snapshot", "export", ID, "-", "--json")
    assert (result.code, result.json["error"]["kind"]) == (2, "usage")
    assert node.asked == []


def test_import_sends_the_file_and_prints_the_new_id(remote, node, tmp_path):
    file = tmp_path / "state.twsnap"
    file.write_bytes(BLOCK)
    node.answer(f"PUT /snapshots/{ID}", {"id": ID, "bytes": 65536}, 201)
    result = remote("snapshot", "import", file, "--id", ID.upper())
    assert (result.code, result.out) == (0, f"{ID}\n")
    (asked,) = node.asked
    assert (asked.body, asked.headers["Content-Type"]) == (BLOCK, "application/octet-stream")
    assert remote("snapshot", "import", file, "--id", ID, "--json").json == {"id": ID, "bytes": 65536}
    assert remote("snapshot", "import", file).code == 5  # no such route at the stand-in: the id is a new one
    assert uuid.UUID(node.asked[-1].path.removeprefix("/snapshots/")).version == 4
    assert file.read_bytes() == BLOCK


def test_what_cannot_be_read_is_not_sent(remote, node, tmp_path):
    file = tmp_path / "state.twsnap"
    for arguments in ((file,), (tmp_path,), ("",)):
        assert remote("snapshot", "import", *arguments).code == 2
    file.write_bytes(b"x")
    for identity in ("", "x", ID[:-1], ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"):
        result = remote("snapshot", "import", file, "--id", identity)
        assert (result.code, "--id" in result.err) == (2, True)
    assert node.asked == []


def test_a_file_that_shrinks_meanwhile_is_not_taken_for_whole(remote, node, tmp_path, monkeypatch):
    file = tmp_path / "state.twsnap"
    file.write_bytes(BLOCK)
    real = os.fstat

    def larger(descriptor):
        found = real(descriptor)
        return os.stat_result([*found[:6], found.st_size + 10, *found[7:10]])

    monkeypatch.setattr("tensor_wasm.cli.snapshot_files.os.fstat", larger)
    result = remote("snapshot", "import", file)
    assert (result.code, "became shorter" in result.err) == (1, True)


@pytest.mark.parametrize(("kind", "status", "code"), [("snapshot_signature_invalid", 403, 4), ("conflict", 409, 1)])
def test_a_refused_import_says_why(remote, node, tmp_path, kind, status, code):
    (tmp_path / "x").write_bytes(b"x")
    node.answer(f"PUT /snapshots/{ID}", {"error": {"kind": kind, "message": "it says why"}}, status)
    result = remote("snapshot", "import", tmp_path / "x", "--id", ID)
    assert (result.code, result.err) == (code, f"error: {kind}: it says why\n")


# --- large ones -----------------------------------------------------------------------------------------------


class Vault(http.server.BaseHTTPRequestHandler):
    """A node with one large snapshot, which it does not hold; all but those named ``whole`` break off.

    What is uploaded is counted and forgotten.
    """

    protocol_version = "HTTP/1.1"
    received_bytes = 0

    def do_GET(self):
        self.send_response(200)
        is_chunked = "chunks" in self.path
        if is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(LARGE_BYTES))
        self.end_headers()
        is_whole = self.path.startswith("/snapshots/whole")
        for _ in range(LARGE_BYTES // len(BLOCK) if is_whole else 3):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if is_chunked else BLOCK)
        if is_whole and is_chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def do_PUT(self):
        if self.headers["Content-Length"]:
            count = int(self.headers["Content-Length"])
            while count:
                count -= self._take(min(count, len(BLOCK)))
        else:
            while size := int(self.rfile.readline(), 16):
                self._take(size)
                self.rfile.readline()
            self.rfile.readline()
        body = json.dumps({"id": ID}).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _take(self, size):
        taken = len(self.rfile.read(size))
        assert taken == size
        type(self).received_bytes += taken
        return taken

    def log_message(self, *_):
        pass


@pytest.fixture
def vault():
    class Handler(Vault):
        pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Handler.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield Handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def holding_little():
    """Neither the command nor the stand-in, whose allocations count together, may hold what a snapshot has."""
    tracemalloc.start()
    try:
        yield
        held_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held_bytes < HELD_MAX_BYTES


def large_file(path):
    with path.open("wb") as file:
        for _ in range(LARGE_BYTES // len(BLOCK)):
            file.write(BLOCK)


def is_blocks(path):
    with path.open("rb") as file:
        return all(part == BLOCK for part in iter(lambda: file.read(len(BLOCK)), b""))


@pytest.mark.parametrize("name", ["whole", "whole-in-chunks"])
def test_a_download_is_not_held_in_memory(cli, vault, tmp_path, name):
    with holding_little():
        result = cli("--server", vault.url, "snapshot", "export", name, tmp_path / "file", "--json")
    assert result.json["file_bytes"] == LARGE_BYTES == (tmp_path / "file").stat().st_size
    assert is_blocks(tmp_path / "file")


def test_an_upload_is_not_held_in_memory(cli, vault, tmp_path, monkeypatch):
    file = tmp_path / "file"
    large_file(file)
    with holding_little():
        assert cli("--server", vault.url, "snapshot", "import", file, "--id", ID).out == f"{ID}\n"
    assert vault.received_bytes == LARGE_BYTES
    with file.open("rb") as raw, holding_little():
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
        assert cli("--server", vault.url, "snapshot", "import", "-", "--id", ID).out == f"{ID}\n"
        sys.stdin.detach()
    assert vault.received_bytes == 2 * LARGE_BYTES


@pytest.mark.parametrize("name", ["cut", "cut-in-chunks"])
def test_a_cut_download_is_an_error_and_leaves_what_was_there(cli, vault, tmp_path, name):
    file = tmp_path / "file"
    for before in (None, b"older"):
        if before is not None:
            file.write_bytes(before)
        result = cli("--server", vault.url, "snapshot", "export", name, file)
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("error: stream_cut: the snapshot did not come whole")
        assert names(tmp_path) == ([] if before is None else ["file"])
    assert file.read_bytes() == b"older"
    assert cli("--server", vault.url, "snapshot", "export", name, "-").code == 1


def test_a_terminal_sees_how_far_it_is_and_a_script_does_not(cli, vault, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("tensor_wasm.cli.snapshot_files._REFRESH_S", 0)
    for is_json in (False, True):
        monkeypatch.setattr(sys, "stderr", Terminal())
        result = cli("--server", vault.url, "snapshot", "export", "whole", tmp_path / "x", *["--json"] * is_json)
        assert result.code == 0
        shown = sys.stderr.getvalue()
        assert ("\r24.0 MiB" in shown, shown == "") == (not is_json, is_json)
        assert is_json or shown.endswith("\r        \r")


# --- keys -----------------------------------------------------------------------------------------------------


def test_key_shows_a_home_s_public_key_and_makes_none(cli, tmp_path):
    home = tmp_path / "home"
    result = cli("snapshot", "key", "--home", home)
    assert (result.code, "serve" in result.err) == (5, True)
    assert not home.exists()
    public = node_signing_key(home).public
    result = cli("snapshot", "key", "--home", home)
    assert (result.code, result.out) == (0, f"{public.text}\n")
    as_json = cli("snapshot", "key", "--home", home, "--json").json
    assert as_json == {"public_key": public.text, "fingerprint": public.fingerprint, "home": str(home)}
    (home / "signing.key").write_bytes(b"garbage")
    result = cli("snapshot", "key", "--home", home)
    assert (result.code, "is damaged" in result.err) == (1, True)


# --- the whole way --------------------------------------------------------------------------------------------

WAT = """(module (memory (export "memory") 2) (func (export "step") (result i32)
  (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1))) (i32.load (i32.const 8))))"""


def test_an_instance_is_carried_from_one_node_to_another_that_trusts_its_key(cli, tmp_path):
    """The guest counts its calls, and goes on counting on the other node."""
    there = tmp_path / "there"
    file, module = tmp_path / "state.twsnap", tmp_path / "counter.wasm"
    module.write_bytes(wasmtime.wat2wasm(WAT))

    def at(server):
        def run(*arguments):
            return cli("--server", f"http://{server.host}:{server.port}", "--token", "one", *arguments)

        return run

    with administered(tmp_path / "here") as server:
        here = at(server)
        kept = here("instance", "spawn", here("deploy", module).out.strip()).out.strip()
        assert here("instance", "invoke", kept, "--export", "step").out == "1\n"
        saved = here("snapshot", "save", kept)
        assert saved.code == 0, saved.err
        snapshot = saved.out.strip()
        assert here("instance", "invoke", kept, "--export", "step").out == "2\n"
        assert snapshot in here("snapshot", "list").out
        exported = here("snapshot", "export", snapshot, file)
        assert (exported.code, exported.out) == (0, f"{file}: <0.1 MiB\n")
        again = here("snapshot", "import", file, "--id", snapshot)
        assert (again.code, again.err.split()[1]) == (1, "conflict:")
        assert here("snapshot", "delete", snapshot).code == 0
        assert here("snapshot", "export", snapshot, file).code == 5
    key = cli("snapshot", "key", "--home", tmp_path / "here").out.strip()

    with administered(there) as server:
        refused = at(server)("snapshot", "import", file)
        assert refused.code == 4
        assert f"snapshot_signature_invalid: the snapshot is signed by {key}" in refused.err

    with administered(there, snapshot_keys=key, snapshot_file_bytes=1 << 20) as server:
        elsewhere = at(server)
        imported = elsewhere("snapshot", "import", file, "--id", OTHER)
        assert (imported.code, imported.out) == (0, f"{OTHER}\n")
        restored = elsewhere("snapshot", "restore", OTHER, "--idle-timeout", "60")
        assert restored.code == 0, restored.err
        assert elsewhere("instance", "invoke", restored.out.strip(), "--export", "step").out == "2\n"
        second = elsewhere("snapshot", "restore", OTHER).out.strip()
        assert elsewhere("instance", "invoke", second, "--export", "step").out == "2\n"
        assert elsewhere("snapshot", "import", file, "--tenant", "1").code == 0
        assert len(elsewhere("snapshot", "list", "--json").json["snapshots"]) == 2
        damaged = tmp_path / "damaged"
        damaged.write_bytes(file.read_bytes()[:-5])
        assert "snapshot_truncated" in elsewhere("snapshot", "import", damaged).err
        large_file(damaged)  # refused long before it is sent
        assert "TENSOR_WASM_SNAPSHOT_FILE_BYTES" in elsewhere("snapshot", "import", damaged).err
