"""What prefill-ahead gives a chain on two real engines, one thread each: with it against without, by turns.

    python tests/bench/prefill_ahead.py [--chunks 8] [--rounds 2] [--chunk-tokens 1100] [--reply-tokens 200]

Each arm reads the beginning of the example novel with nothing saved before; the worker writes replies of a fixed
length, of which it hands on the first words (as a model does that reasons before it takes notes). Tokens on the
critical path of a hop are those of the prompt that had to be computed after the call for them had begun: what the
engine did not report as cached, and of a prefill that was still under way its share from then on. Prints Markdown, and
JSON with --json FILE.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from coa.agents import WorkerReply
from coa.cache.ahead import PrefillAhead
from coa.cache.kv_cache import KvCache
from coa.config import Settings
from coa.documents import read_document
from coa.graphs import build_chain
from coa.graphs.running import run_graph
from coa.llm.chat import ChatModel, Decoding
from coa.llm.embedded import MICRO_BATCH
from coa.llm.engine_process import EngineProcess
from coa.llm.prefixes import Measured
from coa.reading import Prompt, reading_prompt
from coa.session import Session
from coa.testing.models import test_model_path
from coa.types import Chunk, CommunicationUnit, Document, Usage

NOVEL = Path(__file__).resolve().parents[2] / "examples" / "novel" / "the-salt-ledger.txt"
QUESTION = "Who kept the salt ledger, and what became of it?"
WINDOW = 2048
HANDED_ON = 24
"""Words of a reply."""
_ENDLESS = "root ::= [a-zA-Z ,.] root"
"""No reply ends by itself: each has as many tokens as it may."""


@dataclass(frozen=True)
class Hop:
    """One reading call."""

    prompt_tokens: int
    prefix_tokens: int
    """Those that were in place when the rest was computed, whoever computed them."""
    critical_tokens: float
    seconds: float
    prefill_s: float
    """Of what the engine computed after the call had begun, waiting for work ahead included."""
    completion_tokens: int
    completion_s: float


@dataclass
class Arm:
    """One reading of the document."""

    ahead: bool
    wall_s: float = 0.0
    hops: list[Hop] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    useful: int = 0
    wasted: int = 0

    def median(self, what: str) -> float:
        """Over the hops but the first two: nothing is ahead of the one, and the other is there for comparison."""
        return float(statistics.median(getattr(hop, what) for hop in self.hops[2:]))


@dataclass(frozen=True)
class Writer:
    """A worker whose replies are as long as they are to be."""

    model: ChatModel
    reply_tokens: int

    async def read(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> WorkerReply:
        """The first words of the reply as the next unit."""
        tail = f"Notes so far: {unit.text}\n\nQuestion: {query}\n\nThink aloud about what the text says to that."
        decoding = Decoding(self.reply_tokens, grammar=_ENDLESS)
        completion = await self.model.complete(reading_prompt(chunk, tail), decoding)
        words = " ".join(completion.text.split()[:HANDED_ON])
        return WorkerReply(CommunicationUnit(words, chunk.index), True, Usage().plus(completion.usage))


class _Watched(PrefillAhead):
    """Writes down each reading call."""

    def __init__(self, cache: KvCache, *, most: int, hops: list[Hop]) -> None:
        super().__init__(cache, most=most)
        self._hops = hops
        self._reading: set[str] = set()

    def began(self, call: str, group: str, prompt: Prompt) -> None:
        if prompt.prefix:
            self._reading.add(call)
        super().began(call, group, prompt)

    def ended(self, call: str, group: str, measured: Measured | None) -> None:
        found = self._group(group).calls.get(call)
        super().ended(call, group, measured)
        if found is None or measured is None or call not in self._reading:
            return
        now, late, waited = time.monotonic(), 0.0, 0.0
        ahead = found.ahead
        if ahead is not None and ahead.began is not None and ahead.ended is not None and ahead.ended > found.began:
            waited = ahead.ended - found.began
            late = ahead.tokens * min(1.0, waited / (ahead.ended - ahead.began))
        seconds, reply_s = now - found.began, measured.completion_s or 0.0
        critical = measured.prompt_tokens - measured.cached_tokens + late
        self._hops.append(
            Hop(
                measured.prompt_tokens,
                measured.cached_tokens,
                critical,
                seconds,
                seconds - reply_s,
                measured.completion_tokens,
                reply_s,
            )
        )


def _settings(engines: Sequence[EngineProcess], home: Path, slots: Path, *, chunk_tokens: int) -> Settings:
    """One group of the engines, which share a folder of saved states."""
    entries = [
        {
            "model_name": "readers",
            "litellm_params": {"model": f"openai/{e.alias}", "api_base": e.base_url, "api_key": e.api_key},
            "model_info": {
                "id": e.alias,
                "kind": "llama_server",
                "max_input_tokens": e.n_ctx,
                "slot_save_path": str(slots),
                "n_ubatch": MICRO_BATCH,
            },
        }
        for e in engines
    ]
    values = {"home": home, "model": "readers", "model_list": entries, "notes": "paper", "chunk_tokens": chunk_tokens}
    return Settings.model_validate({**values, "response_cache": False, "retries": 0})


async def read_once(
    document: Document,
    engines: Sequence[EngineProcess],
    folder: Path,
    *,
    most: int,
    chunk_tokens: int,
    reply_tokens: int,
) -> Arm:
    """One reading by the chain, with nothing saved before; `most` chunks may be computed ahead. The engines save their
    states in the folder's "slots"."""
    arm, slots = Arm(most > 0), folder / "slots"
    for state in [path for path in slots.rglob("*") if path.is_file()]:
        state.unlink()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        home = Path(name)
        async with Session(_settings(engines, home, slots, chunk_tokens=chunk_tokens)) as session:
            gateway = await session._open()
            cache = gateway.prefix_cache
            assert isinstance(cache, KvCache)
            cache.ahead = _Watched(cache, most=most, hops=arm.hops)
            await session.open()
            async with session.prepared(document, QUESTION) as run:
                started = time.perf_counter()
                output = await run_graph(
                    build_chain(worker=Writer(await gateway.role_model("worker"), reply_tokens)),
                    question=QUESTION,
                    context=run.context,
                    run_id=run.record.run_id,
                    checkpoints=home / "state.sqlite",
                    on_event=lambda event: None,
                    on_control=lambda drain: None,
                )
                arm.wall_s = time.perf_counter() - started
            await cache.ahead.close()
    assert output["coverage"]["skipped"] == []
    arm.notes = [note.text for note in run.context.notes.all_notes()]
    arm.useful, arm.wasted = cache.ahead.counts.useful, cache.ahead.counts.wasted
    return arm


async def compare(*, chunks: int, rounds: int, chunk_tokens: int, reply_tokens: int) -> list[Arm]:
    """The arms, by turns, so that whatever else the machine does falls on both."""
    words = NOVEL.read_text(encoding="utf-8")
    # About four characters a token: enough text for the chunks, cut at a paragraph.
    text = words[: words.find("\n\n", chunks * chunk_tokens * 4 - chunk_tokens * 2)]
    document = read_document(text.encode(), name="salt-ledger-beginning.txt")
    arms = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "slots").mkdir()
        start = partial(EngineProcess, test_model_path(), n_ctx=WINDOW, n_threads=1, slot_save_path=folder / "slots")
        with start(alias="one") as one, start(alias="two") as two:
            for number in range(rounds):
                for most in (0, 2) if number % 2 == 0 else (2, 0):
                    arm = await read_once(
                        document, (one, two), folder, most=most, chunk_tokens=chunk_tokens, reply_tokens=reply_tokens
                    )
                    arms.append(arm)
                    told = f"{'with' if arm.ahead else 'without'}: {arm.wall_s:.1f} s, {len(arm.hops)} reading calls"
                    print(told, file=sys.stderr)
    return arms


def table(arms: Sequence[Arm]) -> str:
    """The comparison as Markdown."""
    lines = ["| | without | with | with / without |", "|---|---|---|---|"]
    groups = [[a for a in arms if a.ahead is ahead] for ahead in (False, True)]

    def row(name: str, values: list[float], digits: int) -> None:
        ratio = values[1] / values[0] if values[0] else float("nan")
        lines.append(f"| {name} | {values[0]:,.{digits}f} | {values[1]:,.{digits}f} | {ratio:.2f} |")

    def means(what: str) -> list[float]:
        return [statistics.fmean(a.median(what) for a in group) for group in groups]

    row("prompt tokens of a hop", means("prompt_tokens"), 0)
    row("of these on the critical path", means("critical_tokens"), 0)
    row("prefill seconds of a hop", means("prefill_s"), 2)
    row("reply tokens of a hop", means("completion_tokens"), 0)
    row("reply seconds of a hop", means("completion_s"), 2)
    row("wall seconds", [statistics.fmean(a.wall_s for a in group) for group in groups], 1)
    row("fastest wall seconds", [min(a.wall_s for a in group) for group in groups], 1)
    same = len({tuple(a.notes) for a in arms}) == 1
    ahead = groups[1]
    lines.append("")
    lines.append(
        f"Notes {'equal' if same else 'differ'}; prefixes computed ahead: "
        f"{sum(a.useful for a in ahead)} useful, {sum(a.wasted for a in ahead)} wasted."
    )
    return "\n".join(lines)


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--chunk-tokens", type=int, default=1100)
    parser.add_argument("--reply-tokens", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    arms = asyncio.run(
        compare(
            chunks=options.chunks,
            rounds=options.rounds,
            chunk_tokens=options.chunk_tokens,
            reply_tokens=options.reply_tokens,
        )
    )
    print(f"load before: {os.getloadavg()[0]:.1f}\n{table(arms)}")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(arm) for arm in arms], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
