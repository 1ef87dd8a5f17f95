"""A vLLM server on one core of the CPU, and the real sglang-router, as child processes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

__all__ = ["BLOCK", "MODEL", "SglangRouter", "VllmProcess", "vllm_home"]

MODEL = "reader"
BLOCK = 32
"""Tokens; vLLM on a CPU takes multiples of 32."""
_START_TIMEOUT_S = 900.0
_STOP_TIMEOUT_S = 20.0


def vllm_home() -> Path | None:
    """The folder that tests/tools/setup_vllm.py made, as COA_TEST_VLLM names it; None where it names none."""
    named = os.environ.get("COA_TEST_VLLM")
    return Path(named).resolve() if named else None


def free_port() -> int:
    """A port of loopback that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Child:
    """A process with its output in a file; in a group of its own."""

    def __init__(self, kind: str) -> None:
        # A unix socket's path has to be short.
        self._folder = Path(tempfile.gettempdir()) / f"coa-{kind}-{secrets.token_hex(4)}"
        self._log = self._folder / "log"
        self._file: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _spawn(self, command: Sequence[object], env: dict[str, str]) -> None:
        self._folder.mkdir(exist_ok=True)
        self._file = self._log.open("ab")
        self._process = subprocess.Popen(
            ["nice", "-n", "10", *(str(part) for part in command)],
            env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **env},
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _await(self, answers: Callable[[], bool], what: str) -> None:
        assert self._process is not None
        limit = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < limit:
            if self._process.poll() is not None:
                raise RuntimeError(f"{what} ended: {self._problem()}")
            with contextlib.suppress(httpx.HTTPError):
                if answers():
                    return
            time.sleep(0.25)
        problem = self._problem()
        self.stop()
        raise RuntimeError(f"{what} does not answer: {problem}")

    def _problem(self) -> str:
        """What its log says of errors, or ends with."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if "Error" in line][:10] or lines[-20:])

    def stop(self) -> None:
        """Ends it in good order, else at once; its own children with it, also where it left them behind."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class VllmProcess(_Child):
    """Serves `MODEL`; publishes KV events on unix sockets that it tells at /kv_event_sources."""

    def __init__(self, home: Path, name: str, *, core: int, cache_tokens: int) -> None:
        """`cache_tokens` is what its KV cache holds; `core` the one it computes on."""
        self.name = name
        self.port = free_port()
        self.root_url = f"http://127.0.0.1:{self.port}"
        self._home = home
        self._core = core
        self._blocks = -(-cache_tokens // BLOCK) + 1  # one block is the null block
        super().__init__("vllm")

    def launch(self) -> None:
        """Begins to start; `ready` waits for it."""
        folder = self._folder
        events = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": f"ipc://{folder}/events",
            "replay_endpoint": f"ipc://{folder}/replay",
            "topic": f"kv@{self.name}",
        }
        python = self._home / "venv" / "bin" / "python"
        command = [python, self._home / "venv" / "bin" / "vllm", "serve", self._home / "model"]
        command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", self.port, "--dtype", "bfloat16"]
        command += [
            "--max-model-len",
            min(4096, self._blocks * BLOCK - BLOCK),
            "--max-num-seqs",
            8,
            "--max-num-batched-tokens",
            4096,
            "--enforce-eager",
        ]
        command += ["--block-size", BLOCK, "--num-gpu-blocks-override", self._blocks, "--enable-prefix-caching"]
        command += ["--enable-prompt-tokens-details", "--kv-events-config", json.dumps(events)]
        env = {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": str(self._core),
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
        self._spawn(command, env)

    def ready(self) -> None:
        """Returns when it serves. Raises: RuntimeError with the end of its log."""
        self._await(lambda: httpx.get(f"{self.root_url}/health", timeout=2).is_success, f"vLLM {self.name}")

    def __enter__(self) -> Self:
        self.launch()
        self.ready()
        return self

    def warm_up(self, n_tokens: int) -> None:
        """Computes prompts of that size: the first ones take longer than any after them."""
        for first in range(3):
            body = {"model": MODEL, "prompt": [1000 + first] * n_tokens, "max_tokens": 8, "ignore_eos": True}
            httpx.post(f"{self.root_url}/v1/completions", json=body, timeout=120).raise_for_status()

    def reset(self) -> None:
        """Empties its prefix cache."""
        httpx.post(f"{self.root_url}/reset_prefix_cache", timeout=10).raise_for_status()

    def computed_tokens(self) -> int:
        """Prompt tokens that it has computed since it started."""
        name, source = "vllm:prompt_tokens_by_source_total", 'source="local_compute"'
        text = httpx.get(f"{self.root_url}/metrics", timeout=10).text
        lines = [line for line in text.splitlines() if line.startswith(name) and source in line]
        return round(sum(float(line.rpartition(" ")[2]) for line in lines))


class SglangRouter(_Child):
    """The real sglang-router in front of engines, routing by its own radix tree of texts."""

    def __init__(self, home: Path, engines: Sequence[VllmProcess]) -> None:
        self.port = free_port()
        self.root_url = f"http://127.0.0.1:{self.port}"
        self._home = home
        self._engines = engines
        super().__init__("router")

    def __enter__(self) -> Self:
        command = [self._home / "router" / "bin" / "python", "-m", "sglang_router.launch_router"]
        command += ["--host", "127.0.0.1", "--port", self.port, "--prometheus-host", "127.0.0.1"]
        command += ["--prometheus-port", free_port(), "--log-level", "warn", "--policy", "cache_aware"]
        # Its own thresholds are for large engines: with 64 calls of difference two small ones are never balanced.
        command += ["--cache-threshold", 0.3, "--balance-abs-threshold", 4, "--balance-rel-threshold", 1.5]
        command += ["--worker-urls", *(engine.root_url for engine in self._engines)]
        self._spawn(command, {})
        self._await(self._knows_a_model, "sglang-router")
        return self

    def _knows_a_model(self) -> bool:
        models = httpx.get(f"{self.root_url}/v1/models", timeout=2)
        return models.is_success and '"id"' in models.text
