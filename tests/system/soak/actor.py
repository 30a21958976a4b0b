"""Who does things to the node: threads that draw their next deed from a table until the soak is over."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from system.soak.client import OK, Answer, Client, Token, Wallet
from system.soak.tally import Tally


@dataclass(frozen=True, slots=True)
class Deed:
    """A row of a table: how often against the others, and what."""

    weight: int
    act: Callable[[], None]

    @property
    def name(self) -> str:
        return self.act.__name__


@dataclass
class Stage:
    """What all actors share. ``shared`` is the guest and ``vectors`` the example, deployed for each tenant."""

    address: tuple[str, int]
    pid: int
    seed: int
    tally: Tally
    admin: str
    wallets: dict[int, Wallet]
    shared: dict[int, str] = field(default_factory=dict)
    vectors: dict[int, str] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def pause(self, seconds: float) -> None:
        """Sleep, unless the soak is over."""
        self.over.wait(seconds)


class Actor:
    """One thread's worth of deeds, drawn by ``random``. Subclasses give the table."""

    #: Longest pause between two deeds, in seconds.
    pause_s = 0.02

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.name = name
        self.random = Random(f"{stage.seed}/{name}")
        self.client = Client(stage.address)
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def deeds(self) -> Sequence[Deed]:
        raise NotImplementedError

    def warm_up(self, part: int = 0, parts: int = 1) -> None:
        """Every deed once, or one part of them, on the caller's thread."""
        for deed in self.deeds()[part::parts]:
            self._do(deed)
        self.client.close()

    def clear(self) -> None:
        """Give back what the deeds left behind on purpose."""

    def _run(self) -> None:
        deeds = self.deeds()
        weights = [deed.weight for deed in deeds]
        try:
            while not self.stage.over.is_set():
                self._do(self.random.choices(deeds, weights)[0])
                self.stage.pause(self.random.random() * self.pause_s)
        finally:
            self.client.close()

    def _do(self, deed: Deed) -> None:
        try:
            deed.act()
        except Exception:
            self.stage.tally.find(f"{self.name.split('-')[0]}: {deed.name} failed", traceback.format_exc())


class TenantActor(Actor):
    """An actor that asks for a tenant, with any of its tokens."""

    #: Outcomes that any request of this tenant may have.
    ambient: frozenset[str] = frozenset()

    def __init__(self, stage: Stage, name: str, tenant: int) -> None:
        super().__init__(stage, name)
        self.tenant = tenant
        self.wallet = stage.wallets[tenant]

    def ask(
        self,
        deed: str,
        method: str,
        path: str,
        body: bytes | None = None,
        allowed: Sequence[str] = (OK,),
        media_type: str = "application/json",
        token: Token | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask, count, and check that the outcome is one of those allowed; with any token unless one is given."""
        token = token or self.wallet.pick(self.random)
        asked_s = time.monotonic()
        answer = self.client.ask(method, path, token.secret, body, media_type, more)
        tally = self.stage.tally
        tally.count(deed, answer.outcome, answer.took_s)
        if token.must_be_refused(asked_s):
            if answer.outcome != "unauthorized":
                tally.find("a revoked token was accepted", f"{deed}: {answer}")
        elif answer.outcome == "unauthorized":
            if not token.may_be_refused():
                tally.find("a valid token was refused", f"{deed}: {answer}")
        elif answer.outcome == "terminated":
            tally.add(f"terminated answers of tenant {self.tenant}")
        elif answer.outcome not in allowed and answer.outcome not in self.ambient:
            tally.find(f"{deed}: {answer.status} {answer.outcome} is not an answer to this", str(answer))
        return answer

    def expect(self, what: str, answer: Answer, value: object) -> None:
        """Check the values of an invocation that returned."""
        if answer.outcome == OK and answer.result != value:
            self.stage.tally.find(f"{what}: a wrong result", f"{value!r} expected: {answer}")
