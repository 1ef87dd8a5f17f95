"""The embedded engine as a process of its own: `python -m coa.llm.engine_process --model FILE`.

For several replicas of a model on one machine, and for tests and measurements that need an engine which
outlives or does not share the process under test.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType

from coa.errors import CoaError, ModelUnavailable

__all__ = ["EngineProcess", "main"]

_END_TIMEOUT_S = 70.0


class EngineProcess:
    """An engine in a child process that is ready; it ends with `close`, or when this process ends.

    Takes what `EmbeddedEngine.start` takes. Raises ModelUnavailable when the child does not become ready.
    """

    def __init__(
        self,
        model: Path | str,
        *,
        alias: str = "model",
        port: int = 0,
        api_key: str | None = None,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        n_parallel: int = 1,
        slot_save_path: Path | None = None,
        cache_prompt: bool = False,
        ready_timeout_s: float = 120.0,
    ) -> None:
        self.api_key = api_key or secrets.token_urlsafe(24)
        self.alias = alias
        self.model_path = Path(model)
        command = [sys.executable, "-m", "coa.llm.engine_process", "--while-stdin-open"]
        command += ["--model", str(model), "--alias", alias, "--port", str(port), "--parallel", str(n_parallel)]
        command += ["--n-ctx", str(n_ctx)] if n_ctx is not None else []
        command += ["--threads", str(n_threads)] if n_threads is not None else []
        command += ["--slot-save-path", str(slot_save_path)] if slot_save_path is not None else []
        command += ["--cache-prompt"] if cache_prompt else []
        # By the environment: a command line can be read by every user of the machine.
        environment = {**os.environ, "COA_ENGINE_KEY": self.api_key}
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
            )
            try:
                ready = json.loads(self._first_line(ready_timeout_s))
            except BaseException as exc:
                self.close()
                errors.seek(0)
                last = errors.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
                if isinstance(exc, ValueError):
                    raise ModelUnavailable(f"The engine process did not start: {' '.join(last[-1:])}") from exc
                raise
        self.base_url = str(ready["base_url"])
        self.root_url = str(ready["root_url"])
        self.n_ctx = int(ready["n_ctx"])
        self.pid = self._process.pid

    def close(self) -> None:
        """Ends the child, by force after a minute; may be called again."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def returncode(self) -> int | None:
        """The child's exit code; None while it runs."""
        return self._process.poll()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _first_line(self, timeout_s: float) -> bytes:
        """What the child writes up to its first line break; shorter when it ends or is late."""
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe above
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(descriptor, 4096) if ready else b""
            if not piece:
                break
            line += piece
        return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; prints one line of JSON when ready."""
    args = _parser().parse_args(arguments)
    from coa.llm.embedded import EmbeddedEngine

    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if args.while_stdin_open:
        threading.Thread(target=_wait_for_end_of_stdin, args=(ended,), daemon=True).start()
    try:
        engine = EmbeddedEngine.start(
            args.model,
            alias=args.alias,
            n_ctx=args.n_ctx,
            n_threads=args.threads,
            n_parallel=args.parallel,
            cache_prompt=args.cache_prompt,
            port=args.port,
            api_key=args.api_key or os.environ.get("COA_ENGINE_KEY") or None,
            slot_save_path=args.slot_save_path,
        )
    except CoaError as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return exc.exit_code
    with engine:
        ready = {
            "base_url": engine.base_url,
            "root_url": engine.root_url,
            "api_key": engine.api_key,
            "pid": os.getpid(),
            "n_ctx": engine.n_ctx,
        }
        print(json.dumps(ready), flush=True)
        ended.wait()
    return 0


def _wait_for_end_of_stdin(ended: threading.Event) -> None:
    # os.read, not sys.stdin: its lock would be held by this thread when the interpreter ends.
    while os.read(0, 4096):
        pass
    ended.set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m coa.llm.engine_process", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a .gguf file")
    parser.add_argument("--alias", default="model", help="the model's name in requests and replies")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--api-key", help="default: $COA_ENGINE_KEY, else a random one")
    parser.add_argument("--n-ctx", type=int, help="window in tokens, per parallel slot")
    parser.add_argument("--threads", type=int, help="default: the physical cores")
    parser.add_argument("--parallel", type=int, default=1, help="requests computed at once")
    parser.add_argument("--slot-save-path", type=Path, help="folder for saved attention state")
    parser.add_argument("--cache-prompt", action="store_true", help="re-use the prefix a slot already holds")
    parser.add_argument("--while-stdin-open", action="store_true", help="end when standard input ends")
    return parser


if __name__ == "__main__":
    sys.exit(main())
