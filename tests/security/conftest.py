"""Attack suite: one node for all attacks, and after each of them a look at whether it was harmed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from security.attacked import MIB, Attacked, check_calm
from security.guests import probe
from tensor_wasm.store.signing import SigningKey

#: Small, so that attacks reach their bounds soon.
SETTINGS = {
    "TENSOR_WASM_INSTANCE_MEMORY_BYTES": "64MiB",
    "TENSOR_WASM_INVOKE_DEADLINE_S": "5",
    "TENSOR_WASM_WORKERS": "4",
    "TENSOR_WASM_QUEUE_DEPTH": "64",
    "TENSOR_WASM_DISPATCH_PERMITS": "4",
    "TENSOR_WASM_OUTPUT_BYTES": "64KiB",
    "TENSOR_WASM_COMPILE_TIMEOUT_S": "8",
    "TENSOR_WASM_DRAIN_S": "5",
}
#: What compiled code of the attacks and the allocator's own may keep after all attacks.
_KEPT_BYTES = 768 * MIB
_SPARE_DESCRIPTORS = 8


@pytest.fixture(scope="session")
def signer() -> SigningKey:
    """A key whose snapshot files the node takes."""
    return SigningKey.generate()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, signer: SigningKey) -> Iterator[Attacked]:
    home = tmp_path_factory.mktemp("attacked") / "home"
    node = Attacked(home, **SETTINGS, TENSOR_WASM_SNAPSHOT_KEYS=signer.public.text)
    yield node
    code = node.end()
    assert code == 0, node.log
    assert "Traceback" not in node.log


@pytest.fixture(scope="session")
def before(served: Attacked) -> dict[str, int]:
    """What the node occupies once it has done a little of everything."""
    function = served.deploy(probe())
    served.invoke_many(4, function, "nothing")
    served.worst()
    return {"descriptors": served.descriptors + _SPARE_DESCRIPTORS, "resident_bytes": served.resident_bytes}


@pytest.fixture
def node(served: Attacked, before: dict[str, int]) -> Iterator[Attacked]:
    """The node; afterwards it must be alive, quick, empty and no larger than it was."""
    served.worst()
    yield served
    worst = served.worst()
    assert served.process.poll() is None, served.log
    assert served.ask("GET", "/healthz").status == 200
    assert served.ask("GET", "/readyz").status == 200
    check_calm(worst)
    served.settle(before["descriptors"])
    assert served.resident_bytes < before["resident_bytes"] + _KEPT_BYTES
    assert "Traceback" not in served.log


@pytest.fixture(scope="session")
def function(served: Attacked, before: dict[str, int]) -> str:
    """The probe, deployed: see ``guests.py``."""
    return served.deploy(probe())


TOKENS = {1: "one-" + "a" * 39, 2: "two-" + "b" * 39}
ADMIN = "adm-" + "c" * 39


@pytest.fixture(scope="session")
def shared_by_tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    tokens = [f"{token}:tenant={tenant}" for tenant, token in TOKENS.items()] + [f"{ADMIN}:role=admin"]
    node = Attacked(
        tmp_path_factory.mktemp("tenants") / "home",
        **SETTINGS,
        TENSOR_WASM_API_TOKENS=";".join(tokens),
        TENSOR_WASM_AUDIT="none",
    )
    yield node
    code = node.end()
    assert code == 0, node.log
    assert "Traceback" not in node.log


@pytest.fixture
def tenants(shared_by_tenants: Attacked) -> Iterator[Attacked]:
    """A node with a token for each of two tenants; ``bearer(1)`` gives the header of the first."""
    shared_by_tenants.worst()
    yield shared_by_tenants
    worst = shared_by_tenants.worst()
    assert shared_by_tenants.process.poll() is None, shared_by_tenants.log
    check_calm(worst)
    assert "Traceback" not in shared_by_tenants.log


def bearer(tenant: int) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[tenant]}"}
