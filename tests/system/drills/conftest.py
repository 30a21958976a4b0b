"""The fixture of the drills."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from system.drills.drill import Drill
from system.drills.narrator import Narrator
from system.drills.watcher import Watcher


@pytest.fixture
def drill(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Drill]:
    """A drill that ends with the test."""
    plugins = request.config.pluginmanager.get_plugins()
    watcher = next((plugin for plugin in plugins if isinstance(plugin, Watcher)), Watcher())
    drill = Drill(tmp_path, Narrator(), watcher.pause_s)
    try:
        yield drill
    finally:
        drill.close()
