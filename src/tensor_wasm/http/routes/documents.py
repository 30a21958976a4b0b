"""The API's description, for programs and for people."""

from __future__ import annotations

from collections.abc import Sequence

from tensor_wasm.http import openapi, page, wire
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation
from tensor_wasm.tenancy import TokenBook

#: The page may load nothing and run nothing; its own style only, known by its hash.
_POLICY = (
    (
        b"content-security-policy",
        f"default-src 'none'; style-src '{page.style_hash()}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'".encode(),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Documents:
    """The handlers. Both documents are made once, for a node that has tokens and for one that has none."""

    def __init__(self, tokens: TokenBook) -> None:
        self._tokens = tokens
        self._documents: dict[bool, Answer] = {}
        self._pages: dict[bool, Answer] = {}

    def describe(self, operations: Sequence[Operation]) -> None:
        """Make the documents."""
        for has_tokens in (False, True):
            document = openapi.describe(operations, has_tokens=has_tokens)
            self._documents[has_tokens] = Answer(wire.encode(document))
            html = page.page(document).encode()
            self._pages[has_tokens] = Answer(html, media_type=b"text/html; charset=utf-8", headers=_POLICY)

    async def document(self, _: Call) -> Answer:
        """GET /openapi.json."""
        return self._documents[not self._tokens.is_empty]

    async def page(self, _: Call) -> Answer:
        """GET /docs."""
        return self._pages[not self._tokens.is_empty]


def operations(others: Sequence[Operation], tokens: TokenBook) -> list[Operation]:
    """The operations that describe ``others`` and themselves."""
    handlers = Documents(tokens)
    own = [
        Operation(
            method="GET",
            path="/openapi.json",
            handler=handlers.document,
            audience=Audience.ANYONE,
            summary="This description, for programs",
            examples=(Example(summary="The document", answer={"openapi": "3.1.0", "info": {"title": "TensorWasm"}}),),
        ),
        Operation(
            method="GET",
            path="/docs",
            handler=handlers.page,
            audience=Audience.ANYONE,
            summary="This description, for people",
            response_type="text/html",
            examples=(Example(summary="The page", answer="<!doctype html>\n<html lang='en'>…"),),
        ),
    ]
    handlers.describe([*others, *own])
    return own
