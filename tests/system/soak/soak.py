"""A soak: a real node, eight tenants of which one is hostile, an operator, and a look at what stays when they go."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from system.front_door import VECTOR_ADD, Served
from system.soak import guests
from system.soak.actor import Actor, Stage
from system.soak.client import OK, Answer, Client, Wallet, invocation
from system.soak.gauges import Reading, compare, entries, parse, read
from system.soak.hostile import Hostile
from system.soak.operating import Operator
from system.soak.tally import Spread, Tally
from system.soak.traffic import Honest, Limited

TESTS = Path(__file__).resolve().parents[2]
TENANTS, LIMITED, HOSTILE = range(1, 9), 7, 8
_HONEST_THREADS, _HOSTILE_THREADS = 2, 6

#: Small, so that limits are met.
SETTINGS = {
    "TENSOR_WASM_WORKERS": "8",
    "TENSOR_WASM_DISPATCH_PERMITS": "4",
    "TENSOR_WASM_QUEUE_DEPTH": "64",
    "TENSOR_WASM_INVOKE_DEADLINE_S": "20",
    "TENSOR_WASM_INSTANCE_MEMORY_BYTES": "64MiB",
    "TENSOR_WASM_MAX_BODY_BYTES": "8MiB",
    "TENSOR_WASM_HELD_BODY_BYTES": "64MiB",
    "TENSOR_WASM_OUTPUT_BYTES": "256KiB",
    "TENSOR_WASM_COMPILE_TIMEOUT_S": "10",
    "TENSOR_WASM_DRAIN_S": "10",
    "TENSOR_WASM_INSTANCE_IDLE_S": "5",
    "TENSOR_WASM_SNAPSHOT_FILE_BYTES": "67108864",
    "TENSOR_WASM_JOB_QUEUE_DEPTH": "64",
    "TENSOR_WASM_JOB_STORED_BYTES": "1MiB",
    "TENSOR_WASM_JOB_RETENTION_S": "30",
    "TENSOR_WASM_LOG": "warning",
}
#: What the cache of kernels holds; modules are forgotten when they are deleted. The warm-up fills it, with kernels at
#: least as large on average as the traffic's, so that later growth is a leak's.
_KERNELS = 1024
_STATEMENTS = (1, 1, 1, 500)
#: Requests at once, each of which occupies a thread for a while: as many threads as the node's pools have.
_CROWD = 24
#: How long /healthz may take, 95 of 100 times and ever. The driver uses half the machine, and others may use it too.
HEALTH_P95_S, HEALTH_MAX_S = 0.25, 3.0
#: Longest time that the node gets to come to rest: threads end after 10 idle seconds.
_REST_S = 40.0
_SETTLED_S = 12.0
_STOP_S = 90.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how thoroughly. ``warm_up_s`` is of mixed traffic; with ``fills_caches`` it comes after those."""

    seconds: float
    seed: int
    warm_up_s: float
    fills_caches: bool


@dataclass(slots=True)
class Outcome:
    """What a soak came to. ``samples`` are readings under way, (seconds, resident bytes, threads, descriptors)."""

    seed: int
    seconds: float = 0.0
    start: Reading | None = None
    end: Reading | None = None
    rest_s: float = 0.0
    health: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    latencies: dict[str, Spread] = field(default_factory=dict)
    samples: list[tuple[float, int, int, int]] = field(default_factory=list)
    findings: dict[str, list[str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


Say = Callable[[str], None]


def soak(plan: Plan, directory: Path, say: Say = lambda _: None) -> Outcome:
    """Start a node below ``directory``, strain it, stop it. What is wrong is among the outcome's findings."""
    admin = secrets.token_hex(16)
    tokens = {tenant: secrets.token_hex(16) for tenant in TENANTS}
    scopes = [f"{admin}:role=admin", *(f"{token}:tenant={tenant}" for tenant, token in tokens.items())]
    audit = directory / "audit.jsonl"
    served = Served(
        directory / "home",
        TENSOR_WASM_API_TOKENS=";".join(scopes),
        TENSOR_WASM_AUDIT=f"file:{audit}",
        **SETTINGS,
    )
    tally = Tally()
    host, port = served.url.removeprefix("http://").split(":")
    wallets = {tenant: Wallet(tenant, token) for tenant, token in tokens.items()}
    stage = Stage((host, int(port)), served.process.pid, plan.seed, tally, admin, wallets)
    outcome = Outcome(plan.seed)
    try:
        _Soak(plan, stage, served, directory / "home", outcome, say).run()
    finally:
        code = served.stop() if served.process.poll() is None else served.wait()
        if code != 0:
            tally.find("the node's exit code is not 0", str(code))
        _check_log(served.log, tally)
        _check_audit(audit, tally)
        outcome.outcomes = {deed: dict(counts) for deed, counts in sorted(tally.outcomes.items())}
        outcome.latencies = {deed: tally.latency(deed) for deed in sorted(tally.outcomes)}
        outcome.findings = tally.findings
    return outcome


def _check_log(log: str, tally: Tally) -> None:
    for word in ("Traceback", "ERROR", "error:"):
        if word in log:
            at = log.index(word)
            tally.find(f"the node's log has {word!r}", log[max(at - 500, 0) : at + 3000])
            return


#: Deeds that the audit log has a line of each, with the event and the status.
_AUDITED = (
    ("operator: create a token", "token.create", 201),
    ("operator: revoke a token", "token.revoke", 204),
    ("operator: terminate", "instance.terminate", 200),
)


def _check_audit(path: Path, tally: Tally) -> None:
    """Each line is JSON, and what an operator did is there, no more and no less."""
    lines: Counter[tuple[str, int]] = Counter()
    with path.open() as file:
        for line in file:
            event = json.loads(line)
            lines[event["event"], event["status"]] += 1
    for deed, event, status in _AUDITED:
        done, written = tally.outcomes[deed][OK], lines[event, status]
        if done != written:
            tally.find("the audit log is not what was done", f"{event}: {done} done, {written} lines")


class _Soak:
    def __init__(self, plan: Plan, stage: Stage, served: Served, home: Path, outcome: Outcome, say: Say) -> None:
        self.plan = plan
        self.stage = stage
        self.served = served
        self.home = home
        self.outcome = outcome
        self.say = say
        self.client = Client(stage.address)
        self.operator = Operator(stage, "operator", HOSTILE, LIMITED)

    def run(self) -> None:
        plan, outcome = self.plan, self.outcome
        self._deploy()
        if plan.fills_caches:
            self.say(f"filling the cache of kernels: {_KERNELS}")
            self._fill()
        self.say(f"warming up: every deed once, then {plan.warm_up_s:g} s of all of them")
        self._warm_up()
        self._strain(plan.warm_up_s, "warm-up")
        self._clear()
        outcome.start = self._rest(None)
        self.say(f"the start: {_shown(outcome.start)}")
        began = time.monotonic()
        with self._health():
            self._strain(plan.seconds, "soak")
        outcome.seconds = time.monotonic() - began
        self._clear()
        began = time.monotonic()
        outcome.end = self._rest(outcome.start)
        outcome.rest_s = time.monotonic() - began
        self.say(f"the end: {_shown(outcome.end)}")
        for what, details in compare(outcome.start, outcome.end).items():
            self.stage.tally.find(what, details)
        self._check_terminations()
        self._check_failures()
        self.client.close()

    # --- before -----------------------------------------------------------------------------------------

    def _deploy(self) -> None:
        for tenant in TENANTS:
            for kept, wasm in ((self.stage.shared, guests.guest()), (self.stage.vectors, VECTOR_ADD.read_bytes())):
                kept[tenant] = self._deploy_one(tenant, wasm)

    def _deploy_one(self, tenant: int, wasm: bytes) -> str:
        token = self.stage.wallets[tenant].settings.secret
        answer = self.client.ask("POST", "/functions?name=shared", token, wasm, "application/wasm")
        assert answer.outcome == OK, answer
        return str(answer.json["id"])

    def _fill(self) -> None:
        """Fill the node's cache of kernels with some that come only once."""
        random = Random(f"{self.plan.seed}/fill")
        token = self.stage.wallets[1].settings.secret
        for _ in range(_KERNELS):
            ptx = guests.numbered_ptx(random.getrandbits(31), random.choice(_STATEMENTS))
            body = invocation("kernel", [1, 1, 0, len(ptx), 1], ptx + b"k")
            answer = self.client.ask("POST", f"/functions/{self.stage.shared[1]}/invoke", token, body)
            assert answer.result == [0], answer

    def _warm_up(self) -> None:
        with ThreadPoolExecutor(_CROWD) as pool:
            warming = [pool.submit(actor.warm_up) for actor in self._honest("once", 1)]
            for part, actor in enumerate(self._hostile("once", _HOSTILE_THREADS)):
                warming.append(pool.submit(actor.warm_up, part, _HOSTILE_THREADS))
            for warmed in warming:
                warmed.result()
            for work in (self._sleep, self._deploy_and_delete, self._change_nothing):
                list(pool.map(work, range(_CROWD)))

    # Each fills one of the node's pools of threads: for invocations, for deploys, for other work.

    def _sleep(self, number: int) -> None:
        self._ask_aside("POST", f"/functions/{self.stage.shared[1]}/invoke", invocation("sleep", deadline_ms=300))

    def _deploy_and_delete(self, number: int) -> None:
        wasm = guests.numbered(number)
        deployed = self._ask_aside("POST", "/functions?name=crowd", wasm, "application/wasm")
        self._ask_aside("DELETE", f"/functions/{deployed.json['id']}")

    def _change_nothing(self, number: int) -> None:
        self._ask_aside("PATCH", "/admin/tenants/1", b'{"weight": 1}', token=self.stage.admin)

    def _ask_aside(
        self, method: str, path: str, body: bytes | None = None, media_type: str = "application/json", token: str = ""
    ) -> Answer:
        """On a connection of its own."""
        client = Client(self.stage.address)
        answer = client.ask(method, path, token or self.stage.wallets[1].settings.secret, body, media_type)
        client.close()
        return answer

    def _honest(self, phase: str, count: int) -> list[Actor]:
        """``count`` clients of each honest tenant."""
        return [
            (Limited if tenant == LIMITED else Honest)(self.stage, f"tenant {tenant}-{phase}-{number}", tenant)
            for tenant in TENANTS
            if tenant != HOSTILE
            for number in range(count)
        ]

    def _hostile(self, phase: str, count: int) -> list[Actor]:
        return [Hostile(self.stage, f"hostile-{phase}-{number}", HOSTILE) for number in range(count)]

    # --- the soak ---------------------------------------------------------------------------------------

    def _strain(self, seconds: float, phase: str) -> None:
        """All actors at once, until the time is over or the node is gone."""
        self.stage.over = threading.Event()
        operator = Operator(self.stage, f"operator-{phase}", HOSTILE, LIMITED)
        actors = [*self._honest(phase, _HONEST_THREADS), *self._hostile(phase, _HOSTILE_THREADS), operator]
        for actor in actors:
            actor.thread.start()
        began = time.monotonic()
        until = began + seconds
        next_word = began + 30
        while time.monotonic() < until and self.served.process.poll() is None:
            time.sleep(min(1.0, max(until - time.monotonic(), 0.0)))
            if phase == "soak":
                self.outcome.samples.append((round(time.monotonic() - began, 1), *self._sample()))
            if time.monotonic() >= next_word:
                next_word += 30
                self.say(f"{time.monotonic() - began:.0f} s, {len(self.stage.tally.findings)} findings")
        self.stage.over.set()
        # The operator may have left a tenant without a single instance: what others still wait for would never come.
        operator.thread.join(_STOP_S)
        self.operator.lift_quotas()
        for actor in actors:
            actor.thread.join(_STOP_S)
            if actor.thread.is_alive():
                self.stage.tally.find("a client got no answer", actor.name)
        if self.served.process.poll() is not None:
            self.stage.tally.find("the node is gone", self.served.log[-3000:])
            raise AssertionError("the node is gone")

    def _sample(self) -> tuple[int, int, int]:
        proc = Path(f"/proc/{self.stage.pid}")
        try:
            resident = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            return resident, entries(f"{proc}/task"), entries(f"{proc}/fd")
        except FileNotFoundError:
            return 0, 0, 0

    @contextmanager
    def _health(self) -> Iterator[None]:
        host, port = self.stage.address
        watcher = subprocess.Popen(
            [sys.executable, "-m", "system.soak.health", host, str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(TESTS)},
        )  # fmt: skip
        try:
            yield
        finally:
            out, _ = watcher.communicate("", timeout=60)
        found = self.outcome.health = json.loads(out)
        took, late = found["took"], found["late"]
        if took["p95"] > HEALTH_P95_S + late["p95"] or took["max"] > HEALTH_MAX_S + late["max"] or found["missed"]:
            self.stage.tally.find("/healthz was slow", json.dumps(found))

    # --- after ------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        """Take back quotas, delete what was deployed, revoke what was made."""
        self.operator.lift_quotas()
        for actor in self._hostile("end", 1):
            actor.clear()
            actor.client.close()
        self.operator.clear()
        self.operator.client.close()

    def _rest(self, start: Reading | None) -> Reading:
        """The node once it does nothing; compared with ``start``, once it is no more than that, if it comes to that."""
        began = time.monotonic()
        while True:
            reading = self._read()
            waited_s = time.monotonic() - began
            if start is None:
                is_over = reading.is_idle and (waited_s > _SETTLED_S or not self.plan.fills_caches)
            else:
                is_over = not compare(start, reading)
            if is_over or waited_s > _REST_S:
                return reading
            time.sleep(0.25)

    def _read(self) -> Reading:
        admin = self.stage.admin
        tenants = self.client.ask("GET", "/admin/tenants", admin).json["tenants"]
        usages: dict[str, float] = {}
        for name in (
            "instances",
            "queued",
            "permits_held",
            "launches_waiting",
            "guest_memory_bytes",
            "gpu_memory_bytes",
        ):
            usages[f"tenants' {name}"] = sum(tenant["usage"][name] for tenant in tenants)
        usages["kept instances"] = usages["jobs that have not ended"] = 0
        for wallet in self.stage.wallets.values():
            token = wallet.settings.secret
            usages["kept instances"] += len(self.client.ask("GET", "/instances", token).json["instances"])
            for status in ("pending", "running"):
                jobs = self.client.ask("GET", f"/jobs?status={status}&limit=1000", token).json["jobs"]
                usages["jobs that have not ended"] += len(jobs)
        stored_bytes = sum(tenant["usage"]["stored_bytes"] for tenant in tenants)
        usages["listed instances"] = len(self.client.ask("GET", "/admin/instances", admin).json["instances"])
        tokens = len(self.client.ask("GET", "/admin/tokens", admin).json["tokens"])
        metrics = self.client.ask("GET", "/metrics", admin).body.decode()
        return read(self.stage.pid, self.home, metrics, tokens, stored_bytes, usages)

    def _check_failures(self) -> None:
        """A trap is answered with status 500, as a failure of the node is, which clients that left cannot tell of."""
        metrics = self.client.ask("GET", "/metrics", self.stage.admin).body.decode()
        counted = sum(value for name, value in parse(metrics).counters.items() if _is_failure(name))
        told = sum(counts["trap"] for counts in self.stage.tally.outcomes.values())
        if counted != told:
            self.stage.tally.find("the node failed", f"{counted:g} answers have status 500, {told} traps were told")

    def _check_terminations(self) -> None:
        totals = self.stage.tally.totals
        for tenant in TENANTS:
            told, asked = totals[f"terminated answers of tenant {tenant}"], totals[f"terminations of tenant {tenant}"]
            if told > asked:
                self.stage.tally.find(
                    "more instances were terminated than an operator ended", f"{tenant}: {told}, {asked}"
                )


def _is_failure(name: str) -> bool:
    return name.startswith("tensor_wasm_http_requests_total{") and "status=500" in name


def _shown(reading: Reading) -> str:
    return (
        f"{reading.threads} threads, {reading.descriptors} descriptors, {reading.compilers} compilers,"
        f" {reading.mappings} mappings, {reading.resident_bytes >> 20} MiB resident,"
        f" {reading.functions} functions, {reading.tokens} tokens, {reading.files} files of"
        f" {reading.files_bytes >> 20} MiB; {'idle' if reading.is_idle else f'busy: {reading.busy}'}"
    )
