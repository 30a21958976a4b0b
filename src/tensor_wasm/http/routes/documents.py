"""The API's description, for programs and for people."""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.http import openapi, page, wire
from tensor_wasm.http.operations import Answer, Audience, Call, Operation

#: The page may load nothing and run nothing; its own style only.
_POLICY = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
)


class Documents:
    """The handlers. Both documents are made once."""

    def __init__(self) -> None:
        self._document = Answer(b"")
        self._page = Answer(b"")

    def describe(self, operations: Sequence[Operation]) -> None:
        """Make the documents."""
        document = openapi.describe(operations)
        self._document = Answer(wire.encode(document))
        self._page = Answer(page.page(document).encode(), media_type=b"text/html; charset=utf-8", headers=_POLICY)

    async def document(self, _: Call) -> Answer:
        """GET /openapi.json."""
        return self._document

    async def page(self, _: Call) -> Answer:
        """GET /docs."""
        return self._page


def operations(others: Sequence[Operation]) -> list[Operation]:
    """The operations that describe ``others`` and themselves."""
    handlers = Documents()
    own = [
        Operation(
            method="GET",
            path="/openapi.json",
            handler=handlers.document,
            audience=Audience.ANYONE,
            summary="This description, for programs",
        ),
        Operation(
            method="GET",
            path="/docs",
            handler=handlers.page,
            audience=Audience.ANYONE,
            summary="This description, for people",
            response_type="text/html",
        ),
    ]
    handlers.describe([*others, *own])
    return own
