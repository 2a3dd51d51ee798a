"""Headless Chromium, driven over its DevTools protocol: real clicks, real keys, and every complaint of the page."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from websockets.sync.client import connect

DEADLINE_SECONDS = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
_MIDDLE = """element => {
    const box = element.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
    const hit = document.elementFromPoint(x, y);
    return hit && (element.contains(hit) || hit.contains(element)) && {x, y};
}"""
KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, None),
    "Tab": ("Tab", 9, None),
    "ArrowDown": ("ArrowDown", 40, None),
    "ArrowRight": ("ArrowRight", 39, None),
    "ArrowLeft": ("ArrowLeft", 37, None),
}


def browser_tests() -> list[pytest.MarkDecorator]:
    """The marks of a module whose tests need a browser: of the gate, and skipped where there is none."""
    if chromium() is None and os.environ.get("OSMOSIS_TEST_REQUIRES_CHROMIUM"):
        raise RuntimeError("Chromium is required here, and there is none: apt-get install chromium")
    return [
        pytest.mark.slow,
        pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium"),
        pytest.mark.timeout(180),
    ]


def chromium() -> str | None:
    """Where Chromium is; ``None`` if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page. ``complaints`` holds uncaught exceptions, failed assertions and refusals of the security policy."""

    def __init__(self, executable: str, profile: Path) -> None:
        self.complaints: list[str] = []
        self.expected: set[str] = set()
        """What a complaint may say, as the test is about it."""
        self._profile = profile
        self._process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._ids = itertools.count(1)
        self._stack = contextlib.ExitStack()
        self._socket = self._stack.enter_context(
            connect(self._page_address(), max_size=None, open_timeout=DEADLINE_SECONDS)
        )
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()

    @property
    def pid(self) -> int:
        """Of the browser, whose children do the work."""
        return self._process.pid

    def _page_address(self) -> str:
        port_file = self._profile / "DevToolsActivePort"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, IndexError):
                port = int(port_file.read_text().split()[0])
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                    pages = [page for page in json.load(answer) if page["type"] == "page"]
                return str(pages[0]["webSocketDebuggerUrl"])
            time.sleep(0.05)
        raise TimeoutError("Chromium did not start.")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=DEADLINE_SECONDS))
            self._note(message)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(str(details.get("exception", {}).get("description") or details["text"]))
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            said = f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}"
            if not any(one in said for one in self.expected):
                self.complaints.append(said)
        elif message.get("method") == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {parameters['message']}")

    def open(self, url: str) -> None:
        """Go to ``url``."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, which may be a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> Any:
        """The first true value of a JavaScript expression."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):
                if value := self.evaluate(f"(v => v instanceof Node ? true : v)({condition})"):
                    return value
            time.sleep(0.02)
        raise AssertionError(
            f"never true: {condition}; the page says: {self.evaluate('document.body.innerText')!r:.2000}"
        )

    def text(self, selector: str) -> str:
        """The visible text of the first element that fits."""
        return str(
            self.wait_for(f"document.querySelector({json.dumps(selector)})")
            and self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")
        )

    def click(self, selector: str) -> None:
        """Click into the middle of the first element that fits; it must be what lies there."""
        chosen = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(chosen)
        self.evaluate(f"{chosen}.scrollIntoView({{block: 'center'}})")
        place = self.wait_for(f"({_MIDDLE})({chosen})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str) -> None:
        """Press and release a key: a character, or one of ``KEYS``."""
        # The code of a sign that is no letter is another key's: that of "." is Delete.
        name, code, text = KEYS.get(key, (key, ord(key.upper()[0]) if key.isalnum() else 0, key))
        fields = {"key": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **fields, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        for character in text:
            self.press(character)

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Set the size of the window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def prefer(self, scheme: str) -> None:
        """Prefer ``light`` or ``dark``."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def go_offline(self) -> None:
        """Let no request through."""
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def print(self, path: Path) -> None:
        """What is printed now, as PDF; as a browser prints where nobody asks for backgrounds."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"]))

    def screenshot(self, path: Path) -> None:
        """What is seen now, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
