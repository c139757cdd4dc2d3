"""The console of a real stack in a real browser: the distribution's Chromium, driven by Playwright."""

import re
import threading
import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from axe_playwright_python.sync_playwright import Axe
from werkzeug.serving import make_server

from tests.console.conftest import START, TRACE, order

PAGES = ["/", "/orders/", "/orders/1", "/traces/", "/traces/compare", "/logs", "/why", "/faults", "/help"]
PAGES += ["/runbooks/ServiceDown"]
BOARDS = [f"/dashboards/{uid}" for uid in ("overview", "order-path", "service", "database", "telemetry", "load")]


@pytest.fixture(scope="module")
def console(stack):
    stack.gateway.post("/orders/", {"product_id": 1}, token=stack.login())
    return f"http://localhost:{stack.ports['CONSOLE']}"


@pytest.fixture
def tab(open_tab, console):
    return open_tab(console)


@pytest.fixture
def served(console_app):
    """The console in front of stand-ins, on a port of its own."""
    server = make_server("127.0.0.1", 0, console_app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _seconds_to_the_whole_story(tab):
    tab.goto("/orders/")
    begun = time.monotonic()
    tab.get_by_role("button", name="Place an order").click()
    tab.wait_for_url("**/orders/*")
    tab.wait_for_selector(".wrow >> text=payment-service", timeout=20_000)
    tab.wait_for_selector(".wlog >> text=order.settled", timeout=20_000)
    tab.wait_for_selector("text=Still on the way", state="detached", timeout=20_000)
    took = time.monotonic() - begun
    assert tab.get_by_text("PAID").first.is_visible()
    assert tab.locator("a.wrow").count() >= 12
    return took


def test_a_button_places_an_order_whose_whole_story_is_there_within_two_seconds(tab):
    took = []
    while min(took, default=9) > 2 and len(took) < 5:  # the machine may do other things too
        took.append(_seconds_to_the_whole_story(tab))
    assert took[-1] <= 2, took


def test_a_fault_is_switched_by_a_button_and_named_on_each_page_until_it_is_off(tab):
    tab.goto("/faults")
    tab.get_by_role("button", name="currency-slow weak").click()
    tab.get_by_text("fault on: currency-slow").wait_for()
    tab.goto("/orders/")
    tab.get_by_role("link", name="currency-slow", exact=True).click()
    tab.get_by_role("button", name="Switch all off").click()
    tab.get_by_text("fault on:").wait_for(state="detached")


@pytest.mark.slow
def test_from_a_slow_order_to_the_log_line_that_explains_it_are_three_clicks(open_tab, own_stack):
    stack = own_stack()
    stack.fault("payment-slow")
    token = stack.login()
    for _ in range(3):
        stack.gateway.post("/orders/", {"product_id": 1}, token=token)
    tab = open_tab(f"http://localhost:{stack.ports['CONSOLE']}")
    tab.goto("/")
    begun = time.monotonic()
    tab.get_by_role("link", name="Orders", exact=True).click()
    tab.locator(".rows tbody a").first.click()
    slowest = tab.locator(".shares a").first
    slowest.wait_for()
    assert "payment-service" in slowest.inner_text()
    slowest.click()
    said = tab.locator("#span .said", has_text="request.completed")
    said.wait_for()
    took = time.monotonic() - begun
    assert "decide charge" in tab.locator("#span h3").inner_text()
    assert float(said.locator("dt", has_text="duration_s").locator("+ dd").inner_text()) > 0.7
    print(f"from a slow order to the log line that explains it: 3 clicks, {took:.2f} s")
    assert took < 20  # a machine that does other things too


def test_the_back_button_and_the_address_lead_to_what_was_chosen(tab):
    tab.goto("/orders/1")
    tab.locator("a.wlog", has_text="order.settled").click()
    tab.locator("#span .said.picked", has_text="order.settled").wait_for()
    address = tab.url
    assert tab.evaluate("document.activeElement.classList.contains('wlog')")
    tab.locator("a.wrow", has_text="INSERT orders").click()
    tab.locator("#span h3", has_text="INSERT orders").wait_for()
    tab.go_back()
    tab.locator("#span .said.picked", has_text="order.settled").wait_for()
    assert tab.url == address
    tab.reload()
    assert tab.locator("#span .said.picked").inner_text().startswith(tab.locator("#span time").first.inner_text())


def test_times_are_the_readers_and_utc_on_hover(open_tab, console):
    tab = open_tab(console, timezone_id="Asia/Kolkata")
    tab.goto("/orders/1")
    shown = tab.locator(".facts time")
    utc = shown.get_attribute("datetime")
    here = datetime.fromisoformat(utc).astimezone(ZoneInfo("Asia/Kolkata"))
    assert here.strftime("%H:%M:%S") in shown.inner_text()
    assert shown.get_attribute("title") == f"{utc} (UTC)"


def test_light_or_dark_is_chosen_once_for_all_pages(open_tab, console):
    tab = open_tab(console, color_scheme="light")
    tab.goto("/help")
    tab.get_by_role("button", name="Light or dark").click()
    tab.goto("/logs")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_trace_id_can_be_copied(tab):
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto("/orders/1")
    tab.get_by_role("button", name="Copy trace id").first.click()
    tab.get_by_text("✓ copied").wait_for()
    assert re.fullmatch("[0-9a-f]{32}", tab.evaluate("navigator.clipboard.readText()"))


@pytest.mark.parametrize(
    "path", ["/", "/orders/", "/orders/7", f"/traces/{TRACE}", "/traces/", "/logs", "/dashboards/", "/faults"]
)
def test_hostile_text_does_nothing_in_a_browser(open_tab, served, hostile, path):
    tab = open_tab(f"http://127.0.0.1:{served.port}")
    tab.goto(path)
    for mark in tab.locator(".plot svg, a.wrow").all()[:4]:
        mark.hover()  # the page may be refreshed just then, for which this waits
    if tab.locator("a.wrow").count():
        tab.locator("a.wrow").first.click()
        tab.locator("#span").wait_for()
    shown = tab.locator("body").inner_text()
    assert "<img src=x" in shown
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", shown)
    assert tab.evaluate("document.querySelectorAll('main img, main script, main iframe').length") == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_page_says_that_it_stands_still_when_the_console_has_gone(open_tab, served):
    tab = open_tab(f"http://127.0.0.1:{served.port}")
    tab.goto("/")
    assert not tab.locator("#stale").is_visible()
    tab.route("**/*", lambda route: route.abort())
    tab.locator("#stale").wait_for(timeout=15_000)
    tab.unroute("**/*")
    tab.locator("#stale").wait_for(state="hidden", timeout=15_000)


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "sign in"), (500, "answers with an error"), (502, "answers with an error"), (503, "error")],
)
def test_a_page_says_that_it_stands_still_and_why_when_it_is_refused(open_tab, served, status, said):
    tab = open_tab(f"http://127.0.0.1:{served.port}")
    tab.goto("/")
    tab.route("**/*", lambda route: route.fulfill(status=status, body="<p>no</p>"))
    tab.locator("#stale", has_text="what it shows is old").wait_for(timeout=20_000)
    assert said in tab.locator("#stale").inner_text()
    assert "make status" not in tab.locator("#stale").inner_text()
    tab.unroute("**/*")
    tab.locator("#stale").wait_for(state="hidden", timeout=20_000)


@pytest.mark.parametrize(
    "focused", ["[name=status]", "[name=quantity]", "[aria-label='Orders, newest first']", "tbody a"]
)
def test_a_refresh_leaves_the_focus_where_it_is(open_tab, served, apis, focused):
    tab = open_tab(f"http://127.0.0.1:{served.port}")
    tab.goto("/orders/")
    tab.locator(focused).focus()
    apis.orders[8] = order(8)
    tab.get_by_text("#8").wait_for(timeout=20_000)
    assert tab.evaluate("it => document.activeElement.matches(it)", focused)


@pytest.fixture
def chart(open_tab, served, apis):
    """A tab on the Overview's charts, with the last three hours."""
    apis.series[0]["values"] = [[START - 60, "1"], [START, "2"]]
    tab = open_tab(f"http://127.0.0.1:{served.port}")
    tab.goto("/?range=3h")
    return tab


PLOT = ".chart[data-series] .plot svg"


def _drag(tab, part=0.9):
    box = tab.locator(PLOT).first.bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * part, box["y"] + 20)


@pytest.mark.parametrize("way", ["Escape", "double click", "link"])
def test_a_time_chosen_in_a_chart_is_left_for_the_range_before(chart, way):
    _drag(chart)
    chart.mouse.up()
    chart.wait_for_url("**from=*back=3h*")
    assert re.fullmatch(r"(\d\d-\d\d \d\d:\d\d:\d\d( . )?){2}", chart.locator(".range option:checked").text_content())
    for key, page in {"l": "logs", "r": "orders/", "o": ""}.items():  # it stays on the way
        chart.keyboard.press(key)
        chart.wait_for_url(re.compile(rf":\d+/{page}\?.*from=.*back=3h"))
    if way == "Escape":
        chart.get_by_text("From, to").click()
        chart.keyboard.press("Escape")  # this closes the fields only
        chart.locator(".times[open]").wait_for(state="detached")
        chart.keyboard.press("Escape")
    elif way == "link":
        chart.get_by_role("link", name="Back to last 3h").click()
    else:
        chart.locator(PLOT).first.dblclick(position={"x": 200, "y": 20})
    chart.wait_for_url("**/?range=3h")


def test_a_time_is_chosen_by_its_two_ends_in_the_readers_zone(open_tab, served):
    tab = open_tab(f"http://127.0.0.1:{served.port}", timezone_id="Asia/Kolkata")
    tab.goto("/?range=3h")
    tab.get_by_text("From, to").click()
    card, field = (tab.locator(each).bounding_box() for each in (".times form", ".times [name=to]"))
    assert card["x"] < field["x"]
    assert field["x"] + field["width"] < card["x"] + card["width"]
    tab.get_by_label("From", exact=True).fill("2026-11-29T09:00:00")
    tab.get_by_label("To", exact=True).fill("2026-11-29T08:00:00")
    tab.get_by_role("button", name="Show").click()
    assert tab.evaluate("document.querySelectorAll('.times :invalid').length")
    tab.get_by_label("To", exact=True).fill("2026-11-29T10:00:00")
    tab.get_by_role("button", name="Show").click()
    tab.wait_for_url("**/?from=1795923000000&to=1795926600000&back=3h")
    assert tab.locator(".range option:checked").text_content() == "11-29 09:00:00 \u2013 11-29 10:00:00"


def test_a_gesture_that_is_taken_away_neither_zooms_nor_stops_the_updates(chart, apis):
    _drag(chart)
    assert chart.locator(".select").count() == 1
    chart.locator(PLOT).first.dispatch_event("pointercancel", {"bubbles": True})
    assert chart.locator(".select").count() == 0
    chart.mouse.up()
    asked = len(apis.seen)
    deadline = time.monotonic() + 20
    while len(apis.seen) == asked and time.monotonic() < deadline:
        chart.wait_for_timeout(100)
    assert len(apis.seen) > asked
    assert "from=" not in chart.url


def test_a_chart_is_zoomed_by_keys_and_keeps_the_focus(chart):
    chart.locator(PLOT).first.focus()
    chart.keyboard.press("ArrowLeft")
    assert chart.locator(".readout[aria-live=polite]").count() == 1
    chart.keyboard.press("+")
    chart.wait_for_url("**from=*back=3h*")
    begin, end = (int(chart.url.partition(f"{name}=")[2].partition("&")[0]) for name in ("from", "to"))
    assert abs((end - begin) / 1000 - 5400) < 1
    assert chart.evaluate("it => document.activeElement.matches(it)", PLOT)
    chart.keyboard.press("-")
    chart.wait_for_url(lambda url: f"from={begin}" not in url)
    begin, end = (int(chart.url.partition(f"{name}=")[2].partition("&")[0]) for name in ("from", "to"))
    assert abs((end - begin) / 1000 - 10_800) < 1
    assert end / 1000 < time.time() + 1


def test_two_traces_are_compared_and_one_or_three_say_so(open_tab, served, apis):
    other = "a" * 32
    apis.odd["/api/traces?"] = {
        "data": [apis.trace, {**apis.trace, "traceID": other}, {**apis.trace, "traceID": "b" * 32}]
    }
    tab = open_tab(f"http://127.0.0.1:{served.port}")
    tab.goto("/traces/")
    boxes, button = tab.locator("[name=id]"), tab.get_by_role("button", name="Compare the two chosen")
    for chosen, said in enumerate(["0 are chosen", "1 is chosen", "", "3 are chosen"]):
        if chosen:
            boxes.nth(chosen - 1).check()
        assert said in tab.locator("#howmany").inner_text()
        assert button.is_enabled() == (chosen == 2)
    boxes.nth(2).uncheck()
    button.click()
    tab.wait_for_url(f"**/traces/compare?id={TRACE}&id={other}")


def test_dark_needs_no_script(open_tab, served):
    tab = open_tab(f"http://127.0.0.1:{served.port}", java_script_enabled=False, color_scheme="dark")
    tab.goto("/help")
    assert (
        sum(map(int, re.findall(r"\d+", tab.locator("body").evaluate("it => getComputedStyle(it).backgroundColor"))))
        < 150
    )


def test_the_keys_lead_through_a_waterfall_and_back(tab):
    tab.goto("/orders/1")
    tab.locator("a.wrow").first.focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowUp")
    row = tab.evaluate("document.activeElement.id")
    assert row == "s3"
    tab.locator("a.wrow").nth(1).press("Enter")
    tab.wait_for_url("**span=*")
    tab.wait_for_selector("#span >> text=span id")
    tab.go_back()
    tab.wait_for_selector("#span", state="detached")
    tab.keyboard.press("Escape")
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "find"
    tab.keyboard.type("1")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/orders/1")


def test_a_chart_is_read_by_keys_and_zoomed_by_dragging(tab):
    tab.goto("/dashboards/telemetry")
    plot = tab.locator(".chart[data-series] svg").first
    plot.wait_for()
    plot.focus()
    for _ in range(3):
        tab.keyboard.press("ArrowLeft")
    assert tab.locator(".readout").first.inner_text()
    box = plot.bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20)
    tab.mouse.up()
    tab.wait_for_url("**from=*")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES + BOARDS)
def test_axe_finds_nothing_on_any_page(tab, path, scheme):
    tab.emulate_media(color_scheme=scheme)
    assert tab.goto(path).status == 200
    assert tab.locator("main .card, main .panel").count()  # an empty page has no findings either
    found = Axe().run(tab).response["violations"]
    assert not [(one["id"], one["nodes"][0]["html"]) for one in found]


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 768, 3840])
@pytest.mark.parametrize("path", [*PAGES, *BOARDS[:2]])
def test_no_page_is_wider_than_the_screen(tab, path, width):
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(path)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1280, "light")])
def test_axe_finds_nothing_where_a_row_is_chosen_and_it_fits(tab, width, scheme):
    tab.set_viewport_size({"width": width, "height": 900})
    tab.emulate_media(color_scheme=scheme)
    tab.goto("/orders/1")
    tab.locator("a.wlog").nth(1).click()
    tab.locator("#span .said.picked").wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(tab).response["violations"]
    assert not [(one["id"], one["nodes"][0]["html"]) for one in found]
