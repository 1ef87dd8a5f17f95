"""A real PostgreSQL server of one's own on loopback, for tests of what is kept in one.

    with PostgresProcess() as postgres:
        settings = Settings(checkpoints=postgres.url)

Its cluster is made anew in a private folder, without passwords and without waiting for disks.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["PostgresProcess", "postgres_programs"]

_READY_TIMEOUT_S = 30.0
_ROLE = "coa"
_UNPRIVILEGED = ("postgres", "nobody")


def postgres_programs() -> Path | None:
    """The folder with `initdb` and `postgres`, the newest there is; None where PostgreSQL is not installed."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    on_path = shutil.which("postgres")
    if not found and on_path:
        return Path(on_path).resolve().parent
    return max(found, key=lambda folder: float(folder.parent.name), default=None)


class PostgresProcess:
    """A PostgreSQL server in a child process; a context manager that ends it.

    The server refuses to run as root: root starts it as another user. Raises FileNotFoundError where the machine has
    none, and RuntimeError when it does not come up in time.
    """

    def __init__(self) -> None:
        programs = postgres_programs()
        if programs is None:
            raise FileNotFoundError("no PostgreSQL here: install the system's postgresql package")
        self._programs = programs
        self._folder = tempfile.TemporaryDirectory(prefix="coa-postgres-", ignore_cleanup_errors=True)
        self._port = _free_port()
        self._owner = _unprivileged() if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What the setting `checkpoints` would be."""
        return f"postgresql://{_ROLE}@127.0.0.1:{self._port}/postgres"

    @property
    def pid(self) -> int:
        """Of the server. Raises RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError("this PostgreSQL does not run")
        return self._process.pid

    def __enter__(self) -> Self:
        cluster = Path(self._folder.name) / "cluster"
        if self._owner is not None:
            os.chown(self._folder.name, self._owner.pw_uid, self._owner.pw_gid)
        made = [str(self._programs / "initdb"), "-D", str(cluster), "-U", _ROLE, "-A", "trust", "-E", "UTF8", "-N"]
        done = self._started([*made, "--locale=C"])
        said = done.communicate()[0]
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {said.decode(errors='replace')[-500:]}")
        command = [str(self._programs / "postgres"), "-D", str(cluster), "-h", "127.0.0.1", "-p", str(self._port)]
        for option in ("fsync=off", f"unix_socket_directories={self._folder.name}"):
            command += ["-c", option]
        self._process = self._started(command)
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self._ready(cluster):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not come up: {self._end(signal.SIGQUIT)[-500:]}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._end(signal.SIGINT)  # "fast": it does not wait for clients
        self._folder.cleanup()

    def _started(self, command: list[str]) -> subprocess.Popen[bytes]:
        owner = self._owner
        return subprocess.Popen(  # noqa: S603 - a program of this machine, no shell
            command,
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            user=None if owner is None else owner.pw_uid,
            group=None if owner is None else owner.pw_gid,
            extra_groups=None if owner is None else [],
        )

    def _ready(self, cluster: Path) -> bool:
        """Whether the server says so itself, on the eighth line of its lock file."""
        with contextlib.suppress(FileNotFoundError):
            lines = (cluster / "postmaster.pid").read_text().splitlines()
            return len(lines) > 7 and lines[7].strip() == "ready"
        return False

    def _end(self, number: signal.Signals) -> str:
        """What it had to say."""
        assert self._process is not None  # noqa: S101 - ended once, where it was started
        process, self._process = self._process, None
        process.send_signal(number)
        said, _ = process.communicate(timeout=_READY_TIMEOUT_S)
        return said.decode(errors="replace")


def _unprivileged() -> pwd.struct_passwd:
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"PostgreSQL does not run as root, and there is no user {' or '.join(_UNPRIVILEGED)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
