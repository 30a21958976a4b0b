"""The four ways to a node, each used in the same way."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import contextmanager

import tensor_wasm as tw
from administered import administered

WAYS = ("Node", "AsyncNode", "Client", "AsyncClient")


class Awaited:
    """Something with coroutines, for a test that has none."""

    def __init__(self, inner, runner):
        self._inner = inner
        self._runner = runner

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        return self._call(found) if callable(found) else found

    def _call(self, function):
        def call(*args, **named):
            given = function(*args, **named)
            if inspect.isasyncgen(given):
                return self._each(given)
            return self._wrapped(self._run(given)) if inspect.isawaitable(given) else given

        return call

    def _wrapped(self, value):
        if isinstance(value, (tw.AsyncInstance, tw.AsyncJob, tw.AsyncStream)):
            return Awaited(value, self._runner)
        return value

    def _run(self, awaitable):
        async def wait():
            return await awaitable

        return self._runner.run(wait())

    def _each(self, generator):
        async def following():
            return await anext(generator, None)

        while (item := self._runner.run(following())) is not None:
            yield item

    def __iter__(self):
        return self._each(self._inner)

    def __enter__(self):
        self._run(self._inner.__aenter__())
        return self

    def __exit__(self, *ending):
        self._run(self._inner.__aexit__(*ending))


@contextmanager
def opened(way, home, **settings):
    """A node of tenant 1's, in one of the ``WAYS``."""
    if way == "Node":
        with tw.Node(home, "cpu", tenant=1, **settings) as node:
            yield node
    elif way == "AsyncNode":
        with asyncio.Runner() as runner, Awaited(tw.AsyncNode(home, "cpu", tenant=1, **settings), runner) as node:
            yield node
    else:
        with administered(home, api_tokens="one:tenant=1;two:tenant=2;all:tenant=*", **settings) as server:
            url = f"http://{server.host}:{server.port}"
            if way == "Client":
                with tw.Client(url, token="all", tenant=1) as client:
                    yield client
            else:
                with asyncio.Runner() as runner, Awaited(tw.AsyncClient(url, token="all", tenant=1), runner) as client:
                    yield client
