"""The page of a real node, in a process of its own and under load."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import Watched
from browser.guests import flooder
from system.front_door import Served

pytestmark = pytest.mark.slow
expect.set_options(timeout=60_000)

TOKENS = "boss:role=admin;one:tenant=1;two:tenant=2"
#: Windows of seconds, so that a flood is the window's whole story soon; and permits that few guests can take.
QUICK = {
    "TENSOR_WASM_OBSERVE_WINDOW_S": "6",
    "TENSOR_WASM_DISPATCH_PERMITS": "1",
    "TENSOR_WASM_WORKERS": "6",
    "TENSOR_WASM_INVOKE_DEADLINE_S": "600",
}
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
JOIN_S = 60


def ask(url: str, token: str, method: str, path: str, value: Any = None) -> Any:
    """One request's answer, whatever its status."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request(method, path, None if value is None else json.dumps(value), headers)
        return json.loads(connection.getresponse().read() or b"null")
    finally:
        connection.close()


def deploy(url: str, token: str, exports: Sequence[str] = ("flood",)) -> str:
    wasm = base64.b64encode(flooder(exports)).decode()
    return ask(url, token, "POST", "/functions", {"name": "flooder", "wasm_b64": wasm})["id"]


@contextmanager
def floods(url: str, token: str, exports: Sequence[str]) -> Iterator[list[str]]:
    """Calls that launch until they are ended; the kinds of their errors, once they have."""
    function = deploy(url, token, sorted(set(exports)))
    ends: list[str] = []

    def call(export: str) -> None:
        ends.append(ask(url, token, "POST", f"/functions/{function}/invoke", {"export": export})["error"]["kind"])

    threads = [threading.Thread(target=call, args=(export,)) for export in exports]
    for thread in threads:
        thread.start()
    try:
        yield ends
    finally:
        while any(thread.is_alive() for thread in threads):
            for instance in ask(url, "boss", "GET", "/admin/instances")["instances"]:
                ask(url, "boss", "POST", f"/admin/instances/{instance['id']}/terminate")
            for thread in threads:
                thread.join(0.2)


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Admin token").fill(token)
    page.keyboard.press("Enter")


def test_the_tenant_that_floods_is_seen_and_ended_by_keyboard_alone(
    serve: Callable[..., Served], watch: Callable[..., Watched]
) -> None:
    served = serve(TENSOR_WASM_API_TOKENS=TOKENS, **QUICK)
    with floods(served.url, "one", ["flood"] * 3) as ends:
        page = watch(served.url).open()
        expect(page.get_by_label("Admin token")).to_be_focused()
        sign_in(page, "boss")
        row = page.locator("#tenants tbody tr").first
        expect(row.locator("th")).to_have_text("1")
        expect(page.locator("#charts path.line.first").first).to_be_attached()
        expect(page.locator("#instances tbody tr")).to_have_count(3)
        expect(page.locator("#facts")).to_contain_text("cpu (host)")
        expect(page.locator("#slo tbody tr")).to_have_count(5)
        for left in (2, 1, 0):
            expect(page.locator("#confirm")).to_be_hidden()
            button = page.locator("#instances tbody tr:not([data-gone]) button").first
            name = button.get_attribute("aria-label")
            for _ in range(100):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.getAttribute('aria-label')") == name:
                    break
            assert "of tenant 1" in name
            page.keyboard.press("Enter")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            instance = name.removeprefix("Terminate instance ")
            expect(page.get_by_role("log")).to_contain_text(f"Instance {instance} ended in")
            expect(page.locator("#instances tbody tr:not([data-gone])")).to_have_count(left)
    assert ends == ["terminated"] * 3
    assert served.stop() == 0
    assert "Traceback" not in served.log


def test_among_others_the_one_that_floods_has_most(serve: Callable[..., Served], watch: Callable[..., Watched]) -> None:
    served = serve(TENSOR_WASM_API_TOKENS=TOKENS, **QUICK)
    stop = threading.Event()
    with floods(served.url, "one", ["flood"] * 2):
        function = deploy(served.url, "two")

        def modest() -> None:
            while not stop.is_set():
                ask(served.url, "two", "POST", f"/functions/{function}/invoke", {"export": "once"})
                stop.wait(0.2)

        thread = threading.Thread(target=modest)
        thread.start()
        try:
            page = watch(served.url).open()
            sign_in(page, "boss")
            row = page.locator("#tenants tbody tr").filter(has=page.get_by_role("rowheader", name="1", exact=True))
            expect(row).to_contain_text("most")
            expect(page.get_by_role("rowheader", name="2", exact=True)).to_be_visible()
        finally:
            stop.set()
            thread.join(JOIN_S)


def test_the_token_is_asked_for_again_until_it_is_right_and_kept_nowhere(
    serve: Callable[..., Served], watch: Callable[..., Watched]
) -> None:
    served = serve(TENSOR_WASM_API_TOKENS=TOKENS)
    found = watch(served.url)
    found.expected += ["401", "403"]
    page = found.open()
    field = page.get_by_label("Admin token")
    expect(field).to_be_focused()
    assert [url for url in found.requests if "/admin/" in url] == []
    sign_in(page, "no-such-token")
    expect(page.get_by_role("alert").first).to_have_text("The node does not know this token.")
    expect(field).to_be_focused()
    sign_in(page, "one")
    expect(page.get_by_role("alert").first).to_contain_text("role=admin")
    sign_in(page, "no tokén")
    expect(page.get_by_role("alert").first).to_contain_text("That is no token")
    expect(page.locator("#board")).to_be_hidden()
    sign_in(page, "boss")
    expect(page.locator("#state")).to_contain_text("Live")
    expect(field).to_be_hidden()
    kept = page.evaluate(
        "async () => JSON.stringify([location.href, document.cookie, {...localStorage}, {...sessionStorage},"
        " await indexedDB.databases(), document.documentElement.outerHTML, history.state])"
    )
    assert "boss" not in kept
    assert found.context.cookies() == []
    page.get_by_role("button", name="Forget the token").press("Enter")
    expect(page.locator("#board")).to_be_hidden()
    expect(field).to_be_focused()
    sign_in(page, "boss")
    expect(page.locator("#state")).to_contain_text("Live")
    page.reload()
    expect(field).to_be_focused()
    expect(page.locator("#board")).to_be_hidden()


def test_a_token_that_is_revoked_opens_nothing_more(
    serve: Callable[..., Served], watch: Callable[..., Watched]
) -> None:
    served = serve(TENSOR_WASM_API_TOKENS=TOKENS)
    made = ask(served.url, "boss", "POST", "/admin/tokens", {"scope": "role=admin"})
    found = watch(served.url)
    found.expected += ["401"]
    page = found.open()
    sign_in(page, made["token"])
    expect(page.locator("#board")).to_be_visible()
    ask(served.url, "boss", "DELETE", f"/admin/tokens/{made['id']}")
    expect(page.get_by_role("alert").first).to_have_text("The node does not know this token.")
    expect(page.locator("#board")).to_be_hidden()


def test_a_node_without_tokens_asks_for_none_until_it_has_one(
    serve: Callable[..., Served], watch: Callable[..., Watched]
) -> None:
    served = serve()
    found = watch(served.url)
    page = found.open()
    expect(page.locator("#state")).to_contain_text("Live")
    expect(page.get_by_role("button", name="Forget the token")).to_be_hidden()
    ask(served.url, "", "POST", "/admin/tokens", {"scope": "role=admin"})
    found.expected += ["401"]
    expect(page.get_by_label("Admin token")).to_be_focused()
    expect(page.locator("#sign-in-error")).to_be_empty()


def test_names_of_a_real_guest_stay_names(serve: Callable[..., Served], watch: Callable[..., Watched]) -> None:
    served = serve(TENSOR_WASM_API_TOKENS=TOKENS, **QUICK)
    with floods(served.url, "one", [HOSTILE]):
        page = watch(served.url).open()
        sign_in(page, "boss")
        expect(page.locator("#instances td.name")).to_have_text(f"flooder · {HOSTILE}")
        page.locator("#instances tbody button").press("Enter")
        expect(page.locator("#confirm-facts")).to_contain_text(HOSTILE)
        page.keyboard.press("Escape")
        assert page.locator("main img").count() == 0
        assert "taken" not in page.title()


def test_a_node_that_dies_and_comes_back(serve: Callable[..., Served], watch: Callable[..., Watched]) -> None:
    served = serve()
    found = watch(served.url)
    page = found.open()
    expect(page.locator("#state")).to_contain_text("Live")
    found.expected += ["net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET", "net::ERR_EMPTY_RESPONSE"]
    served.kill()
    expect(page.locator("#state")).to_contain_text("No answer")
    expect(page.locator("#state")).to_contain_text("numbers of")
    expect(page.get_by_role("log")).to_contain_text("The node does not answer")
    expect(page.locator("#board")).to_be_visible()
    expect(page.locator("body")).to_have_class("old")
    again = serve("--listen", f"127.0.0.1:{urlsplit(served.url).port}")
    assert again.url == served.url
    expect(page.locator("#state")).to_contain_text("Live")
    expect(page.get_by_role("log")).to_contain_text("The node answers again.")
    expect(page.locator("body")).not_to_have_class("old")
    with urllib.request.urlopen(f"{again.url}/console") as answer:
        assert b'data-access="open"' in answer.read()
