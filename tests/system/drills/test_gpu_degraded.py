"""A GPU is held back by heat and has memory errors.

There is none here: a driver that tells what was recorded stands in, and a path with added work for a slow GPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nvml_stand_in import NvmlStandIn
from system.drills.drill import NEIGHBOUR, OBJECTIVE_S, SLOW_DISPATCH, Drill
from system.drills.guests import SHORT
from system.drills.service import GOOD

pytestmark = pytest.mark.slow

#: Degrees, percent, bits of what holds the clocks back (0x40: heat, by the hardware), memory errors: corrected and not.
WELL = "61 40 0 0 0"
HOT = "97 100 0x40 12 3"


def test_the_device_is_replaced(drill: Drill, tmp_path: Path):
    driver = NvmlStandIn(tmp_path / "driver")
    driver.say(WELL)
    drill.start(deployment="cuda", faulty="added_work", variables=driver.environment)
    drill.narrator.began("no GPU here: a recorded driver stands in, and a path with added work for a GPU that is slow")
    function = drill.deploy(NEIGHBOUR)
    drill.call(1, NEIGHBOUR, drill.launching(function, SHORT, 5), pause_s=0.05)
    drill.until(lambda: drill.prometheus.value("tensor_wasm_device_temperature_celsius") == 61, "the GPU is seen")
    driver.say(HOT)
    drill.brings_about("the GPU gets hot, its clocks are held back, and it has memory errors")
    drill.fires(SLOW_DISPATCH, "info")

    assert drill.value(1) > OBJECTIVE_S
    assert drill.value(5) < OBJECTIVE_S, "it is no permit that launches wait for"
    (throttled,) = drill.evaluate(drill.runbook.step_query(4))
    assert throttled.value == 0x40
    (errors,) = drill.evaluate(drill.runbook.step_query(4, which=2))
    assert errors.value > 0
    document = drill.observes()
    (gpu,) = document["gpus"]
    assert gpu["throttle_reasons"] == ["hw_thermal_slowdown"]
    assert gpu["ecc_errors"] > 0
    # Its kernels run on the CPU device; on a GPU it would say so itself.
    drill.diagnoses(document | {"node": document["node"] | {"deployment": "cuda"}}, "gpu_degraded")
    drill.pauses()

    driver.say(WELL)
    drill.narrator.began(
        "the device is cooled and replaced; a release without the added work stands in for a quick one"
    )
    drill.releases("switch", GOOD)
    drill.recovers()
    drill.until(lambda: not drill.prometheus.query(drill.runbook.step_query(4)), "nothing holds the clocks back")
