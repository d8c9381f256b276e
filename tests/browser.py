"""A headless browser for tests, where Debian's chromium and its driver are installed."""

import base64
import contextlib
import shutil
from pathlib import Path

import pytest

PHONE, DESKTOP = 390, 1280  # widths in CSS pixels

# Elements that overflow the page to the right, except inside a box that scrolls by itself.
_STICKING_OUT = """
const wide = document.documentElement.clientWidth;
return [...document.body.querySelectorAll('*')].filter(
    e => !e.closest('.scroll table') && e.getBoundingClientRect().right > wide + 0.5
).map(e => e.tagName + '.' + e.className);
"""


@contextlib.contextmanager
def browser():
    """A driver of chromium that is closed at the end; the test is skipped where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()


def show(running, page: Path, width: int) -> dict:
    """Opens a file with all folds expanded; returns console messages, overflowing elements, scroll width and height."""
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == PHONE}
    running.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    running.get(page.as_uri())
    running.execute_script("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    size = "const e = document.documentElement; return [e.scrollWidth - e.clientWidth, e.scrollHeight]"
    overflow, height = running.execute_script(size)
    return {
        "console": running.get_log("browser"),
        "sticking_out": running.execute_script(_STICKING_OUT),
        "overflow": overflow,
        "height": height,
    }


def screenshot(running, out: Path, width: int, height: int) -> None:
    """Writes a PNG of the whole page."""
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    taken = running.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    out.write_bytes(base64.b64decode(taken["data"]))
