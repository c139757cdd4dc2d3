"""Takes the pictures of docs/console.md anew, from the stack that runs: `make pictures`.

For the pages Why and Faults it switches a fault on for half a minute, and off again.
"""

import os
import shutil
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).with_name("pictures")
CONSOLE = f"http://localhost:{os.environ.get('CONSOLE_PORT') or 3000}"
ORDERS = 60
FAULT, WITH_FAULT = "payment-slow", 40
"""Which fault, and how many orders are placed while it is on: enough for `make why` to be sure."""
PICTURES = {
    # name: page, width and height, light or dark
    "overview": ("/?range=5m", 1280, 930, "light"),
    "order": ("/orders/{order}", 1280, 800, "light"),
    "order-dark": ("/orders/{order}", 1280, 800, "dark"),
    "order-narrow": ("/orders/{order}", 375, 800, "dark"),
}
OF_FAULTS = {
    "why": ("/why?since=1m", 1280, 930, "light"),
    "faults": ("/faults", 1280, 800, "light"),
}


def main() -> int:
    """Place orders, so that there is something to see; take the pictures; return the exit status."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("There is no Chromium here: `apt-get install chromium`, or yours.")
        return 1
    try:
        order = [_place(24 if number % 20 == 7 else 1 + number % 9) for number in range(ORDERS)][-1]  # noqa: PLR2004
    except OSError as error:
        print(f"{CONSOLE} does not answer ({error}): `make up` comes first.")
        return 1
    time.sleep(15)  # three scrapes: a rate needs two
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        _take(browser, PICTURES, order)
        _switch(FAULT, "on")
        try:
            for number in range(WITH_FAULT):
                _place(1 + number % 9)
            time.sleep(8)  # until spans and log lines are there
            _take(browser, OF_FAULTS, order)
        finally:
            _switch(FAULT, "off")
        browser.close()
    return 0


def _take(browser: Browser, pictures: dict[str, tuple[str, int, int, str]], order: str) -> None:
    for name, (path, width, height, scheme) in pictures.items():
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        tab.goto(CONSOLE + path.format(order=order))
        tab.wait_for_load_state("networkidle")
        tab.screenshot(path=FOLDER / f"{name}.png")
        tab.close()


def _switch(fault: str, state: str) -> None:
    """Switch a fault on the page Faults."""
    body = urllib.parse.urlencode({"name": fault, "state": state}).encode()
    with urllib.request.urlopen(f"{CONSOLE}/faults", body, timeout=20):  # noqa: S310
        pass


def _place(product: int) -> str:
    """Place an order at the console, which leads to its page; give its id."""
    body = urllib.parse.urlencode({"product_id": product}).encode()
    with urllib.request.urlopen(f"{CONSOLE}/orders/", body, timeout=20) as answer:  # noqa: S310
        time.sleep(0.3)
        return str(answer.url).rpartition("/")[2]


if __name__ == "__main__":
    sys.exit(main())
