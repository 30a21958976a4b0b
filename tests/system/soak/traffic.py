"""Honest tenants: they invoke, launch, deploy and delete, get things wrong, and go away while they wait."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Sequence

from system.soak import guests
from system.soak.actor import Deed
from system.soak.client import OK, end, invocation, request
from system.soak.lasting import Lasting

_SHORT_S = 0.2
#: How much later than its deadline an invocation may have its answer, on a machine that has too much to do.
_LATE_S = 5.0
_LARGE_BYTES = guests.INPUT_MAX_BYTES


class Honest(Lasting):
    """A tenant's client. Its answers are right, or say what it did wrong."""

    def deeds(self) -> Sequence[Deed]:
        return (
            Deed(30, self.invoke_nothing),
            Deed(20, self.invoke_add),
            Deed(5, self.invoke_default),
            Deed(15, self.launch_vector_add),
            Deed(5, self.launch_kernel),
            Deed(2, self.launch_new_kernel),
            Deed(6, self.deploy_invoke_delete),
            Deed(3, self.deploy_what_is_there),
            Deed(4, self.list_functions),
            Deed(6, self.give_wrong_arguments),
            Deed(4, self.name_no_export),
            Deed(4, self.name_no_function),
            Deed(3, self.send_no_json),
            Deed(3, self.miss_deadline),
            Deed(2, self.sleep_past_deadline),
            Deed(4, self.trap),
            Deed(4, self.grow),
            Deed(4, self.print_text),
            Deed(3, self.send_large_input),
            Deed(1, self.send_too_large_input),
            Deed(5, self.disconnect),
            Deed(2, self.disconnect_in_body),
            Deed(6, self.read_stream),
            Deed(3, self.leave_stream),
            Deed(6, self.keep_instance),
            Deed(4, self.capture_and_restore),
            Deed(3, self.start_warm),
            Deed(6, self.submit_job),
            Deed(3, self.cancel_job),
        )

    def invoke(
        self,
        deed: str,
        function: str,
        export: str | None,
        args: Sequence[object] = (),
        data: bytes = b"",
        deadline_ms: int | None = None,
        allowed: Sequence[str] = (OK,),
    ):
        body = invocation(export, args, data, deadline_ms)
        return self.ask(deed, "POST", f"/functions/{function}/invoke", body, allowed)

    @property
    def shared(self) -> str:
        return self.stage.shared[self.tenant]

    # --- calls that return ------------------------------------------------------------------------------

    def invoke_nothing(self) -> None:
        self.expect("nothing", self.invoke("invoke nothing", self.shared, "nothing"), "ok")

    def invoke_add(self) -> None:
        one, two = self.random.randrange(1 << 20), self.random.randrange(1 << 20)
        self.expect("add", self.invoke("invoke add", self.shared, "add", [one, two]), [one + two])

    def invoke_default(self) -> None:
        self.expect("run", self.invoke("invoke run", self.shared, None), [42])

    def launch_vector_add(self) -> None:
        count = int(10 ** self.random.uniform(0, 5))
        answer = self.invoke("launch vector_add", self.stage.vectors[self.tenant], "run", [count])
        self.expect("vector_add", answer, [count])

    def launch_kernel(self) -> None:
        self._launch("launch a kernel", guests.NOTHING)

    def launch_new_kernel(self) -> None:
        self._launch("launch a new kernel", guests.numbered_ptx(self.random.getrandbits(31)))

    def _launch(self, deed: str, ptx: bytes) -> None:
        answer = self.invoke(deed, self.shared, "kernel", [4, 64, 0, len(ptx), 1], ptx + b"k")
        self.expect("kernel", answer, [0])

    def grow(self) -> None:
        before = self.random.randint(1, 64)
        answer = self.invoke("grow memory", self.shared, "grow", [before])
        self.expect("grow", answer, [(guests.INPUT + guests.INPUT_MAX_BYTES) >> 16])

    def print_text(self) -> None:
        answer = self.invoke("print", self.shared, "hello")
        if answer.outcome == OK and answer.json.get("stdout") != guests.HELLO.decode():
            self.stage.tally.find("hello: not what the guest wrote", str(answer))

    def send_large_input(self) -> None:
        data = self.random.randbytes(self.random.randint(_LARGE_BYTES // 8, _LARGE_BYTES))
        self.expect("sum", self.invoke("send a large input", self.shared, "sum", (), data), [sum(data)])

    # --- functions --------------------------------------------------------------------------------------

    def deploy_invoke_delete(self) -> None:
        number = self.random.getrandbits(31)
        identity = self._deploy(guests.numbered(number))
        if identity is None:
            return
        for _ in range(self.random.randint(1, 3)):
            self.expect("run", self.invoke("invoke what is new", identity, None), [number])
        self.ask("show a function", "GET", f"/functions/{identity}")
        self._delete(identity)
        # The tokens may have changed under it, so that the function is still there.
        if self._is_deleted:
            self.invoke("invoke what is deleted", identity, None, allowed=("not_found",))

    def deploy_what_is_there(self) -> None:
        identity = self._deploy(guests.guest())
        if identity is not None:
            self.expect("add", self.invoke("invoke add", identity, "add", [1, 2]), [3])
            self._delete(identity)
            if self._is_deleted:
                self.expect("add", self.invoke("invoke add", self.shared, "add", [1, 2]), [3])

    def _deploy(self, wasm: bytes) -> str | None:
        name = f"soak-{self.random.randrange(1000)}"
        answer = self.ask("deploy", "POST", f"/functions?name={name}", wasm, media_type="application/wasm")
        return str(answer.json["id"]) if answer.outcome == OK else None

    def _delete(self, identity: str) -> None:
        """Delete a function, until it is: the node's count is to be what it was."""
        self._is_deleted = False
        for _ in range(100):
            answer = self.ask("delete", "DELETE", f"/functions/{identity}")
            if answer.outcome == OK:
                self._is_deleted = True
                return
            time.sleep(0.1)
        self.stage.tally.find("a function could not be deleted", str(answer))

    def list_functions(self) -> None:
        answer = self.ask("list functions", "GET", "/functions?limit=1000")
        if answer.outcome == OK:
            shown = answer.json["functions"]
            if any(function["tenant"] != self.tenant for function in shown):
                self.stage.tally.find("a list shows another tenant's function", str(answer))
            if self.shared not in {function["id"] for function in shown}:
                self.stage.tally.find("a list lacks a function", str(answer))

    # --- mistakes ---------------------------------------------------------------------------------------

    def give_wrong_arguments(self) -> None:
        args = self.random.choice([[], [1], [1, 2, 3], [1 << 40, 1], ["x", 1], [None, 1], [1.5, 2], [[], {}]])
        kinds = ("invalid_args", "too_many_args", "invalid_json")
        self.invoke("give wrong arguments", self.shared, "add", args, allowed=kinds)

    def name_no_export(self) -> None:
        name = self.random.choice(["", "missing", "memory", "Add", "x" * 1000, "\u0000"])
        self.invoke("name no export", self.shared, name, allowed=("missing_export",))

    def name_no_function(self) -> None:
        others = [identity for tenant, identity in self.stage.shared.items() if tenant != self.tenant]
        identity = self.random.choice([str(uuid.UUID(int=self.random.getrandbits(128))), *others])
        self.invoke("name no function", identity, "nothing", allowed=("not_found",))
        if self.random.random() < 0.3:
            self.ask("delete no function", "DELETE", f"/functions/{identity}", None, ("not_found",))

    def send_no_json(self) -> None:
        body = self.random.choice(
            [b"{", b"[]", b'{"args": 1}', b'{"what": 1}', b'{"input_b64": "!"}', b"\xff", b"[" * 5000]
        )
        self.ask("send no json", "POST", f"/functions/{self.shared}/invoke", body, ("invalid_json", "invalid_base64"))

    def trap(self) -> None:
        export = self.random.choice(["trap", "recurse"])
        self.invoke("trap", self.shared, export, allowed=("trap",))

    def send_too_large_input(self) -> None:
        deed = "send too large an input"
        with socket.create_connection(self.stage.address, timeout=10) as connection:
            token = self.wallet.settings.secret
            connection.sendall(request("POST", f"/functions/{self.shared}/invoke", token, b"{", 1 << 30))
            began = time.perf_counter()
            head = connection.recv(65_536)
        status = head.split(b" ", 2)[1].decode() if head.count(b" ") > 1 else "no answer"
        self.stage.tally.count(deed, status, time.perf_counter() - began)
        if status not in ("413", "429"):
            self.stage.tally.find(f"{deed}: {status} is not an answer to this", repr(head[:300]))

    # --- deadlines and departures -----------------------------------------------------------------------

    def miss_deadline(self) -> None:
        self._miss("miss a deadline", "spin")

    def sleep_past_deadline(self) -> None:
        self._miss("sleep past a deadline", "sleep")

    def _miss(self, deed: str, export: str) -> None:
        deadline_ms = self.random.randint(1, 200)
        answer = self.invoke(deed, self.shared, export, (), b"", deadline_ms, ("invoke_timeout",))
        if answer.took_s > deadline_ms / 1e3 + _LATE_S:
            self.stage.tally.find("a deadline was missed by seconds", f"{deadline_ms} ms: {answer}")

    def disconnect(self) -> None:
        """Go away before there is an answer: in a loop, a sleep, an endless kernel, or before it has begun."""
        export = self.random.choice(["spin", "sleep", "kernel"])
        args = [1, 32, 0, len(guests.ENDLESS), 1] if export == "kernel" else []
        data = guests.ENDLESS + b"k" if export == "kernel" else b""
        body = invocation(export, args, data, 3000)
        self._leave(request("POST", f"/functions/{self.shared}/invoke", self.wallet.settings.secret, body))

    def disconnect_in_body(self) -> None:
        body = json.dumps({"export": "sum", "input_b64": "A" * 400_000}).encode()
        whole = request("POST", f"/functions/{self.shared}/invoke", self.wallet.settings.secret, body)
        self._leave(whole[: self.random.randrange(1, len(whole))])

    def _leave(self, data: bytes) -> None:
        began = time.perf_counter()
        connection = socket.create_connection(self.stage.address, timeout=10)
        try:
            connection.sendall(data)
            self.stage.pause(self.random.random() * _SHORT_S)
        finally:
            end(connection, self.random)
        self.stage.tally.count("disconnect", "left", time.perf_counter() - began)


class Limited(Honest):
    """An honest tenant with quotas that it often meets."""

    ambient = frozenset({"quota_exceeded", "rate_limited", "capacity_exhausted"})

    def expect(self, what, answer, value):
        # A quota may be met within the guest too: it may have no memory, or not use the device.
        if what not in ("kernel", "vector_add", "grow"):
            super().expect(what, answer, value)
