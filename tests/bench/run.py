"""`make bench`: what coa itself costs, the model's time apart. Prints Markdown; ratios are of one run.

    python tests/bench/run.py [chunking] [overhead] [checkpoints] [imports]

Engines are fault servers without latency in a process of their own, so every microsecond that is measured is
litellm's or ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coa.api import Session
from coa.chunking import chunk_document
from coa.config import Settings
from coa.documents import read_document
from coa.errors import ModelError
from coa.events import AnswerStarted, ChunkRead, Event, RunStarted
from coa.llm.chat import Decoding
from coa.llm.deployments import ModelGroup, group_from_model_list
from coa.llm.embedded import EmbeddedEngine
from coa.llm.engine_tokens import EngineTokens
from coa.llm.litellm_model import LitellmModel, load_litellm
from coa.reading import Prompt
from coa.testing.fault_server import FaultServer
from coa.tokens import EstimatedTokens, TokenCounter
from coa.types import Document

REPOSITORY = Path(__file__).resolve().parents[2]
NOVEL = REPOSITORY / "examples" / "novel" / "the-salt-ledger.txt"
DATA = Path(os.environ.get("COA_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
HOME = Path(os.environ.get("COA_HOME", REPOSITORY / ".coa"))
QUESTION = "Who kept the ledger?"
SHARES = (0.25, 0.5, 1.0)
GROUP = "bench"


def main(wanted: Sequence[str]) -> int:
    """Runs the benchmarks named in `wanted`, all for none."""
    benchmarks = {"chunking": chunking, "overhead": overhead, "checkpoints": checkpoints, "imports": imports}
    unknown = [name for name in wanted if name not in benchmarks]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(benchmarks)}", file=sys.stderr)
        return 2
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores")
    for name, benchmark in benchmarks.items():
        if not wanted or name in wanted:
            benchmark()
    return 0


# chunking


def chunking() -> None:
    """MB/s over the longest book, and how the time grows with its length."""
    document = _longest_book()
    print(f"\n## Chunking {document.name} ({len(document.text.encode()) / 1e6:.2f} MB)\n")
    with contextlib.ExitStack() as stack:
        counters: list[TokenCounter] = [EstimatedTokens()]
        exact = _engine_counter(stack)
        if exact is not None:
            counters.append(exact)
        rows = [row for counter in counters for row in _chunking_rows(document, counter)]
    _table(["counter", "share", "MB", "chunks", "seconds", "MB/s", "time per MB to the quarter's"], rows)
    if exact is None:
        print("\nNo exact counter: the model is not there (coa models pull smollm2-135m).")


def _chunking_rows(document: Document, counter: TokenCounter) -> Iterator[list[str]]:
    quarter: float | None = None
    for share in SHARES:
        part = _beginning(document, share)
        size = len(part.text.encode()) / 1e6
        times = []
        for _ in range(3):
            gc.collect()
            started = time.perf_counter()
            chunks = chunk_document(part, budget=2048, counter=counter)
            times.append(time.perf_counter() - started)
        seconds = min(times)
        quarter = quarter or seconds / size
        growth = f"{seconds / size / quarter:.2f}"
        yield [
            counter.name,
            f"{share:g}",
            f"{size:.2f}",
            str(len(chunks)),
            f"{seconds:.2f}",
            f"{size / seconds:.2f}",
            growth,
        ]


def _longest_book() -> Document:
    """The largest book of the document collection; without one the example novel, twenty times over."""
    books = sorted((DATA / "books" / "docs").glob("*.txt"), key=lambda p: p.stat().st_size)
    if books:
        return read_document(books[-1])
    return _document(NOVEL.read_text(encoding="utf-8") * 20, name=f"20 x {NOVEL.name}")


def _beginning(document: Document, share: float) -> Document:
    return document if share == 1.0 else _document(document.text[: int(len(document.text) * share)], name=document.name)


def _engine_counter(stack: contextlib.ExitStack) -> TokenCounter | None:
    found = sorted(HOME.glob("models/**/*.gguf"), key=lambda p: p.stat().st_size)
    if not found:
        return None
    try:
        engine = EmbeddedEngine.start(found[0], alias=found[0].stem, n_ctx=2048)
    except ModelError as error:
        print(f"no exact counter: {error}", file=sys.stderr)
        return None
    stack.callback(engine.close)
    counter = EngineTokens(engine.root_url, engine.api_key, found[0].stem)
    stack.callback(counter.close)
    return counter


# overhead


def overhead(n_chunks: int = 100, rounds: int = 5) -> None:
    """Our time for each worker call against bare `litellm.acompletion` calls with the same parameters.

    The calls of all ways take turns one by one, so that what else the machine does falls on all alike.
    """
    document = _document_of(n_chunks)
    with FaultServer(keep=2 * n_chunks) as recorder:
        asyncio.run(_chain_seconds(document, recorder.base_url))
        requests = [{k: v for k, v in r.body.items() if k != "model"} for r in recorder.requests]
    requests = [r for r in requests if not r.get("stream")][:n_chunks]
    with _server() as url:
        ways = asyncio.run(_taking_turns(url, requests, rounds))
        chain = [asyncio.run(_chain_seconds(document, url)) for _ in range(rounds)]
    print(f"\n## Overhead of a call ({len(requests) * rounds} of each way, taking turns; the server answers at once)\n")
    bare = ways[0].times
    rows = []
    for way in ways:
        pairs = statistics.median(ours / theirs for ours, theirs in zip(way.times, bare, strict=True))
        rows.append([way.name, f"{statistics.median(way.times) * 1e3:.2f}", _quartiles(way.times), f"{pairs:.2f}"])
    per_chunk = statistics.median(chain)
    ratio = f"{per_chunk / statistics.median(bare):.2f}"
    rows.append(["a chunk of coa's chain: call, note, checkpoint", f"{per_chunk * 1e3:.2f}", _quartiles(chain), ratio])
    _table(["way", "ms a call (median)", "middle half", "to bare (median of pairs)"], rows)


# litellm's callbacks run after a call, in tasks; they belong to no way's time, and least to that of the next one.
_AFTERWARDS_S = 0.004


class _Way(NamedTuple):
    name: str
    call: Callable[[dict[str, Any]], Awaitable[object]]
    times: list[float]
    """Seconds of each call."""


async def _taking_turns(url: str, requests: Sequence[dict[str, Any]], rounds: int) -> Sequence[_Way]:
    """The ways with their times; a first round is not counted, and who begins changes with every request."""
    litellm = load_litellm()
    alone, two = LitellmModel(_group(url), retries=0), LitellmModel(_group(url, 2), retries=0)
    router = litellm.Router(model_list=[d.as_litellm(GROUP) for d in _group(url, 2).deployments], num_retries=0)

    def through(model: LitellmModel) -> Callable[[dict[str, Any]], Awaitable[object]]:
        async def call(request: dict[str, Any]) -> object:
            system, user = (m["content"] for m in request["messages"])
            return await model.complete(Prompt(tail=user, system=system), Decoding(request["max_tokens"]))

        return call

    async def bare(request: dict[str, Any]) -> object:
        return await litellm.acompletion(
            model="openai/fault", api_base=url, api_key="none", max_retries=0, timeout=240.0, **request
        )

    async def routed(request: dict[str, Any]) -> object:
        return await router.acompletion(model=GROUP, timeout=240.0, **request)

    ways = (
        _Way("bare litellm.acompletion", bare, []),
        _Way("coa's ChatModel, one deployment", through(alone), []),
        _Way("bare litellm.Router, two deployments", routed, []),
        _Way("coa's ChatModel, two deployments", through(two), []),
    )
    turn = 0
    for counted in (False, *[True] * rounds):
        for request in requests:
            turn += 1
            for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
                started = time.perf_counter()
                await way.call(request)
                seconds = time.perf_counter() - started
                await asyncio.sleep(_AFTERWARDS_S)
                if counted:
                    way.times.append(seconds)
    for model in (alone, two):
        await model.close()
    return ways


async def _chain_seconds(document: Document, url: str) -> float:
    """Seconds a chunk from the first worker's start to the manager's, in a run through the API."""
    moments: dict[type[Event], float] = {}

    def note(event: Event) -> None:
        moments.setdefault(type(event), time.perf_counter())

    with tempfile.TemporaryDirectory() as home:
        async with Session(_settings(Path(home), url), on_event=note) as session:
            answer = await session.ask(document, QUESTION)
    if not answer.coverage.complete:
        raise SystemExit(f"the run skipped chunks: {answer.coverage.skipped}")
    return (moments[AnswerStarted] - moments[RunStarted]) / answer.coverage.chunks


# checkpoints


def checkpoints(n_chunks: int = 1000) -> None:
    """Bytes on disk for each chunk of a run, at a quarter, a half and the whole of it."""
    document = _document_of(n_chunks)
    rows: list[list[str]] = []
    with _server() as url, tempfile.TemporaryDirectory() as home:
        settings = _settings(Path(home), url)

        def note(event: Event) -> None:
            if isinstance(event, ChunkRead) and event.index + 1 in {event.n_chunks // 4, event.n_chunks // 2}:
                rows.append(_disk_row(event.index + 1, settings.runs_dir))

        async def read() -> int:
            async with Session(settings, on_event=note) as session:
                return (await session.ask(document, QUESTION)).coverage.read

        rows.append(_disk_row(asyncio.run(read()), settings.runs_dir))
    print(f"\n## Bytes on disk for each chunk of a chain over {rows[-1][0]} chunks\n")
    _table(["chunks read", "checkpoints KB", "KB a chunk", "all else KB", "KB a chunk"], rows)


def _disk_row(n_read: int, runs: Path) -> list[str]:
    """Sizes of the run's folder; the checkpoints' as if sqlite's log were worked in, whose size is a constant."""
    (state,) = runs.rglob("state.sqlite")
    with contextlib.closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as connection:
        ((pages,),) = connection.execute("PRAGMA page_count")
        ((page_size,),) = connection.execute("PRAGMA page_size")
    kept = pages * page_size / 1e3
    files = (p for p in runs.rglob("*") if p.is_file() and not p.name.startswith("state.sqlite"))
    rest = sum(p.stat().st_size for p in files) / 1e3
    return [str(n_read), f"{kept:.0f}", f"{kept / n_read:.2f}", f"{rest:.0f}", f"{rest / n_read:.2f}"]


# imports


def imports(rounds: int = 9) -> None:
    """What importing coa's graphs takes beside langgraph alone, in processor time of alternating processes."""
    wanted = ("import langgraph.graph", "from coa.graphs import build_chain", "from coa.graphs import STRATEGIES")
    seconds: dict[str, list[float]] = {statement: [] for statement in wanted}
    for _ in range(rounds):
        for statement, taken in seconds.items():
            script = f"import time; begun = time.process_time(); {statement}; print(time.process_time() - begun)"
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
            taken.append(float(done.stdout))
    print(f"\n## Imports ({rounds} rounds)\n")
    alone = statistics.median(seconds[wanted[0]])
    rows = [[s, _quartiles(taken), f"{statistics.median(taken) / alone:.2f}"] for s, taken in seconds.items()]
    _table(["import", "quartiles, ms", "median to that of langgraph alone"], rows)


# shared


def _document(text: str, *, name: str) -> Document:
    return read_document(text.encode(), name=name)


def _document_of(n_chunks: int) -> Document:
    """The example novel, as often as it takes for about `n_chunks` chunks of `_settings`."""
    text = NOVEL.read_text(encoding="utf-8")
    once = len(chunk_document(_document(text, name="once"), budget=256, counter=EstimatedTokens()))
    wanted = int(len(text) * n_chunks / once)
    return _document((text * (wanted // len(text) + 1))[:wanted], name=f"{n_chunks} chunks")


def _settings(home: Path, url: str) -> Settings:
    return Settings(
        home=home, model=GROUP, model_list=_model_list(url), chunk_tokens=256, retries=0, response_cache=False
    )


def _model_list(url: str, n: int = 1) -> list[dict[str, Any]]:
    params = {"model": "openai/fault", "api_base": url, "api_key": "none"}
    info = {"max_input_tokens": 8192, "kind": "hosted"}
    return [{"model_name": GROUP, "litellm_params": params, "model_info": info} for _ in range(n)]


def _group(url: str, n: int = 1) -> ModelGroup:
    group = group_from_model_list(GROUP, _model_list(url, n))
    if group is None:
        raise SystemExit("the benchmark's own group is gone")
    return group


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """The base URL of an engine without latency, in a process of its own."""
    command = [sys.executable, "-m", "coa.testing.fault_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise SystemExit("the server has no output")
            yield json.loads(process.stdout.readline())["base_url"]
        finally:
            process.send_signal(signal.SIGTERM)


def _quartiles(seconds: Sequence[float]) -> str:
    low, _, high = statistics.quantiles(seconds, n=4)
    return f"{low * 1e3:.2f}-{high * 1e3:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * w for w in widths], *rows]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
