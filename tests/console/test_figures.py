"""How long the pages take in a browser, how large they are, what 2,000 spans cost. `-rP` prints what was measured."""

import os
import time

import pytest
import requests

from tests.console.test_browser import BOARDS, PAGES
from tests.fixtures.services import eventually

SPANS = 2000
PAINTED = """() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()), 0)))"""
FIRST_PAINT = """async () => {
  for (;;) {
    const [found] = performance.getEntriesByName("first-contentful-paint");
    if (found) return found.startTime;
    await new Promise(requestAnimationFrame);
  }
}"""
FRAMES = """async () => {
  let last = performance.now(), longest = 0;
  for (let at = 0; at < document.documentElement.scrollHeight; at += 600) {
    scrollTo(0, at);
    await new Promise(requestAnimationFrame);
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }
  return longest;
}"""

pytestmark = pytest.mark.slow


def _measured(open_tab, root, path):
    """Milliseconds until something is there, and kilobytes over the wire, of a browser that has nothing yet."""
    tab = open_tab(root)
    tab.goto(path)
    painted = tab.evaluate(FIRST_PAINT)
    sizes = tab.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".map(each => each.transferSize)"
    )
    tab.context.close()  # or it goes on asking
    return painted, sum(sizes) / 1000


@pytest.mark.timeout(400)
def test_each_page_is_small_and_soon_there(open_tab, stack):
    token = stack.login()
    for _ in range(20):
        stack.gateway.post("/orders/", {"product_id": 1}, token=token)
    root = f"http://localhost:{stack.ports['CONSOLE']}"
    print("page                       first paint   sent")
    for path in PAGES + BOARDS:
        painted, sent = _measured(open_tab, root, path)
        print(f"{path:26} {painted:8.0f} ms  {sent:4.0f} kB")
        assert painted < 5000  # a machine that does other things too
        assert sent < 100


def test_a_trace_of_two_thousand_spans_is_drawn_and_scrolled(open_tab, stack):
    trace_id, now = os.urandom(16).hex(), time.time_ns()
    spans = [
        {
            "traceId": trace_id,
            "spanId": f"{number:016x}",
            "parentSpanId": f"{number // 4:016x}" if number > 1 else "",
            "name": f"step {number}",
            "kind": 1,
            "startTimeUnixNano": str(now + number * 1_000_000),
            "endTimeUnixNano": str(now + (SPANS + 100) * 1_000_000 - number * 1000),
        }
        for number in range(1, SPANS + 1)
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "order-service"}}]}
    sent = requests.post(
        f"http://127.0.0.1:{stack.ports['OTLP']}/v1/traces",
        json={"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]},
        timeout=10,
    )
    assert sent.status_code == 200, sent.text
    tab = open_tab(f"http://localhost:{stack.ports['CONSOLE']}")
    eventually(lambda: tab.goto(f"/traces/{trace_id}").status == 200, 10)
    tab.reload()
    painted = tab.evaluate(PAINTED)
    assert tab.locator("a.wrow").count() == SPANS
    longest = tab.evaluate(FRAMES)
    print(f"2,000 spans: drawn after {painted:.0f} ms, the longest frame while scrolling {longest:.0f} ms")
    assert painted < 10_000
    assert longest < 1000
