"""After a restart: is everything there that was acknowledged, and nothing that is half of something?"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from system.kills.client import OPERATOR, ask_as
from system.kills.model import Function, Model, Snapshot, State, digest_of
from system.soak.client import OK, Client

_PATIENCE_S = 60.0
_SAMPLE = 6
_FINAL = {"completed", "failed", "cancelled"}


class Checker:
    """Compares a node with what its clients know, and brings what they did not know up to date."""

    def __init__(self, client: Client, home: Path, models: Sequence[Model], tenants: Sequence[int], random: Random):
        self._client = client
        self._home = home
        self._models = models
        self._tenants = tenants
        self._random = random
        self.findings: list[str] = []

    def check(self) -> None:
        digests = self._functions() | self._kernels() | self._snapshots()
        self._keys()
        self._tokens()
        self._weights()
        self._jobs()
        self._artifacts(digests)

    def _functions(self) -> set[str]:
        known = {name: function for model in self._models for name, function in model.functions.items()}
        deleted = {id for model in self._models for id in model.deleted}
        listed: dict[str, dict] = {}
        for tenant in self._tenants:
            for item in self._list(tenant):
                name = item["name"]
                function = known.get(name)
                if item["id"] in deleted:
                    self._say(f"function {name} is back after its deletion was acknowledged")
                elif function is None:
                    self._say(f"function {name} is there and nobody deployed it")
                elif name in listed:
                    self._say(f"function {name} is there twice")
                elif (tenant, function.digest, function.size_bytes) != (
                    item["tenant"],
                    item["digest"],
                    item["size_bytes"],
                ):
                    self._say(f"function {name} is not what was deployed: {item}")
                listed[name] = item
        whole = []
        for model in self._models:
            for name, function in list(model.functions.items()):
                if name not in listed:
                    if function.state is State.THERE:
                        self._say(f"function {name} is gone though its deployment was acknowledged")
                    del model.functions[name]
                    continue
                was = function.state
                if function.id not in (None, listed[name]["id"]):
                    self._say(f"function {name} has another id")
                function.state, function.id = State.THERE, listed[name]["id"]
                if was is not State.THERE:
                    self._run(function)
                whole.append(function)
        for function in self._random.sample(whole, min(_SAMPLE, len(whole))):
            self._run(function)
        return {item["digest"] for item in listed.values()}

    def _kernels(self) -> set[str]:
        listed = {item["name"]: (tenant, item) for tenant in self._tenants for item in self._list(tenant, "kernels")}
        known = {name for model in self._models for name in model.kernels}
        for name in listed.keys() - known:
            self._say(f"kernel {name} is there and should not be")
        for model in self._models:
            for name, kernel in list(model.kernels.items()):
                if name not in listed:
                    if kernel.state is State.THERE:
                        self._say(f"kernel {name} is gone though it was acknowledged")
                    del model.kernels[name]
                    continue
                kernel.state = State.THERE
                tenant, item = listed[name]
                if (tenant, item["digest"]) != (kernel.tenant, kernel.digest):
                    self._say(f"kernel {name} is not what was published: {item}")
                answer = ask_as(self._client, tenant, "GET", f"/kernels/{name}/{item['version']}?text=1")
                text = base64.b64decode(answer.json.get("ptx_b64", "")) if answer.outcome == OK else b""
                if digest_of(text) != kernel.digest or not answer.json["verified"]:
                    self._say(f"kernel {name} is not whole: {answer}")
        return {item["digest"] for _, item in listed.values()}

    def _snapshots(self) -> set[str]:
        """Those that were acknowledged are there and restore to what they were; no file is there besides."""
        listed: dict[str, dict] = {}
        for tenant in self._tenants:
            answer = ask_as(self._client, tenant, "GET", "/snapshots")
            if answer.outcome != OK:
                self._say(f"the snapshots of tenant {tenant} cannot be listed: {answer}")
                continue
            listed |= {item["id"]: item for item in answer.json["snapshots"]}
        for model in self._models:
            self._adopt(model, listed)
            for identity, snapshot in list(model.snapshots.items()):
                if identity in listed:
                    snapshot.state = State.THERE
                    continue
                if snapshot.state is State.THERE:
                    self._say(f"snapshot {identity} is gone though it was acknowledged")
                del model.snapshots[identity]
            there = list(model.snapshots.values())
            for snapshot in self._random.sample(there, min(_SAMPLE, len(there))):
                self._restore(snapshot)
        for identity in listed.keys() - {id for model in self._models for id in model.snapshots}:
            self._say(f"snapshot {identity} is there and should not be: {listed[identity]}")
        files = {path.name: path.stat().st_size for path in (self._home / "snapshots").iterdir()}
        if files != {identity: item["bytes"] for identity, item in listed.items()}:
            self._say(f"the files of snapshots are not those that are listed: {files}, {listed}")
        return {item["module_digest"] for item in listed.values()}

    @staticmethod
    def _adopt(model: Model, listed: dict[str, dict]) -> None:
        """A capture whose answer never came may have made its snapshot all the same."""
        known = {(snapshot.tenant, snapshot.function): snapshot for snapshot in model.capturing}
        for identity, item in listed.items():
            snapshot = known.get((item["tenant"], item["function_name"]))
            if snapshot is not None and identity not in model.snapshots:
                snapshot.id = identity
                model.snapshots[identity] = snapshot
                del known[item["tenant"], item["function_name"]]
        model.capturing.clear()

    def _restore(self, snapshot: Snapshot) -> None:
        restored = ask_as(self._client, snapshot.tenant, "POST", f"/snapshots/{snapshot.id}/restore", {})
        if restored.outcome != OK:
            self._say(f"snapshot {snapshot.id} cannot be restored: {restored}")
            return
        path = f"/instances/{restored.json['instance_id']}"
        for export, value in (("run", snapshot.value), ("step", snapshot.steps + 1)):
            answer = ask_as(self._client, snapshot.tenant, "POST", f"{path}/invoke", {"export": export})
            if answer.result != [value]:
                self._say(f"snapshot {snapshot.id} is not what was captured: {export} gives {answer}, not {value}")
        ask_as(self._client, snapshot.tenant, "DELETE", path)

    def _keys(self) -> None:
        """The same request with the same key makes nothing new."""
        for model in self._models:
            for one in model.keyed:
                function = model.functions.get(one.function)
                if function is None or function.state is not State.THERE:
                    continue
                answer = ask_as(self._client, one.tenant, "POST", one.path, one.body, one.key)
                made = (answer.json.get("job_id") or answer.json.get("id")) if answer.outcome == OK else None
                if made != one.id:
                    self._say(f"key {one.key} made {one.id} and now {answer}")

    def _list(self, tenant: int, what: str = "functions") -> Iterator[dict]:
        after = ""
        while True:
            answer = ask_as(self._client, tenant, "GET", f"/{what}?limit=50{after}")
            if answer.outcome != OK:
                self._say(f"the {what} of tenant {tenant} cannot be listed: {answer}")
                return
            yield from answer.json[what]
            if answer.json["next"] is None:
                return
            after = f"&after={answer.json['next']}"

    def _run(self, function: Function) -> None:
        answer = ask_as(self._client, function.tenant, "POST", f"/functions/{function.id}/invoke", {})
        if answer.result != [function.value]:
            self._say(f"function {function.name} does not run as deployed: {answer}")

    def _tokens(self) -> None:
        answer = self._client.ask("GET", "/admin/tokens", OPERATOR)
        listed = {item["name"]: item for item in answer.json["tokens"] if item["source"] == "database"}
        known = {name: token for model in self._models for name, token in model.tokens.items()}
        for name in listed.keys() - known.keys():
            self._say(f"token {name} is there and should not be")
        for model in self._models:
            for name, token in list(model.tokens.items()):
                if name not in listed:
                    if token.state is State.THERE:
                        self._say(f"token {name} is gone though it was acknowledged")
                    del model.tokens[name]
                    continue
                token.state, token.id = State.THERE, listed[name]["id"]
            there = [token for token in model.tokens.values() if token.secret is not None]
            for token in self._random.sample(there, min(_SAMPLE, len(there))):
                self._expect(str(token.secret), 200, f"token {token.name} is refused")
            for secret in model.revoked[-_SAMPLE:]:
                self._expect(secret, 401, "a token is valid after its revocation was acknowledged")

    def _expect(self, secret: str, status: int, text: str) -> None:
        answer = self._client.ask("GET", "/functions?limit=1", secret)
        if answer.status != status:
            self._say(f"{text}: {answer}")

    def _weights(self) -> None:
        for model in self._models:
            for tenant, allowed in model.weights.items():
                answer = self._client.ask("GET", f"/admin/tenants/{tenant}", OPERATOR)
                found = answer.json["quotas"]["weight"] if "weight" in answer.json["overrides"] else None
                if found not in allowed:
                    self._say(f"tenant {tenant} has the weight {found} of its own, and should have one of {allowed}")
                model.weights[tenant] = {found}

    def _jobs(self) -> None:
        until = time.monotonic() + _PATIENCE_S
        for model in self._models:
            for job in model.jobs:
                while True:
                    answer = ask_as(self._client, job.tenant, "GET", f"/jobs/{job.id}")
                    if answer.outcome != OK:
                        self._say(f"job {job.id} was acknowledged and is gone: {answer}")
                        break
                    status = answer.json["status"]
                    if status == "completed" and answer.json["result"]["result"] != [job.value]:
                        self._say(f"job {job.id} has another result: {answer}")
                    if status == "failed" and answer.json["error"]["kind"] not in {"node_restarted", "not_found"}:
                        self._say(f"job {job.id} failed: {answer}")
                    if status in _FINAL:
                        break
                    if time.monotonic() > until:
                        self._say(f"job {job.id} does not end: {answer}")
                        break
                    time.sleep(0.02)
            model.jobs.clear()

    def _artifacts(self, digests: set[str]) -> None:
        directory = self._home / "artifacts"
        files = {path.name: path for path in directory.glob("??/*")}
        for name in files.keys() - digests:
            self._say(f"the artifact {name} is left and no function has it")
        for name in digests - files.keys():
            self._say(f"the artifact {name} is gone and a function has it")
        for name in digests & files.keys():
            if digest_of(files[name].read_bytes()) != name:
                self._say(f"the artifact {name} is not what it was")

    def _say(self, text: str) -> None:
        self.findings.append(text)
