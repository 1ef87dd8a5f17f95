"""A headless Chromium of one's own, steered over a pipe, for tests of the pages that coa writes.

    with Chromium() as browser, browser.tab() as tab:
        tab.open(path)
        tab.click("a.cites")
        assert tab.evaluate("location.hash") == "#r1c1"

It speaks the DevTools protocol (JSON messages, each ended by NUL) on two file descriptors, so it opens no port and
needs no driver. Its profile is new and empty. One thread uses it at a time.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["BrowserError", "Chromium", "Tab", "chromium_program"]

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_LOWEST_FD = 10
"""The shell's redirections take 3 and 4; what is moved there must not stand in their way."""
_KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "End": 35, "Home": 36, " ": 32}


class BrowserError(Exception):
    """The browser refused a command, did not answer in time, or is gone."""


def chromium_program() -> Path | None:
    """The machine's Chromium; None where it has none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    return Path(found) if found else None


class Chromium:
    """A browser in a child process; a context manager that ends it.

    Raises: FileNotFoundError where the machine has none, BrowserError when it does not answer in time.
    """

    def __init__(self, program: Path | None = None, *, timeout_s: float = 60.0) -> None:
        """`timeout_s` is for each command."""
        program = program or chromium_program()
        if program is None:
            raise FileNotFoundError("no chromium here: install the system's package")
        self._timeout_s = timeout_s
        self._profile = tempfile.TemporaryDirectory(prefix="coa-chromium-", ignore_cleanup_errors=True)
        self._last = 0
        self._buffer = bytearray()
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._start(program)

    def _start(self, program: Path) -> None:
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD, _LOWEST_FD) for fd in (theirs_in, theirs_out)]
        command = [str(program), *_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        redirected = f'exec "$@" 3<&{given[0]} 4>&{given[1]}'
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the program is the caller's or the system's
                ["/bin/bash", "-c", redirected, "sh", *command],
                pass_fds=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            for fd in (theirs_in, theirs_out, *given):
                os.close(fd)

    def tab(self, *, width: int = 1200, height: int = 800, dark: bool = False, phone: bool = False) -> Tab:
        """A new tab of that size (CSS pixels), with a history and a store of its own."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, target, session)
        for domain in ("Page", "Runtime", "Log"):
            tab.command(f"{domain}.enable")
        tab.look(width=width, height=height, dark=dark, phone=phone)
        return tab

    def command(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        """The result of a command of the protocol. Raises: BrowserError."""
        self._last += 1
        number = self._last
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self._write, data) :]
        except BrokenPipeError:
            raise BrowserError(f"{method}: the browser is gone") from None
        until = time.monotonic() + self._timeout_s
        while True:
            answer = self._receive(until, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error'].get('message')}")
                return dict(answer["result"])

    def events(self, session: str) -> list[dict[str, Any]]:
        """What a tab has told so far."""
        return self._events.setdefault(session, [])

    def pump(self, seconds: float) -> None:
        """Takes in what the browser tells within that time."""
        until = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while True:
                self._receive_one(until)

    def _receive(self, until: float, method: str) -> dict[str, Any]:
        try:
            return self._receive_one(until)
        except TimeoutError:
            raise BrowserError(f"{method}: no answer within {self._timeout_s:.0f} s") from None

    def _receive_one(self, until: float) -> dict[str, Any]:
        """The next message; one without an id is kept as an event, too. Raises: TimeoutError."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise BrowserError("the browser is gone")
            self._buffer += piece
        line, _, rest = bytes(self._buffer).partition(b"\0")
        self._buffer = bytearray(rest)
        message: dict[str, Any] = json.loads(line)
        if "id" not in message and "sessionId" in message:
            self.events(message["sessionId"]).append(message)
        return message

    def close(self) -> None:
        """Ends the browser; may be called again."""
        if self._process.poll() is None:
            with contextlib.suppress(BrowserError):
                self.command("Browser.close")
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for fd in (self._read, self._write):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._profile.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Tab:
    """One page; a context manager that closes it."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    def command(self, method: str, **parameters: object) -> dict[str, Any]:
        """The result of a command of the protocol. Raises: BrowserError."""
        return self._browser.command(method, self._session, **parameters)

    def look(self, *, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """Sets the size (CSS pixels), the colour scheme, and whether it is a touch device."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", media="", features=[scheme])

    def open(self, page: Path | str) -> None:
        """Loads a file or an address, and waits for its load event. Raises: BrowserError."""
        seen = len(self.told("Page.loadEventFired"))
        address = page.resolve().as_uri() if isinstance(page, Path) else page
        failure = self.command("Page.navigate", url=address).get("errorText")
        if failure:
            raise BrowserError(f"{address}: {failure}")
        until = time.monotonic() + 60
        while len(self.told("Page.loadEventFired")) == seen:
            if time.monotonic() > until:
                raise BrowserError(f"{address}: not loaded within 60 s")
            self._browser.pump(0.02)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, a promise's where it gives one. Raises: BrowserError."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            details: Mapping[str, Any] = result["exceptionDetails"]
            raise BrowserError(str(details.get("exception", details).get("description", details.get("text"))))
        return result["result"].get("value")

    def settle(self) -> None:
        """Waits until two frames were drawn and what they set off is done."""
        self.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))"
        )

    def click(self, selector: str) -> None:
        """Clicks the middle of the first element that matches, scrolled into view, as a mouse does."""
        place = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getClientRects()[0];"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Presses and releases a key, as "Tab"."""
        code = _KEYS[key]
        named: dict[str, object] = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        typed: dict[str, object] = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        modifiers = 8 if shift else 0
        self.command("Input.dispatchKeyEvent", type="keyDown", modifiers=modifiers, **named, **typed)
        self.command("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **named)

    def told(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the events of that name so far, in order."""
        events = self._browser.events(self._session)
        return [event["params"] for event in events if event["method"] == method]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Writes what is to be seen, or the whole page, as a PNG."""
        taken = self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def close(self) -> None:
        """Closes the tab."""
        self._browser.command("Target.closeTarget", targetId=self._target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrowserError):
            self.close()
