"""The log as systemd's journal wants it: it knows the time itself, and reads a line's priority from its beginning."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TextIO

#: syslog(3)'s priorities; ``journalctl -p warning`` goes by them.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


class JournalFormatter(logging.Formatter):
    """Another formatter's lines with ``<N>`` before each, as sd-daemon(3) has it. The journal takes that off again."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """One record; each line of a traceback is an entry of the journal, so each gets the priority."""
        number = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
        return "\n".join(f"<{number}>{line}" for line in self._inner.format(record).split("\n"))


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream leads to the journal.

    systemd leaves the stream's device and inode in ``JOURNAL_STREAM``; who redirects the output elsewhere inherits the
    variable, and the numbers then differ.
    """
    device, separator, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    if not separator:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # a stream without a descriptor: a test's, a program's own
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
