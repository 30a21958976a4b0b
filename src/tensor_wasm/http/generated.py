"""Text that a guest emits in chunks of bytes: decoded, and ended by a stop sequence or by its length."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

STOP = "stop"
LENGTH = "length"


class Generated:
    """The text of one answer on its way. A token is a character.

    ``finish`` says why it ended, None while it goes on; ``tokens`` is how many characters were given. Bytes that are
    not UTF-8 become U+FFFD.
    """

    def __init__(self, tokens_max: int, stops: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tokens_max = tokens_max
        self._stops = stops
        self._held = ""
        self.tokens = 0
        self.finish: str | None = None

    def take(self, chunk: bytes) -> str:
        """What may be given of the text now that this chunk is there; the begin of a stop sequence waits."""
        self._held += self._decoder.decode(chunk)
        return self._cut() or self._give(len(self._held) - self._begun())

    def end(self) -> str:
        """The rest of the text: no chunk comes any more."""
        self._held += self._decoder.decode(b"", final=True)
        text = self._cut()
        if self.finish is None:
            text = self._give(len(self._held))
            self.finish = STOP
        return text

    def _cut(self) -> str:
        """The last of the text, when it ends here; else nothing."""
        room = self._tokens_max - self.tokens
        is_full = len(self._held) >= room
        if is_full:
            self._held = self._held[:room]
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if not found and not is_full:
            return ""
        self.finish = STOP if found else LENGTH
        text = self._give(min(found) if found else room)
        self._held = ""
        return text

    def _give(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        self.tokens += count
        return text

    def _begun(self) -> int:
        """How many characters at the end may be the begin of a stop sequence."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-count:]
            if any(stop.startswith(end) for stop in self._stops):
                return count
        return 0
