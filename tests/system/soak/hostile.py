"""The hostile tenant: whatever may hold, fill, stall or break a node, with one tenant's token."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import uuid
from collections.abc import Sequence

from system.soak import guests
from system.soak.actor import Deed, TenantActor
from system.soak.client import OK, end, invocation, request

_DEADLINE_MS = 1200
#: Sockets that one deed opens, and how long it holds them at most.
_SOCKETS = 40
_HOLD_S = 3.0
_MIB = 1 << 20

#: Every error that a tenant can be told. None of them is the node's own failure.
TOLD = (
    OK, "invalid_request", "invalid_name", "invalid_base64", "invalid_wasm", "invalid_json", "invalid_tenant",
    "body_too_large", "request_timeout", "missing_export", "invalid_args", "too_many_args", "invalid_deadline",
    "not_found", "route_not_found", "method_not_allowed", "unsupported_media_type", "misdirected", "unauthorized",
    "forbidden", "conflict", "trap", "invoke_timeout", "terminated", "quota_exceeded", "cancelled", "saturated",
    "capacity_exhausted", "rate_limited", "busy", "idempotency_conflict", "invalid_snapshot", "snapshot_truncated",
    "snapshot_damaged", "snapshot_version", "snapshot_signature_invalid", "model_not_found",
)  # fmt: skip


class Hostile(TenantActor):
    """Several of it act at once."""

    pause_s = 0.05
    ambient = frozenset(TOLD)

    def deeds(self) -> Sequence[Deed]:
        return (
            Deed(6, self.spin),
            Deed(3, self.sleep),
            Deed(6, self.run_endless_kernel),
            Deed(5, self.storm_launches),
            Deed(5, self.bomb_memory),
            Deed(5, self.hoard_device_memory),
            Deed(5, self.flood_stdout),
            Deed(5, self.trap),
            Deed(5, self.fault),
            Deed(5, self.load_broken_ptx),
            Deed(4, self.load_new_ptx),
            Deed(2, self.load_large_ptx),
            Deed(5, self.deploy_broken_module),
            Deed(3, self.deploy_hostile_module),
            Deed(4, self.hoard_functions),
            Deed(4, self.flood_requests),
            Deed(3, self.read_nothing),
            Deed(3, self.open_and_say_nothing),
            Deed(3, self.send_slow_head),
            Deed(3, self.send_slow_body),
            Deed(3, self.send_garbage),
            Deed(4, self.guess),
            Deed(3, self.climb),
            Deed(2, self.guess_token),
            Deed(4, self.pour),
            Deed(4, self.hoard_instances),
            Deed(3, self.storm_instance),
            Deed(3, self.hoard_snapshots),
            Deed(3, self.upload_garbage),
            Deed(2, self.deploy_endless_start),
            Deed(4, self.flood_jobs),
        )

    @property
    def shared(self) -> str:
        return self.stage.shared[self.tenant]

    def invoke(self, deed: str, export: str | None, args: Sequence[object] = (), data: bytes = b"") -> None:
        body = invocation(export, args, data, self.random.randint(50, _DEADLINE_MS))
        self.ask(deed, "POST", f"/functions/{self.shared}/invoke", body)

    # --- guests and kernels -----------------------------------------------------------------------------

    def spin(self) -> None:
        self.invoke("hostile: spin", "spin")

    def sleep(self) -> None:
        self.invoke("hostile: sleep", "sleep")

    def trap(self) -> None:
        self.invoke("hostile: trap", self.random.choice(["trap", "recurse"]))

    def bomb_memory(self) -> None:
        self.invoke("hostile: memory bomb", "bomb")

    def hoard_device_memory(self) -> None:
        self.invoke("hostile: hoard device memory", "hoard", [self.random.choice([1, 4096, _MIB - 1, _MIB, 8 * _MIB])])

    def flood_stdout(self) -> None:
        self.invoke("hostile: flood stdout", "flood")

    def run_endless_kernel(self) -> None:
        self._launch("hostile: endless kernel", guests.ENDLESS)

    def storm_launches(self) -> None:
        self._launch("hostile: storm of launches", guests.NOTHING, "storm")

    def fault(self) -> None:
        self._launch("hostile: kernel fault", self.random.choice([guests.FAULT, guests.TRAP]))

    def load_broken_ptx(self) -> None:
        ptx = guests.damaged_ptx(self.random, self.random.getrandbits(31))
        self._launch("hostile: broken ptx", ptx)

    def load_new_ptx(self) -> None:
        self._launch("hostile: new ptx", guests.numbered_ptx(self.random.getrandbits(31)), "storm")

    def load_large_ptx(self) -> None:
        statements = self.random.choice([500, 1000, 3000])
        self._launch("hostile: large ptx", guests.numbered_ptx(self.random.getrandbits(31), statements))

    def _launch(self, deed: str, ptx: bytes, export: str = "kernel") -> None:
        grid, block = self.random.choice([1, 64, 4096]), self.random.choice([1, 32, 256, 1024])
        self.invoke(deed, export, [grid, block, self.random.choice([0, 1024]), len(ptx), 1], ptx + b"k")

    # --- modules ----------------------------------------------------------------------------------------

    def deploy_broken_module(self) -> None:
        self._deploy("hostile: broken module", guests.damaged(self.random, guests.guest()))

    def deploy_hostile_module(self) -> None:
        module = self.random.choice([guests.spinning_start, guests.unlinkable])
        identity = self._deploy("hostile: hostile module", module())
        if identity is not None:
            body = invocation("run", deadline_ms=self.random.randint(50, _DEADLINE_MS))
            self.ask("hostile: hostile module", "POST", f"/functions/{identity}/invoke", body)

    def hoard_functions(self) -> None:
        """Deploy until refused; now and then begin anew."""
        for _ in range(5):
            self._deploy("hostile: hoard functions", guests.numbered(self.random.getrandbits(31)))
        if self.random.random() < 0.3:
            self.clear()

    def _deploy(self, deed: str, wasm: bytes) -> str | None:
        answer = self.ask(deed, "POST", "/functions?name=hostile", wasm, media_type="application/wasm")
        return str(answer.json["id"]) if answer.outcome == OK else None

    # --- what lasts -------------------------------------------------------------------------------------

    def pour(self) -> None:
        """Streams that nobody reads."""
        data = request("POST", f"/functions/{self.shared}/invoke-stream", self.wallet.settings.secret,
                       invocation("pour", deadline_ms=_DEADLINE_MS))  # fmt: skip
        self._hold("hostile: streams not read", data, self.random.random() * _HOLD_S, count=8)

    def hoard_instances(self) -> None:
        """Keep instances until refused, and let them be."""
        for _ in range(5):
            self._keep(3.0)

    def storm_instance(self) -> None:
        """Calls of one instance that never end, beside each other."""
        instance = self._keep(1.0)
        if instance is not None:
            path = f"/instances/{instance}/invoke"
            data = request("POST", path, self.wallet.settings.secret, invocation("spin", deadline_ms=_DEADLINE_MS))
            self._hold("hostile: storm on an instance", data, self.random.random(), count=8)

    def hoard_snapshots(self) -> None:
        """Capture until refused; now and then begin anew."""
        instance = self._keep(2.0)
        for _ in range(3 if instance is not None else 0):
            self.ask("hostile: capture", "POST", f"/instances/{instance}/snapshot")
        if self.random.random() < 0.5:
            self._clear_snapshots()

    def upload_garbage(self) -> None:
        """Files that are no snapshots, or are not sent to their end."""
        path = f"/snapshots/{uuid.UUID(int=self.random.getrandbits(128))}"
        garbage = self.random.choice([b"", b"TWSNAP\r\n", b"TWSNAP\r\n\1\0\0\0\xff\xff\0\0" + b"[" * 70_000])
        garbage += self.random.randbytes(100)
        self.ask("hostile: garbage for a snapshot", "PUT", path, garbage, media_type="application/octet-stream")
        half = request("PUT", path, self.wallet.settings.secret, garbage, 1 << 20)
        half = half.replace(b"application/json", b"application/octet-stream")
        self._hold("hostile: half a snapshot", half, self.random.random(), count=8)

    def deploy_endless_start(self) -> None:
        """A warm start that never ends, but for its client, who goes."""
        wasm = guests.guest()
        data = request("POST", "/functions?name=endless&prewarm=spin", self.wallet.settings.secret, wasm)
        data = data.replace(b"application/json", b"application/wasm")
        self._hold("hostile: endless warm start", data, self.random.random(), count=1)

    def flood_jobs(self) -> None:
        """Jobs until refused, of which some are cancelled."""
        for _ in range(10):
            body = invocation(self.random.choice(["spin", "nothing", "bomb"]), deadline_ms=self.random.randint(50, 500))
            answer = self.ask("hostile: submit a job", "POST", f"/functions/{self.shared}/invoke-async", body)
            if answer.outcome == OK and self.random.random() < 0.5:
                self.ask("hostile: cancel a job", "DELETE", f"/jobs/{answer.json['job_id']}")

    def _keep(self, idle_timeout_s: float) -> str | None:
        body = json.dumps({"function_id": self.shared, "idle_timeout_s": idle_timeout_s}).encode()
        answer = self.ask("hostile: spawn", "POST", "/instances", body)
        return str(answer.json["id"]) if answer.outcome == OK else None

    def _clear_snapshots(self) -> None:
        answer = self.ask("hostile: list snapshots", "GET", "/snapshots", token=self.wallet.settings)
        for snapshot in answer.json["snapshots"] if answer.outcome == OK else ():
            self.ask("hostile: delete", "DELETE", f"/snapshots/{snapshot['id']}", token=self.wallet.settings)

    def clear(self) -> None:
        """Delete what is deployed, but the shared guest and the example."""
        self._clear_snapshots()
        token = self.wallet.settings
        answer = self.ask("hostile: list functions", "GET", "/functions?limit=1000", token=token)
        if answer.outcome != OK:
            return
        kept = {self.shared, self.stage.vectors[self.tenant]}
        for function in answer.json["functions"]:
            if function["id"] not in kept:
                self.ask("hostile: delete", "DELETE", f"/functions/{function['id']}", token=token)

    # --- connections ------------------------------------------------------------------------------------

    def flood_requests(self) -> None:
        """Many connections with several requests each, whose answers nobody reads."""
        body = invocation("nothing")
        data = request("POST", f"/functions/{self.shared}/invoke", self.wallet.settings.secret, body)
        self._hold("hostile: flood of requests", data * self.random.randint(1, 8), self.random.random())

    def read_nothing(self) -> None:
        """Ask for large answers, and do not read them."""
        body = invocation("flood", deadline_ms=200)
        flood = request("POST", f"/functions/{self.shared}/invoke", self.wallet.settings.secret, body)
        listing = request("GET", "/openapi.json", self.wallet.settings.secret)
        self._hold("hostile: answers not read", (listing * 8) + flood, self.random.random() * _HOLD_S, count=8)

    def open_and_say_nothing(self) -> None:
        self._hold("hostile: silent sockets", b"", self.random.random() * _HOLD_S)

    def send_slow_head(self) -> None:
        """Some bytes of a head now and then."""
        data = request("POST", f"/functions/{self.shared}/invoke", self.wallet.settings.secret, b"{}")
        self._trickle("hostile: slow head", data[: self.random.randrange(10, 120)])

    def send_slow_body(self) -> None:
        """A body that is shorter than announced, or comes slowly."""
        token = self.wallet.settings.secret
        data = request("POST", f"/functions/{self.shared}/invoke", token, b"{" + b" " * 50, 1000)
        self._trickle("hostile: slow body", data)

    def send_garbage(self) -> None:
        garbage = self.random.choice(
            [
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                b"GET / HTTP/9.9\r\n\r\n",
                b"GET /" + b"x" * 70_000,
                b"POST /functions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                b"POST /functions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                self.random.randbytes(500),
            ]
        )
        self._hold("hostile: garbage", garbage, 0.1, count=8)

    def _hold(self, deed: str, data: bytes, hold_s: float, count: int = _SOCKETS) -> None:
        began = time.perf_counter()
        opened = []
        try:
            for _ in range(count):
                connection = socket.create_connection(self.stage.address, timeout=10)
                opened.append(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(data)
            self.stage.pause(hold_s)
        finally:
            for connection in opened:
                end(connection, self.random)
        self.stage.tally.count(deed, "left", time.perf_counter() - began)

    def _trickle(self, deed: str, data: bytes) -> None:
        began = time.perf_counter()
        until = began + self.random.random() * _HOLD_S
        opened = [socket.create_connection(self.stage.address, timeout=10) for _ in range(8)]
        try:
            for start in range(0, len(data), 10):
                for connection in opened:
                    with contextlib.suppress(OSError):
                        connection.sendall(data[start : start + 10])
                if time.perf_counter() > until or self.stage.over.is_set():
                    break
                self.stage.pause(0.2)
        finally:
            for connection in opened:
                end(connection, self.random)
        self.stage.tally.count(deed, "left", time.perf_counter() - began)

    # --- what is not its own ----------------------------------------------------------------------------

    def guess(self) -> None:
        """Other tenants' functions, by their right ids and by wrong ones."""
        others = [identity for tenant, identity in self.stage.shared.items() if tenant != self.tenant]
        identity = self.random.choice([*others, str(uuid.UUID(int=self.random.getrandbits(128)))])
        for method, path, body in (
            ("GET", f"/functions/{identity}", None),
            ("DELETE", f"/functions/{identity}", None),
            ("POST", f"/functions/{identity}/invoke", invocation("nothing")),
        ):
            answer = self.ask("hostile: guess", method, path, body)
            self._refuse("another tenant's function", answer)

    def climb(self) -> None:
        """The operator's routes."""
        method, path, value = self.random.choice(
            [
                ("GET", "/admin/instances", None),
                ("POST", f"/admin/instances/{uuid.UUID(int=self.random.getrandbits(128))}/terminate", {}),
                ("GET", "/admin/tokens", None),
                ("POST", "/admin/tokens", {"scope": "role=admin"}),
                ("PATCH", f"/admin/tenants/{self.tenant}", {"weight": 1000}),
                ("POST", "/admin/drain", {}),
            ]
        )
        answer = self.ask("hostile: climb", method, path, None if value is None else json.dumps(value).encode())
        self._refuse("an operator's route", answer)

    def _refuse(self, what: str, answer) -> None:
        if answer.outcome == OK:
            self.stage.tally.find(f"the hostile tenant reached {what}", str(answer))

    def guess_token(self) -> None:
        token = self.random.choice(["x", "admin", self.stage.admin[:-1], self.stage.admin + "x", "tw_" + "A" * 43])
        answer = self.client.ask("GET", "/functions", token)
        self.stage.tally.count("hostile: guess a token", answer.outcome, answer.took_s)
        if answer.outcome != "unauthorized":
            self.stage.tally.find("a guessed token was not refused", str(answer))
