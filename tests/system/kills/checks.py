"""After a restart: is everything there that was acknowledged, and nothing that is half of something?"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from system.kills.client import OPERATOR, ask_as
from system.kills.model import Function, Model, State, digest_of
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
        digests = self._functions() | self._kernels()
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
