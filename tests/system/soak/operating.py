"""The operator: looks at everything, ends instances, makes and revokes tokens, changes quotas, reloads."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence

from system.soak.actor import Actor, Deed, Stage
from system.soak.client import OK, Answer, Token
from system.soak.gauges import parse

_MIB = 1 << 20
#: Tokens of a tenant besides the one of the settings.
_TOKENS_MAX = 4
#: A promise of 100 ms; what is much longer cannot be blamed on a machine that has too much to do.
_TERMINATION_S = 1.0
_PATHS = ("/healthz", "/readyz", "/openapi.json", "/docs", "/admin/tenants", "/admin/tokens", "/admin/instances")


class Operator(Actor):
    """The only one of its kind; ``hostile`` and ``limited`` are the tenants whose quotas are tight."""

    pause_s = 0.1

    def __init__(self, stage: Stage, name: str, hostile: int, limited: int) -> None:
        super().__init__(stage, name)
        self.hostile = hostile
        self.limited = limited
        self._counters: dict[str, float] = {}

    def deeds(self) -> Sequence[Deed]:
        return (
            Deed(20, self.terminate),
            Deed(8, self.create_token),
            Deed(8, self.revoke_token),
            Deed(6, self.change_hostile_quotas),
            Deed(5, self.change_limited_quotas),
            Deed(6, self.change_weights),
            Deed(10, self.scrape),
            Deed(10, self.look),
            Deed(2, self.hang_up),
            Deed(3, self.err),
        )

    def ask(self, deed: str, method: str, path: str, value: object = None, allowed: Sequence[str] = (OK,)) -> Answer:
        body = None if value is None else json.dumps(value).encode()
        answer = self.client.ask(method, path, self.stage.admin, body)
        self.stage.tally.count(f"operator: {deed}", answer.outcome, answer.took_s)
        if answer.outcome not in allowed:
            self.stage.tally.find(f"operator: {deed}: {answer.status} {answer.outcome} is not an answer", str(answer))
        return answer

    # --- instances --------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """End one of the instances there are. Which tenant's is counted before its client can hear of it."""
        answer = self.ask("list instances", "GET", "/admin/instances")
        found = answer.json["instances"] if answer.outcome == OK else []
        if not found:
            return
        chosen = self.random.choice(found)
        self.stage.tally.add(f"terminations of tenant {chosen['tenant']}")
        done = self.ask("terminate", "POST", f"/admin/instances/{chosen['id']}/terminate", {}, (OK, "not_found"))
        if done.outcome != OK:
            return
        self.stage.tally.count("ended after", chosen["state"], done.json["took_ms"] / 1e3)
        if not done.json["ended"] or done.json["took_ms"] > _TERMINATION_S * 1e3:
            self.stage.tally.find("an instance did not end when it was told to", f"{chosen} {done}")

    # --- tokens -----------------------------------------------------------------------------------------

    def create_token(self) -> None:
        wallet = self.random.choice(list(self.stage.wallets.values()))
        if wallet.size >= _TOKENS_MAX:
            return
        name = f"soak-{self.random.randrange(1000)}"
        answer = self.ask("create a token", "POST", "/admin/tokens", {"name": name, "scope": f"tenant={wallet.tenant}"})
        if answer.outcome == OK:
            wallet.add(Token(answer.json["token"], answer.json["id"]))

    def revoke_token(self) -> None:
        wallet = self.random.choice(list(self.stage.wallets.values()))
        token = wallet.take_oldest()
        if token is not None and self.ask("revoke a token", "DELETE", f"/admin/tokens/{token.id}").outcome == OK:
            wallet.spent(token)

    # --- quotas -----------------------------------------------------------------------------------------

    def change_hostile_quotas(self) -> None:
        draw = self.random
        self._change(
            self.hostile,
            {
                "instances": draw.choice([None, 2, 4, 8]),
                "guest_memory_bytes": draw.choice([None, 64 * _MIB, 256 * _MIB]),
                "gpu_memory_bytes": draw.choice([None, _MIB, 64 * _MIB]),
                "functions": draw.choice([10, 20]),
                "stored_bytes": draw.choice([None, _MIB]),
                "permits": draw.choice([None, 1, 2]),
                "rate_qps": draw.choice([None, 50.0, 500.0]),
                "cuda": draw.random() < 0.9,
            },
        )

    def change_limited_quotas(self) -> None:
        draw = self.random
        self._change(
            self.limited,
            {
                "instances": draw.choice([None, 0, 1, 2]),
                "guest_memory_bytes": draw.choice([None, 4 * _MIB, 64 * _MIB]),
                "permits": draw.choice([None, 1]),
                "rate_qps": draw.choice([None, 5.0, 100.0]),
                "functions": draw.choice([None, 3]),
                "cuda": draw.random() < 0.7,
            },
        )

    def change_weights(self) -> None:
        tenant = self.random.choice(list(self.stage.wallets))
        self._change(tenant, {"weight": self.random.randint(1, 20)})

    def lift_quotas(self) -> None:
        """Take all quotas away, so that what is left can be deleted."""
        for tenant in self.stage.wallets:
            answer = self.ask("show a tenant", "GET", f"/admin/tenants/{tenant}")
            if answer.json["overrides"]:
                self._change(tenant, dict.fromkeys(answer.json["overrides"]))

    def _change(self, tenant: int, changes: dict[str, object]) -> None:
        self.ask("change quotas", "PATCH", f"/admin/tenants/{tenant}", changes)

    # --- looking ----------------------------------------------------------------------------------------

    def look(self) -> None:
        path = self.random.choice([*_PATHS, f"/admin/instances?tenant={self.hostile}"])
        self.ask(f"GET {path.partition('?')[0]}", "GET", path)

    def scrape(self) -> None:
        """Counters only rise; no more permits are used than there are."""
        answer = self.ask("GET /metrics", "GET", "/metrics")
        if answer.outcome != OK:
            return
        series = parse(answer.body.decode())
        used, permits = series.sum("dispatch_permits_used"), series.sum("dispatch_permits")
        if used > permits:
            self.stage.tally.find("more permits are used than there are", f"{used} of {permits}")
        counters = series.counters
        for name, value in counters.items():
            if value < self._counters.get(name, 0.0):
                self.stage.tally.find("a counter fell", f"{name}: {self._counters[name]} to {value}")
        for name, value in series.gauges.items():
            if value < 0:
                self.stage.tally.find("a gauge is below zero", f"{name}: {value}")
        self._counters = counters

    def hang_up(self) -> None:
        os.kill(self.stage.pid, signal.SIGHUP)

    def err(self) -> None:
        """An operator makes mistakes too."""
        method, path, value, kind = self.random.choice(
            [
                ("POST", "/admin/tokens", {"scope": "everything"}, "invalid_request"),
                ("DELETE", "/admin/tokens/settings-1", None, "conflict"),
                ("DELETE", "/admin/tokens/nobody", None, "not_found"),
                ("PATCH", "/admin/tenants/1", {"weight": 0}, "invalid_request"),
                ("PATCH", "/admin/tenants/one", {"weight": 1}, "invalid_tenant"),
                ("POST", "/admin/instances/none/terminate", {}, "not_found"),
                ("GET", "/admin/instances?tenants=1", None, "invalid_request"),
            ]
        )
        self.ask("err", method, path, value, (kind,))

    def clear(self) -> None:
        """Revoke what was made."""
        for wallet in self.stage.wallets.values():
            while (token := wallet.take_oldest()) is not None:
                self.ask("revoke a token", "DELETE", f"/admin/tokens/{token.id}")
                wallet.spent(token)
