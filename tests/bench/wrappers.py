"""What stands before a model costs so much of each call: python tests/bench/wrappers.py

A model without latency is asked through nothing, through logs and spans, and through the response cache with each
of its stores; medians of single calls, the prompt as long as a chunk's. Nothing else should run meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from coa.cache.responses import RedisResponses
from coa.llm.chat import ChatModel, Completion, Decoding, OnText
from coa.llm.response_cache import CachedModel
from coa.llm.response_file import FileResponses
from coa.llm.response_store import InMemoryResponses, ResponseStore
from coa.llm.tracing import ObservedModel
from coa.reading import Prompt
from coa.testing.redis_process import RedisProcess, redis_servers
from coa.types import CallUsage

_CHUNK = "".join(f"[{n}] On day {n} the crew mended sails and the wind turned north.\n" for n in range(1, 120))
_NOTE = "Ada hid the brass key under the third stone of the old well, and nobody saw her. " * 5
_BUDGET = 200_000_000


class _Instant:
    """Replies at once."""

    name = "instant"
    supports_grammar = supports_schema = False
    _reply = Completion(_NOTE, "stop", CallUsage(2000, 0, 80, 0.0), "instant/0", 0.0)

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        return self._reply


async def _median_us(model: ChatModel, n_calls: int, *, repeated: bool) -> float:
    """Microseconds of a call; `repeated` asks the same each time."""
    seconds = []
    for n in range(n_calls):
        prompt = Prompt(tail=f"Read on, {0 if repeated else n}.", prefix=_CHUNK)
        decoding = Decoding(max_tokens=256)
        started = time.perf_counter()
        await model.complete(prompt, decoding)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1e6


@contextlib.contextmanager
def _spans() -> Iterator[None]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    trace.set_tracer_provider(provider)
    yield
    provider.shutdown()


async def _measured(n_calls: int, folder: Path, redis_url: str | None) -> list[tuple[str, float]]:
    bare = _Instant()
    stores: dict[str, Callable[[], ResponseStore]] = {
        "in memory": lambda: InMemoryResponses(_BUDGET),
        "file": lambda: FileResponses(folder / "responses.sqlite", _BUDGET),
    }
    if redis_url is not None:
        stores["redis"] = lambda: RedisResponses(redis_url, _BUDGET, timeout_s=1.0)
    rows = [
        ("no wrapper", await _median_us(bare, n_calls, repeated=False)),
        ("logs and spans off", await _median_us(ObservedModel(bare), n_calls, repeated=False)),
    ]
    log = logging.getLogger("coa.calls")
    handler = logging.NullHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    rows.append(("logs on (no output)", await _median_us(ObservedModel(bare), n_calls, repeated=False)))
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)
    for name, make in stores.items():
        store = make()
        model = ObservedModel(CachedModel(bare, store, "weights"))
        rows.append((f"cache {name}: kept", await _median_us(model, n_calls, repeated=False)))
        await model.complete(Prompt(tail="Read on, 0.", prefix=_CHUNK), Decoding(max_tokens=256))
        rows.append((f"cache {name}: given again", await _median_us(model, n_calls, repeated=True)))
        await store.close()
    with _spans():
        rows.append(("spans on", await _median_us(ObservedModel(bare), n_calls, repeated=False)))
    return rows


def main(n_calls: int = 2000) -> int:
    """Prints a table in microseconds."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisProcess()) if redis_servers() else None
        rows = asyncio.run(_measured(n_calls, folder, redis.url if redis is not None else None))
    print(f"median µs of {n_calls} calls, a prompt of {len(_CHUNK)} characters")
    for name, microseconds in rows:
        print(f"{name:<28} {microseconds:8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
