"""What tests do with a page in a browser."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from selenium.webdriver.common.by import By


def wait(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """What the condition gives once it is true."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            assert value, "what was waited for did not come"
            return value
        time.sleep(0.02)


def show(browser, path: pathlib.Path, *, width: int = 1400, height: int = 900, scheme: str = "light") -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(path.as_uri())
    wait(lambda: shown_slice(browser) is not None)


def element(browser, name: str):
    return browser.find_element(By.ID, name)


def shown_slice(browser) -> int | None:
    value = element(browser, "stage").get_attribute("data-slice")
    return None if value is None else int(value)


def marks(browser) -> dict[str, int]:
    return json.loads(element(browser, "stage").get_attribute("data-marks"))


def set_range(browser, name: str, value: float) -> None:
    """As a drag of the thumb does."""
    browser.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        element(browser, name), str(value),
    )  # fmt: skip
