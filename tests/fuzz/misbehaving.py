"""A test that ends its process in several ways, for the tests of :mod:`.workers`."""

from __future__ import annotations

import os

from fuzz.workers import Reporter, Test

CRASHES, HANGS, RAISES, EATS, FINDS = 3, 4, 7, 8, 10


def prepare() -> Test:
    """The test."""

    def test(number: int, reporter: Reporter) -> None:
        if number == CRASHES:
            os.abort()
        while number == HANGS:
            pass
        if number == RAISES:
            raise ValueError("seven")
        if number == EATS:
            bytearray(64 << 30)
        if number == FINDS:
            reporter.find("difference", "ten")

    return test
