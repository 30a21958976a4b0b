from __future__ import annotations

import pytest

from tensor_wasm.errors import RouteNotFound
from tensor_wasm.http.operations import Answer, Audience, NoSuchMethod, Operation, Table


def operation(method, path):
    async def handler(call):
        return Answer(b"")

    return Operation(method=method, path=path, handler=handler, audience=Audience.ANYONE, summary=path)


TABLE = Table(
    [
        operation("GET", "/things"),
        operation("POST", "/things"),
        operation("GET", "/things/{id}"),
        operation("POST", "/functions/{id}/invoke"),
    ]
)


def find(method, path):
    found, parameters = TABLE.find({"type": "http", "method": method, "path": path, "root_path": ""})
    return found.method, found.path, dict(parameters)


def test_paths_lead_to_their_operations():
    assert find("GET", "/things") == ("GET", "/things", {})
    assert find("POST", "/things") == ("POST", "/things", {})
    assert find("GET", "/things/a-b") == ("GET", "/things/{id}", {"id": "a-b"})
    assert find("HEAD", "/things/a") == ("GET", "/things/{id}", {"id": "a"})


def test_an_open_end_takes_all_that_follows():
    async def handler(call):
        return Answer(b"")

    open_ended = Operation(
        method="GET", path="/models/{model}", handler=handler, audience=Audience.ANYONE, summary="", has_open_end=True
    )
    for name in ("a", "a/b", "a\nb", "a\n"):
        scope = {"type": "http", "method": "GET", "path": f"/models/{name}", "root_path": ""}
        assert Table([open_ended]).find(scope) == (open_ended, {"model": name})


def test_the_short_way_finds_what_the_router_finds():
    for identity in ("a", "invoke", "7d9f6ac0-d5bb-4b7e-92d0-8d5f9f6c1a10"):
        path = f"/functions/{identity}/invoke"
        scope = {"type": "http", "method": "POST", "path": path, "root_path": ""}
        assert TABLE.find(scope) == TABLE._search(scope)
    for path in ("/functions//invoke", "/functions/invoke", "/functions/a/b/invoke", "/functions/a/invoke/"):
        with pytest.raises(RouteNotFound):
            find("POST", path)


def test_another_method_says_which_there_are():
    with pytest.raises(NoSuchMethod) as caught:
        find("DELETE", "/things")
    assert (caught.value.allowed, caught.value.route) == ("GET, HEAD, POST", "/things")


def test_a_route_is_labelled_by_its_template():
    assert operation("POST", "/functions/{id}/invoke").route == "/functions/:id/invoke"
