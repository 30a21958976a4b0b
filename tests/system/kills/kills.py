"""Kill a node again and again while clients change its state, and look after each restart."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from system.front_door import Served, environment
from system.kills.checks import Checker
from system.kills.client import OPERATOR, Changer
from system.kills.model import Model
from system.soak.client import Client
from tensor_wasm.store.signing import SigningKey

_CLIENTS = 4
_TENANTS = tuple(number * 10 + place for number in range(_CLIENTS) for place in (1, 2))
#: How long clients work before the node is killed.
_LONGEST_LOAD_S = 1.2
#: How often it is killed while it starts, and how long after its process began at most.
_WHILE_STARTING, _LONGEST_START_S = 0.25, 1.2
SETTINGS = {
    "TENSOR_WASM_API_TOKENS": ";".join([f"{OPERATOR}:role=admin", *(f"t{t}:tenant={t}" for t in _TENANTS)]),
    "TENSOR_WASM_AUDIT": "none",
    "TENSOR_WASM_COMPILERS": "0",
    "TENSOR_WASM_LOG": "error",
}


@dataclass
class Outcome:
    """What was done and found."""

    kills: int = 0
    acknowledged: int = 0
    restarts_s: list[float] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def kill_again_and_again(
    kills: int,
    seed: int,
    directory: Path,
    say: Callable[[str], None],
    sabotage: Callable[[Path], None] = lambda home: None,
) -> Outcome:
    """The whole of it. Stops at the first restart that finds something: what follows from it would only confuse.

    ``sabotage`` gets the home after each kill, so that tests see that what is lost is found.
    """
    random = Random(seed)
    home = directory / "home"
    models = [Model() for _ in range(_CLIENTS)]
    key = SigningKey.generate()
    settings = SETTINGS | {"TENSOR_WASM_KERNEL_PUBLISHERS": key.public.text}
    outcome = Outcome()
    for number in range(kills + 1):
        if random.random() < _WHILE_STARTING:
            _kill_while_starting(home, settings, random.uniform(0, _LONGEST_START_S))
        began = time.monotonic()
        node = Served(home, **settings)
        outcome.restarts_s.append(time.monotonic() - began)
        host, port = node.url.removeprefix("http://").split(":")
        address = (host, int(port))
        try:
            client = Client(address)
            checker = Checker(client, home, models, _TENANTS, random)
            checker.check()
            client.close()
            outcome.findings += [f"after kill {number}: {text}" for text in checker.findings]
            if outcome.findings or number == kills:
                return outcome
            changers = [
                Changer(place, address, model, Random(random.getrandbits(64)), key)
                for place, model in enumerate(models)
            ]
            for changer in changers:
                changer.start()
            time.sleep(random.uniform(0.02, _LONGEST_LOAD_S))
        finally:
            node.kill()
        for changer in changers:
            changer.stop()
            changer.join()
            outcome.acknowledged += changer.acknowledged
            outcome.findings += changer.findings
        sabotage(home)
        outcome.kills += 1
        if outcome.kills % 10 == 0:
            say(f"{outcome.kills} kills, {outcome.acknowledged} changes acknowledged")
    return outcome


def _kill_while_starting(home: Path, settings: dict[str, str], after_s: float) -> None:
    command = [sys.executable, "-m", "tensor_wasm", "serve", "--listen", "127.0.0.1:0", "--home", str(home)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(**settings)
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after_s)
    process.kill()
    process.wait()
