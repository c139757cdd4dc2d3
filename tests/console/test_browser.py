"""The console of a real stack in a real browser: the distribution's Chromium, driven by Playwright."""

import re
import threading
import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from axe_playwright_python.sync_playwright import Axe
from werkzeug.serving import make_server

from tests.console.conftest import TRACE

PAGES = ["/", "/orders/", "/orders/1", "/traces/", "/traces/compare", "/logs", "/help", "/runbooks/ServiceDown"]
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


@pytest.mark.slow
def test_from_a_slow_order_to_the_log_line_that_explains_it_are_three_clicks(open_tab, own_stack):
    stack = own_stack(PAYMENT_LATENCY_MS="700")
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
    "path", ["/", "/orders/", "/orders/7", f"/traces/{TRACE}", "/traces/", "/logs", "/dashboards/"]
)
def test_hostile_text_does_nothing_in_a_browser(open_tab, served, hostile, path):
    tab = open_tab(f"http://127.0.0.1:{served.port}")
    tab.goto(path)
    for mark in tab.locator(".plot svg, a.wrow").all()[:4]:
        mark.hover(force=True)
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
