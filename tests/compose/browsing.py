"""The console's pages in Docker Compose, looked at without a browser."""

import re
import time
from html import unescape

import requests

from tests.fixtures.services import eventually

PARTS = ("nginx", "order-service", "product-service", "payment-service")
EVENTS = ("order.created", "charge.decided", "order.settled")


def text(url, **parameters):
    """A page as a person reads it."""
    answer = requests.get(url, params=parameters, timeout=10)
    assert answer.status_code == 200, answer.text
    assert "Not all could be asked" not in answer.text, answer.text
    return unescape(re.sub(r"<[^>]+>", " ", answer.text))


def order(root):
    """Place an order with the page's button, and wait for its story: (the order's page, the seconds that took)."""
    began = time.monotonic()
    placed = requests.post(
        f"{root}/orders/", {"product_id": 1}, headers={"Origin": root}, timeout=10, allow_redirects=False
    )
    assert placed.status_code == 303, placed.text
    page = root + placed.headers["Location"]

    def told():
        shown = text(page)
        return "PAID" in shown and "on the way" not in shown and all(word in shown for word in (*PARTS, *EVENTS))

    eventually(told, 20, pause=0.1)
    return page, time.monotonic() - began


def empty_panels(root, uid):
    """The panels of a dashboard that have nothing to show, or an error."""
    shown = requests.get(f"{root}/dashboards/{uid}", params={"range": "5m"}, timeout=20).text
    panels = re.findall(r'<section class="card panel.*?</section>', shown, re.DOTALL)
    assert panels, shown
    return {
        unescape(re.search(r"<h3>(.*?)</h3>", panel)[1])
        for panel in panels
        if 'class="empty"' in panel or 'class="notice bad"' in panel
    }
