"""A node on a machine with GPUs, as far as the driver's library tells: the real process with a stand-in for that."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from nvml_stand_in import NvmlStandIn
from system.front_door import Served

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
#: What no scrape may take, however slow the machine: a driver that hangs would hold it up for ever.
HELD_UP_S = 20.0
COMPLAINT = "cannot be read by NVML"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> NvmlStandIn:
    return NvmlStandIn(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def driver(library: NvmlStandIn) -> NvmlStandIn:
    library.say("64 87 0x29 3 1", "41 - 0x1 - -")
    return library


def gpus(served: Served) -> dict[tuple[str, str], float]:
    """The samples of a scrape by family and device."""
    began_s = time.monotonic()
    text = httpx.get(f"{served.url}/metrics", timeout=PATIENCE_S).text
    assert time.monotonic() - began_s < HELD_UP_S
    found = {}
    families = [family for family in text_string_to_metric_families(text) if family.name.startswith("tensor_wasm_dev")]
    assert len(families) == 5, "temperature, load, throttling, memory errors; restarts, of which a CPU has none"
    for family in families:
        for item in family.samples:
            assert item.labels.keys() == {"device"}
            found[item.name.removeprefix("tensor_wasm_device_"), item.labels["device"]] = item.value
    return found


def wait_until(served: Served, expected: Callable[[dict[tuple[str, str], float]], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not expected(found := gpus(served)):
        assert time.monotonic() < until, found
        time.sleep(0.1)


FIRST = {
    ("temperature_celsius", "cuda:0"): 64,
    ("utilization_ratio", "cuda:0"): 0.87,
    ("throttle_reasons", "cuda:0"): 0x28,  # being idle is none
    ("ecc_errors_total", "cuda:0"): 4,
}
#: It cannot tell its load, and has no memory with error correction.
SECOND = {("temperature_celsius", "cuda:1"): 41, ("throttle_reasons", "cuda:1"): 0}


def test_a_node_shows_what_the_driver_tells_now(serve: Callable[..., Served], driver: NvmlStandIn) -> None:
    served = serve(**driver.environment)
    wait_until(served, lambda found: found == FIRST | SECOND)
    driver.say("90 100 0x60 3 2", "41 - 0 - -")
    hot = {"temperature_celsius": 90, "utilization_ratio": 1, "throttle_reasons": 0x60, "ecc_errors_total": 5}
    wait_until(served, lambda found: found == {(name, "cuda:0"): value for name, value in hot.items()} | SECOND)
    assert COMPLAINT not in served.log


def test_a_gpu_that_is_lost_is_missed_once_and_the_other_stays(
    serve: Callable[..., Served], driver: NvmlStandIn
) -> None:
    served = serve(**driver.environment)
    wait_until(served, lambda found: found == FIRST | SECOND)
    driver.say("lost", "41 - 0x1 - -")
    wait_until(served, lambda found: found == SECOND)
    time.sleep(1.5)  # values are read anew after a second
    assert gpus(served) == SECOND
    (line,) = [line for line in served.log.splitlines() if COMPLAINT in line]
    assert "GPU is lost" in line


def test_a_driver_that_vanishes_is_missed_once(serve: Callable[..., Served], driver: NvmlStandIn) -> None:
    served = serve(**driver.environment)
    wait_until(served, lambda found: found == FIRST | SECOND)
    driver.say(state="gone")
    wait_until(served, lambda found: found == {})
    for _ in range(5):
        assert gpus(served) == {}
    (line,) = [line for line in served.log.splitlines() if COMPLAINT in line]
    assert "Driver Not Loaded" in line


def test_a_driver_that_hangs_holds_nobody_up(serve: Callable[..., Served], driver: NvmlStandIn) -> None:
    served = serve(**driver.environment)
    wait_until(served, lambda found: found == FIRST | SECOND)
    driver.say(state="hang")
    # The last values are shown for a while, then none: nobody knows any more.
    wait_until(served, lambda found: found == {})
    assert httpx.get(f"{served.url}/healthz").status_code == 200
    (line,) = [line for line in served.log.splitlines() if COMPLAINT in line]
    assert "does not answer" in line
    driver.say("50 0 0 0 0")
    wait_until(served, lambda found: found.get(("temperature_celsius", "cuda:0")) == 50)
    driver.say(state="hang")
    time.sleep(1.5)  # the values are old enough by now for this scrape to ask
    gpus(served)
    assert served.stop() == 0, "the thread that asks the driver kept the node from its end"


def test_without_a_driver_there_are_no_gpus_and_nothing_to_complain_of(
    serve: Callable[..., Served], driver: NvmlStandIn
) -> None:
    driver.say(state="gone")
    served = serve(**driver.environment)
    assert gpus(served) == {}
    time.sleep(0.5)
    assert gpus(served) == {}
    assert COMPLAINT not in served.log


def test_older_drivers_are_read_as_well(serve: Callable[..., Served], tmp_path: Path) -> None:
    old = NvmlStandIn(tmp_path / "old", is_old=True)
    old.say("64 87 0x29 3 1", "41 - 0x1 - -")
    served = serve(**old.environment)
    wait_until(served, lambda found: found == FIRST | SECOND)


_SCRIPT = """
import sys, time
from tensor_wasm.telemetry.nvml import GpuReader

def wait_for(reader, is_so):
    until = time.monotonic() + 60
    while not is_so(reader.read()):
        assert time.monotonic() < until, reader.read()
        time.sleep(0.01)

def say(*lines):
    with open(sys.argv[1] + ".new", "w") as file:
        file.write("\\n".join(lines) + "\\n")
    import os
    os.replace(sys.argv[1] + ".new", sys.argv[1])

reader = GpuReader(retry_s=0.05)
say("gone")
assert reader.read() == ()
say("ok", "64 87 0x28 3 1")
wait_for(reader, lambda gpus: [gpu.temperature_celsius for gpu in gpus] == [64])
assert reader.read()[0].throttle_reasons == ("hw_slowdown", "sw_thermal_slowdown")
for celsius in (70, 71):
    say("gone")
    wait_for(reader, lambda gpus: gpus == ())
    say("ok", f"{celsius} 87 0 3 1")
    wait_for(reader, lambda gpus: [gpu.temperature_celsius for gpu in gpus] == [celsius])
print("done")
"""


def test_a_driver_that_comes_or_comes_back_is_found_and_each_failure_is_told_once(driver: NvmlStandIn) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, driver.environment["NVML_STAND_IN"]],
        capture_output=True, text=True, env=os.environ | driver.environment, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr
    assert done.stderr.count(COMPLAINT) == 2
