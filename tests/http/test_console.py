"""The console's files, as they are served and as they are in the package. What the page does: tests/browser."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import pytest

from tensor_wasm.http.routes import console

ROOT = Path(__file__).parents[2]
FOLDER = files("tensor_wasm.http").joinpath("console")
STYLE = FOLDER.joinpath("console.css").read_text()
PAGE = FOLDER.joinpath("index.html").read_text()
SCRIPTS = {name: FOLDER.joinpath(name).read_text() for name, kind in console.PARTS.items() if kind == "text/javascript"}
#: Texts, and what they stand on.
TEXTS = {
    "text": ("back", "panel", "soft"),
    "dim": ("back", "panel", "soft"),
    "link": ("back", "panel", "soft"),
    "ok": ("panel", "soft"),
    "warn": ("panel", "soft"),
    "bad": ("panel", "soft"),
    "danger-text": ("danger-back",),
}
#: What is no text and has a meaning: lines of charts, edges of controls, shapes.
SHAPES = {"first": ("panel",), "second": ("panel",), "third": ("panel",), "edge": ("panel", "back", "soft")}


def test_every_file_is_served_as_it_is_in_the_package(shared):
    for name, kind in console.PARTS.items():
        answer = shared.get(f"/console/{name}")
        assert answer.status == 200
        assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
        assert answer.body == FOLDER.joinpath(name).read_bytes()
    assert {path.name for path in FOLDER.iterdir()} == {*console.PARTS, "index.html"}


def test_the_page_says_whether_the_node_asks_for_a_token(serve, shared):
    page = serve(api_tokens="boss:role=admin").get("/console")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.body == PAGE.encode()
    assert (
        shared.get("/console").body == PAGE.replace('data-access="token"', 'data-access="open"').encode() != page.body
    )


def test_another_file_is_not_found(shared):
    for name in ("index.html", "..%2fapp.py", "%2e%2e%2f%2e%2e%2fapp.py", "console", "CONSOLE.JS", "console.js%00", ""):
        assert shared.get(f"/console/{name}").status == 404
    assert shared.get("/console/nothing.js").kind == "not_found"


def test_metrics_count_the_files_under_one_route(shared):
    shared.get("/console/console.js")
    shared.get("/console/no.js")
    routes = {route for route, _, _ in shared.counted() if route.startswith("/console")}
    assert routes == {"/console", "/console/:file"}


def test_nothing_of_elsewhere_and_nothing_inline_may_run(shared):
    for path in ("/console", *(f"/console/{name}" for name in console.PARTS)):
        headers = shared.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy.pop("default-src") == "'none'"
        assert {
            name: policy.pop(name) for name in ("script-src", "style-src", "connect-src", "img-src")
        } == dict.fromkeys(("script-src", "style-src", "connect-src", "img-src"), "'self'")
        assert policy == {
            "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'", "trusted-types": "'none'",
        }  # fmt: skip
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


def test_the_files_refer_to_nothing_of_elsewhere():
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", "".join([PAGE, STYLE, *SCRIPTS.values()])))
    assert addresses == {
        "http://www.w3.org/2000/svg",  # a name, which nobody asks for
        "https://github.com/tensor-wasm/tensor-wasm/blob/main/docs/runbooks/",  # links
    }
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    for text in SCRIPTS.values():
        for found in re.findall(r"^import .*? from \"(.*?)\";", text, re.MULTILINE):
            assert found.removeprefix("./") in SCRIPTS


def test_no_script_reads_text_as_markup_or_keeps_anything():
    told = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc")
    kept = ("localStorage", "sessionStorage", "indexedDB", "document.cookie", "caches.", "history.", "location")
    for name, text in SCRIPTS.items():
        assert not [word for word in (*told, *kept) if word in text], name


class Outline(HTMLParser):
    """The page's elements: names and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(PAGE)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def test_the_page_has_no_script_no_style_and_no_handler_of_its_own():
    for tag, attributes in Outline().elements:
        assert tag != "style"
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "script" or attributes == {"type": "module", "src": "console/console.js"}
        assert tag != "link" or attributes["href"].removeprefix("console/") in console.PARTS


def colours() -> dict[str, dict[str, str]]:
    """The style's colours by name, for light and for dark."""
    pairs = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", STYLE)
    assert len(pairs) == STYLE.count("light-dark(")
    return {
        "light": {name: light for name, light, _ in pairs},
        "dark": {name: dark for name, _, dark in pairs},
    }


def luminance(colour: str) -> float:
    """Relative luminance of a colour, as WCAG 2.2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_told_from_what_they_stand_on(scheme):
    found = colours()[scheme]
    for least, pairs in ((4.5, TEXTS), (3.0, SHAPES)):
        for name, grounds in pairs.items():
            for ground in grounds:
                assert contrast(found[name], found[ground]) >= least, (name, ground)
    assert found.keys() == TEXTS.keys() | SHAPES.keys() | {
        g for pairs in (TEXTS, SHAPES) for gs in pairs.values() for g in gs
    } | {"line"}


def test_contrast_is_computed_as_it_is_defined():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_lines_of_a_chart_differ_by_more_than_colour():
    dashes = [re.search(rf"\.line\.{name} {{[^}}]*}}", STYLE)[0] for name in ("first", "second", "third")]
    shapes = [re.search(r"stroke-dasharray: ([\d ]+)", rule) for rule in dashes]
    for one, other in combinations([shape and shape[1] for shape in shapes], 2):
        assert one != other


@pytest.mark.slow
def test_the_files_are_in_a_wheel(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for path in FOLDER.iterdir():
            assert archive.read(f"tensor_wasm/http/console/{path.name}") == path.read_bytes()
