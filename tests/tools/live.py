"""What the tools for real runs share: an engine in a process of its own, its configuration, and coa as a child."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import yaml

__all__ = ["MODEL", "REPOSITORY", "CoaProcess", "Finished", "engine_counter", "write_config"]

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = "smollm2"

_KIB_PER_MIB = 1024


@dataclass(frozen=True, slots=True)
class Finished:
    """A coa process that has ended."""

    code: int
    """As the shell's `$?`, but negative for a signal."""
    out: str
    err: str
    seconds: float
    peak_rss_mib: float


class CoaProcess:
    """`python -m coa ARGUMENTS` as a child, in a home of its own and without the caller's settings."""

    def __init__(self, arguments: Sequence[str], *, home: Path, config: Path | None = None) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COA_")}
        paths = [str(REPOSITORY), *filter(None, [environment.get("PYTHONPATH")])]
        environment |= {"COA_HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)}
        environment["COA_RESPONSE_CACHE"] = "false"  # calls are counted and timed
        environment |= {"COA_CONFIG": str(config)} if config is not None else {}
        home.mkdir(parents=True, exist_ok=True)
        # Files rather than pipes: nobody reads while it runs, and a full pipe would stop it.
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is reaped
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "coa", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            cwd=home,
            env=environment,
        )
        self._finished: Finished | None = None

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    @property
    def age_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    def ended(self) -> bool:
        """True when it has ended by itself; it is not reaped."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> Finished:
        """Ends it by SIGKILL."""
        self._process.kill()
        return self.wait()

    def wait(self) -> Finished:
        """Its end. Peak memory is the kernel's own figure for this child, read when it is reaped."""
        if self._finished is None:
            _, status, usage = os.wait4(self._process.pid, 0)
            seconds = self.age_s
            code = self._process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss / _KIB_PER_MIB
            self._finished = Finished(code, _text(self._out), _text(self._err), seconds, peak)
        return self._finished


def write_config(path: Path, *, base_url: str, api_key: str) -> Path:
    """A coa.yaml whose model group `MODEL` is that llama.cpp server."""
    group = {
        "model_name": MODEL,
        "litellm_params": {"model": f"openai/{MODEL}", "api_base": base_url, "api_key": api_key},
        "model_info": {"kind": "llama_server"},
    }
    path.write_text(yaml.safe_dump({"model": MODEL, "model_list": [group]}), encoding="utf-8")
    return path


def engine_counter(root_url: str, api_key: str, name: str) -> int:
    """A counter of llama.cpp's `/metrics`, such as "prompt_tokens_total"."""
    reply = httpx.get(f"{root_url}/metrics", headers={"Authorization": f"Bearer {api_key}"}, trust_env=False)
    found = re.search(rf"^llamacpp:{name} (\S+)$", reply.raise_for_status().text, re.MULTILINE)
    if found is None:
        raise LookupError(f"the engine has no counter {name!r}")
    return int(float(found.group(1)))


def _text(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode("utf-8")
