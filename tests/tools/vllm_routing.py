"""Two real vLLM replicas behind coa's router, behind the real sglang-router, and behind litellm's simple-shuffle.

    COA_TEST_VLLM=build/vllm python tests/tools/vllm_routing.py [--share 0.9] [--rate 0.5] [--repeats 3]

Chains arrive as a Poisson process, whatever became of those before (open loop): each reads the chunks of one document
in order, for one question, its notes in the tail. All documents share the replicas' caches, which hold `--share` of all
chunks together. Every arm has the same arrivals, and begins with empty caches. Tokens computed are the engines' own
count; the time to the first token is from the call on, waiting and routing included. "coa" only routes; "coa, told" is
what a session has: the prefix cache is told which chunks follow, as the graphs tell it, and computes ahead.

What is evicted when hangs on moments, so two runs of one load differ, and one load says little: what counts is the mean
over several.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coa.cache.opening import prefix_cache_for
from coa.config import Settings
from coa.llm.call_labels import labels
from coa.llm.chat import ChatModel, Decoding
from coa.llm.gateway import open_gateway
from coa.llm.prefixes import PrefixCache
from coa.reading import Prompt, harmless
from tests.live_vllm.vllm_process import MODEL, SglangRouter, VllmProcess, vllm_home

_WORDS = ("river", "stone", "lamp", "winter", "harbour", "letter", "captain", "garden", "silver", "window", "morning")
GROUP = "readers"
ROUTED, TOLD, THEIRS, SHUFFLED = ARMS = ("coa", "coa, told", "sglang-router", "simple-shuffle")
_TOKENS_PER_SENTENCE = 14.2
"""Of the sentences below, with their numbers, as SmolLM2 counts."""


@dataclass(frozen=True)
class Load:
    """What is asked of every arm."""

    documents: int = 6
    chunks: int = 3
    questions: int = 4
    chunk_tokens: int = 700
    share: float = 0.9
    """Of all chunks, what both caches hold together."""
    rate: float = 0.5
    """Chains a second."""
    reply_tokens: int = 16

    @property
    def cache_tokens(self) -> int:
        """Of each replica."""
        return round(self.share * self.documents * self.chunks * self.chunk_tokens / 2)

    def prefix(self, document: int, chunk: int) -> str:
        """The reading prefix of a chunk: sentences of its own."""
        chance = random.Random(document * 1000 + chunk)
        n = max(1, round((self.chunk_tokens - 60) / _TOKENS_PER_SENTENCE))
        lines = (f"[{i}] {' '.join(chance.choices(_WORDS, k=10))}.\n" for i in range(1, n + 1))
        return "Source text, its sentences numbered:\n" + "".join(lines) + "[End of source text.]\n"

    def arrivals(self, seed: int) -> list[tuple[float, int, int]]:
        """Seconds from the start, document and question of each chain, in order."""
        chance = random.Random(seed)
        chains = [(d, q) for d in range(self.documents) for q in range(self.questions)]
        chance.shuffle(chains)
        at = 0.0
        found = []
        for document, question in chains:
            found.append((at, document, question))
            at += chance.expovariate(self.rate)
        return found


@dataclass
class Result:
    """What an arm took for one load."""

    arm: str
    seed: int
    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    makespan_s: float = 0.0
    computed: list[int] = field(default_factory=list)
    """The same by replica."""
    first_token_s: list[float] = field(default_factory=list)

    @property
    def hit_ratio(self) -> float:
        """Of all prompt tokens."""
        return self.cached_tokens / max(1, self.prompt_tokens)

    def summary(self) -> dict[str, Any]:
        """Figures, rounded."""
        tenths = statistics.quantiles(self.first_token_s, n=10) if len(self.first_token_s) > 1 else [0.0] * 9
        told = {key: value for key, value in asdict(self).items() if key != "first_token_s"}
        figures = {"hit_ratio": round(self.hit_ratio, 3), "ttft_p50_s": round(tenths[4], 3)}
        return {**told, "makespan_s": round(self.makespan_s, 1), **figures, "ttft_p90_s": round(tenths[8], 3)}


def settings_for(home: Path, addresses: Sequence[str], *, kv_cache: bool) -> Settings:
    """One group of the replicas; without our cache litellm shuffles."""
    entries = [
        {
            "model_name": GROUP,
            "litellm_params": {"model": f"hosted_vllm/{MODEL}", "api_base": f"{address}/v1", "api_key": "none"},
            "model_info": {"id": f"r{n}", "kind": "vllm", "max_input_tokens": 2000, "tokenizer": "estimate"},
        }
        for n, address in enumerate(addresses)
    ]
    given = {"home": home, "model": GROUP, "model_list": entries, "kv_cache": kv_cache, "response_cache": False}
    # Arrivals are not held back. An engine may close an idle connection just as a call takes it, in any arm.
    return Settings.model_validate({**given, "retries": 2, "max_parallel_calls": 1000})


async def measured(arm: str, seed: int, load: Load, engines: Sequence[VllmProcess], settings: Settings) -> Result:
    """One arm under one load, from empty caches."""
    result = Result(arm, seed)
    for engine in engines:
        engine.reset()
    before = [engine.computed_tokens() for engine in engines]
    gateway = await open_gateway(settings, make_prefix_cache=prefix_cache_for(settings))
    told = gateway.prefix_cache if arm == TOLD else None
    try:
        model = await gateway.chat_model()
        await model.complete(Prompt(tail="Say yes."), Decoding(1))  # what a first call sets up is no part of it
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for at, document, question in load.arrivals(seed):
                group.create_task(_chain(model, load, result, (began + at, document, question), told))
        result.makespan_s = time.monotonic() - began
    finally:
        await gateway.close()
    result.computed = [engine.computed_tokens() - n for engine, n in zip(engines, before, strict=True)]
    result.computed_tokens = sum(result.computed)
    return result


async def _chain(
    model: ChatModel, load: Load, result: Result, arrival: tuple[float, int, int], told: PrefixCache | None
) -> None:
    at, document, question = arrival
    await asyncio.sleep(max(0.0, at - time.monotonic()))
    note = "nothing yet"
    for chunk in range(load.chunks):
        tail = f"Question {question}: what is told of the harbour? Notes so far: {note}\nWrite a new note.\n"
        prompt = Prompt(prefix=load.prefix(document, chunk), tail=tail)
        started = time.monotonic()
        first: list[float] = []
        with labels(document=f"document {document} of {result.seed}"):  # each seed draws other homes for them
            if told is not None and chunk + 1 < load.chunks:
                following = [Prompt("A", load.prefix(document, n)) for n in range(chunk + 1, load.chunks)]
                told.upcoming(GROUP, following)
            completion = await model.complete(prompt, Decoding(load.reply_tokens), on_text=_first(first))
        result.first_token_s.append((first[0] if first else time.monotonic()) - started)
        result.prompt_tokens += completion.usage.prompt_tokens
        result.cached_tokens += completion.usage.cached_tokens
        note = harmless(completion.text)[:80] or "nothing"


def _first(seen: list[float]) -> Callable[[str], None]:
    return lambda _: seen.append(time.monotonic()) if not seen else None


def compared(home: Path, load: Load, seeds: Sequence[int], arms: Sequence[str]) -> list[Result]:
    """Every arm under every seed's load; the order of the arms changes with the seed."""
    results = []
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        engines = [VllmProcess(home, f"r{n}", core=n, cache_tokens=load.cache_tokens) for n in range(2)]
        for engine in engines:
            stack.callback(engine.stop)
            engine.launch()
        for engine in engines:
            engine.ready()
            engine.warm_up(load.chunk_tokens)
        addresses = [engine.root_url for engine in engines]
        for turn, seed in enumerate(seeds):
            for place in range(len(arms)):
                arm = arms[(place + turn) % len(arms)]
                work = Path(folder) / f"{arm}-{seed}"
                if arm == THEIRS:
                    with SglangRouter(home, engines) as router:
                        settings = settings_for(work, [router.root_url], kv_cache=False)
                        result = asyncio.run(measured(arm, seed, load, engines, settings))
                else:
                    settings = settings_for(work, addresses, kv_cache=arm in (ROUTED, TOLD))
                    result = asyncio.run(measured(arm, seed, load, engines, settings))
                results.append(result)
                print(json.dumps(result.summary()), flush=True)
    return results


def table(results: Sequence[Result]) -> str:
    """Means over the seeds, as Markdown; TTFT over all calls."""
    lines = ["| arm | hit | computed tokens | TTFT p50 | TTFT p90 | makespan |", "|---|---|---|---|---|---|"]
    for arm in dict.fromkeys(result.arm for result in results):
        of_arm = [result for result in results if result.arm == arm]
        tenths = statistics.quantiles([s for result in of_arm for s in result.first_token_s], n=10)
        hit = sum(r.cached_tokens for r in of_arm) / max(1, sum(r.prompt_tokens for r in of_arm))
        computed = statistics.mean(result.computed_tokens for result in of_arm)
        makespan = statistics.mean(result.makespan_s for result in of_arm)
        row = f"{hit:.1%} | {computed:,.0f} | {tenths[4]:.2f} s | {tenths[8]:.2f} s | {makespan:.1f} s"
        lines.append(f"| {arm} | {row} |")
    return "\n".join(lines)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=Load.share)
    parser.add_argument("--rate", type=float, default=Load.rate)
    parser.add_argument("--documents", type=int, default=Load.documents)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    home = vllm_home()
    if home is None:
        parser.error("COA_TEST_VLLM names no folder: make test-vllm sets one up")
    load = Load(documents=options.documents, share=options.share, rate=options.rate)
    print(
        f"{load.documents} documents of {load.chunks} chunks of {load.chunk_tokens} tokens, {load.questions} questions"
    )
    print(f"each; caches of 2 x {load.cache_tokens} tokens; {load.rate} chains a second", flush=True)
    print(table(compared(home, load, range(1, options.repeats + 1), ARMS)))


if __name__ == "__main__":
    main()
