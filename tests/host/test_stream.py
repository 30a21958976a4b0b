"""A stream's bound: how many chunks wait, what a writer that must wait sees, and what it is told when nobody reads."""

from __future__ import annotations

import threading

import pytest

from tensor_wasm.abi.limits import CHUNKS_UNREAD_MAX
from tensor_wasm.errors import Terminated
from tensor_wasm.host import Stream

LIMIT_S = 20.0


def go_on():
    return None


def filled() -> Stream:
    stream = Stream()
    for number in range(CHUNKS_UNREAD_MAX):
        assert stream.emit(b"%d" % number, go_on)
    return stream


class Waiting:
    """A writer on a thread of its own that has to wait; ``asked`` once it looks whether it is to end."""

    def __init__(self, work) -> None:
        self.asked, self.result, self.ending = threading.Event(), None, None
        self.thread = threading.Thread(target=self._run, args=(work,))
        self.thread.start()
        assert self.asked.wait(LIMIT_S), "it did not wait"

    def interrupt(self):
        self.asked.set()
        return self.ending

    def _run(self, work) -> None:
        try:
            self.result = work(self.interrupt)
        except Terminated as error:
            self.result = error
        finally:
            self.asked.set()

    def join(self):
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()
        return self.result


def test_a_chunk_more_than_may_wait_waits_until_one_is_taken():
    stream = filled()
    writer = Waiting(lambda interrupt: stream.emit(b"last", interrupt))
    assert writer.result is None
    assert stream.take() == b"0"
    assert writer.join() is True
    taken = []
    while stream.has_chunks:
        taken.append(stream.take())
    assert len(taken) == CHUNKS_UNREAD_MAX
    assert taken[-1] == b"last"
    assert stream.take() is None


@pytest.mark.parametrize("call", [lambda s, i: s.emit(b"x", i), lambda s, i: s.flush(i)], ids=["emit", "flush"])
def test_a_writer_that_waits_is_ended_or_told_that_the_reader_left(call):
    stream = filled()
    writer = Waiting(lambda interrupt: call(stream, interrupt))
    writer.ending = Terminated("now")
    assert isinstance(writer.join(), Terminated)
    writer = Waiting(lambda interrupt: call(stream, interrupt))
    stream.abandon()
    assert writer.join() is False
    assert not stream.has_chunks
    assert stream.emit(b"more", go_on) is False


def test_a_flush_waits_for_the_last_chunk_and_for_nothing_when_there_is_none():
    stream = Stream()
    assert stream.flush(go_on)
    stream.emit(b"one", go_on)
    writer = Waiting(stream.flush)
    assert stream.take() == b"one"
    assert writer.join() is True


def test_the_reader_is_told_of_chunks_and_of_the_end():
    told = []
    stream = Stream(lambda: told.append(stream.is_closed))
    stream.emit(b"one", go_on)
    stream.close()
    assert told == [False, True]
