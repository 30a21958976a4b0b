"""The API's description as one page of HTML, with no script and nothing from elsewhere."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow: auto; padding: .75rem; border: 1px solid #8886; border-radius: .4rem; }
details { border: 1px solid #8886; border-radius: .4rem; margin: .5rem 0; padding: .5rem .75rem; }
summary { cursor: pointer; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem; border-top: 1px solid #8884; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 600; }
"""


def page(document: dict[str, Any]) -> str:
    """The whole page."""
    info = document["info"]
    parts = [
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        f"<p>{escape(info['description'])} The same for programs: <a href='/openapi.json'>/openapi.json</a>.</p>",
        "<h2>Operations</h2>",
    ]
    for path, methods in document["paths"].items():
        parts += [_operation(method, path, operation) for method, operation in methods.items()]
    parts.append("<h2>Types</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(_type(name, schema))
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{escape(info['title'])} API</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [_row(f"{p['name']} ({p['in']})", p.get("description", "")) for p in operation["parameters"]]
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        rows.append(_row("body", f"{media}: {_reference(content.get('schema', {}))}", raw=True))
    for status, response in operation["responses"].items():
        types = ", ".join(
            f"{media} {_reference(c.get('schema', {}))}" for media, c in response.get("content", {}).items()
        )
        rows.append(_row(status, f"{escape(response['description'])}<br>{types}", raw=True))
    head = f"<span class='method'>{escape(method.upper())}</span> <code>{escape(path)}</code>"
    return (
        f"<details id='{escape(operation['operationId'])}'><summary>{head} · {escape(operation['summary'])}</summary>"
        f"<table>{''.join(rows)}</table></details>"
    )


def _row(name: str, text: str, *, raw: bool = False) -> str:
    return f"<tr><th><code>{escape(name)}</code></th><td>{text if raw else escape(text)}</td></tr>"


def _reference(schema: dict[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return f"<a href='#{escape(name)}'>{escape(name)}</a>" if name else ""


def _type(name: str, schema: dict[str, Any]) -> str:
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    head = f"<summary><code>{escape(name)}</code></summary>"
    return f"<details id='{escape(name)}'>{head}<pre>{escape(text)}</pre></details>"
