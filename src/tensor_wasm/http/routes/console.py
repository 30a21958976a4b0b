"""The operator's console: a page and its parts, which hold nothing of the node's.

What they show comes from ``GET /admin/observe``, and what they do goes to ``POST /admin/instances/:id/terminate``: both
ask for a token with ``role=admin``, as they do of everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from tensor_wasm.errors import NotFound
from tensor_wasm.http.operations import Answer, Audience, Call, Example, Operation
from tensor_wasm.tenancy import TokenBook

#: The parts of the page by name: their content types.
PARTS: Mapping[str, str] = {
    "board.js": "text/javascript",
    "chart.js": "text/javascript",
    "console.css": "text/css",
    "console.js": "text/javascript",
    "feed.js": "text/javascript",
    "format.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "table.js": "text/javascript",
}
_PAGE = "index.html"
#: Says in the page whether the node asks for a token, so that it need not try a request that would be refused, audited
#: and counted. The file says that it does.
_ASKS, _IS_OPEN = b'data-access="token"', b'data-access="open"'
#: Only its own parts run and are asked for. No text can become script or markup: the browser refuses to parse HTML from
#: strings, and no policy is allowed that would let it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # A page of the release before would not know what this one answers.
    (b"cache-control", b"no-store"),
)


class Console:
    """The handlers. Every answer is made once, from the package's files."""

    def __init__(self, tokens: TokenBook) -> None:
        self._tokens = tokens
        folder = files("tensor_wasm.http").joinpath("console")
        page = folder.joinpath(_PAGE).read_bytes()
        self._pages = {
            False: _answer(page.replace(_ASKS, _IS_OPEN), "text/html"),
            True: _answer(page, "text/html"),
        }
        self._parts = {name: _answer(folder.joinpath(name).read_bytes(), kind) for name, kind in PARTS.items()}

    async def page(self, _: Call) -> Answer:
        """GET /console."""
        return self._pages[not self._tokens.is_empty]

    async def part(self, call: Call) -> Answer:
        """GET /console/:file."""
        answer = self._parts.get(call.parameters["file"])
        if answer is None:
            raise NotFound("the console has no such file")
        return answer


def operations(tokens: TokenBook) -> list[Operation]:
    """The operations that serve the console."""
    handlers = Console(tokens)
    return [
        Operation(
            method="GET",
            path="/console",
            handler=handlers.page,
            audience=Audience.ANYONE,
            summary="The operator's page",
            response_type="text/html",
            examples=(Example(summary="The page", answer='<!doctype html>\n<html lang="en" …'),),
        ),
        Operation(
            method="GET",
            path="/console/{file}",
            handler=handlers.part,
            audience=Audience.ANYONE,
            summary="A part of the operator's page",
            response_type="text/javascript",
            other_types=("text/css", "image/svg+xml"),
            errors=(NotFound,),
            examples=(
                Example(summary="A script", parameters={"file": "console.js"}, answer="// The console: …"),
                Example(
                    summary="The style",
                    parameters={"file": "console.css"},
                    answer="/* The console's style. … */",
                    answer_type="text/css",
                ),
                Example(
                    summary="The icon",
                    parameters={"file": "icon.svg"},
                    answer="<svg …",
                    answer_type="image/svg+xml",
                ),
            ),
        ),
    ]


def _answer(body: bytes, kind: str) -> Answer:
    media_type = f"{kind}; charset=utf-8".encode()
    return Answer(body, media_type=media_type, headers=_HEADERS)
