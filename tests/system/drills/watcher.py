"""Somebody who watches a drill, and how long the trouble is to last for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Watcher:
    """A plugin of pytest's that has nothing but this."""

    pause_s: float = 0.0
