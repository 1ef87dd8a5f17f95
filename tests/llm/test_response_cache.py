"""Which replies are given again, which never are, and what a broken store costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from coa.errors import BadOutput, CacheError, ContentRefused, ModelError, ModelTimeout, ModelUnavailable
from coa.llm.chat import Completion, Decoding, FinishReason
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.download import LocalModel
from coa.llm.response_cache import CachedModel, Weights, group_identity, response_key, weights_of
from coa.llm.response_store import Dropped, InMemoryResponses, StoreStats
from coa.llm.scripted import ScriptedModel
from coa.llm.served import Served
from coa.reading import Prompt
from coa.types import CallUsage, Usage

REPOSITORY = Path(__file__).resolve().parents[2]
PROMPT = Prompt(tail="Say it.", prefix="[1] A cat sat.\n")
GREEDY = Decoding(max_tokens=50)
PAID = CallUsage(prompt_tokens=10, completion_tokens=2, cost_usd=0.5)


def completion(text: str = "A cat.", finish: FinishReason = "stop", deployment: str = "d") -> Completion:
    return Completion(text, finish, PAID, deployment, 1.5)


def cached(model: ScriptedModel, store: object = None, **options: object) -> CachedModel:
    return CachedModel(model, store or InMemoryResponses(100_000), "weights", **options)  # type: ignore[arg-type]


class Broken:
    """A store that fails while `down`."""

    def __init__(self, *, down: bool = True) -> None:
        self.down = down
        self.full = False
        self.asked = 0
        self.inner = InMemoryResponses(100_000)

    async def get(self, key: str) -> bytes | None:
        self._check()
        return await self.inner.get(key)

    async def put(self, key: str, reply: bytes, *, model: str) -> None:
        self._check()
        if self.full:
            raise CacheError("the disk is full.")
        await self.inner.put(key, reply, model=model)

    async def stats(self) -> StoreStats:
        raise CacheError("down")

    async def prune(self, max_bytes: int, *, unused_s: float | None = None) -> Dropped:
        raise CacheError("down")

    async def close(self) -> None: ...

    def _check(self) -> None:
        self.asked += 1
        if self.down:
            raise CacheError("the disk is full.")


async def test_a_second_call_is_given_the_reply_again_free_of_charge_and_streamed() -> None:
    model = cached(ScriptedModel([completion()]))
    first = await model.complete(PROMPT, GREEDY)
    pieces: list[str] = []
    second = await model.complete(PROMPT, GREEDY, on_text=pieces.append)
    assert (first.usage, first.attempts) == (PAID, 1)
    assert (second.text, second.finish_reason, second.deployment) == ("A cat.", "stop", "d")
    assert second.usage == CallUsage(cost_usd=0.0, reused=True)
    assert second.attempts == 0
    assert "".join(pieces) == "A cat."
    total = Usage().plus(first.usage, seconds=first.seconds).plus(second.usage, seconds=second.seconds)
    assert total == Usage(1, 10, 0, 2, 0.5, 1.5, 0, reused=1)


NEVER_KEPT: dict[str, Completion | ModelError] = {
    "cut off": completion(finish="length"),
    "filtered": completion(finish="content_filter"),
    "ended in some other way": completion(finish="other"),
    "empty": completion(""),
    "blank": completion(" \n"),
    "of another group": completion(deployment="fallback/0"),
    "half a character": completion("\ud800"),
    "failed": ModelUnavailable("gone"),
    "timed out": ModelTimeout("slow"),
    "refused": ContentRefused("no"),
    "out of form": BadOutput("what"),
}


@pytest.mark.parametrize("first", NEVER_KEPT.values(), ids=NEVER_KEPT)
async def test_what_is_no_whole_reply_of_the_group_is_asked_for_again(first: Completion | ModelError) -> None:
    scripted = ScriptedModel([first, completion("Whole.")])
    model = cached(scripted, deployments=["d"])
    if isinstance(first, ModelError):
        with pytest.raises(type(first)):
            await model.complete(PROMPT, GREEDY)
    else:
        assert (await model.complete(PROMPT, GREEDY)).text == first.text
    assert (await model.complete(PROMPT, GREEDY)).text == "Whole."
    assert len(scripted.calls) == 2


async def test_samples_are_kept_only_when_they_are_seeded() -> None:
    scripted = ScriptedModel(respond=lambda *_: completion())
    model = cached(scripted)
    hot = Decoding(max_tokens=50, temperature=0.7)
    for _ in range(2):
        await model.complete(PROMPT, hot)
    assert len(scripted.calls) == 2
    for seed in (1, 2, 1, 2):
        await model.complete(PROMPT, replace(hot, seed=seed))
    assert len(scripted.calls) == 4


OTHER = {
    "max_tokens": 51,
    "temperature": 0.5,
    "grammar": 'root ::= "x"',
    "repeat_penalty": 1.1,
    "schema": {"type": "object"},
    "seed": 1,
}


def test_every_field_of_the_decoding_is_part_of_the_key() -> None:
    assert {field.name for field in fields(Decoding)} == set(OTHER)
    keys = {response_key("w", PROMPT, replace(GREEDY, **{name: value})) for name, value in OTHER.items()}  # type: ignore[arg-type]
    assert len(keys | {response_key("w", PROMPT, GREEDY)}) == len(OTHER) + 1


def test_the_weights_and_every_byte_of_the_messages_are_part_of_the_key() -> None:
    prompts = [
        PROMPT,
        replace(PROMPT, tail="Say it!"),
        replace(PROMPT, prefix="[1] A cat sat. \n"),
        replace(PROMPT, system="Be kind."),
    ]
    keys = {response_key(weights, prompt, GREEDY) for weights in ("a", "b") for prompt in prompts}
    assert len(keys) == 8
    assert response_key("a", Prompt(tail="bc", prefix="a"), GREEDY) == response_key(
        "a", Prompt(tail="c", prefix="ab"), GREEDY
    ), "the same message, however it was put together"


def group(*deployments: Deployment, name: str = "g") -> ModelGroup:
    return ModelGroup(name, deployments)


ONE = Deployment(id="g/0", model="openai/m", kind="llama_server", base_url="http://127.0.0.1:1000/v1", api_key="sk-1")
TWO = Deployment(id="g/1", model="openai/n", kind="hosted", params={"top_p": 0.9})


def test_an_identity_changes_with_models_addresses_and_parameters() -> None:
    groups = [
        group(ONE),
        group(TWO),
        group(ONE, TWO),
        group(replace(ONE, model="openai/m2")),
        group(replace(ONE, kind="vllm")),
        group(replace(ONE, base_url="http://127.0.0.1:2000/v1")),
        group(replace(TWO, params={"top_p": 0.8})),
        group(replace(TWO, params={"top_p": 0.9, "extra_body": {"adapter": "x"}})),
    ]
    assert len({group_identity(each, {}) for each in groups}) == len(groups)


def test_an_identity_is_the_same_under_another_name_key_order_or_price() -> None:
    same = [
        group(ONE, TWO),
        group(TWO, ONE, name="other"),
        group(replace(ONE, id="a", api_key="sk-2"), TWO),
        group(replace(ONE, base_url="http://me:secret@127.0.0.1:1000/v1"), TWO),
        group(ONE, replace(TWO, params={"top_p": 0.9, "api_key": "sk-3", "extra_headers": {"x": "y"}, "rpm": 5})),
        group(ONE, replace(TWO, info={"input_cost_per_token": 1.0})),
    ]
    assert len({group_identity(each, {}) for each in same}) == 1


def test_known_weights_are_the_same_at_every_address_and_others_at_one() -> None:
    moved = replace(ONE, base_url="http://127.0.0.1:2000/v1")
    for weights, same in ((Weights("abc", everywhere=True), True), (Weights("abc", everywhere=False), False)):
        found = {group_identity(group(d), {"g/0": weights}) for d in (ONE, moved)}
        assert (len(found) == 1) is same
    assert group_identity(group(ONE), {"g/0": Weights("abc", everywhere=True)}) != group_identity(
        group(ONE), {"g/0": Weights("abd", everywhere=True)}
    )


def test_weights_are_told_by_the_file_the_repository_or_what_the_server_says(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF weights")
    llama = Served("llama_server", answers=True, model=str(file), n_params=10, fingerprint=(1, 2))
    own = weights_of(ONE, llama, [LocalModel("m", file, None)])
    assert own is not None
    assert own.everywhere
    before = weights_of(ONE, llama, [])
    file.write_bytes(b"GGUF other weights")
    after = weights_of(ONE, llama, [])
    assert before is not None
    assert before != after, "a server on this machine that was given another file"
    assert before.everywhere is False
    elsewhere = replace(ONE, base_url="http://gpu1:1000/v1")
    told = weights_of(elsewhere, replace(llama, meta=(2, 32000, "Q8_0")), [LocalModel("m", file, None)])
    assert told is not None
    assert told.everywhere is False, "a path on another host is not ours"
    assert told != weights_of(elsewhere, replace(llama, meta=(2, 32000, "Q4_0")), [])
    repository = Served("vllm", answers=True, model="Qwen/Qwen2.5-7B-Instruct")
    assert weights_of(ONE, repository, []) == Weights("Qwen/Qwen2.5-7B-Instruct", everywhere=True)
    folder = weights_of(ONE, replace(repository, model="/models/qwen"), [])
    assert folder is not None
    assert folder.everywhere is False
    assert weights_of(TWO, Served("hosted", answers=True), []) is None
    assert weights_of(TWO, None, []) is None


class Slow(ScriptedModel):
    """Answers when it is told to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.go = asyncio.Event()
        self.begun = 0

    async def complete(
        self, prompt: Prompt, decoding: Decoding, *, on_text: Callable[[str], None] | None = None
    ) -> Completion:
        self.begun += 1
        await self.go.wait()
        return await super().complete(prompt, decoding, on_text=on_text)


async def test_the_same_call_at_once_is_made_once() -> None:
    slow = Slow([completion()])
    model = cached(slow)
    calls = [asyncio.create_task(model.complete(PROMPT, GREEDY)) for _ in range(5)]
    await asyncio.sleep(0)
    slow.go.set()
    replies = await asyncio.gather(*calls)
    assert slow.begun == 1
    assert [reply.usage.reused for reply in replies] == [False, True, True, True, True]
    assert {reply.text for reply in replies} == {"A cat."}


async def test_a_call_that_is_given_up_is_made_by_the_next_in_line() -> None:
    slow = Slow(respond=lambda *_: completion())
    model = cached(slow)
    first, second, third = (asyncio.create_task(model.complete(PROMPT, GREEDY)) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0.01)
    assert first.cancelled()
    assert slow.begun == 2
    slow.go.set()
    assert [reply.usage.reused for reply in await asyncio.gather(second, third)] == [False, True]


async def test_one_that_only_waits_can_be_given_up_without_harm_to_the_others() -> None:
    slow = Slow([completion()])
    model = cached(slow)
    first, second = (asyncio.create_task(model.complete(PROMPT, GREEDY)) for _ in range(2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    slow.go.set()
    assert (await first).text == "A cat."
    assert second.cancelled()


async def test_a_failure_is_shared_and_its_cost_told_once() -> None:
    slow = Slow([ModelUnavailable("gone", usage=Usage(1, 10))])
    model = cached(slow)
    calls = [asyncio.create_task(model.complete(PROMPT, GREEDY)) for _ in range(3)]
    await asyncio.sleep(0)
    slow.go.set()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [ModelUnavailable] * 3
    assert [getattr(error, "usage", None) for error in errors] == [Usage(1, 10), None, None]


async def test_a_broken_store_costs_one_warning_and_no_call() -> None:
    told: list[str] = []
    now = [0.0]
    store = Broken()
    scripted = ScriptedModel(respond=lambda *_: completion())
    model = cached(scripted, store, on_trouble=told.append, clock=lambda: now[0])
    for _ in range(3):
        assert (await model.complete(PROMPT, GREEDY)).text == "A cat."
    assert store.asked == 1, "it is left alone for a while"
    now[0] = 100.0
    await model.complete(PROMPT, GREEDY)
    assert (len(told), store.asked) == (1, 2)
    store.down, now[0] = False, 200.0
    await model.complete(PROMPT, GREEDY)
    assert (await model.complete(PROMPT, GREEDY)).usage.reused
    store.down, now[0] = True, 300.0
    await model.complete(PROMPT, GREEDY)
    assert len(told) == 2, "another outage"
    assert "the disk is full" in told[0]


async def test_a_store_that_can_only_be_read_is_read_and_told_once() -> None:
    told: list[str] = []
    now = [0.0]
    store = Broken(down=False)
    scripted = ScriptedModel(respond=lambda *_: completion())
    model = cached(scripted, store, on_trouble=told.append, clock=lambda: now[0])
    await model.complete(PROMPT, GREEDY)
    store.full = True
    for second in range(20):
        now[0] = float(second)
        assert (await model.complete(PROMPT, GREEDY)).usage.reused
        assert not (await model.complete(replace(PROMPT, tail=f"Say {second}."), GREEDY)).usage.reused
    assert len(told) == 1


async def test_a_store_that_goes_on_failing_is_asked_less_and_less_often() -> None:
    now = [0.0]
    store = Broken()
    model = cached(ScriptedModel(respond=lambda *_: completion()), store, clock=lambda: now[0])
    asked_at = []
    for second in range(120):
        now[0] = float(second)
        before = store.asked
        await model.complete(PROMPT, GREEDY)
        if store.asked > before:
            asked_at.append(second)
    assert asked_at == [0, 1, 3, 7, 15, 31, 61, 91]


async def test_a_stored_reply_that_is_damaged_is_asked_for_again() -> None:
    store = InMemoryResponses(100_000)
    scripted = ScriptedModel(respond=lambda *_: completion())
    model = cached(scripted, store)
    await model.complete(PROMPT, GREEDY)
    key = response_key("weights", PROMPT, GREEDY)
    whole = await store.get(key)
    assert whole is not None
    for damaged in (b"", whole[:-1], whole[:5] + b"\x00" + whole[6:], b"x" * 40):
        await store.put(key, damaged, model="m")
        assert not (await model.complete(PROMPT, GREEDY)).usage.reused
    assert (await model.complete(PROMPT, GREEDY)).usage.reused


async def test_the_identity_is_asked_for_once_and_in_a_thread() -> None:
    asked: list[object] = []

    def identity() -> str:
        asked.append(1)
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return "weights"

    model = CachedModel(ScriptedModel(respond=lambda *_: completion()), InMemoryResponses(100_000), identity)
    await asyncio.gather(*(model.complete(PROMPT, replace(GREEDY, max_tokens=n)) for n in range(1, 4)))
    assert len(asked) == 1


def test_the_cost_of_the_wrappers_can_be_measured() -> None:
    """Figures are for a quiet machine; here only that a look-up costs no more than a call over a network."""
    command = [sys.executable, "-m", "tests.bench.wrappers", "30"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    rows = {line[:28].strip(): float(line[28:]) for line in done.stdout.splitlines()[1:]}
    assert {"no wrapper", "cache file: kept", "cache file: given again", "spans on"} <= set(rows)
    assert rows["cache file: given again"] < 20_000
