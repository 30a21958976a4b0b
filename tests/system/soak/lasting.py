"""What lasts longer than a call: streams, kept instances, snapshots, warm starts, background jobs."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import uuid

from system.soak import guests
from system.soak.actor import TenantActor
from system.soak.client import OK, Answer, end, invocation, request

#: What may become of an instance that somebody keeps: an operator ends it, or it was idle for too long.
_GONE = (OK, "not_found")
_OCTETS = "application/octet-stream"
_FINAL = ("completed", "failed", "cancelled")
_PATIENCE_S = 60.0


class Lasting(TenantActor):
    """Deeds with what lasts. Each gives back what it made, but for instances that are left to be idle too long."""

    # --- streams ----------------------------------------------------------------------------------------

    def read_stream(self) -> None:
        """A stream to its end: events, each chunk whole, and the result."""
        count, size = self.random.randint(1, 60), self.random.choice([1, 1000, 65_536])
        body = invocation("emit", [count, size])
        answer = self.ask("read a stream", "POST", f"/functions/{self.stage.shared[self.tenant]}/invoke-stream", body)
        if answer.outcome != OK:
            return
        *chunks, last = [part for part in answer.body.split(b"\n\n") if part]
        if last.startswith(b"event: done\n"):
            if len(chunks) != count or json.loads(last.partition(b"data: ")[2])["result"] != [0]:
                self.stage.tally.find("a stream is not whole", f"{count} chunks wanted: {len(chunks)}, {last!r}")
        elif b'"terminated"' not in last:
            self.stage.tally.find("a stream ended otherwise", repr(last[:300]))
        else:
            self.stage.tally.add(f"terminated answers of tenant {self.tenant}")

    def leave_stream(self) -> None:
        """Go away in the middle of a stream, after some of it."""
        body = invocation("pour", deadline_ms=3000)
        path = f"/functions/{self.stage.shared[self.tenant]}/invoke-stream"
        began = time.perf_counter()
        connection = socket.create_connection(self.stage.address, timeout=10)
        try:
            connection.sendall(request("POST", path, self.wallet.settings.secret, body))
            with contextlib.suppress(TimeoutError):
                connection.settimeout(2)
                for _ in range(self.random.randrange(5)):
                    connection.recv(65_536)
        finally:
            end(connection, self.random)
        self.stage.tally.count("leave a stream", "left", time.perf_counter() - began)

    # --- kept instances and snapshots -------------------------------------------------------------------

    def keep_instance(self) -> None:
        """Make an instance, call it some times, delete it or leave it to itself."""
        instance = self._spawn(self.random.uniform(0.2, 3.0))
        if instance is None:
            return
        self._step(instance, 1, self.random.randint(1, 6))
        if self.random.random() < 0.6:
            self._drop("delete an instance", f"/instances/{instance}")

    def capture_and_restore(self) -> None:
        """Capture an instance, go on from there in another, sometimes by way of a file."""
        instance = self._spawn(20.0)
        if instance is None:
            return
        steps = self.random.randint(0, 3)
        is_whole = self._step(instance, 1, steps)
        answer = self.ask("capture", "POST", f"/instances/{instance}/snapshot", None, _GONE)
        self._drop("delete an instance", f"/instances/{instance}")
        if answer.outcome != OK:
            return
        snapshot = answer.json["snapshot_id"]
        restored = self._restore(snapshot)
        if restored is not None:
            if is_whole:
                self._step(restored, steps + 1, 2)
            self._drop("delete an instance", f"/instances/{restored}")
        if self.random.random() < 0.3:
            self._carry(snapshot, steps if is_whole else None)
        self._drop("delete a snapshot", f"/snapshots/{snapshot}")

    def _carry(self, snapshot: str, steps: int | None) -> None:
        file = self.ask("download a snapshot", "GET", f"/snapshots/{snapshot}", allowed=(OK, "capacity_exhausted"))
        if file.outcome != OK:
            return
        identity = str(uuid.UUID(int=self.random.getrandbits(128)))
        allowed = (OK, "capacity_exhausted")
        answer = self.ask("upload a snapshot", "PUT", f"/snapshots/{identity}", file.body, allowed, _OCTETS)
        if answer.outcome == OK:
            restored = self._restore(identity)
            if restored is not None:
                if steps is not None:
                    self._step(restored, steps + 1, 1)
                self._drop("delete an instance", f"/instances/{restored}")
            self._drop("delete a snapshot", f"/snapshots/{identity}")

    def _spawn(self, idle_timeout_s: float) -> str | None:
        function = self.stage.shared[self.tenant]
        body = json.dumps({"function_id": function, "idle_timeout_s": min(idle_timeout_s, 5.0)}).encode()
        answer = self.ask("spawn", "POST", "/instances", body)
        return str(answer.json["id"]) if answer.outcome == OK else None

    def _restore(self, snapshot: str) -> str | None:
        answer = self.ask("restore", "POST", f"/snapshots/{snapshot}/restore", b'{"idle_timeout_s": 5}')
        return str(answer.json["instance_id"]) if answer.outcome == OK else None

    def _step(self, instance: str, first: int, count: int) -> bool:
        """Call it ``count`` times, whose first result must be ``first``; whether all were answered."""
        for number in range(count):
            answer = self.ask("call an instance", "POST", f"/instances/{instance}/invoke", invocation("step"), _GONE)
            if answer.outcome != OK:
                return False
            self.expect("step", answer, [first + number])
        return True

    def _drop(self, deed: str, path: str) -> None:
        """Delete something until it is gone: counts are to be what they were."""
        answer: Answer | None = None
        for _ in range(100):
            answer = self.ask(deed, "DELETE", path, None, _GONE)
            if answer.outcome in _GONE:
                return
            time.sleep(0.1)
        self.stage.tally.find(f"{deed}: it cannot be", str(answer))

    # --- warm starts ------------------------------------------------------------------------------------

    def start_warm(self) -> None:
        """Deploy with a warm start, call it, delete it."""
        path = "/functions?name=warm&prewarm=init"
        answer = self.ask("deploy warm", "POST", path, guests.guest(), media_type="application/wasm")
        if answer.outcome != OK:
            return
        function = answer.json["id"]
        for _ in range(self.random.randint(1, 3)):
            answer = self.ask("invoke warm", "POST", f"/functions/{function}/invoke", invocation("step"))
            self.expect("step", answer, [guests.WARM_STEPS + 1])
        self._drop("delete warm", f"/functions/{function}")

    # --- jobs -------------------------------------------------------------------------------------------

    def submit_job(self) -> None:
        """A job, sometimes the same twice, and its result."""
        one, two = self.random.randrange(1 << 20), self.random.randrange(1 << 20)
        body = invocation("add", [one, two])
        key = {"Idempotency-Key": f"{self.random.getrandbits(64):x}"} if self.random.random() < 0.5 else None
        job = self._submit(body, key)
        if job is None:
            return
        if key is not None and (again := self._submit(body, key)) not in (job, None):
            self.stage.tally.find("the same key made two jobs", f"{job} {again}")
        found = self._end_of(job)
        if found is not None and found["status"] == "completed" and found["result"]["result"] != [one + two]:
            self.stage.tally.find("a job has a wrong result", str(found))
        elif found is not None and found["status"] == "failed" and found["error"]["kind"] not in self._may_fail:
            self.stage.tally.find("a job failed", str(found))

    #: Why a job may fail: an operator ends it; a quota may change under it.
    _may_fail = frozenset({"terminated", "quota_exceeded"})

    def cancel_job(self) -> None:
        """A job that would last, cancelled while it waits or runs."""
        job = self._submit(invocation("spin", deadline_ms=1500), None)
        if job is None:
            return
        self.stage.pause(self.random.random() * 0.2)
        self.ask("cancel a job", "DELETE", f"/jobs/{job}", None, _GONE)
        self._end_of(job)

    def _submit(self, body: bytes, key: dict[str, str] | None) -> str | None:
        path = f"/functions/{self.stage.shared[self.tenant]}/invoke-async"
        answer = self.ask("submit a job", "POST", path, body, (OK, "capacity_exhausted"), more=key)
        return str(answer.json["job_id"]) if answer.outcome == OK else None

    def _end_of(self, job: str) -> dict[str, object] | None:
        """A job once it has ended; None when that cannot be told."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            answer = self.ask("show a job", "GET", f"/jobs/{job}", allowed=_GONE)
            if answer.outcome == "not_found":
                return None  # it ended, and was kept for as long as jobs are
            if answer.outcome == OK and answer.json["status"] in _FINAL:
                return dict(answer.json)
            if time.monotonic() > until:
                self.stage.tally.find("a job does not end", str(answer))
                return None
            time.sleep(0.05)
