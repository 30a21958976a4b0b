from __future__ import annotations

import asyncio
import time

from prometheus_client.parser import text_string_to_metric_families as parse

from tensor_wasm.telemetry import LagMonitor, render


def read(monitor):
    (family,) = parse(render([monitor], "")[0].decode())
    return {(item.name.rpartition("_")[2], item.labels.get("le")): item.value for item in family.samples}


def test_a_blocked_loop_shows_and_an_idle_one_does_not():
    async def run(block_s):
        monitor = LagMonitor()
        monitor.start()
        await asyncio.sleep(0.05)
        if block_s:
            time.sleep(block_s)
        await asyncio.sleep(0.2)
        monitor.stop()
        return read(monitor)

    idle, blocked = asyncio.run(run(0)), asyncio.run(run(0.4))
    assert idle["count", None] >= 1
    assert blocked["count", None] - blocked["bucket", "0.25"] == 1
    assert blocked["sum", None] >= 0.3
    assert idle["sum", None] < blocked["sum", None]


def test_it_stops():
    async def run():
        monitor = LagMonitor()
        monitor.stop()
        monitor.start()
        monitor.stop()
        await asyncio.sleep(0.15)
        return read(monitor)

    assert asyncio.run(run())["count", None] == 0
