"""The page with documents that are made up: what it shows, how it is operated, what it makes of hostile names."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from browser.document import LARGE_TENANT, NOW, observed, quiet
from browser.screenshots import SCHEMES, SIZES, take

pytestmark = pytest.mark.slow
expect.set_options(timeout=60_000)

ROOT = Path(__file__).parents[2]
SHOWN_MOST_BYTES = 200_000
#: Function and export names that do something where a name is taken for more than a name.
HOSTILE = (
    "<img src=x onerror=\"document.title='taken'\">",
    "<script>document.title='taken'</script>",
    "javascript:document.title='taken'",
    "\"'><b onmouseover=alert(1)>",
    "${document.title='taken'}",
    "&lt;b&gt;",
    "a\u202eb\u0000c\u2028d",
    "x" * 5000,
)
_CONTRAST = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => { const f = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const ground = (element) => { for (let e = element; e; e = e.parentElement) {
    const found = parts(getComputedStyle(e).backgroundColor); if (found.length < 4 || found[3] === 1) return found; } };
  const low = [];
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest("svg, noscript")) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    count += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(node.data);
  }
  return [count, low];
}"""
_COVERED = """() => [...document.querySelectorAll("#instances tbody tr")].flatMap((row) => {
  const edge = row.querySelector(".action").getBoundingClientRect().left;
  return [...row.cells].filter((cell) => !cell.matches(".action") && cell.checkVisibility()
    && cell.getBoundingClientRect().right > edge + 1).map((cell) => cell.textContent);
})"""
_AUDIT = """() => {
  const wrong = [];
  const words = (text) => (text ?? "").split(/\\s+/).filter(Boolean);
  const text = (ids) => words(ids).map((id) => document.getElementById(id)?.textContent ?? "");
  const nameOf = (e) => (e.getAttribute("aria-label") ?? "") || text(e.getAttribute("aria-labelledby")).join(" ").trim()
    || [...(e.labels ?? [])].map((l) => l.textContent).join(" ").trim() || e.textContent.trim();
  const seen = new Map();
  for (const e of document.querySelectorAll("[id]")) seen.set(e.id, (seen.get(e.id) ?? 0) + 1);
  for (const [id, count] of seen) if (count > 1) wrong.push(`id ${id} is there ${count} times`);
  for (const e of document.querySelectorAll("button, a, input, summary, [role=region], [role=img], dialog, section")) {
    if (!nameOf(e)) wrong.push(`${e.tagName} has no name`);
  }
  for (const attribute of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const e of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of words(e.getAttribute(attribute))) if (!seen.has(id)) wrong.push(`nothing has the id ${id}`);
    }
  }
  let level = 0;
  const headings = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter((e) => e.checkVisibility());
  for (const e of headings) {
    if (Number(e.tagName[1]) > level + 1) wrong.push(`heading "${e.textContent}" leaves out a level`);
    level = Number(e.tagName[1]);
  }
  if (headings.filter((e) => e.tagName === "H1").length !== 1) wrong.push("not one h1");
  for (const e of document.querySelectorAll("table")) {
    if (!e.checkVisibility()) continue;
    if (!e.caption?.textContent) wrong.push("a table has no caption");
    for (const th of e.querySelectorAll("th")) if (!th.scope) wrong.push(`th "${th.textContent}" has no scope`);
  }
  for (const tag of ["header", "main"]) if (document.querySelectorAll(tag).length !== 1) wrong.push(`not one ${tag}`);
  if (!document.documentElement.lang) wrong.push("no language");
  if (!document.querySelector("[role=log], [aria-live]")) wrong.push("nothing is announced");
  for (const e of document.querySelectorAll("*")) {
    if (e.tabIndex > 0) wrong.push("an order of focus of its own");
    const scrolls = e.scrollWidth > e.clientWidth && /auto|scroll/.test(getComputedStyle(e).overflowX);
    const isRoot = e === document.documentElement;
    if (scrolls && e.checkVisibility() && e.tabIndex < 0 && !isRoot) wrong.push("scrolls, without focus");
    if (e.matches("[aria-hidden=true] :is(a, button, input)")) wrong.push("hidden, with focus");
  }
  const targets = [...document.querySelectorAll("button, input")].filter((e) => e.checkVisibility());
  for (const e of targets) {
    const { width, height } = e.getBoundingClientRect();
    if (width < 24 || height < 24) wrong.push(`${nameOf(e)} is ${width} x ${height}`);
  }
  return wrong;
}"""


def rows(page: Page, table: str) -> list[list[str]]:
    """The texts of a table's cells."""
    return [row.locator("th, td").all_inner_texts() for row in page.locator(f"#{table} tbody tr").all()]


def test_documents_of_these_tests_are_documents_of_a_node():
    schema = json.loads((ROOT / "docs" / "observe.schema.json").read_text())
    for document in (observed(), quiet()):
        jsonschema.validate(document, schema)


def test_it_shows_who_takes_the_permits_and_what_is_breached(shown):
    page = shown().page
    assert rows(page, "tenants")[0][:4] == ["7", "91 % most", "8,210", "82 %"]
    assert rows(page, "tenants")[1][0] == str(LARGE_TENANT)
    tiles = page.locator("#tiles")
    expect(tiles).to_contain_text("180 µs")
    expect(tiles).to_contain_text("above 50 µs")
    expect(tiles).to_contain_text("64 of 64")
    expect(tiles).to_contain_text("nearly all taken")
    expect(tiles).to_contain_text("2 active")
    objective = page.get_by_role("row").filter(has_text="latency_dispatch_serial_P95")
    expect(objective).to_contain_text("breached")
    link = objective.get_by_role("link")
    expect(link).to_have_attribute("href", re.compile(r"docs/runbooks/dispatch-latency-spike\.md$"))
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(page.get_by_role("row").filter(has_text="error_rate_invoke")).to_contain_text("no data")
    assert page.title() == "1 breached · TensorWasm console"
    expect(page.locator("#facts")).to_contain_text("0.1.0 (4f2c9a1b)")
    expect(page.locator("#instances caption")).to_contain_text("5 of 17")


def test_charts_have_their_lines_a_summary_and_a_table(shown):
    page = shown().page
    chart = page.get_by_role("img", name="Dispatch latency")
    expect(chart).to_have_attribute("aria-label", re.compile("^Dispatch latency over the last 15 minutes: P95 is "))
    assert "above the target of 50 µs in" in chart.get_attribute("aria-label")
    # A stretch without samples and a sample without values: each line is in three pieces.
    assert chart.locator("path.line.first").count() == 3
    figure = page.locator("figure").filter(has=page.get_by_role("heading", name="Dispatch latency"))
    figure.locator("summary").press("Enter")
    table = figure.get_by_role("table")
    assert table.locator("tbody tr").count() in (14, 15)
    assert table.locator("tbody tr").first.locator("td").all_inner_texts()[1].endswith("µs")
    box = chart.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    expect(figure.locator(".legend")).to_contain_text("at ")
    page.mouse.move(0, 0)
    expect(figure.locator(".legend")).to_contain_text("now")


def test_a_node_without_data_is_shown_as_that(shown):
    page = shown(quiet()).page
    expect(page.locator("#tiles")).to_contain_text("–")
    expect(page.locator("#tenants")).to_contain_text("No tenant did anything.")
    expect(page.locator("#instances")).to_contain_text("No instance is live.")
    assert page.locator("#charts text.middle", has_text="no data").count() == 3
    assert "NaN" not in page.inner_text("body")
    assert "undefined" not in page.inner_text("body")
    assert "null" not in page.inner_text("body")


def test_what_the_node_could_not_read_and_that_it_drains_is_said(shown):
    document = observed(unread=["disk: no such device", "<b>jobs</b>"], gpus=[gpu()])
    document["node"]["draining"] = True
    document["permits"]["held_without_launch"] = 3
    document["tenants"][2]["tenant"] = None
    page = shown(document).page
    expect(page.locator("#notices")).to_contain_text("disk: no such device; <b>jobs</b>")
    expect(page.locator("#notices")).to_contain_text("drains")
    expect(page.locator("#tiles")).to_contain_text("3 held without a launch")
    expect(page.locator("#facts")).to_contain_text("sw_thermal_slowdown")
    assert rows(page, "tenants")[2][0] == "all others"


def gpu() -> dict:
    return {
        "device": "NVIDIA H100", "temperature_celsius": 91.0, "utilization_ratio": 0.99,
        "throttle_reasons": ["sw_thermal_slowdown"], "ecc_errors": 2,
    }  # fmt: skip


def test_names_that_tenants_choose_stay_names(shown):
    document = observed()
    instance = document["instances"][0]
    document["instances"] = [
        instance | {"id": f"{at:08d}-19f3-4e21-8c55-000000000000", "function": name, "export": name}
        for at, name in enumerate(HOSTILE)
    ]
    document["node"]["device"] = HOSTILE[0]
    document["release"]["version"] = HOSTILE[1]
    document["gpus"] = [gpu() | {"device": HOSTILE[0], "throttle_reasons": [HOSTILE[1]]}]
    document["slo"][0]["runbook"] = "javascript:alert(1)"
    document["slo"][1]["name"] = HOSTILE[0]
    document["unread"] = list(HOSTILE)
    found = shown(document)
    page = found.page
    expect(page.locator("#instances tbody tr")).to_have_count(len(HOSTILE))
    names = page.locator("#instances td.name bdi:first-child").all_inner_texts()
    assert names[:6] == list(HOSTILE[:6])
    assert names[6] == r"a\u{202e}b\u{0}c\u{2028}d"
    assert len(names[7]) == 121
    assert page.locator("#board img, #board script, #board b:not(.legend b)").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    page.locator("#instances tbody button").first.press("Enter")
    expect(page.locator("#confirm-facts")).to_contain_text(HOSTILE[0])
    assert page.locator("#confirm img").count() == 0
    assert "taken" not in page.title()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_instance_is_ended_by_keyboard_alone(shown):
    found = shown()
    page = found.page
    asked: list[str] = []

    def terminate(route: Route) -> None:
        asked.append(route.request.url)
        found.answers(observed(instances=observed()["instances"][1:], instance_count=4))
        route.fulfill(json={"id": "x", "tenant": 7, "function_id": "y", "ended": True, "took_ms": 8.1})

    page.route("**/terminate", terminate)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    order = []
    for _ in range(60):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
        )
        if order[-1].startswith("Terminate instance"):
            break
    assert order[-1] == "Terminate instance 4a6b77dd of tenant 7", order
    assert order[0] == "Pause"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Terminate this instance?")
    expect(dialog).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "confirm-no"
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == order[-1]
    assert asked == []
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "confirm-yes"
    page.keyboard.press("Enter")
    expect(page.get_by_role("log")).to_contain_text("Instance 4a6b77dd of tenant 7 ended in 8.1 ms.")
    expect(dialog).to_be_hidden()
    assert len(asked) == 1
    assert asked[0].endswith("/admin/instances/4a6b77dd-19f3-4e21-8c55-000000000001/terminate")
    # The row says so where it is: the focus is in it.
    row = page.locator("#instances tbody tr").first
    expect(row).to_contain_text("ended")
    assert page.evaluate("document.activeElement.textContent") == "Ended"
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    page.locator("#pause").focus()
    expect(page.locator("#instances tbody tr")).to_have_count(4)


def test_what_does_not_end_is_said_in_the_question(shown):
    found = shown()
    page = found.page
    found.expected += ["503", "404"]
    page.locator("#instances tbody button").first.press("Enter")
    error = {"kind": "internal_error", "message": "the node is <b>tired</b>", "request_id": "1"}
    page.route("**/terminate", lambda route: route.fulfill(status=503, json={"error": error}))
    page.locator("#confirm-yes").press("Enter")
    expect(page.get_by_role("alert").filter(has_text="It was not ended: the node is <b>tired</b>")).to_be_visible()
    expect(page.locator("#confirm-yes")).to_have_text("Terminate")
    page.unroute("**/terminate")
    page.route("**/terminate", lambda route: route.fulfill(status=404, json={"error": error | {"kind": "not_found"}}))
    page.locator("#confirm-yes").press("Enter")
    expect(page.get_by_role("log")).to_contain_text("had ended before")
    expect(page.locator("#confirm")).to_be_hidden()


def test_rows_keep_their_places_while_somebody_is_in_the_table(shown):
    found = shown()
    page = found.page
    turned = observed()
    turned["instances"] = list(reversed(turned["instances"]))
    first = page.locator("#instances tbody tr").first
    before = first.locator("th").inner_text()
    page.locator("#instances tbody button").first.focus()
    turned["instances"][4]["launches_per_s"] = 1.5
    found.answers(turned)
    expect(first).to_contain_text("1.5")
    assert first.locator("th").inner_text() == before
    page.locator("#pause").focus()
    expect(first.locator("th")).not_to_have_text(before)


def test_an_objective_that_turns_is_announced(shown):
    found = shown()
    calm = observed(NOW + timedelta(seconds=3))
    calm["slo"][0]["state"] = "ok"
    found.answers(calm)
    expect(found.page.get_by_role("log")).to_contain_text("latency_dispatch_serial_P95 is no longer breached.")
    found.answers(observed())
    expect(found.page.get_by_role("log")).to_contain_text("latency_dispatch_serial_P95 is breached.")


def test_another_release_asks_for_a_reload(shown):
    found = shown()
    other = observed()
    other["node"]["git_sha"] = "0000000"
    found.answers(other)
    expect(found.page.locator("#notices")).to_contain_text("Reload the page")


def test_a_document_of_another_form_is_not_shown_as_one_of_this(shown):
    found = shown()
    found.answers(observed(schema="tensor-wasm/observe/2"))
    expect(found.page.locator("#news")).to_contain_text("reload the page")
    expect(found.page.locator("#state")).to_contain_text("No answer")


def test_it_pauses_when_told_and_when_nobody_looks(shown):
    found = shown()
    page = found.page
    asked: list[str] = []

    def note(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(json=observed())

    found.answers(note)
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.locator("#state")).to_contain_text("Paused")
    count = len(asked)
    page.wait_for_timeout(4000)
    assert len(asked) <= count + 1  # the one that may have been on its way
    page.get_by_role("button", name="Resume").press("Enter")
    expect(page.locator("#state")).to_contain_text("Live")
    hide(page, hidden=True)
    count = len(asked)
    page.wait_for_timeout(4000)
    assert len(asked) <= count + 1  # the one that may have been on its way
    hide(page, hidden=False)
    count = len(asked)
    poll(page, lambda: len(asked) > count)


def hide(page: Page, *, hidden: bool) -> None:
    """Have the page believe that it is hidden, or seen: a headless page is always seen."""
    page.evaluate(
        "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def poll(page: Page, is_so) -> None:
    for _ in range(600):
        if is_so():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it did not come to be")


def test_it_asks_less_often_while_there_is_no_answer(shown):
    found = shown()
    page = found.page
    found.expected += ["net::ERR_FAILED"]
    page.clock.install(time=NOW)
    page.clock.pause_at(NOW + timedelta(seconds=1))
    tries: list[int] = []

    def fail(route: Route) -> None:
        tries.append(1)
        route.abort()

    found.answers(fail)
    page.reload()
    poll(page, lambda: len(tries) == 1)
    expect(page.locator("#news")).to_contain_text("does not answer")
    for count, delay_s in enumerate((2, 4, 8, 16, 30, 30), start=1):
        expect(page.locator("#state")).to_contain_text("asks again in")
        page.clock.run_for(delay_s * 1000 - 500)
        page.wait_for_timeout(200)
        assert len(tries) == count
        page.clock.run_for(1000)
        poll(page, lambda expected=count + 1: len(tries) == expected)
    expect(page.locator("#state")).to_contain_text("asks again in")
    found.answers(observed())
    page.clock.run_for(31_000)
    expect(page.locator("#state")).to_contain_text("Live")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_everything_is_named_told_and_to_be_read(shown, size, scheme):
    width, height = SIZES[size]
    page = shown(observed(unread=["disk"]), viewport={"width": width, "height": height}, color_scheme=scheme).page
    for summary in page.locator("summary").all():
        summary.press("Enter")
    expect(page.locator("figure caption")).to_have_count(3)
    assert page.evaluate(_AUDIT) == []
    count, low = page.evaluate(_CONTRAST)
    assert count > 100
    assert low == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    button = page.locator("#instances tbody button").first
    button.scroll_into_view_if_needed()
    box = button.bounding_box()
    assert box["x"] + box["width"] <= width
    assert page.evaluate(_COVERED) == [], "columns are under the buttons: leave some out at this size"
    button.press("Enter")
    expect(page.locator("#confirm")).to_be_visible()
    assert page.evaluate(_AUDIT) == []


def test_the_checks_of_these_tests_find_what_is_wrong(shown):
    page = shown().page
    page.evaluate("""() => { const add = (tag, set) => { const e = document.createElement(tag); Object.assign(e, set);
        document.querySelector('main').append(e); }; add('button', {}); add('p', { id: 'news' });
        add('h5', { textContent: 'deep' }); add('table', {}); add('a', { tabIndex: 3, textContent: 'x' });
        document.getElementById('where').style.color = '#999'; }""")
    said = " ".join(page.evaluate(_AUDIT))
    for part in (
        "BUTTON has no name",
        "id news is there 2 times",
        "leaves out a level",
        "no caption",
        "order of focus",
    ):
        assert part in said
    assert page.evaluate(_CONTRAST)[1]


def test_nothing_moves_for_who_wants_no_motion(shown):
    page = shown(reduced_motion="reduce").page
    moving = (
        "() => [...document.querySelectorAll('*')].filter((e) => { const s = getComputedStyle(e);"
        " return s.animationName !== 'none' || s.transitionDuration !== '0s'; }).length"
    )
    assert page.evaluate(moving) == 0


def test_pictures_for_people_to_look_at(browser: Browser, files, tmp_path):
    """``python -m browser.screenshots DIRECTORY`` keeps them; the page's documentation has the last one."""
    made = take(browser, f"http://{files.host}:{files.port}", tmp_path)
    assert {path.name for path in made} >= {"wide-light.png", "phone-dark.png", "console.png"}
    assert all(path.stat().st_size > 10_000 for path in made)
    assert made[-1].stat().st_size < SHOWN_MOST_BYTES
    committed = ROOT / "docs" / "images" / "console.png"
    assert committed.stat().st_size < SHOWN_MOST_BYTES
    assert committed.read_bytes()[16:24] == made[-1].read_bytes()[16:24], "of another size: make it again"
