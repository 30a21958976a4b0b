"""One tenant against another: what is somebody else's is as if it were not there, and leaves nothing behind."""

from __future__ import annotations

import hmac
import json
import statistics
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from security.attacked import Answer, Attacked
from security.conftest import ADMIN, TOKENS, bearer
from security.guests import entry, kernel_call, probe, u64
from tensor_wasm.tenancy import TokenBook


@pytest.fixture(scope="session")
def theirs(shared_by_tenants: Attacked) -> str:
    """A function of tenant 2."""
    return shared_by_tenants.deploy(probe(), **bearer(2))


@pytest.fixture(scope="session")
def mine(shared_by_tenants: Attacked) -> str:
    """The same module, deployed by tenant 1."""
    return shared_by_tenants.deploy(probe(), **bearer(1))


def _shape(answer: Answer) -> tuple[object, ...]:
    """All of an answer but what is new in each: its id, which has a number that counts, and its date."""
    headers = {k: v for k, v in answer.headers.items() if k not in ("x-request-id", "date", "content-length")}
    body = answer.json
    length = int(answer.headers["content-length"]) - len(body["error"].get("request_id", ""))
    body["error"]["request_id"] = ""
    return answer.status, headers, body, length


_ROUTES = [
    ("GET", "/functions/{}", None),
    ("DELETE", "/functions/{}", None),
    ("POST", "/functions/{}/invoke", b"{}"),
    ("POST", "/functions/{}/invoke", b'{"export":"absent"}'),
    ("POST", "/functions/{}/invoke", b'{"args":[1,2,3]}'),
    ("GET", "/functions?after={}", None),
    ("GET", "/functions?limit=1&after={}", None),
    ("PUT", "/functions/{}", None),
    ("POST", "/functions/{}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), _ROUTES)
def test_ids_of_others_are_ids_of_nothing(tenants: Attacked, mine: str, theirs: str, method, path, body):
    """Bound: by every route another's id gives the answer that a random one gives: status, headers, body, length."""
    more = bearer(1) | ({"Content_Type": "application/json"} if body else {})
    theirs_answer = tenants.ask(method, path.format(theirs), body, **more)
    nobodys_answer = tenants.ask(method, path.format(uuid.uuid4()), body, **more)
    assert theirs_answer.status >= 400
    assert _shape(theirs_answer) == _shape(nobodys_answer)
    assert tenants.invoke(theirs, "nothing", **bearer(2)).status == 200


@pytest.fixture(scope="session")
def their_things(shared_by_tenants: Attacked, theirs: str) -> dict[str, str]:
    """Of tenant 2: a kept instance, a snapshot of it, a job that has ended, a model."""
    node, json_type = shared_by_tenants, {"Content_Type": "application/json"}
    body = json.dumps({"function_id": theirs}).encode()
    instance = node.ask("POST", "/instances", body, **bearer(2), **json_type).json["id"]
    snapshot = node.ask("POST", f"/instances/{instance}/snapshot", **bearer(2)).json["snapshot_id"]
    job = node.ask("POST", f"/functions/{theirs}/invoke-async", b'{"export":"nothing"}', **bearer(2), **json_type)
    body = json.dumps({"function_id": theirs, "export": "say"}).encode()
    boss = {"Authorization": f"Bearer {ADMIN}"}
    bound = node.ask("PUT", "/admin/models/2/writer-of-two", body, **boss, **json_type)
    assert bound.status == 200
    return {"instance": instance, "snapshot": snapshot, "job": job.json["job_id"], "model": "writer-of-two"}


_THINGS = [
    ("instance", "GET", "/instances/{}", None),
    ("instance", "DELETE", "/instances/{}", None),
    ("instance", "POST", "/instances/{}/invoke", b'{"export":"nothing"}'),
    ("instance", "POST", "/instances/{}/snapshot", None),
    ("instance", "POST", "/snapshots/{}/restore", b"{ }"),
    ("snapshot", "GET", "/snapshots/{}", None),
    ("snapshot", "DELETE", "/snapshots/{}", None),
    ("snapshot", "POST", "/snapshots/{}/restore", b"{ }"),
    ("snapshot", "GET", "/instances/{}", None),
    ("job", "GET", "/jobs/{}", None),
    ("job", "DELETE", "/jobs/{}", None),
    ("job", "GET", "/jobs?after={}", None),
    ("model", "GET", "/v1/models/{}", None),
    ("model", "POST", "/v1/completions", b'{"model":"{}","prompt":"x"}'),
    ("model", "POST", "/v1/chat/completions", b'{"model":"{}","messages":[{"role":"user","content":"x"}]}'),
]


@pytest.mark.parametrize(("what", "method", "path", "body"), _THINGS)
def test_things_of_others_are_things_of_nobody(
    tenants: Attacked, mine: str, their_things: dict[str, str], what, method, path, body
):
    """Bound: kept instances, snapshots, jobs and models of another tenant give the answer of what never was."""
    more = bearer(1) | ({"Content_Type": "application/json"} if body else {})
    nobodys = "writer-of-xyz" if what == "model" else str(uuid.uuid4())
    answers = []
    for name in (their_things[what], nobodys):
        answer = tenants.ask(method, path.replace("{}", name), body and body.replace(b"{}", name.encode()), **more)
        assert answer.status in (400, 404)
        answers.append(answer)
    theirs_shape, nobodys_shape = (
        repr(_shape(answer)).replace(name, "?")
        for answer, name in zip(answers, (their_things[what], nobodys), strict=True)
    )
    assert theirs_shape == nobodys_shape


def test_lists_of_things_show_nothing_of_others(tenants: Attacked, their_things: dict[str, str]):
    """Bound: lists of instances, snapshots, jobs and models have the tenant's own only."""
    for path in ("/instances", "/snapshots", "/jobs?limit=1000", "/v1/models"):
        assert not any(name.encode() in tenants.ask("GET", path, **bearer(1)).body for name in their_things.values())
    for path in ("/admin/models", "/admin/models/2/writer-of-two"):
        assert tenants.ask("GET", path, **bearer(1)).kind == "forbidden"
    put = tenants.ask("PUT", "/admin/models/1/writer-of-two", b"{}", Content_Type="application/json", **bearer(1))
    assert put.kind == "forbidden"


def test_ids_of_others_take_no_other_time(tenants: Attacked, mine: str, theirs: str):
    """Bound: an id of another tenant is looked up as a random one is: medians of many interleaved calls agree."""
    times: dict[str, list[float]] = {"theirs": [], "nobodys": []}
    for _ in range(150):
        for whose, identity in (("theirs", theirs), ("nobodys", str(uuid.uuid4()))):
            began = time.perf_counter()
            tenants.invoke(identity, "nothing", **bearer(1))
            times[whose].append(time.perf_counter() - began)
    theirs_s, nobodys_s = (statistics.median(times[whose]) for whose in ("theirs", "nobodys"))
    assert abs(theirs_s - nobodys_s) < 0.25 * nobodys_s


def test_a_list_shows_nothing_of_others(tenants: Attacked, mine: str, theirs: str):
    """Bound: pages, their cursors and their sizes know of the tenant's own functions only."""
    body = tenants.ask("GET", "/functions?limit=1000", **bearer(1)).json
    assert theirs not in {item["id"] for item in body["functions"]}
    assert {item["tenant"] for item in body["functions"]} == {1}
    for cursor in (theirs, str(uuid.uuid4()), "", "'; DROP TABLE functions; --", "%", "\0", "a" * 10_000):
        answer = tenants.ask("GET", f"/functions?after={cursor.encode().hex()}", **bearer(1))
        assert theirs.encode() not in answer.body
        assert answer.status in (200, 400, 404)


def test_routes_of_administration(tenants: Attacked):
    """Bound: a tenant's token opens nothing of /admin, whatever is asked there and whether it exists or not."""
    for method, path in (
        ("GET", "/admin/instances"), ("POST", f"/admin/instances/{uuid.uuid4()}/terminate"), ("GET", "/admin/tenants"),
        ("GET", "/admin/tenants/1"), ("PATCH", "/admin/tenants/1"), ("PATCH", "/admin/tenants/default"),
        ("GET", "/admin/tokens"), ("POST", "/admin/tokens"), ("DELETE", f"/admin/tokens/{uuid.uuid4()}"),
        ("DELETE", "/admin/tokens/settings-1"), ("POST", "/admin/drain"),
    ):  # fmt: skip
        body = b"{}" if method in ("POST", "PATCH") else None
        answer = tenants.ask(method, path, body, Content_Type="application/json", **bearer(1))
        assert (answer.status, answer.kind) == (403, "forbidden"), (method, path, answer.body)
        assert tenants.ask(method, path, body, Content_Type="application/json").status == 401
    assert tenants.ask("GET", "/readyz").status == 200


@pytest.mark.parametrize("where", ["memory", "shared", "local", "registers"])
def test_leftovers_of_the_tenant_before(tenants: Attacked, mine: str, theirs: str, where: str):
    """Bound: memory of every kind is zeros for a new instance, whoever had it before; registers are too."""
    stain = "0xA5A5A5A5A5A5A5A5"
    bodies = {
        "shared": (
            ".shared .align 8 .b8 s[4096];",
            "mov.u64 %rd2, s; cvta.shared.u64 %rd2, %rd2;",
        ),
        "local": ("", ".local .align 8 .b8 l[4096]; mov.u64 %rd2, l; cvta.local.u64 %rd2, %rd2;"),
    }
    if where == "memory":
        tenants.invoke_many(4, theirs, "stain", [900], **bearer(2))
        for answer in tenants.invoke_many(4, mine, "sweep", [900], **bearer(1)):
            assert answer.result == [0]
        return
    if where == "registers":
        text = entry("st.global.u64 [%rd0], %rd9; st.global.u64 [%rd0+8], %rd10; st.global.u32 [%rd0+16], %r7;")
        args, data = kernel_call(text, [u64(0)])
        assert tenants.invoke(mine, "kernel", args, data, **bearer(1)).result[:3] == [0, 0, 0]
        return
    before, setup = bodies[where]
    loop = "mov.u64 %rd3, 0; L: add.u64 %rd4, %rd2, %rd3; {};"
    loop += "add.u64 %rd3, %rd3, 8; setp.lt.u64 %p0, %rd3, 4096; @%p0 bra L;"
    write = entry(setup + loop.format(f"st.u64 [%rd4], {stain}"), before=before)
    read = entry(
        "mov.u64 %rd5, 0;\n" + setup + loop.format("ld.u64 %rd6, [%rd4]; or.b64 %rd5, %rd5, %rd6")
        + "st.global.u64 [%rd0], %rd5;", before=before,
    )  # fmt: skip
    for _ in range(3):
        args, data = kernel_call(write, [u64(0)])
        assert tenants.invoke(theirs, "kernel", args, data, **bearer(2)).result[0] == 0
        args, data = kernel_call(read, [u64(0)])
        assert tenants.invoke(mine, "kernel", args, data, **bearer(1)).result[:2] == [0, 0]


def test_ids_of_kernels_and_handles_of_others(tenants: Attacked, mine: str, theirs: str):
    """Bound: kernel ids and device handles belong to the instance: those that another holds mean nothing in it."""
    args, data = kernel_call(entry("st.global.u64 [%rd0], 1;"), [u64(0)])
    assert tenants.invoke(theirs, "kernel", args, data, **bearer(2)).result[0] == 0
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(tenants.invoke, theirs, "hold", [4096], b"", 3000, **bearer(2))
        until = time.monotonic() + 5
        while not (used := tenants.metric("tensor_wasm_gpu_memory_used_bytes")) and time.monotonic() < until:
            time.sleep(0.02)
        assert used == 4096
        for kernel in (0, 1, 255, 256, -1, 1 << 32, (1 << 63) - 1, -(1 << 63)):
            assert tenants.invoke(mine, "launch", [kernel, 1, 0, 0], **bearer(1)).result == [-3]
        for low, high in ((1, 0), (0, 0), (2, 0), (-1, -1), (1, 1), (0, 1)):
            assert tenants.invoke(mine, "free", [low, high], **bearer(1)).result == [-11]
            assert tenants.invoke(mine, "down", [0, low, high, 8], **bearer(1)).result == [-11]
            assert tenants.invoke(mine, "up", [low, high, 0, 8], **bearer(1)).result == [-11]
        assert holding.result().kind == "invoke_timeout"


def test_output_and_errors_of_others(tenants: Attacked, mine: str, theirs: str):
    """Bound: what a guest wrote comes back to its caller only, also when many run on the same threads."""
    with ThreadPoolExecutor(8) as pool:
        calls = [
            (secret, pool.submit(tenants.invoke, whose, "say", [], secret, **bearer(tenant)))
            for n in range(40)
            for whose, tenant, secret in ((mine, 1, b"mine-%d" % n), (theirs, 2, b"theirs-%d" % n))
        ]
        for secret, call in calls:
            assert call.result().json["stderr"] == secret.decode()


class _NoTokens:
    def all(self):
        return []


def test_tokens_are_compared_by_hash_only(monkeypatch):
    """Bound: a token is hashed whole before anything looks at it, and hashes are compared in constant time."""
    known = "tw_" + "a" * 43
    book = TokenBook(f"{known}:role=admin", _NoTokens())
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    assert book.find(known.encode()) is not None
    for token in (known[:-1] + "b", known[:10], "x" + known[1:], "", known * 1000):
        assert book.find(token.encode()) is None
    assert compared
    for pair in compared:
        assert {len(side) for side in pair} == {32}
        assert known.encode() not in pair


def test_a_token_that_is_nearly_right_takes_no_other_time():
    """Bound: the time to refuse a token does not depend on how much of a valid one it shares."""
    known = "tw_" + "a" * 43
    book = TokenBook(f"{known}:role=admin", _NoTokens())
    near, far = (known[:-1] + "b").encode(), b"x" * len(known)
    times: dict[bytes, list[int]] = {near: [], far: []}
    for _ in range(300):
        for token in (near, far):
            began = time.perf_counter_ns()
            for _ in range(20):
                book.find(token)
            times[token].append(time.perf_counter_ns() - began)
    best = [statistics.quantiles(times[token], n=10)[0] for token in (near, far)]
    assert abs(best[0] - best[1]) < 0.1 * max(best)


def test_a_flood_of_wrong_tokens(tenants: Attacked):
    """Bound: an unknown token costs microseconds and leaves nothing: no memory, no lock, no log line."""
    before, log = tenants.resident_bytes, len(tenants.log)
    with ThreadPoolExecutor(8) as pool:
        statuses = set(
            pool.map(
                lambda n: tenants.ask("GET", "/functions", Authorization=f"Bearer {TOKENS[1][:-1]}{n}").status,
                range(800),
            )
        )
    assert statuses == {401}
    assert tenants.resident_bytes < before + (32 << 20)
    assert len(tenants.log) - log < 10_000
