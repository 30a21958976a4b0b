"""What the driver says of this machine's GPUs, as the only work of a process: one line of JSON on its output.

See :mod:`.discovery`, which starts it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from tensor_wasm.device.cuda.bindings import CudaDriver
from tensor_wasm.device.cuda.driver import DriverError

#: More than a machine has.
_GPUS_MAX: Final = 64
#: ``CU_COMPUTEMODE_PROHIBITED``.
_PROHIBITED: Final = 2
_SM_LEAST: Final = 70


def probe(make_driver: Callable[[], CudaDriver] = CudaDriver) -> dict[str, Any]:
    """The versions and the GPUs, each with what it lacks, by a word of :mod:`.discovery`; or why there is no driver."""
    try:
        driver = make_driver()
        return {
            "driver": driver.version(),
            "bindings": driver.bindings_version(),
            "gpus": [_gpu(driver, index) for index in range(min(driver.count(), _GPUS_MAX))],
        }
    except DriverError as error:
        return {"failure": "driver", "code": error.code, "text": str(error)}
    except ImportError as error:
        return {"failure": "package", "text": str(error)}
    except Exception as error:  # the bindings': they raise RuntimeError for a library, or a function, that is not there
        return {"failure": "library", "text": str(error)}


def _gpu(driver: CudaDriver, index: int) -> dict[str, Any]:
    facts = driver.facts(index)
    lack = ""
    if int(facts.sm.removeprefix("sm_")) < _SM_LEAST:
        lack = "architecture"
    elif driver.attribute(index, "COMPUTE_MODE") == _PROHIBITED:
        lack = "prohibited"
    elif not driver.attribute(index, "VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED"):
        lack = "mapping"
    elif not driver.attribute(index, "HOST_REGISTER_SUPPORTED"):
        lack = "pinning"
    return {"facts": asdict(facts), "lack": lack}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(probe()) + "\n")
