"""The console of a real stack in a real browser: the distribution's Chromium, driven by Playwright."""

import shutil
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES = ["/", "/orders/", "/orders/1", "/traces/", "/traces/compare", "/logs", "/help", "/runbooks/ServiceDown"]
BOARDS = [f"/dashboards/{uid}" for uid in ("overview", "order-path", "service", "database", "telemetry", "load")]

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: `apt-get install chromium`, or yours")


@pytest.fixture(scope="module")  # while it runs, no other test of this process could use asyncio
def browser():
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def console(stack):
    stack.gateway.post("/orders/", {"product_id": 1}, token=stack.login())
    return f"http://localhost:{stack.ports['CONSOLE']}"


@pytest.fixture
def tab(browser, console):
    """A page whose errors, refusals by the policy and requests to others fail the test."""
    context = browser.new_context(base_url=console, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    wrong = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    opened.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(console) else None)
    yield opened
    context.close()
    assert not wrong


def test_a_button_places_an_order_whose_whole_story_is_there_within_two_seconds(tab):
    tab.goto("/orders/")
    begun = time.monotonic()
    tab.get_by_role("button", name="Place an order").click()
    tab.wait_for_url("**/orders/*")
    tab.wait_for_selector(".wrow >> text=payment-service", timeout=5000)
    tab.wait_for_selector(".wlog >> text=order.settled", timeout=5000)
    tab.wait_for_selector("text=Still on the way", state="detached", timeout=5000)
    took = time.monotonic() - begun
    assert tab.get_by_text("PAID").first.is_visible()
    assert tab.locator("a.wrow").count() >= 12
    assert took < 2, f"{took:.2f} s"


def test_from_a_slow_order_to_the_span_that_took_the_time_are_three_clicks(tab):
    tab.goto("/")
    tab.get_by_role("link", name="Orders", exact=True).click()
    tab.locator(".rows tbody a").first.click()
    tab.locator(".shares a").first.click()
    tab.wait_for_selector("#span >> text=span id")
    assert "span=" in tab.url


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
