"""What happens in a drill, a line at a time, for who watches."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_STYLES = {"about": "1;35", "fired": "1;31", "does": "1;36", "ok": "1;32", "asked": "33", "plain": "0"}


class Narrator:
    """Writes to a stream, in colours where that is a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._began_s = time.monotonic()
        self._has_colours = self._stream.isatty()

    def began(self, text: str) -> None:
        """What runs now."""
        self._write("plain", text)

    def brings_about(self, text: str) -> None:
        """The cause."""
        self._write("about", f"brought about: {text}")

    def fired(self, text: str) -> None:
        """The alert."""
        self._write("fired", text)

    def asked(self, text: str) -> None:
        """A query."""
        self._write("asked", text)

    def answered(self, text: str) -> None:
        """What came back."""
        for line in text.splitlines():
            self._write("plain", f"    {line}")

    def does(self, text: str) -> None:
        """A step."""
        self._write("does", f"$ {text}")

    def resolved(self, text: str) -> None:
        """The end."""
        self._write("ok", text)

    def pauses(self, text: str) -> None:
        """Time to look around."""
        self._write("about", text)

    def _write(self, style: str, text: str) -> None:
        at = f"{time.monotonic() - self._began_s:6.1f} s  "
        shown = f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._has_colours else text
        self._stream.write(at + shown + "\n")
        self._stream.flush()
