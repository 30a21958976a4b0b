from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import msgspec
import pytest

from tensor_wasm.http import wire


@pytest.fixture(scope="module")
def document(shared):
    return shared.get("/openapi.json").json


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_it_describes_each_route_that_answers(shared, document):
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answer = shared.request(
                method.upper(), path.replace("{id}", "abc"), b"{}", {"Content-Type": "application/json"}
            )
            assert answer.status not in (405, 421)
            assert answer.status != 404 or answer.kind == "not_found"
            assert str(answer.status) in operation["responses"], (method, path, answer.status)


def test_every_reference_leads_somewhere(document):
    found = set(references(document))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_the_types_are_those_that_decode_and_encode(document):
    schemas = document["components"]["schemas"]
    for kind in (wire.DeployRequest, wire.InvokeRequest):
        assert schemas[kind.__name__]["additionalProperties"] is False
        assert set(schemas[kind.__name__]["properties"]) == set(kind.__struct_fields__)
    assert schemas["DeployRequest"]["required"] == ["name", "wasm_b64"]
    assert schemas["InvokeRequest"].get("required", []) == []
    for kind in (wire.Invoked, wire.FunctionDescription, wire.ErrorBody):
        assert set(schemas[kind.__name__]["properties"]) == set(kind.__struct_fields__)
    assert schemas == msgspec.json.decode(msgspec.json.encode(schemas))


def test_errors_are_listed_by_status_with_their_kinds(document):
    responses = document["paths"]["/functions/{id}/invoke"]["post"]["responses"]
    for status, kind in (
        ("504", "invoke_timeout"),
        ("409", "terminated"),
        ("429", "saturated"),
        ("400", "invalid_args"),
    ):
        assert kind in responses[status]["description"]
        assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")


def test_parameters_are_described(document):
    listing = document["paths"]["/functions"]["get"]["parameters"]
    assert {(p["name"], p["in"]) for p in listing} == {
        ("limit", "query"),
        ("after", "query"),
        ("X-TensorWasm-Tenant", "header"),
    }
    show = document["paths"]["/functions/{id}"]["get"]["parameters"]
    assert ("id", "path") in {(p["name"], p["in"]) for p in show}


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.identities, self.links = [], set(), []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert tag not in ("script", "img", "link", "iframe", "object", "form")
        assert not any(name.startswith("on") or name == "src" for name in attributes)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if "id" in attributes:
            assert attributes["id"] not in self.identities
            self.identities.add(attributes["id"])
        if tag == "a":
            self.links.append(attributes["href"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_shows_the_same_with_nothing_from_elsewhere(shared, document):
    answer = shared.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    text = answer.body.decode()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert "http://" not in text
    assert "https://" not in text
    for link in page.links:
        assert link == "/openapi.json" or link.removeprefix("#") in page.identities
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert path in text
            assert operation["summary"] in unescape(text)
    assert set(document["components"]["schemas"]) <= page.identities
    assert len(re.findall("<details", text)) == len(document["components"]["schemas"]) + sum(
        len(methods) for methods in document["paths"].values()
    )
