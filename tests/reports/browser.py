"""A headless Chromium, driven through its debugging pipe with nothing but the standard library."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
    "--disable-dev-shm-usage", "--remote-debugging-pipe", "--disable-background-networking",
)  # fmt: skip
_SECONDS = 120.0


class Browser:
    """One page of a browser.

    Attributes:
        problems: What its console reported as an error or warning, and what it failed to load.
        requests: Addresses that the page asked for.
    """

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._rest = b""
        self._number = 0
        self._session = ""
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._loaded = 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, page: Path) -> None:
        """Opens a file and waits until it has been laid out."""
        before = self._loaded
        self._call("Page.navigate", url=page.resolve().as_uri())
        while self._loaded == before:
            self._read()

    def resize(self, width: int, height: int = 900) -> None:
        """Makes the window as wide as a screen."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def emulate(self, **features: str) -> None:
        """Emulates media features, such as `prefers_color_scheme="dark"`; `media` is the type."""
        media = features.pop("media", "screen")
        pairs = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self._call("Emulation.setEmulatedMedia", media=media, features=pairs)

    def scripts(self, *, are_on: bool) -> None:
        """Switches the scripts of pages on or off; takes effect with the next page."""
        self._call("Emulation.setScriptExecutionDisabled", value=not are_on)

    def run(self, script: str) -> Any:
        """Returns the value of an expression on the page, awaited."""
        found = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(str(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def move(self, x: float, y: float) -> None:
        """Moves the pointer to a place in the window."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Presses and releases a key."""
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def picture(self, path: Path, *, is_whole: bool = True) -> None:
        """Writes the page as PNG."""
        found = self._call("Page.captureScreenshot", captureBeyondViewport=is_whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def paper(self) -> bytes:
        """Returns the page as PDF."""
        found = self._call("Page.printToPDF", preferCSSPageSize=True)
        return base64.b64decode(found["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + _SECONDS
        while b"\0" not in self._rest:
            part = os.read(self._reads, 1 << 20)
            if not part or time.monotonic() > until:
                raise AssertionError("the browser has gone")
            self._rest += part
        line, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, values: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded += 1
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(values["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and values["type"] in {"error", "warning"}:
            self.problems.append(str(values["args"])[:500])
        elif method == "Log.entryAdded" and values["entry"]["level"] in {"error", "warning"}:
            self.problems.append(str(values["entry"])[:500])
        elif method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])


@contextmanager
def browser() -> Iterator[Browser]:
    """Starts a browser, and ends it."""
    if CHROMIUM is None:
        raise AssertionError("no Chromium on this machine")
    to_read, from_us = os.pipe()
    from_it, to_write = os.pipe()

    def connect() -> None:
        # It reads commands from 3 and writes answers to 4. Pipes may have these very numbers.
        one, two = os.dup(to_read), os.dup(to_write)
        os.dup2(one, 3)
        os.dup2(two, 4)

    process = subprocess.Popen(
        [CHROMIUM, *_FLAGS, "about:blank"],
        preexec_fn=connect,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    try:
        yield Browser(from_it, from_us)
    finally:
        os.close(from_us)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(from_it)
