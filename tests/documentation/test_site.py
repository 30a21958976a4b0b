"""The documentation as a site: built strictly, up to date with the code, and complete without the rest of the world."""

import functools
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
REFERENCE = runpy.run_path(str(DOCS / "tools" / "reference.py"))
HOOKS = runpy.run_path(str(DOCS / "tools" / "hooks.py"))


def pages(entries) -> list[str]:
    found = []
    for entry in entries:
        for item in entry.values() if isinstance(entry, dict) else [entry]:
            found += pages(item) if isinstance(item, list) else [item]
    return found


@pytest.mark.parametrize("name", list(REFERENCE["PAGES"]))
def test_a_reference_page_is_what_the_code_gives(name):
    assert (DOCS / "reference" / name).read_text("utf-8") == REFERENCE["PAGES"][name](), (
        "run `python docs/tools/reference.py`"
    )


def test_every_page_is_in_the_navigation_once():
    there = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
    assert sorted(pages(SETTINGS["nav"])) == there
    assert SETTINGS["strict"] is True
    assert SETTINGS["theme"]["font"] is False
    assert "repo_url" not in SETTINGS  # the theme would ask GitHub for stars


@pytest.mark.parametrize(
    ("page", "link", "leads_to"),
    [
        ("guides/a.md", "[x](../../examples/saxpy/saxpy.c)", "[x](REPOSITORY/blob/main/examples/saxpy/saxpy.c)"),
        ("a.md", "[x](../examples/notebook/)", "[x](REPOSITORY/tree/main/examples/notebook)"),
        ("a.md", "[x](../RATIONALE.md#dependencies)", "[x](REPOSITORY/blob/main/RATIONALE.md#dependencies)"),
        ("guides/a.md", "[x](../settings.md#a)", "[x](../settings.md#a)"),
        ("a.md", "[x](settings.md) [y](https://example.net/../z)", "[x](settings.md) [y](https://example.net/../z)"),
    ],
)
def test_links_out_of_the_site_lead_to_the_repository(page, link, leads_to):
    class File:
        src_uri = page

    class Page:
        file = File

    told = HOOKS["on_page_markdown"](link, page=Page, config={"docs_dir": str(DOCS)}, files=None)
    assert told == leads_to.replace("REPOSITORY", "https://github.com/tensor-wasm/tensor-wasm")


class Outside(HTMLParser):
    """What a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            is_loaded = name in {"src", "srcset", "data", "poster"} or (tag == "link" and name == "href")
            if is_loaded and re.match(r"(https?:)?//", value or ""):
                self.found.append(value)
            if name == "class" and "mermaid" in (value or "").split():
                self.found.append("the theme would load mermaid")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    variables = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(site):
    built = list(site.rglob("*.html"))
    assert len(built) > len(pages(SETTINGS["nav"]))
    for page in built:
        reader = Outside()
        reader.feed(page.read_text("utf-8"))
        assert reader.found == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text("utf-8")), style
    assert not (site / "tools").exists()


@pytest.mark.slow
def test_a_browser_asks_for_nothing_else_and_finds_what_it_searches(site):
    # On a thread of its own: other tests' browsers have an event loop on this one.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(search, site).result()


def search(site):
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "chromium is not installed: apt-get install chromium"

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_address[1]}/"
    asked, said = [], []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
            page.goto(f"{home}index.html")
            page.get_by_role("link", name="Writing a guest").first.click()
            page.wait_for_url("**/guides/guest-author.html")
            page.keyboard.press("/")
            page.keyboard.type("dispatch permits")
            page.locator(".md-search-result__link").first.wait_for(timeout=120_000)
            browser.close()
    finally:
        server.shutdown()
        server.server_close()
    assert [url for url in asked if not url.startswith((home, "data:", "blob:"))] == []
    assert said == []
