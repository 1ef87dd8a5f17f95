"""Three replicas, six documents, four questions each: what routing and saved states are worth. Prints Markdown.

    python -m tests.bench.routing [--small] [--points 0.5 0.9 1.5 unsaturated] [--arms simple-shuffle ours …]
                                  [--repeats N] [--sglang-python PATH]

Replicas are llama.cpp server processes with one thread each. Questions come at random moments (Poisson, the same ones
for each arm) whether or not earlier ones are done; a question is a chain: the chunks of its document one after the
other, each prompt as a worker's, the notes that came before in its tail. All arms call the same servers, which are
emptied before each; computed tokens are the servers' own count. Of coa's arms the last one is what a session has: the
prefix cache is told which chunks follow, as the graphs tell it. The unsaturated point has three of the documents, and
time between the questions. With --repeats all arms take turns, so that what else the machine does meets each of them,
and every figure is a mean, with the least and the greatest behind it.

The arm "sglang-router" needs that package in an environment of its own (it is no dependency of coa): --sglang-python
or COA_SGLANG_PYTHON names its interpreter; the arm is left out without one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import httpx

from coa.agents.prompting import PromptTemplate
from coa.chunking import chunk_document
from coa.documents import read_document
from coa.llm.engine_process import EngineProcess
from coa.llm.engine_tokens import EngineTokens
from coa.reading import reading_prompt
from coa.testing.models import test_model_path
from coa.types import Chunk
from tests.bench.routing_arms import ALIAS, Arm, ByDocument, Litellm, Ours, Server, SglangRouter

NOVEL = Path(__file__).resolve().parents[2] / "examples" / "novel" / "the-salt-ledger.txt"
QUESTIONS = (
    "Who kept the ledger, and why?",
    "What is said about the sea and the weather?",
    "Which people are named, and what do they want?",
    "What was bought, sold or owed?",
)
N_REPLICAS = 3
REPLY_TOKENS = 16
SEED = 7
SGLANG = "sglang-router"


@dataclass(frozen=True)
class Load:
    """What is asked, and how fast."""

    n_documents: int = 6
    n_chunks: int = 3
    """Of a document; the first one has one less, so that 0.5, 0.9 and 1.5 of all are nearly multiples of three."""
    n_questions: int = 4
    chunk_tokens: int = 280
    """Of a chunk's prefix at most, so that most lie above a multiple of the engines' micro-batch (128)."""
    questions_per_s: float = 1.2

    @property
    def lengths(self) -> list[int]:
        """Chunks of each document."""
        return [self.n_chunks - (i == 0) for i in range(self.n_documents)]

    def slots(self, ratio: float) -> int:
        """Of each server, so that all together hold about `ratio` of all chunks; the same number for each, since a
        state of a server with another number of slots cannot be restored."""
        return max(1, round(ratio * sum(self.lengths) / N_REPLICAS))


@dataclass
class Outcome:
    """Of one arm at one point."""

    arm: str
    computed: list[int]
    """Prompt tokens by replica."""
    makespan_s: float
    ttft_s: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def imbalance(self) -> float:
        """Coefficient of variation of the replicas' computed tokens."""
        mean = statistics.mean(self.computed)
        return statistics.pstdev(self.computed) / mean if mean else 0.0

    def ttft(self, share: float) -> float:
        """Seconds to the first piece of the reply that this share of the calls (in tenths) did not exceed."""
        if len(self.ttft_s) < 2:
            return 0.0
        return statistics.quantiles(self.ttft_s, n=10)[round(10 * share) - 1]


class Point(NamedTuple):
    """A share of the working set that fits into all slots together, and the load there."""

    name: str
    ratio: float
    load: Load


class Chain(NamedTuple):
    """A question, and when it comes, by `time.perf_counter`."""

    document: str
    chunks: Sequence[Chunk]
    question: str
    at: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 where a claim of coa's does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="three documents, two questions")
    parser.add_argument("--points", nargs="+", default=["0.5", "0.9", "1.5", "unsaturated"])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="of every point, the arms taking turns")
    parser.add_argument("--sglang-python", default=os.environ.get("COA_SGLANG_PYTHON", ""))
    args = parser.parse_args(arguments)
    full = Load(n_documents=3, n_chunks=2, n_questions=2) if args.small else Load()
    quiet = replace(full, n_documents=3, questions_per_s=0.2)
    points = [Point("unsaturated", 0.9, quiet) if p == "unsaturated" else Point(p, float(p), full) for p in args.points]
    print(f"\n## Routing: {N_REPLICAS} llama.cpp servers, {os.cpu_count()} cores\n", flush=True)
    fine = True
    for point in points:
        outcomes = asyncio.run(measured(point, list(args.arms) * max(1, args.repeats), args.sglang_python))
        _print(point, outcomes)
        fine &= _holds(outcomes)
    return 0 if fine else 1


def _print(point: Point, outcomes: Sequence[Outcome]) -> None:
    load = point.load
    chunks, slots = sum(load.lengths), N_REPLICAS * load.slots(point.ratio)
    print(
        f"\n### {point.name}: {slots} slots for {chunks} chunks ({slots / chunks:.2f} of the working set); "
        f"{load.n_documents} documents, {load.n_questions} questions each, {load.questions_per_s:g} a second\n"
    )
    print("| arm | computed tokens | of simple-shuffle's | makespan s | TTFT p50 s | p90 s | imbalance | failed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    by_arm = _by_arm(outcomes)
    shuffle = statistics.mean(sum(each.computed) for each in by_arm.get("simple-shuffle", outcomes))
    for arm, runs in by_arm.items():
        tokens = [float(sum(each.computed)) for each in runs]
        share = f"{statistics.mean(tokens) / shuffle:.2f}" if "simple-shuffle" in by_arm else ""
        times = " | ".join(
            _spread(values, 2) for values in ([each.ttft(0.5) for each in runs], [each.ttft(0.9) for each in runs])
        )
        makespan, imbalance = _spread([each.makespan_s for each in runs], 1), _spread([e.imbalance for e in runs], 2)
        failed = sum(each.failed for each in runs)
        print(f"| {arm} | {_spread(tokens, 0)} | {share} | {makespan} | {times} | {imbalance} | {failed} |")
    sys.stdout.flush()


def _by_arm(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The runs of each, in the order in which arms were first run."""
    found: dict[str, list[Outcome]] = {}
    for each in outcomes:
        found.setdefault(each.arm, []).append(each)
    return found


def _spread(values: Sequence[float], digits: int) -> str:
    """The mean, and from several values the least and the greatest."""
    mean = f"{statistics.mean(values):,.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def _holds(outcomes: Sequence[Outcome]) -> bool:
    """Whether ours computes no more than any other arm (5 % are noise) and 0.67 of simple-shuffle's at most."""
    computed = {arm: statistics.mean(sum(each.computed) for each in runs) for arm, runs in _by_arm(outcomes).items()}
    ours = [tokens for arm, tokens in computed.items() if arm.startswith("ours")]
    others = [tokens for arm, tokens in computed.items() if not arm.startswith("ours")]
    if not ours or not others:
        return True
    return min(ours) <= 1.05 * min(others) and min(ours) <= 0.67 * computed.get("simple-shuffle", min(ours) * 2)


async def measured(point: Point, arms: Sequence[str], sglang_python: str) -> list[Outcome]:
    """All arms, one after the other, over the same servers."""
    outcomes = []
    with servers(point) as running:
        books = _documents(running[0], point.load)
        for name in arms:
            if name == SGLANG and not sglang_python:
                print(f"{name}: left out, no interpreter that has it was named", file=sys.stderr)
                continue
            await empty(running)
            arm = ARMS[name](running, sglang_python)
            await arm.open()
            try:
                outcomes.append(await _asked(name, arm, running, books, point.load))
            finally:
                await arm.close()
            print(f"{name}: {outcomes[-1].makespan_s:.0f} s", file=sys.stderr, flush=True)
    return outcomes


@contextlib.contextmanager
def servers(point: Point) -> Iterator[list[Server]]:
    """Three of them, with slots for `point.ratio` of all chunks; as equal as the number allows."""
    slots = point.load.slots(point.ratio)
    model = test_model_path()
    with contextlib.ExitStack() as stack:
        running = []
        states = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coa-bench-")))
        for i in range(N_REPLICAS):
            engine = stack.enter_context(
                EngineProcess(
                    model,
                    alias=ALIAS,
                    api_key="bench-key",
                    n_ctx=2 * point.load.chunk_tokens + 256,
                    n_threads=1,
                    n_parallel=slots,
                    slot_save_path=states,
                    cache_prompt=True,
                )
            )
            running.append(Server(f"r{i}", engine.base_url, engine.root_url, "bench-key", slots, states))
        yield running


def _documents(server: Server, load: Load) -> list[list[Chunk]]:
    """Runs of chunks of the example novel, each a document of its own."""
    novel = read_document(NOVEL.read_bytes(), name="novel.txt")
    counter = EngineTokens(server.root_url, api_key=server.key)
    try:
        chunks = chunk_document(novel, budget=load.chunk_tokens, counter=counter)
    finally:
        counter.close()
    starts = list(accumulate(load.lengths, initial=0))
    if len(chunks) < starts[-1]:
        raise ValueError(f"the novel has {len(chunks)} chunks of {load.chunk_tokens} tokens, not {starts[-1]}")
    return [chunks[start:end] for start, end in pairwise(starts)]


async def empty(running: Sequence[Server]) -> None:
    """No server holds anything, in memory or as a file."""
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        for server in running:
            for slot in range(server.n_slots):
                url = f"{server.root_url}/slots/{slot}?action=erase"
                (await client.post(url, headers=server.headers, json={})).raise_for_status()
    for file in running[0].states.iterdir():
        if file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink()


async def computed_tokens(server: Server) -> int:
    """Prompt tokens since it was started, cached ones not among them, as the server counts."""
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        lines = (await client.get(f"{server.root_url}/metrics", headers=server.headers)).raise_for_status().text
    line = next(line for line in lines.splitlines() if line.startswith("llamacpp:prompt_tokens_total "))
    return int(float(line.split()[1]))


async def _asked(
    name: str, arm: Arm, running: Sequence[Server], books: Sequence[Sequence[Chunk]], load: Load
) -> Outcome:
    chosen = random.Random(SEED)
    asked = [(book, question) for book in range(len(books)) for question in QUESTIONS[: load.n_questions]]
    chosen.shuffle(asked)
    moments, at = [], 0.0
    for _ in asked:
        moments.append(at)
        at += chosen.expovariate(load.questions_per_s)
    before = [await computed_tokens(server) for server in running]
    outcome = Outcome(name, [], 0.0)
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for (book, question), moment in zip(asked, moments, strict=True):
            chain = Chain(f"book {book}", books[book], question, started + moment)
            group.create_task(_question(arm, outcome, chain))
    outcome.makespan_s = time.perf_counter() - started
    outcome.computed = [await computed_tokens(s) - b for s, b in zip(running, before, strict=True)]
    return outcome


async def _question(arm: Arm, outcome: Outcome, chain: Chain) -> None:
    await asyncio.sleep(max(0.0, chain.at - time.perf_counter()))
    template = PromptTemplate("worker_question_small", "notes", "question", "words", "language")
    notes = "(none)"
    for at, chunk in enumerate(chain.chunks):
        arm.upcoming([reading_prompt(following, "A") for following in chain.chunks[at + 1 :]], chain.document)
        tail = template.render(notes=notes, question=chain.question, words="20", language="")
        started = time.perf_counter()
        try:
            reply = await arm.call(reading_prompt(chunk, tail), chain.document, REPLY_TOKENS)
        except Exception as error:  # a failed call is part of what is measured
            print(f"{outcome.arm}: {type(error).__name__}: {error}", file=sys.stderr)
            outcome.failed += 1
            continue
        outcome.ttft_s.append(reply.first_at - started)
        notes = " ".join(reply.text.split()) or notes


ARMS: dict[str, Callable[[Sequence[Server], str], Arm]] = {
    "simple-shuffle": lambda running, _: Litellm(running, "simple-shuffle"),
    "least-busy": lambda running, _: Litellm(running, "least-busy"),
    "hash by document": lambda running, _: ByDocument(running),
    SGLANG: SglangRouter,
    "ours, memory": lambda running, _: Ours(running, save=False),
    "ours, states": lambda running, _: Ours(running, save=True),
    "ours, states, ahead": lambda running, _: Ours(running, save=True, ahead=True),
}


if __name__ == "__main__":
    sys.exit(main())
