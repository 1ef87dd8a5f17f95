"""llama.cpp inside our own process, spoken to over loopback HTTP like any other server.

Facts about xllamacpp that shape this file, each seen with 2026.10.11549:
- its destructor stops the server and joins its threads; it hangs when the server's loop has not begun yet,
  and when a request is still running, and it holds the interpreter lock while it waits;
- a process that ends while a request runs dies of a segmentation fault.
So an engine counts as started only when its loop has answered, and `close` first cuts every connection, then
waits until no slot works, and only then lets the destructor run. The same happens at interpreter exit.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import stat
import time
import weakref
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from coa.errors import ModelUnavailable
from coa.llm.gguf_header import GgufHeader, read_gguf_header

__all__ = ["DEFAULT_N_CTX", "MICRO_BATCH", "EmbeddedEngine", "usable_cores"]

DEFAULT_N_CTX = 8192
"""The window that is served when none is asked for, unless the model was trained for less."""

_ROOM_TOKENS = 512
"""A slot's part in a batch: a piece of a prefix, or what stands behind one."""
MICRO_BATCH = 128
"""Tokens that are computed at once (llama.cpp's n_ubatch). A prefix that is a multiple of it can be saved and used
again without a bit of the answer changing; 512 is no faster here (SmolLM2 135M on two cores, 1,280 tokens: 382 tokens
a second with 128, 344 with 512, 351 with 64), and leaves four times as much to be computed anew."""
_SMALL_MODEL_BYTES = 300 * 2**20
"""Below it one thread writes tokens faster than several that wait for each other at each small operation
(SmolLM2 135M Q8_0 on two cores: 84 against 55 a second); prompts are read by all threads all the same."""
_CLOSE_TIMEOUT_S = 60.0
_CANCEL_PAUSE_S = 1.2
"""llama.cpp notices a cut connection when no result at all came for one second, and our look at /slots is one."""
_LOG_ENV = "COA_ENGINE_LOG"
"""llama.cpp's verbosity (0 errors … 5 everything) to stderr; unset: not a byte."""

_log = logging.getLogger(__name__)
_abandoned: list[object] = []


class _Served(NamedTuple):
    n_ctx: int
    n_ctx_train: int


class EmbeddedEngine:
    """A model served by this process on 127.0.0.1 behind a random key, until `close`.

    Greedy answers repeat bit for bit as long as `n_parallel` is 1 and a re-used prefix is a multiple of
    `MICRO_BATCH`: any other one moves the borders between computed batches, and with them the logits. So may what
    the slot before it reads or writes at the same moment: llama.cpp computes slots in a row together.
    """

    def __init__(self, server: Any, *, path: Path, alias: str, api_key: str, served: _Served) -> None:
        self.root_url: str = str(server.listening_address)
        """Without a path: for /tokenize, /props, /slots, /metrics."""
        self.base_url = f"{self.root_url}/v1"
        """For OpenAI-style clients."""
        self.api_key = api_key
        self.alias = alias
        self.model_path = path
        self.n_ctx = served.n_ctx
        """Tokens of prompt and reply together that one call may hold."""
        self.n_ctx_train = served.n_ctx_train
        self._finalizer = weakref.finalize(self, _stop, [server], self.root_url, api_key)

    @classmethod
    def start(
        cls,
        path: Path | str,
        *,
        alias: str,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        n_parallel: int = 1,
        cache_prompt: bool = False,
        port: int = 0,
        api_key: str | None = None,
        slot_save_path: Path | None = None,
    ) -> EmbeddedEngine:
        """The engine with the model at `path` loaded and answering; blocks, so call it in a thread.

        `n_ctx` is per parallel slot; None serves the trained window up to `DEFAULT_N_CTX`. Port 0 takes a
        free one. Raises ModelNotFound for a file that is missing, damaged or no GGUF, and ModelUnavailable
        when llama.cpp cannot load it or the memory does not suffice.
        """
        path = Path(path)
        header = read_gguf_header(path)
        n_ctx = _window(header, n_ctx)
        _check_memory(path, header, n_ctx * n_parallel)
        key = api_key or secrets.token_urlsafe(24)
        params = _params(path, alias=alias, api_key=key, n_ctx=n_ctx, n_parallel=n_parallel)
        params.port = port
        params.cache_prompt = cache_prompt
        threads = n_threads or usable_cores()
        params.cpuparams_batch.n_threads = threads
        params.cpuparams.n_threads = 1 if header.size_bytes < _SMALL_MODEL_BYTES else threads
        if slot_save_path is not None:
            params.slot_save_path = f"{slot_save_path}{os.sep}"
        server = _load(params, path, header)
        served = _wait_for_loop(str(server.listening_address), key, header)
        return cls(server, path=path, alias=alias, api_key=key, served=served)

    @property
    def version(self) -> str:
        """Of the runtime: a saved state is good for that one alone."""
        return metadata.version("xllamacpp")

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return not self._finalizer.alive

    def close(self) -> None:
        """Cuts running requests, frees the model and its threads; may be called again.

        Clients with a request under way see their connection end.
        """
        self._finalizer()

    def __enter__(self) -> EmbeddedEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def usable_cores() -> int:
    """Physical cores that this process may run on, within its container's CPU quota; at least 1."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_core_of(cpu) for cpu in allowed}
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        limit = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        limit = len(cores)
    return max(1, min(len(cores), limit))


def _core_of(cpu: int) -> tuple[str, ...]:
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        return tuple((topology / name).read_text().strip() for name in ("physical_package_id", "core_id"))
    except OSError:
        return (str(cpu),)


def _window(header: GgufHeader, n_ctx: int | None) -> int:
    if n_ctx is None:
        return min(header.n_ctx_train or DEFAULT_N_CTX, DEFAULT_N_CTX)
    if n_ctx < 1:
        raise ValueError(f"n_ctx is at least 1, not {n_ctx}")
    return n_ctx


def _check_memory(path: Path, header: GgufHeader, n_ctx: int) -> None:
    available = _available_bytes()
    needed = header.size_bytes + header.kv_bytes(n_ctx)
    if available is not None and needed > available:
        raise ModelUnavailable(
            f"{path.name} with a window of {n_ctx:,} tokens needs about {needed / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} GiB are free.",
            hint="Take a smaller model or a smaller window.",
        )


def _available_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return min(free, max(0, limit - used))


def _params(path: Path, *, alias: str, api_key: str, n_ctx: int, n_parallel: int) -> Any:
    params: Any = _xllamacpp().CommonParams()
    params.model.path = str(path)
    params.model_alias = {alias}
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [api_key]
    params.ui = False
    params.cors_origins = ""
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.n_ctx = n_ctx * n_parallel
    params.n_parallel = n_parallel
    # What is computed between two looks at the queue: how soon a cut request stops, another slot begins. Beside others
    # a prompt that is cut in two goes on off the border, so there has to be room for all of them.
    params.n_batch = MICRO_BATCH if n_parallel == 1 else _ROOM_TOKENS * n_parallel
    params.n_ubatch = MICRO_BATCH
    # A prompt takes over the slot that shares so much with it: at llama.cpp's own tenth the system text alone is enough
    # for short chunks, and one pushes out the other.
    params.slot_prompt_similarity = 0.5
    params.fit_params = False  # it would lower n_ctx without a word
    params.cache_ram_mib = 0
    params.n_threads_http = 16  # a kept-alive connection holds one
    params.verbosity = int(os.environ.get(_LOG_ENV) or -1)
    return params


def _xllamacpp() -> Any:
    """The library, its threads told to sleep rather than spin while they wait for each other.

    Spinning threads that share their cores with anything else hold each other up: two threads on two busy
    cores then decode 4 tokens a second, sleeping ones 40. OpenMP reads the variable when it is loaded.
    """
    missing = "OMP_WAIT_POLICY" not in os.environ
    if missing:
        os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        import xllamacpp
    finally:
        if missing:
            os.environ.pop("OMP_WAIT_POLICY", None)
    return xllamacpp


def _load(params: Any, path: Path, header: GgufHeader) -> Any:
    try:
        return _xllamacpp().Server(params)
    except (RuntimeError, ValueError) as exc:
        raise ModelUnavailable(
            f"llama.cpp could not load {path} (architecture {header.architecture or 'unknown'!r}).",
            hint=f"It may be no text model, newer than this xllamacpp, or too large; {_LOG_ENV}=3 shows why.",
        ) from exc


def _wait_for_loop(root_url: str, api_key: str, header: GgufHeader) -> _Served:
    with _client(root_url, api_key) as client:
        client.get("/slots").raise_for_status()  # answered by the loop itself, not by the HTTP threads
        props: Any = client.get("/props").raise_for_status().json()
        models: Any = client.get("/v1/models").raise_for_status().json()
    meta = models["data"][0].get("meta") or {}
    n_ctx = int(props["default_generation_settings"]["n_ctx"])
    return _Served(n_ctx, int(meta.get("n_ctx_train") or header.n_ctx_train or n_ctx))


def _client(root_url: str, api_key: str, timeout_s: float = 30.0) -> httpx.Client:
    # trust_env off: a proxy set for the outside must not see loopback calls.
    headers = {"Authorization": f"Bearer {api_key}", "Connection": "close"}
    return httpx.Client(base_url=root_url, headers=headers, timeout=timeout_s, trust_env=False)


def _stop(servers: list[Any], root_url: str, api_key: str) -> None:
    """Lets the destructor of the one server in `servers` run, once nothing works in it any more."""
    port = urlsplit(root_url).port or 0
    deadline = time.monotonic() + _CLOSE_TIMEOUT_S
    while True:
        _cut_connections(port)
        if _idle(root_url, api_key):
            break
        if time.monotonic() > deadline:
            _log.warning("the engine at %s did not become idle; its memory is not freed", root_url)
            _abandoned.extend(servers)
            break
        time.sleep(_CANCEL_PAUSE_S)
    _cut_connections(port)
    servers.clear()


def _idle(root_url: str, api_key: str) -> bool:
    try:
        with _client(root_url, api_key, 5.0) as client:
            slots: Any = client.get("/slots").raise_for_status().json()
    except httpx.HTTPError:
        return False
    return not any(slot["is_processing"] for slot in slots)


def _cut_connections(port: int) -> None:
    """Shuts down the server's end of every connection to `port`; its sockets are our own process's."""
    for entry in os.scandir("/dev/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(entry.name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as end:
                # The listening socket has no peer: getpeername raises, and it goes on listening.
                if end.family == socket.AF_INET and end.getpeername() and end.getsockname()[1] == port:
                    end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
