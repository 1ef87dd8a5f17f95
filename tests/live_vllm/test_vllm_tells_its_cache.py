"""The index of a real vLLM's cache, from its KV events alone: exact over eviction, reset and restart."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import zmq
import zmq.asyncio

from coa.cache.blocks import prefix_blocks, root_hash
from coa.cache.engines.vllm import Vllm
from coa.cache.kv_blocks import EngineBlocks
from coa.cache.kv_feed import KvFeed, KvSource
from coa.llm.deployments import Deployment
from coa.reading import Prompt
from tests.live_vllm.vllm_process import BLOCK, MODEL, VllmProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = root_hash("test")
CACHE_TOKENS = 2048
_END = (-1).to_bytes(8, "big", signed=True)


class Index:
    """What a feed says, kept."""

    def __init__(self) -> None:
        self.content: set[bytes] = set()
        self.n_restarts = 0

    async def held(self, hashes: Sequence[bytes]) -> None:
        self.content |= set(hashes)

    async def dropped(self, hashes: Sequence[bytes] | None) -> None:
        self.content = set() if hashes is None else self.content - set(hashes)

    async def restarted(self) -> None:
        self.n_restarts += 1
        self.content = set()

    def hit(self, tokens: Sequence[int]) -> int:
        """Tokens of a prompt that the index takes for cached; the last token is always computed."""
        n = 0
        for block in prefix_blocks(tokens, ROOT, block_tokens=BLOCK):
            if block.hash not in self.content or n + BLOCK > len(tokens) - 1:
                break
            n += BLOCK
        return n


class Client:
    """Calls with given tokens, and what came of them."""

    def __init__(self, engine: VllmProcess) -> None:
        self._http = httpx.AsyncClient(base_url=engine.root_url, timeout=120)
        self.n_prompt = self.n_cached = 0

    async def close(self) -> None:
        """Ends its connections."""
        await self._http.aclose()

    async def cached(self, tokens: Sequence[int], *, max_tokens: int = 1) -> int:
        """Tokens that the engine says it had."""
        body = {"model": MODEL, "prompt": list(tokens), "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
        reply = (await self._http.post("/v1/completions", json=body)).raise_for_status().json()
        usage = reply["usage"]
        n: int = usage["prompt_tokens_details"]["cached_tokens"]
        self.n_prompt += usage["prompt_tokens"]
        self.n_cached += n
        return n


async def _resident(source: KvSource) -> Counter[int]:
    """The engine's hashes that are in its cache, by all that it published; counted without our code."""
    socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
    socket.connect(str(source.replay))
    found: Counter[int] = Counter()
    try:
        await socket.send_multipart([b"", bytes(8)])
        while True:
            *_, number, payload = await asyncio.wait_for(socket.recv_multipart(), 10)
            if number == _END:
                return +found
            event: Any
            for event in msgspec.msgpack.decode(payload)[1]:
                match event["type"]:
                    case "BlockStored":
                        found.update(event["block_hashes"])
                    case "BlockRemoved":
                        found.subtract(event["block_hashes"])
                    case "AllBlocksCleared":
                        found.clear()
    finally:
        socket.close(linger=0)


async def _settled(feed: KvFeed) -> None:
    """Waits until no batch has come for a while."""
    quiet, before = 0, feed.n_batches
    while quiet < 4:
        await asyncio.sleep(0.05)
        quiet, before = (quiet + 1, before) if feed.n_batches == before else (0, feed.n_batches)


def _texts(seed: int, n: int) -> list[list[int]]:
    """Prompts of a few families that begin alike, together twice as long as the cache."""
    chance = random.Random(seed)
    families = [[chance.randrange(1000, 40_000) for _ in range(chance.randrange(200, 500))] for _ in range(4)]
    return [
        chance.choice(families) + [chance.randrange(1000, 40_000) for _ in range(chance.randrange(50, 300))]
        for _ in range(n)
    ]


async def _run(client: Client, feed: KvFeed, index: Index, texts: Sequence[list[int]], *, seed: int, n: int) -> int:
    """Calls at random; before each the index says what it will find. The number of calls with a hit."""
    chance, n_hits = random.Random(seed), 0
    for _ in range(n):
        tokens = chance.choice(texts)
        expected = index.hit(tokens)
        assert await client.cached(tokens, max_tokens=chance.choice([1, 1, 40])) == expected
        await _settled(feed)
        n_hits += expected > 0
    return n_hits


async def _same(feed: KvFeed, index: Index) -> int:
    """The index, the feed's own blocks and the engine's are the same; how many there are."""
    resident = await _resident(feed.source)
    assert index.content == feed.blocks.held
    ours = {key: sum(block.copies.values()) for key, block in feed.blocks._blocks.items() if block.copies}
    assert ours == dict(resident)
    return len(resident)


async def test_events_keep_the_index_exact_over_eviction_reset_and_restart(home: Path) -> None:
    with VllmProcess(home, "a", core=0, cache_tokens=CACHE_TOKENS) as engine:
        adapter = Vllm(Deployment("a", f"hosted_vllm/{MODEL}", "vllm", f"{engine.root_url}/v1"))
        await adapter.open()
        assert (adapter.kind, adapter.granularity, adapter.tells_cached) == ("events", BLOCK, True)
        assert adapter.source is not None
        assert CACHE_TOKENS <= adapter.capacity_tokens <= CACHE_TOKENS + 2 * BLOCK
        index, client = Index(), Client(engine)
        feed = KvFeed(
            adapter.source, EngineBlocks(ROOT, block_tokens=BLOCK), index, name="a", epoch=adapter.epoch, silence_s=2.0
        )
        assert await feed.start(wait_s=10)
        texts, first_epoch = _texts(1, 12), await adapter.epoch()

        # Eviction: the texts are longer together than the cache.
        n_hits = await _run(client, feed, index, texts, seed=2, n=30)
        assert n_hits >= 10
        n_blocks = await _same(feed, index)
        assert n_blocks * BLOCK >= 0.8 * CACHE_TOKENS, "the cache is full"

        # Side by side, as many calls as it takes at once; then the index is right again.
        await asyncio.gather(*(client.cached(texts[n % 3]) for n in range(6)))
        await _settled(feed)
        await _same(feed, index)
        await _run(client, feed, index, texts, seed=3, n=5)

        # Somebody who begins to listen now knows as much.
        late = Index()
        other = KvFeed(adapter.source, EngineBlocks(ROOT, block_tokens=BLOCK), late, name="late", epoch=adapter.epoch)
        assert await other.start(wait_s=10)
        assert late.content == index.content
        await other.close()

        # Reset: told with the next step, whatever that is.
        engine.reset()
        await client.cached([1, 2, 3])
        await _settled(feed)
        assert not index.content
        await _same(feed, index)
        await _run(client, feed, index, texts, seed=4, n=6)

        # Restart: another process at the same addresses.
        engine.stop()
        with engine:
            await client.cached(texts[0])
            await _settled(feed)
            assert feed.n_restarts == index.n_restarts == 1
            assert await adapter.epoch() != first_epoch
            await _run(client, feed, index, texts, seed=5, n=6)
            await _same(feed, index)
            print(f"\n{feed.n_batches} batches, {client.n_cached} of {client.n_prompt} prompt tokens cached")
        await client.close()
        await feed.close()
        await adapter.close()


async def test_a_prefix_that_was_prefilled_is_found_by_the_chat_that_follows(home: Path) -> None:
    with VllmProcess(home, "a", core=0, cache_tokens=4096) as engine:
        adapter = Vllm(Deployment("a", f"hosted_vllm/{MODEL}", "vllm", f"{engine.root_url}/v1"))
        await adapter.open()
        lines = "".join(f"[{n}] The ship left harbour {n} at dawn.\n" for n in range(1, 80))
        prompt = Prompt(prefix=f"Source text, its sentences numbered:\n{lines}", tail="Answer: what left?")
        tokens = await adapter.prefix_tokens(prompt)
        assert await adapter.prefill(tokens) == len(tokens)
        assert await adapter.prefill(tokens) <= BLOCK
        body = {"model": MODEL, "messages": prompt.messages(), "max_tokens": 5, "temperature": 0}
        async with httpx.AsyncClient(base_url=engine.root_url, timeout=60) as http:
            reply = (await http.post("/v1/chat/completions", json=body)).raise_for_status().json()
        cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached == len(tokens) - len(tokens) % BLOCK

        # Texts that end alike: the second one's tokens come of one look, and are the ones that two would give.
        other = Vllm(adapter.deployment)
        ends_alike = [Prompt(prefix=f"{lines[n:]}\n[End of source text.]\n", tail="A") for n in (0, 40, 77)]
        for each in ends_alike:
            assert await adapter.prefix_tokens(each) == await other.prefix_tokens(each)
            other._after.clear()
        assert len(adapter._after) == 2, "and this one ends in another way than the first"
        await other.close()
        await adapter.close()
