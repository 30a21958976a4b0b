"""Pictures of the page: ``python -m browser.screenshots DIRECTORY`` makes all of them, for people to look at.

``console.png`` is the one in ``docs/images``. They show a document that is made up, so that they stay the same.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from browser.document import NOW, observed, quiet
from serving import running

CHROMIUM = "/usr/bin/chromium"
SIZES = {"wide": (1360, 900), "tablet": (820, 1100), "phone": (390, 844)}
SCHEMES = ("light", "dark")
#: As much as there is in the page's documentation.
SHOWN = (1280, 1150)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium. Root may run it without its sandbox only, as in CI's container."""
    if not Path(CHROMIUM).exists():
        raise AssertionError(f"{CHROMIUM} is not there: install Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def shown(
    browser: Browser, url: str, document: dict[str, Any], size: tuple[int, int], scheme: str = "light"
) -> Iterator[Page]:
    """The page with a document, once it is drawn."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, locale="en-GB", timezone_id="UTC"
    )
    page = context.new_page()
    page.clock.set_fixed_time(NOW)
    page.route("**/admin/observe?*", lambda route: route.fulfill(json=document))
    page.goto(f"{url}/console")
    expect(page.locator("#state")).to_contain_text("Live")
    expect(page.locator("#charts path.line, #charts text.middle").first).to_be_attached()
    yield page
    context.close()


def take(browser: Browser, url: str, directory: Path) -> list[Path]:
    """All pictures, in ``directory``."""
    made = []

    def keep(page: Page, name: str, *, whole: bool = True) -> None:
        made.append(directory / f"{name}.png")
        page.screenshot(path=made[-1], full_page=whole)

    for scheme in SCHEMES:
        for name, size in SIZES.items():
            with shown(browser, url, observed(), size, scheme) as page:
                keep(page, f"{name}-{scheme}")
        with shown(browser, url, observed(), SIZES["wide"], scheme) as page:
            page.get_by_role("button", name="Terminate").first.press("Enter")
            keep(page, f"question-{scheme}", whole=False)
        with shown(browser, url, observed(), SIZES["wide"], scheme) as page:
            page.unroute_all()
            page.route("**/admin/observe?*", lambda route: route.abort())
            expect(page.locator("#state")).to_contain_text("No answer")
            page.clock.set_fixed_time(NOW.replace(minute=NOW.minute + 1))
            expect(page.locator("body")).to_have_class("old")
            keep(page, f"gone-{scheme}", whole=False)
            page.unroute_all()
            page.route("**/admin/observe?*", lambda route: route.fulfill(status=401, json={}))
            expect(page.locator("#token")).to_be_focused()
            keep(page, f"token-{scheme}", whole=False)
    with shown(browser, url, quiet(), SIZES["wide"]) as page:
        keep(page, "quiet")
    with shown(browser, url, observed(), SHOWN) as page:
        keep(page, "console", whole=False)
    return made


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, running(Path(home)) as server, chromium() as browser:
        for path in take(browser, f"http://{server.host}:{server.port}", folder):
            print(path, path.stat().st_size)
