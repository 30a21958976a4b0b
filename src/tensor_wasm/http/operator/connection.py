"""One connection to the operator's listener: a handshake if there is TLS, one request, one answer, the end."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Callable

from tensor_wasm.errors import RequestError
from tensor_wasm.http.operator.answers import Answers, Caller
from tensor_wasm.http.operator.request import head_of, parse

#: Time for the handshake and the head, and for the whole answer to be read.
REQUEST_S = 5.0
ANSWER_S = 10.0
#: Time for a client to read the end of its answer. One that is closed at once, with bytes of the client unread, may
#: never see it.
_FAREWELL_S = 0.5
_PIECE_BYTES = 64 * 1024

_Step = Callable[[], "_Step | None"]


class Connection:
    """A connection that does not block. ``interest`` is what it waits for, ``until_s`` when it is to be ended."""

    def __init__(self, connected: socket.socket, caller: Caller, answers: Answers) -> None:
        self.socket = connected
        self.interest = selectors.EVENT_READ
        self.until_s = time.monotonic() + REQUEST_S
        self._caller = caller
        self._answers = answers
        self._received = b""
        self._answer = memoryview(b"")
        self._step: _Step = self._shake_hands if isinstance(connected, ssl.SSLSocket) else self._hear

    def go_on(self) -> bool:
        """Do what can be done now. Whether the connection is over. Raises OSError when the other side is gone."""
        try:
            while True:
                following = self._step()
                if following is None:
                    return True
                self._step = following
        except ssl.SSLWantReadError:
            self.interest = selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            self.interest = selectors.EVENT_WRITE
        except BlockingIOError:
            self.interest = selectors.EVENT_WRITE if self._step == self._say else selectors.EVENT_READ
        return False

    # --- steps: what each returns is the next one, None the end; it raises when it must wait ----------------

    def _shake_hands(self) -> _Step | None:
        assert isinstance(self.socket, ssl.SSLSocket)
        self.socket.do_handshake()
        return self._hear

    def _hear(self) -> _Step | None:
        piece = self.socket.recv(_PIECE_BYTES)
        if not piece:
            return None
        self._received += piece
        try:
            head = head_of(self._received)
            if head is None:
                return self._hear
            answer = self._answers.answer(parse(head), self._caller)
        except RequestError as error:
            answer = self._answers.refusal(error)
        self._received = b""
        self._answer = memoryview(answer)
        self.until_s = time.monotonic() + ANSWER_S
        return self._say

    def _say(self) -> _Step | None:
        sent = self.socket.send(self._answer[:_PIECE_BYTES])
        self._answer = self._answer[sent:]
        return self._say if self._answer else self._end

    def _end(self) -> _Step | None:
        self.until_s = time.monotonic() + _FAREWELL_S
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        return self._listen_no_more

    def _listen_no_more(self) -> _Step | None:
        if not self.socket.recv(_PIECE_BYTES):
            return None
        raise BlockingIOError  # others have their turn before who goes on sending
