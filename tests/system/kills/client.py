"""A client that changes things until the node is killed, and notes before and after each request what it knows."""

from __future__ import annotations

import base64
import json
import threading
from random import Random

from system.kills.model import Function, Job, Kernel, Keyed, Model, Snapshot, State, Token, digest_of, module, ptx
from system.soak.client import OK, Answer, Client
from tensor_wasm.store.manifest import Manifest
from tensor_wasm.store.signing import SigningKey

OPERATOR = "boss"
#: Kinds of errors that a node under this load may answer with; anything else is a finding.
_ALLOWED = {"capacity_exhausted", "saturated", "not_ready"}
_PADDING_MAX = 60_000
_SHARED_VALUES = 3
_KEPT_MAX = 12
_KEYS_MAX = 8
_VERSION = "1.0"


class Changer(threading.Thread):
    """Makes and ends things of its own tenants; ends at the first request without an answer."""

    def __init__(self, number: int, address: tuple[str, int], model: Model, random: Random, key: SigningKey) -> None:
        super().__init__()
        self._client = Client(address)
        self._number = number
        self._model = model
        self._random = random
        self._tenants = (number * 10 + 1, number * 10 + 2)
        self._serial = 0
        self._run = random.getrandbits(48)
        self._key = key
        self._stopped = threading.Event()
        self.findings: list[str] = []
        self.acknowledged = 0

    def run(self) -> None:
        try:
            self._change()
        except Exception as error:
            self.findings.append(f"a client failed: {error!r}")
        finally:
            self._client.close()

    def _change(self) -> None:
        actions = [self._deploy] * 4 + [self._end_function] * 3 + [self._token] * 2 + [self._revoke] * 2
        actions += [self._weight] * 2 + [self._job] * 3 + [self._publish] * 2 + [self._withdraw]
        actions += [self._capture] * 3 + [self._forget]
        while not self._stopped.is_set():
            answer = self._random.choice(actions)()
            if answer is None:
                continue
            if answer.outcome == "no answer":
                break
            if answer.outcome == OK:
                self.acknowledged += 1
            elif answer.outcome not in _ALLOWED:
                self.findings.append(f"an answer that should not be: {answer}")

    def stop(self) -> None:
        self._stopped.set()

    def _ask(self, method: str, path: str, value: object = None) -> Answer:
        return self._client.ask(method, path, OPERATOR, None if value is None else json.dumps(value).encode())

    def _fresh_name(self) -> str:
        self._serial += 1
        return f"c{self._number}-{self._run:x}-{self._serial}"

    def _deploy(self) -> Answer | None:
        functions = self._model.functions
        if len(functions) >= _KEPT_MAX:
            return self._end_function()
        if self._random.random() < 0.3:  # the same bytes as another client's: one artifact for several functions
            value, is_warm, wasm = 0, False, module(0, bytes([self._random.randrange(_SHARED_VALUES)]))
        else:
            value, is_warm = self._random.getrandbits(31), self._random.random() < 0.3
            wasm = module(value, self._random.randbytes(self._random.randrange(_PADDING_MAX)), is_warm=is_warm)
        function = Function(
            self._random.choice(self._tenants), self._fresh_name(), value, digest_of(wasm), len(wasm), is_warm=is_warm
        )
        functions[function.name] = function
        body: dict[str, object] = {"name": function.name, "wasm_b64": base64.b64encode(wasm).decode()}
        if is_warm:
            body["settings"] = {"prewarm": "init"}
        key = self._fresh_key()
        answer = self._as(function.tenant, "POST", "/functions", body, key)
        if answer.outcome == OK:
            function.state, function.id = State.THERE, answer.json["id"]
            self._note_key(key, function, "/functions", body, str(function.id))
        elif answer.outcome != "no answer":
            del functions[function.name]
        return answer

    def _end_function(self) -> Answer | None:
        there = [function for function in self._model.functions.values() if function.state is State.THERE]
        if not there:
            return None
        function = self._random.choice(there)
        function.state = State.ENDING
        answer = self._as(function.tenant, "DELETE", f"/functions/{function.id}")
        if answer.outcome == OK:
            self._model.deleted.add(str(function.id))
            del self._model.functions[function.name]
        elif answer.outcome != "no answer":
            function.state = State.THERE
        return answer

    def _token(self) -> Answer | None:
        if len(self._model.tokens) >= _KEPT_MAX:
            return self._revoke()
        token = Token(self._fresh_name())
        self._model.tokens[token.name] = token
        answer = self._ask("POST", "/admin/tokens", {"name": token.name, "scope": f"tenant={self._tenants[0]}"})
        if answer.outcome == OK:
            token.state, token.id, token.secret = State.THERE, answer.json["id"], answer.json["token"]
        elif answer.outcome != "no answer":
            del self._model.tokens[token.name]
        return answer

    def _revoke(self) -> Answer | None:
        there = [token for token in self._model.tokens.values() if token.state is State.THERE]
        if not there:
            return None
        token = self._random.choice(there)
        token.state = State.ENDING
        answer = self._ask("DELETE", f"/admin/tokens/{token.id}")
        if answer.outcome == OK:
            if token.secret is not None:
                self._model.revoked.append(token.secret)
            del self._model.tokens[token.name]
        elif answer.outcome != "no answer":
            token.state = State.THERE
        return answer

    def _weight(self) -> Answer:
        tenant = self._random.choice(self._tenants)
        weight = self._random.choice([None, *range(2, 100)])
        allowed = self._model.weights.setdefault(tenant, {None})
        allowed.add(weight)
        answer = self._ask("PATCH", f"/admin/tenants/{tenant}", {"weight": weight})
        if answer.outcome == OK:
            self._model.weights[tenant] = {weight}
        return answer

    def _job(self) -> Answer | None:
        there = [function for function in self._model.functions.values() if function.state is State.THERE]
        if not there:
            return None
        function = self._random.choice(there)
        path, key = f"/functions/{function.id}/invoke-async", self._fresh_key()
        answer = self._as(function.tenant, "POST", path, {}, key)
        if answer.outcome == OK:
            self._model.jobs.append(Job(answer.json["job_id"], function.tenant, function.value))
            self._note_key(key, function, path, {}, answer.json["job_id"])
        return answer

    def _fresh_key(self) -> str | None:
        return self._fresh_name() if self._random.random() < 0.5 else None

    def _note_key(self, key: str | None, function: Function, path: str, body: dict[str, object], made: str) -> None:
        if key is not None:
            self._model.keyed.append(Keyed(function.tenant, path, body, key, made, function.name))
            del self._model.keyed[:-_KEYS_MAX]

    def _capture(self) -> Answer | None:
        """Make an instance, call it a few times, capture it."""
        there = [function for function in self._model.functions.values() if function.state is State.THERE]
        if not there:
            return None
        if len(self._model.snapshots) >= _KEPT_MAX:
            return self._forget()
        function = self._random.choice(there)
        spawned = self._as(function.tenant, "POST", "/instances", {"function_id": function.id})
        if spawned.outcome != OK:
            return spawned
        path, steps = f"/instances/{spawned.json['id']}", self._random.randint(1, 3)
        for number in range(steps):
            answer = self._as(function.tenant, "POST", f"{path}/invoke", {"export": "step"})
            if answer.outcome != OK:
                return answer
            if answer.result != [number + 1]:
                self.findings.append(f"an instance of {function.name} lost count: {answer}")
        snapshot = Snapshot("", function.tenant, function.name, function.value, steps, function.digest)
        self._model.capturing.append(snapshot)
        answer = self._as(function.tenant, "POST", f"{path}/snapshot")
        if answer.outcome != "no answer":
            self._model.capturing.remove(snapshot)
        if answer.outcome == OK:
            snapshot.id = answer.json["snapshot_id"]
            self._model.snapshots[snapshot.id] = snapshot
            self._as(function.tenant, "DELETE", path)
        return answer

    def _forget(self) -> Answer | None:
        """Delete a snapshot."""
        there = [snapshot for snapshot in self._model.snapshots.values() if snapshot.state is State.THERE]
        if not there:
            return None
        snapshot = self._random.choice(there)
        snapshot.state = State.ENDING
        answer = self._as(snapshot.tenant, "DELETE", f"/snapshots/{snapshot.id}")
        if answer.outcome == OK:
            del self._model.snapshots[snapshot.id]
        elif answer.outcome != "no answer":
            snapshot.state = State.THERE
        return answer

    def _publish(self) -> Answer | None:
        kernels = self._model.kernels
        if len(kernels) >= _KEPT_MAX:
            return self._withdraw()
        name = self._fresh_name()
        text = ptx(name)
        kernel = kernels[name] = Kernel(self._random.choice(self._tenants), name, digest_of(text))
        manifest = Manifest(
            name, _VERSION, "sm_70", ("nothing",), kernel.digest, self._key.public, "2026-01-31T12:00:00Z"
        ).encode()
        parts = {"manifest_b64": manifest, "signature_b64": self._key.sign(manifest), "ptx_b64": text}
        body = {field: base64.b64encode(data).decode() for field, data in parts.items()}
        answer = self._as(kernel.tenant, "POST", "/kernels", body)
        if answer.outcome == OK:
            kernel.state = State.THERE
        elif answer.outcome != "no answer":
            del kernels[name]
        return answer

    def _withdraw(self) -> Answer | None:
        there = [kernel for kernel in self._model.kernels.values() if kernel.state is State.THERE]
        if not there:
            return None
        kernel = self._random.choice(there)
        kernel.state = State.ENDING
        answer = self._as(kernel.tenant, "DELETE", f"/kernels/{kernel.name}/{_VERSION}")
        if answer.outcome == OK:
            del self._model.kernels[kernel.name]
        elif answer.outcome != "no answer":
            kernel.state = State.THERE
        return answer

    def _as(self, tenant: int, method: str, path: str, value: object = None, key: str | None = None) -> Answer:
        return ask_as(self._client, tenant, method, path, value, key)


def ask_as(client: Client, tenant: int, method: str, path: str, value: object = None, key: str | None = None) -> Answer:
    """A request for a tenant: each has a token of the settings. ``key`` is an Idempotency-Key."""
    body = None if value is None else json.dumps(value).encode()
    return client.ask(method, path, f"t{tenant}", body, more={} if key is None else {"Idempotency-Key": key})
