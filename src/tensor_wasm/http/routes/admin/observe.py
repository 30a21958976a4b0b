"""The node's whole state, for an operator who looks and for a console."""

from __future__ import annotations

import asyncio

from tensor_wasm.errors import RequestError
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation, Parameter
from tensor_wasm.http.query import read_query
from tensor_wasm.telemetry import observation
from tensor_wasm.telemetry.observe_example import EXAMPLE
from tensor_wasm.telemetry.observer import Observer

_CHOICES = {"true": True, "false": False}
_HISTORY = {"type": "string", "enum": list(_CHOICES), "default": "false"}


def wants_history(query: dict[str, str]) -> bool:
    """What the query says of the history. Raises :class:`RequestError`."""
    text = query.get("history", "false")
    if text not in _CHOICES:
        raise RequestError("history must be true or false")
    return _CHOICES[text]


class Observe:
    """The handler. It needs none of the node's own threads, which may all be taken."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    async def show(self, call: Call) -> Answer:
        """GET /admin/observe."""
        history = wants_history(read_query(call, "history"))
        return Answer(await asyncio.to_thread(self._document, history))

    def _document(self, history: bool) -> bytes:
        return observation.encode(self._observer.document(history=history))


def operations(observer: Observer) -> list[Operation]:
    """The operation."""
    return [
        Operation(
            method="GET",
            path="/admin/observe",
            handler=Observe(observer).show,
            audience=Audience.ADMIN,
            summary="The node's whole state over the last minutes; what cannot be read in time is left out and named",
            response=observation.Observation,
            query=(Parameter("history", "Adds the samples of three windows.", _HISTORY),),
            errors=(RequestError,),
            examples=(
                Example(summary="A node at work", answer=EXAMPLE),
                Example(summary="With its history", parameters={"history": "true"}),
            ),
        )
    ]
