"""The API's description as one page of HTML, with no script and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

Document = Mapping[str, Any]

_STYLE = """
:root {
  color-scheme: light dark;
  --line: light-dark(#d5d8dc, #3a3f47); --soft: light-dark(#f5f6f8, #1d2025); --text: light-dark(#1c2026, #e4e6ea);
  --dim: light-dark(#59616d, #a2a9b4); --link: light-dark(#0b57d0, #8ab4f8); --back: light-dark(#fff, #131519);
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0; font: 16px/1.55 system-ui, sans-serif; color: var(--text); background: var(--back); }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, pre:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: 1rem; padding: .5rem; background: var(--back); }
.frame { display: grid; grid-template-columns: 17rem minmax(0, 54rem); gap: 2.5rem; max-width: 76rem; margin: auto; }
nav { padding: 2rem 0 2rem 1rem; position: sticky; top: 0; max-height: 100vh; overflow: auto; font-size: .875rem; }
nav ul { list-style: none; margin: .25rem 0 1rem; padding: 0; }
nav li a { display: flex; gap: .5rem; padding: .1rem 0; text-decoration: none; overflow-wrap: anywhere; }
nav p { margin: 0; font-weight: 600; }
main { padding: 2rem 1rem 6rem 0; }
h1 small { font-weight: 400; color: var(--dim); font-size: .5em; }
h2 { margin: 3rem 0 .5rem; }
h4 { margin: 1.25rem 0 .25rem; font-size: 1rem; }
code, pre, .method { font-family: ui-monospace, SFMono-Regular, Menlo, monospace; font-size: .875em; }
pre { overflow: auto; margin: .25rem 0 .75rem; padding: .65rem .8rem; border: 1px solid var(--line);
  border-radius: .4rem; background: var(--soft); }
pre.curl { white-space: pre-wrap; overflow-wrap: anywhere; }
pre.curl code { user-select: all; }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .6rem 0; }
summary { cursor: pointer; padding: .55rem .8rem; }
.inside { padding: 0 .9rem .8rem; scroll-margin-top: 3.5rem; }
table { border-collapse: collapse; width: 100%; font-size: .94em; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-top: 1px solid var(--line); }
th { font-weight: 400; white-space: nowrap; }
td p { margin: 0 0 .25rem; }
.dim, figcaption { color: var(--dim); }
.method { font-weight: 700; min-width: 3.6rem; display: inline-block; }
figure { margin: .5rem 0; }
@media (max-width: 60rem) {
  .frame { display: block; padding: 0 1rem; }
  nav { position: static; max-height: none; padding: 1rem 0 0; }
  main { padding-right: 0; }
  th { white-space: normal; overflow-wrap: anywhere; }
}
"""

#: In an example's curl line: where the node is, the token, the module, any other file.
_NODE, _TOKEN, _MODULE, _FILE = "$NODE", "$TOKEN", "hello.wasm", "FILE"
_OF_SHELL = (
    f"In the lines for a shell, <code>{_NODE}</code> is where the node is, such as <code>127.0.0.1:8080</code>, and"
    f" <code>{_TOKEN}</code> a token; one click selects a line."
)
_DEPTH_MAX = 4


def style_hash() -> str:
    """The style as a Content-Security-Policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def page(document: Document) -> str:
    """The whole page."""
    info = document["info"]
    title = escape(info["title"])
    by_tag: dict[str, list[tuple[str, str, Document]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag[operation["tags"][0]].append((method, path, operation))
    parts = [
        f"<h1>{title} <small>{escape(info['version'])}</small></h1>",
        _prose(info["description"]),
        f"<p>The same for programs: <a href='/openapi.json'>/openapi.json</a>. {_OF_SHELL}</p>",
    ]
    for tag in document["tags"]:
        parts.append(f"<section aria-labelledby='{_anchor(tag['name'])}'>")
        parts.append(f"<h2 id='{_anchor(tag['name'])}'>{_words(tag['name'])}</h2>{_prose(tag['description'])}")
        parts += [_operation(document, *found) for found in by_tag[tag["name"]]]
        parts.append("</section>")
    parts.append("<section aria-labelledby='types'><h2 id='types'>Types</h2>")
    parts += [_type(name, schema) for name, schema in document["components"]["schemas"].items()]
    parts.append("</section>")
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{title} API</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        "<a class='skip' href='#main'>To the operations</a>\n<div class='frame'>\n"
        f"{_navigation(by_tag)}\n<main id='main'>\n{body}\n</main>\n</div>\n</body>\n</html>\n"
    )


def _navigation(by_tag: Mapping[str, list[tuple[str, str, Document]]]) -> str:
    parts = ["<nav aria-label='Operations'>"]
    for tag, found in by_tag.items():
        parts.append(f"<p><a href='#{_anchor(tag)}'>{_words(tag)}</a></p><ul>")
        for method, path, operation in found:
            parts.append(
                f"<li><a href='#{escape(operation['operationId'])}'>"
                f"<span class='method'>{escape(method.upper())}</span>"
                f"<span>{escape(path)}</span></a></li>"
            )
        parts.append("</ul>")
    parts.append("<p><a href='#types'>Types</a></p></nav>")
    return "".join(parts)


def _operation(document: Document, method: str, path: str, operation: Document) -> str:
    head = f"<span class='method'>{escape(method.upper())}</span> <code>{escape(path)}</code>"
    parts = [f"<p class='dim'>{_who(operation)}</p>"]
    if operation["parameters"]:
        rows = [_parameter(parameter) for parameter in operation["parameters"]]
        parts.append(f"<h4>Parameters</h4>{_table(rows)}")
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>Body <span class='dim'>{escape(media)}</span></h4>")
        parts.append(_shape(document, content["schema"]))
        parts += [
            _figure(example["summary"], _shown(example["value"])) for example in content.get("examples", {}).values()
        ]
    parts.append("<h4>In a shell</h4>")
    parts += [
        f"<pre class='curl' tabindex='0'><code>{escape(line)}</code></pre>" for line in _curl(method, path, operation)
    ]
    refusals = []
    for status, answer in operation["responses"].items():
        response = document["components"]["responses"][_last(answer["$ref"])] if "$ref" in answer else answer
        if status[0] == "2":
            parts.append(_success(document, status, response))
        else:
            refusals.append(_row(f"<code>{status}</code>", _prose(response["description"]) + _headers(response)))
    if refusals:
        parts.append(f"<h4>Errors <span class='dim'>{_reference('ErrorAnswer')}</span></h4>{_table(refusals)}")
    # The name is within the part that opens: browsers open it for who follows a link to it.
    return (
        f"<details><summary>{head} · {_words(operation['summary'])}</summary>"
        f"<div class='inside' id='{escape(operation['operationId'])}'>{''.join(parts)}</div></details>"
    )


def _who(operation: Document) -> str:
    security = operation.get("security")
    if security is None:
        return "Anyone may ask."
    (name,) = security[0]
    what = "the token of <code>TENSOR_WASM_API_METRICS_TOKEN</code>" if name == "metrics" else "a token"
    needed = (
        "Needs"
        if {} not in security
        else "Needs, when there is one,"
        if name == "metrics"
        else "Needs, once the node has any,"
    )
    return f"{needed} {what}: <code>Authorization: Bearer TOKEN</code>."


def _success(document: Document, status: str, response: Document) -> str:
    parts = [f"<h4>Answer <span class='dim'>{status}</span></h4>", _headers(response)]
    for media, content in response.get("content", {}).items():
        schema = content["schema"]
        shape = _shape(document, schema) if "$ref" in schema else ""
        parts.append(f"<p class='dim'>{escape(media)}</p>{shape}")
        parts += [_figure(example["summary"], _shown(example["value"])) for example in content["examples"].values()]
    return "".join(parts)


def _headers(response: Document) -> str:
    names = [name for name in response.get("headers", {}) if name != "X-Request-Id"]
    return f"<p class='dim'>With {', '.join(f'<code>{escape(name)}</code>' for name in names)}.</p>" if names else ""


def _parameter(parameter: Document) -> str:
    needed = ", required" if parameter.get("required") else ""
    name = f"<code>{escape(parameter['name'])}</code> <span class='dim'>{parameter['in']}{needed}</span>"
    text = f"{_prose(parameter['description'])}<p class='dim'>{_kind(parameter['schema'])}{_example(parameter)}</p>"
    return _row(name, text)


def _example(parameter: Document) -> str:
    return f"; such as <code>{escape(str(parameter['example']))}</code>" if "example" in parameter else ""


def _shape(document: Document, schema: Document) -> str:
    """The fields of a type as a table; what is no object with fields as its kind."""
    name = _last(schema.get("$ref", ""))
    found = document["components"]["schemas"].get(name, {})
    if not found.get("properties"):
        return f"<p>{_kind(schema)}</p>"
    return f"<p>{_reference(name)}: {_words(found.get('description', ''))}</p>{_fields(found)}"


def _fields(schema: Document) -> str:
    needed = schema.get("required", [])
    rows = []
    for name, field in schema["properties"].items():
        default = f", default {json.dumps(field['default'])}" if "default" in field else ""
        mark = ", required" if name in needed else ""
        told = f"{_prose(field.get('description', ''))}<p class='dim'>{_kind(field)}{mark}{escape(default)}</p>"
        rows.append(_row(f"<code>{escape(name)}</code>", told))
    return _table(rows)


def _kind(schema: Document, depth: int = 0) -> str:
    """A schema in words, its bounds too; types as links."""
    if "$ref" in schema:
        return _reference(_last(schema["$ref"]))
    if depth > _DEPTH_MAX:
        return "…"
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if "anyOf" in schema:
        text = " or ".join(dict.fromkeys(_kind(part, depth + 1) for part in schema["anyOf"]))
    elif schema.get("type") == "array":
        text = f"list of {_kind(schema.get('items', {}), depth + 1)}"
    else:
        text = escape(str(schema.get("type", "anything")))
    bounds = [
        f"{word} {schema[key]:,}" if isinstance(schema[key], int) else f"{word} {escape(str(schema[key]))}"
        for key, word in _BOUNDS.items()
        if key in schema
    ]
    return " ".join([text, *([f"({', '.join(bounds)})"] if bounds else [])])


_BOUNDS = {
    "format": "as",
    "minimum": "from",
    "maximum": "to",
    "maxLength": "characters up to",
    "maxItems": "items up to",
    "pattern": "like",
    "contentEncoding": "in",
}


def _type(name: str, schema: Document) -> str:
    inside = _fields(schema) if schema.get("properties") else ""
    source = escape(json.dumps(schema, indent=1, ensure_ascii=False))
    return (
        f"<details><summary><code>{escape(name)}</code> · {_words(schema.get('description', ''))}</summary>"
        f"<div class='inside' id='{escape(name)}'>{inside}"
        f"<h4>Schema</h4><pre tabindex='0'><code>{source}</code></pre></div></details>"
    )


def _curl(method: str, path: str, operation: Document) -> list[str]:
    """A line for a shell for each example of the body, or one."""
    filled, query, headers = path, {}, {}
    for parameter in operation["parameters"]:
        if "example" not in parameter:
            continue
        if parameter["in"] == "path":
            filled = filled.replace("{" + parameter["name"] + "}", quote(str(parameter["example"]), safe=""))
        elif parameter["in"] == "query":
            query[parameter["name"]] = parameter["example"]
        else:
            headers[parameter["name"]] = parameter["example"]
    bodies: list[tuple[str, Any]] = [
        (media, example["value"])
        for media, content in operation.get("requestBody", {}).get("content", {}).items()
        for example in content["examples"].values()
    ]
    lines = []
    for media, body in bodies or [("", None)]:
        # A name in the query is for a module that comes as it is.
        of_query = {} if media == "application/json" and "name" in query else query
        words = ["curl"] if method == "get" else ["curl", "-X", method.upper()]
        if operation.get("security"):
            words += ["-H", f'"Authorization: Bearer {_TOKEN}"']
        words += [word for name, value in headers.items() for word in ("-H", shlex.quote(f"{name}: {value}"))]
        if media and media != "application/json":
            file = _MODULE if media == "application/wasm" else _FILE
            words += ["-H", shlex.quote(f"Content-Type: {media}"), "--data-binary", f"@{file}"]
        elif media:
            words += ["-H", shlex.quote(f"Content-Type: {media}"), "-d", shlex.quote(json.dumps(body))]
        search = f"?{urlencode(of_query)}" if of_query else ""
        words.append(f'"http://{_NODE}{filled}{search}"')
        lines.append(" ".join(words))
    return list(dict.fromkeys(lines))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        # A module is shown as Python and C write its bytes.
        return re.sub(r"[^\n\r\t -~…·]", lambda found: f"\\x{ord(found[0]):02x}", value)
    return json.dumps(value, indent=2, ensure_ascii=False)


def _figure(caption: str, text: str) -> str:
    shown = f"<pre tabindex='0'><code>{escape(text)}</code></pre>"
    return f"<figure><figcaption>{_words(caption)}</figcaption>{shown}</figure>"


def _prose(text: str) -> str:
    return "".join(f"<p>{_words(part)}</p>" for part in text.split("\n\n") if part)


def _words(text: str) -> str:
    """Text with code between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _table(rows: list[str]) -> str:
    return f"<table>{''.join(rows)}</table>"


def _row(name: str, html: str) -> str:
    return f"<tr><th scope='row'>{name}</th><td>{html}</td></tr>"


def _reference(name: str) -> str:
    return f"<a href='#{escape(name)}'>{escape(name)}</a>"


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]


def _anchor(tag: str) -> str:
    return "tag-" + re.sub(r"[^a-z0-9]+", "-", tag.lower())
