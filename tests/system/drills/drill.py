"""A drill: a node as a service, a Prometheus that watches it, tenants who call it, an operator with the runbook.

All windows are the operator's divided by ``FACTOR``: the rules', the queries', the one of ``tensor-wasm observe``. What
is waited for is an event, with patience; no drill depends on how fast the machine is.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from system.drills import diagnosis
from system.drills.clients import Clients
from system.drills.guests import guest
from system.drills.narrator import Narrator
from system.drills.runbook import DIRECTORY, DISPATCH, read
from system.drills.service import PATIENCE_S, Service
from system.front_door import environment
from system.prometheus import Prometheus, Sample
from tensor_wasm.cli.client import Client

#: 5 minutes are 4 seconds, half an hour 24 seconds, an hour 48 seconds.
FACTOR = 75.0
WINDOW_S = 300 / FACTOR
SLOW_DISPATCH = "TensorWasmDispatchLatencySpike"
SLOW_HEALTHZ = "TensorWasmHealthzSlow"
SLOW_INVOKE = "TensorWasmInvokeLatencySpike"
#: What latency_dispatch_serial_P95 allows.
OBJECTIVE_S = 50e-6
#: How long ``tensor-wasm observe --once`` may take, besides the start of its own process.
OBSERVE_S = 2.0
#: The tenant that the runbook's examples name is the one that misbehaves; another one works as it always does.
CULPRIT, NEIGHBOUR = 7, 8

_OPERATOR, _TENANTS = "the-operator", "the-tenants"
_POLL_S = 0.1
_TRIES = 3


class Drill:
    """One drill, in ``directory``. What it starts ends with :meth:`close`. ``pause_s`` is for somebody who watches."""

    def __init__(self, directory: Path, narrator: Narrator, pause_s: float = 0.0) -> None:
        self.narrator = narrator
        self.runbook = read(DISPATCH, FACTOR)
        self._directory = directory
        self._pause_s = pause_s
        self._service: Service | None = None
        self._prometheus: Prometheus | None = None
        self._clients: list[Clients] = []
        self._connections: list[Client] = []

    def close(self) -> None:
        """End clients, node and Prometheus."""
        for clients in self._clients:
            clients.tell_to_stop()
        if self._service is not None:
            self._service.stop()
        for clients in self._clients:
            clients.join()
        for connection in self._connections:
            connection.close()
        if self._prometheus is not None:
            self._prometheus.stop()

    # --- what there is ----------------------------------------------------------------------------------

    @property
    def service(self) -> Service:
        assert self._service is not None, "start() comes first"
        return self._service

    @property
    def prometheus(self) -> Prometheus:
        assert self._prometheus is not None, "start() comes first"
        return self._prometheus

    def start(
        self,
        *,
        deployment: str = "host",
        variables: dict[str, str] | None = None,
        faulty: str | None = None,
        **settings: str,
    ) -> None:
        """Start the node with these settings, and Prometheus. ``variables`` are for the process besides; ``faulty`` is
        the release, else it is the good one.
        """
        tokens = f"{_OPERATOR}:role=admin;{_TENANTS}:tenant=*"
        self._service = Service(
            self._directory / "service",
            variables or {},
            faulty,
            TENSOR_WASM_API_TOKENS=tokens,
            TENSOR_WASM_OBSERVE_WINDOW_S=f"{WINDOW_S:g}",
            TENSOR_WASM_INVOKE_DEADLINE_S="600",
            **settings,
        )
        self._service.start()
        self._prometheus = Prometheus(
            self._directory / "prometheus", self.service.url, deployment=deployment, factor=FACTOR
        )
        shown = ", ".join(f"{name}={value}" for name, value in settings.items())
        self.narrator.began(f"a node at {self.service.url}" + (f" with {shown}" if shown else ""))
        self.narrator.began(f"Prometheus at {self.prometheus.url}, where 5 minutes pass in {WINDOW_S:g} seconds")

    def tenant(self, number: int) -> Client:
        """A connection of a tenant's."""
        return self._connected(Client(self.service.url, _TENANTS, number))

    def operator(self) -> Client:
        """A connection of the operator's."""
        return self._connected(Client(self.service.url, _OPERATOR))

    def deploy(self, tenant: int, wasm: bytes | None = None) -> str:
        """Deploy the drills' guest, or another; the function's id."""
        return str(self.tenant(tenant).deploy("work", wasm or guest())["id"])

    def call(
        self, count: int, tenant: int, call: Callable[[Client], object], *, pause_s: float = 0.0, again: bool = True
    ) -> Clients:
        """Have so many clients of a tenant make this call again and again."""
        clients = Clients([self.tenant(tenant) for _ in range(count)], call, pause_s=pause_s, again=again)
        self._clients.append(clients)
        return clients

    def launching(self, function: str, steps: int, count: int) -> Callable[[Client], object]:
        """The call that launches the drills' kernel."""
        request = {"export": "launch", "args": [steps, count]}
        return lambda client: client.invoke(function, request, None)

    def _connected(self, client: Client) -> Client:
        self._connections.append(client)
        return client

    # --- what happens -----------------------------------------------------------------------------------

    def brings_about(self, text: str) -> None:
        """Say what is brought about."""
        self.narrator.brings_about(text)

    def fires(self, alert: str, severity: str | None = None) -> None:
        """Wait until an alert fires; its runbook is there, and its severity is this one."""
        began_s = time.monotonic()
        fired = self.prometheus.until(lambda: self.prometheus.firing(alert), f"{alert} fires", PATIENCE_S)[0]
        page = DIRECTORY / fired["annotations"]["runbook_url"].rpartition("/")[2]
        assert page.is_file(), f"{alert} leads to {page.name}, which there is not"
        assert severity in (None, fired["labels"]["severity"])
        self.narrator.fired(
            f"{alert} fires after {time.monotonic() - began_s:.0f} s ({fired['labels']['severity']}):"
            f" {fired['annotations']['summary']}"
        )

    def resolves(self, alert: str) -> None:
        """Wait until an alert neither fires nor is about to."""
        began_s = time.monotonic()
        self.prometheus.until(lambda: not self.prometheus.alerts(alert), f"{alert} resolves", PATIENCE_S)
        self.narrator.resolved(f"{alert} is resolved after {time.monotonic() - began_s:.0f} s")

    def recovers(self) -> None:
        """Wait until the alert on dispatch is over and launches are quick again."""
        self.resolves(SLOW_DISPATCH)
        self.until(lambda: self.now(1) <= OBJECTIVE_S, "the P95 of dispatch is what it should be")
        self.value(1)

    def is_quiet(self, alert: str) -> None:
        """Check that an alert neither fires nor is about to."""
        found = self.prometheus.alerts(alert)
        assert not found, f"{alert} is {found[0]['state']}"
        self.narrator.answered(f"{alert}: quiet, as it should be")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for what is sure to come, and give it."""
        until_s = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < until_s, f"waited {PATIENCE_S:g} s in vain: {what}"
            time.sleep(_POLL_S)
        return found

    def usual_rate(self) -> float:
        """Wait until what goes on has gone on for a while; then query 2."""
        ready_s = time.monotonic() + 2 * WINDOW_S
        self.until(lambda: time.monotonic() > ready_s and self.now(2) > 0, "there is a rate to compare with")
        return self.value(2)

    # --- what the operator does -------------------------------------------------------------------------

    def ask(self, number: int, which: int = 1) -> list[Sample]:
        """Run a query of the runbook's "First queries" as it stands."""
        return self._asked(f"query {number}", self.runbook.query(number, which))

    def value(self, number: int, which: int = 1) -> float:
        """The one number of such a query."""
        samples = self.ask(number, which)
        assert len(samples) == 1, f"query {number} gives {len(samples)} series"
        return samples[0].value

    def now(self, number: int) -> float:
        """The same without a word, for who waits for it; NaN without data."""
        value = self.prometheus.value(self.runbook.query(number))
        return math.nan if value is None else value

    def by_tenant(self, number: int, which: int = 1) -> dict[int, float]:
        """The answer of such a query by tenant, greatest first."""
        samples = sorted(self.ask(number, which), key=lambda sample: -sample.value)
        return {int(sample.labels["tenant"]): sample.value for sample in samples if sample.labels["tenant"] != "other"}

    def evaluate(self, expression: str) -> list[Sample]:
        """Run another query, whose windows are scaled already."""
        return self._asked("query", expression)

    def _asked(self, name: str, expression: str) -> list[Sample]:
        samples = self.prometheus.query(expression)
        self.narrator.asked(f"{name}: {' '.join(expression.split())}")
        for sample in samples:
            labels = ", ".join(f"{key}={value}" for key, value in sample.labels.items() if key in ("tenant", "version"))
            self.narrator.answered(f"{labels}{labels and ': '}{sample.value:.6g}")
        if not samples:
            self.narrator.answered("no data")
        return samples

    def does(self, beginning: str, *ids: str) -> str:
        """Do what the runbook says: its command that begins so, for these instances; what it printed."""
        command = self.runbook.command(beginning, *ids)
        self.narrator.does(command)
        done = self._shell(command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def runs(self, command: str) -> str:
        """Run a command that the runbook describes and does not spell out; what it printed."""
        self.narrator.does(command)
        done = self._shell(command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def restarts(self, **settings: str) -> None:
        """Write settings into the environment file and restart the service."""
        for name, value in settings.items():
            self.narrator.does(f"echo '{name}={value}' >> /etc/tensor-wasm/environment")
        self.narrator.does("systemctl restart tensor-wasm")
        self.service.set(**settings)
        self.service.restart()

    def releases(self, *arguments: str) -> str:
        """Run the script for releases; what it printed."""
        self.narrator.does(f"tensor-wasm-release {' '.join(arguments)}")
        done = self.service.release(*arguments)
        assert done.returncode == 0, done.stderr + self.service.log[-2000:]
        self.narrator.answered(done.stdout.strip())
        return done.stdout

    def instances(self, tenant: int) -> list[dict[str, Any]]:
        """Live instances of a tenant, by the operator's command."""
        found: list[dict[str, Any]] = json.loads(self._command("admin", "instance", "list", "--tenant", str(tenant)))[
            "instances"
        ]
        return found

    def observes(self) -> dict[str, Any]:
        """``tensor-wasm observe --once``: the one document, within two seconds whatever goes on."""
        for attempt in range(_TRIES):
            _, startup_s = self._timed("tensor-wasm version")
            done, took_s = self._timed(f"tensor-wasm observe --once --home {self.service.home}")
            assert done.returncode == 0, done.stderr
            # The machine may have had something else to do just then.
            if took_s <= OBSERVE_S + startup_s:
                break
            assert attempt < _TRIES - 1, f"observe --once took {took_s:.1f} s"
        document: dict[str, Any] = json.loads(done.stdout)
        (self._directory / f"observe-{time.time_ns()}.json").write_text(done.stdout)
        self.narrator.does("tensor-wasm observe --once")
        self.narrator.answered(
            f"a document of {len(done.stdout)} bytes after {took_s:.1f} s; unread: {document['unread']}"
        )
        return document

    def diagnoses(self, document: dict[str, Any], hypothesis: str) -> None:
        """Check that the document alone leads to this hypothesis."""
        found = diagnosis.diagnose(document)
        self.narrator.answered(f"the document alone says: {found}")
        assert found == hypothesis, json.dumps(document)

    def pauses(self) -> None:
        """Let who watches look around, with the node as it is now."""
        if self._pause_s:
            service = self.service
            self.narrator.pauses(
                f"the node stays so for {self._pause_s:g} s; try the runbook in another terminal:\n"
                f"    export TENSOR_WASM_SERVER={service.url} TENSOR_WASM_TOKEN={_OPERATOR}\n"
                f"    export PATH={service.root / 'current' / 'bin'}:$PATH TENSOR_WASM_HOME={service.home}\n"
                f"    Prometheus: {self.prometheus.url}/alerts"
            )
            time.sleep(self._pause_s)

    def _command(self, *arguments: str) -> str:
        done = self._shell(f"tensor-wasm {' '.join(arguments)} --json")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _timed(self, command: str) -> tuple[subprocess.CompletedProcess[str], float]:
        began_s = time.monotonic()
        return self._shell(command), time.monotonic() - began_s

    def _shell(self, command: str) -> subprocess.CompletedProcess[str]:
        mine = {
            "PATH": f"{self.service.root / 'current' / 'bin'}:{os.environ.get('PATH', '')}",
            "TENSOR_WASM_SERVER": self.service.url,
            "TENSOR_WASM_TOKEN": _OPERATOR,
        }
        return subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, env=environment(**mine), check=False,
            timeout=PATIENCE_S,
        )  # fmt: skip
