"""A browser for the tests of the console, and pages that note whatever went wrong in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route

from browser.document import observed
from browser.screenshots import chromium
from serving import Running, running
from system.front_door import Served, nodes

#: Waits are for what must happen, not for how soon.
PATIENCE_MS = 60_000


@dataclass
class Watched:
    """A page of a node at ``url``, and what was heard of it: ``complaints`` must be empty at the end of a test."""

    page: Page
    context: BrowserContext
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    #: What a test expects to be complained of: a part of its text.
    expected: list[str] = field(default_factory=list)

    def open(self) -> Page:
        self.page.goto(f"{self.url}/console")
        return self.page

    def answers(self, document: dict[str, Any] | Callable[[Route], None]) -> None:
        """From now on the node answers this to GET /admin/observe."""
        self.page.unroute("**/admin/observe?*")
        if callable(document):
            self.page.route("**/admin/observe?*", document)
        else:
            self.page.route("**/admin/observe?*", lambda route: route.fulfill(json=document))

    def check(self) -> None:
        violations = self.page.evaluate("() => window.violations ?? []")
        wrong = [text for text in self.complaints if not any(part in text for part in self.expected)]
        assert violations + wrong == []
        assert [url for url in self.requests if not url.startswith(self.url + "/")] == []


_WATCH = (
    "window.violations = []; addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective))"
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def watch(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Makes a page for a node; at the end nothing may have gone wrong in it, nor been asked of another."""
    watched: list[Watched] = []

    def make(url: str, **options: Any) -> Watched:
        context = browser.new_context(**({"viewport": {"width": 1360, "height": 900}, "locale": "en-GB"} | options))
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        found = Watched(page, context, url)
        page.add_init_script(_WATCH)
        page.on("console", lambda said: said.type in ("error", "warning") and found.complaints.append(said.text))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (found.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: found.requests.append(request.url))
        watched.append(found)
        return found

    yield make
    for found in watched:
        found.check()
        found.context.close()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of the page's files. The tests say what it answers besides."""
    with running(tmp_path_factory.mktemp("files")) as server:
        yield server


@pytest.fixture
def shown(watch: Callable[..., Watched], files: Running) -> Callable[..., Watched]:
    """The page of a node that says this of itself."""

    def open_page(document: dict[str, Any] | None = None, **options: Any) -> Watched:
        found = watch(f"http://{files.host}:{files.port}", **options)
        found.answers(observed() if document is None else document)
        found.open()
        found.page.locator("#board").wait_for()
        return found

    return open_page


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start nodes on one home; what still runs at the end is killed."""
    with nodes(tmp_path / "home") as start:
        yield start
