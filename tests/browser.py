"""Headless Chromium for tests, through Debian's chromium and chromium-driver."""

from __future__ import annotations

import base64
import json
import logging
import shutil
from pathlib import Path

ARTEFACTS = Path(__file__).parent / "artefacts"
MISSING = "no chromium and chromedriver here; on Debian: apt-get install chromium chromium-driver"


def available() -> bool:
    """Tell whether there is a browser and its driver."""
    return all(map(shutil.which, ("chromium", "chromedriver")))


class Browser:
    """A browser that keeps what its console says and what it asks the network for."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        logging.getLogger("selenium").setLevel(logging.WARNING)  # or each command is logged
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (
            "--headless=new",
            "--no-sandbox",  # which does not start as root; the pages are our own
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--autoplay-policy=no-user-gesture-required",
            "--force-color-profile=srgb",
            "--hide-scrollbars",
            "--mute-audio",
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        self.driver.set_script_timeout(20)

    def close(self) -> None:
        self.driver.quit()

    def open(self, file: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a page from disk in a window of that size, and wait until it has started."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.logs()  # of the page before
        self.driver.get("about:blank")  # so that an address with a fragment loads anew
        self.driver.get(file.as_uri())
        self.wait("return document.documentElement.dataset.ready === 'true'")

    def cdp(self, command: str, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)

    def js(self, script: str, *arguments):
        """Run the body of a function in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str, seconds: float = 15) -> None:
        """Wait until a script returns true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, 0.02).until(lambda _: self.js(condition))

    def one(self, selector: str):
        from selenium.webdriver.common.by import By

        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str):
        from selenium.webdriver.common.by import By

        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def hover(self, selector: str) -> None:
        from selenium.webdriver import ActionChains

        found = self.one(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", found)
        ActionChains(self.driver, duration=0).move_to_element(found).perform()

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def logs(self) -> tuple[list[str], list[str]]:
        """Return errors and warnings of the console, and requests, since the last call.

        A request for the page itself or for data within it is none of the network's.
        """
        console = [entry["message"] for entry in self.driver.get_log("browser")]
        requests = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                requests.append(message["params"]["request"]["url"])
        inside = ("data:", "about:", "blob:")
        return console, [url for url in requests if not url.startswith(inside)]

    def screenshot(self, name: str) -> Path:
        """Keep a picture of the whole page among the artefacts."""
        ARTEFACTS.mkdir(exist_ok=True)
        height = self.js("return document.documentElement.scrollHeight")
        width = self.js("return document.documentElement.clientWidth")
        picture = self.cdp(
            "Page.captureScreenshot",
            captureBeyondViewport=True,
            clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
        )["data"]
        file = ARTEFACTS / name
        file.write_bytes(base64.b64decode(picture))
        return file
