from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from serving import running
from tensor_wasm import errors
from tensor_wasm.http import openapi, resources, wire
from tensor_wasm.http.reference import reference

ROOT = Path(__file__).parents[2]
TOKENS = {"api_tokens": "boss:role=admin", "api_metrics_token": "scraper"}


@pytest.fixture(scope="module")
def document(shared):
    return shared.get("/openapi.json").json


def operations(document):
    """Each operation by its method and path, with its answers instead of references to them."""
    return [
        (f"{method.upper()} {path}", operation | {"responses": responses(document, path, method)})
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def responses(document, path, method):
    return {
        status: follow(document, answer["$ref"]) if "$ref" in answer else answer
        for status, answer in document["paths"][path][method]["responses"].items()
    }


def parts(value, name):
    """Every value under this name, wherever it is."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key == name:
                yield part
            yield from parts(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from parts(part, name)


def follow(document, reference):
    found = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def events(text):
    """The Server-Sent Events of a stream: of those, and not of their text, is the schema."""
    found = [dict(line.split(": ", 1) for line in event.splitlines()) for event in text.split("\n\n") if event]
    assert found
    assert text.endswith("\n\n")
    return found


def path_of(operation_path):
    return re.sub(r"\{\w+\}", "abc", operation_path)


def test_it_describes_each_route_that_answers(shared, document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answer = shared.request(method.upper(), path_of(path), b"{}", {"Content-Type": "application/json"})
            assert answer.status not in (405, 421)
            assert answer.status != 404 or answer.kind != "route_not_found"
            assert str(answer.status) in operation["responses"], (method, path, answer.status)


def test_it_is_openapi(document):
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


def test_every_reference_leads_somewhere(document):
    found = set(parts(document, "$ref"))
    assert found
    for place in found:
        assert follow(document, place)


def test_every_operation_is_told_whole(document):
    """A new operation brings its examples along: `examples` of Operation; a new path its tag and its parameters."""
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    identities = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(identities)) == len(identities)
    for name, operation in operations(document):
        assert operation["summary"], name
        assert all(tags[tag] for tag in operation["tags"]), name
        for parameter in operation["parameters"]:
            assert parameter["description"], (name, parameter["name"], "see PATH_PARAMETERS of http/resources.py")
            assert parameter["schema"], (name, parameter["name"])
            if parameter["in"] == "path":
                assert "example" in parameter, (name, parameter["name"])
        for media, content in operation.get("requestBody", {"content": {}})["content"].items():
            assert content["examples"], (name, media, "has no example of a request")
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)
            assert "X-Request-Id" in response["headers"], (name, status)
            assert status == "204" or response["content"], (name, status)
            for media, content in response.get("content", {}).items():
                assert content["examples"], (name, status, media, "has no example of an answer")


def test_paths_of_the_operator_s_have_a_tag_of_their_own():
    assert resources.tag("/admin/tenants/{tenant}") == "admin: tenants"
    assert resources.tag("/admin/drain") == "admin: node"
    assert resources.tag("/functions/{id}/invoke") == "functions"
    assert resources.tag("/healthz") == "node"


def test_every_path_has_a_resource_of_its_own(document):
    """Only probes and documents may fall under the last tag."""
    others = {path for path in document["paths"] if resources.tag(path) == resources.TAGS["/"][0]}
    assert others == {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}


def test_every_field_is_described(document):
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        for field, about in schema.get("properties", {}).items():
            assert about.get("description"), (name, field, "annotate it with wire.told(…)")


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


def test_every_example_is_of_its_schema(document):
    checked = 0
    for name, operation in operations(document):
        told = [operation.get("requestBody", {}), *operation["responses"].values()]
        for media, content in (found for part in told for found in part.get("content", {}).items()):
            validator = Draft202012Validator(content["schema"] | {"components": document["components"]})
            for example in content["examples"].values():
                value = (follow(document, example["$ref"]) if "$ref" in example else example)["value"]
                for whole in events(value) if media == "text/event-stream" else [value]:
                    faults = [fault.message for fault in validator.iter_errors(whole)]
                    assert not faults, (name, example)
                    checked += 1
        for parameter in operation["parameters"]:
            if "example" in parameter:
                Draft202012Validator(parameter["schema"]).validate(parameter["example"])
    assert checked > 100


def test_each_answer_lists_the_kinds_of_its_errors(document):
    answers = responses(document, "/functions/{id}/invoke", "post")
    for status, kinds in (
        ("504", {"invoke_timeout"}),
        ("409", {"terminated"}),
        ("429", {"saturated", "quota_exceeded", "rate_limited"}),
        ("400", {"invalid_args", "too_many_args", "missing_export", "invalid_tenant", "invalid_json"}),
        ("401", {"unauthorized"}),
        ("413", {"body_too_large"}),
    ):
        content = answers[status]["content"]["application/json"]
        base, more = content["schema"]["allOf"]
        listed = more["properties"]["error"]["properties"]["kind"]["enum"]
        assert base["$ref"].endswith("/ErrorAnswer")
        assert kinds <= set(listed)
        assert listed == list(content["examples"])
        assert listed == re.findall(r"^`(\w+)`:", answers[status]["description"], re.MULTILINE)


def test_a_kind_of_another_answer_is_not_of_the_schema(document):
    content = responses(document, "/functions/{id}", "get")["404"]["content"]["application/json"]
    validator = Draft202012Validator(content["schema"] | {"components": document["components"]})
    answer = {"error": {"kind": "not_found", "message": "m", "request_id": "r"}}
    assert validator.is_valid(answer)
    answer["error"]["kind"] = "invoke_timeout"
    assert not validator.is_valid(answer)


def test_every_error_says_what_it_is():
    """The first paragraph of an error's docstring is its text in the description."""
    waiting = [errors.TensorWasmError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        text = openapi._told(kind)
        assert text.endswith(".")
        assert "``" not in text
        assert ":class:" not in text


def test_headers_are_told_where_they_come(document):
    components = document["components"]
    invoke = responses(document, "/functions/{id}/invoke", "post")
    assert invoke["503"]["headers"]["Retry-After"] == {"$ref": "#/components/headers/Retry-After"}
    assert invoke["429"]["headers"]["Retry-After"]["required"] is False  # a quota that is used up has none
    assert "Retry-After" not in invoke["400"]["headers"]
    assert "WWW-Authenticate" in invoke["401"]["headers"]
    assert responses(document, "/functions", "post")["201"]["headers"]["Location"]["required"]
    assert "Allow" in components["responses"]["MethodNotAllowed"]["headers"]
    assert components["headers"]["X-Request-Id"]["required"]


def test_a_node_without_tokens_asks_for_none_and_one_with_tokens_does(document, tmp_path):
    def security(document, path):
        return document["paths"][path]["get"].get("security")

    assert security(document, "/functions") == security(document, "/admin/tokens") == [{"bearer": []}, {}]
    assert security(document, "/healthz") is None
    with running(tmp_path, **TOKENS) as server:
        closed = server.get("/openapi.json").json
        assert "Needs a token" in server.get("/docs").body.decode()
    assert security(closed, "/functions") == security(closed, "/admin/tokens") == [{"bearer": []}]
    assert security(closed, "/metrics") == [{"metrics": []}, {}]
    assert security(closed, "/healthz") is None


def test_an_id_that_is_made_leads_to_what_can_be_done_with_it(document):
    links = responses(document, "/functions", "post")["201"]["links"]
    assert {"get_functions_one", "delete_functions_one", "post_functions_one_invoke"} <= set(links)
    for link in links.values():
        assert link["parameters"] == {"id": "$response.body#/id"}
        assert link["operationId"] in {operation["operationId"] for _, operation in operations(document)}
    # The instance of an invocation is gone with its answer.
    assert "links" not in responses(document, "/functions/{id}/invoke", "post")["200"]


def test_parameters_are_described(document):
    listing = document["paths"]["/functions"]["get"]["parameters"]
    assert {(p["name"], p["in"]) for p in listing} == {
        ("limit", "query"),
        ("after", "query"),
        ("X-TensorWasm-Tenant", "header"),
    }
    show = document["paths"]["/functions/{id}"]["get"]["parameters"]
    assert {p["name"]: p["schema"] for p in show if p["in"] == "path"} == {"id": {"type": "string", "format": "uuid"}}


def test_the_committed_copy_is_current():
    """Write it again: python -m tensor_wasm.http.reference > docs/openapi.json"""
    committed = (ROOT / "docs" / "openapi.json").read_text("utf-8")
    # Compared by operation first: the difference of the whole is longer than anybody reads.
    ours, theirs = json.loads(reference()), json.loads(committed)
    assert ours["paths"].keys() == theirs["paths"].keys()
    changed = [path for path, methods in ours["paths"].items() if theirs["paths"][path] != methods]
    assert changed == []
    assert (committed == reference()) is True


# --- the page -------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.identities, self.links, self.details = [], set(), [], 0

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert tag not in ("script", "img", "link", "iframe", "object", "form")
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if "id" in attributes:
            assert attributes["id"] not in self.identities
            self.identities.add(attributes["id"])
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "details":
            self.details += 1
        if tag == "pre":  # what scrolls can be reached by the keyboard
            assert attributes["tabindex"] == "0"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(shared):
    return shared.get("/docs")


def test_the_page_shows_the_same_with_nothing_from_elsewhere(page, document):
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    text = page.body.decode()
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == []
    # The only addresses are those of the node itself, in the lines for a shell.
    assert set(re.findall(r"https?://([\w.$]*)", text)) == {"$NODE"}
    for link in parsed.links:
        assert link == "/openapi.json" or link.removeprefix("#") in parsed.identities
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert path in text
            assert operation["operationId"] in parsed.identities
            assert operation["summary"].replace("`", "") in unescape(re.sub("</?code>", "", text))
    assert set(document["components"]["schemas"]) <= parsed.identities
    assert parsed.details == len(document["components"]["schemas"]) + len(operations(document))


def test_the_page_s_policy_lets_its_own_style_in_and_nothing_else(page):
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    style = re.search(r"<style>(.*?)</style>", page.body.decode(), re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def test_the_page_shows_kinds_examples_and_a_line_for_a_shell(page, document):
    text = unescape(re.sub(r"<[^>]+>", "", page.body.decode()))
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                for kind in content["examples"] if status[0] != "2" else ():
                    assert f"{kind}: " in text, (name, kind)
    assert "curl -X POST" in text
    assert '''-d '{"name": "hello", "wasm_b64": "AGFzbQEAAAA="}' "http://$NODE/functions"''' in text
    assert '''--data-binary @hello.wasm "http://$NODE/functions?name=hello"''' in text
    assert r"\x00asm\x01\x00\x00\x00" in text
