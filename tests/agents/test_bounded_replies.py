"""The grammar that makes small models come to an end: its bounds, and on a real engine its effect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from coa.agents.bounded import bounded_prose


def _bounds(grammar: str) -> tuple[int, int]:
    """Sentences and characters of one, at most."""
    sentences = re.search(r"\{0,(\d+)\}", grammar)
    characters = re.search(r"\{8,(\d+)\}", grammar)
    assert sentences is not None
    assert characters is not None
    return int(sentences.group(1)) + 1, int(characters.group(1)) + 2


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("max_tokens", [96, 150, 400, 1024])
def test_the_longest_reply_stays_below_the_cap(max_tokens: int, *, wide: bool) -> None:
    n_sentences, n_chars = _bounds(bounded_prose(max_tokens, wide=wide))
    n_tokens = n_sentences * (n_chars + 1) * (3.0 if wide else 0.5)
    assert n_tokens <= max_tokens * 1.1
    assert n_sentences >= 1
    assert n_chars >= 20


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    from coa.llm.embedded import EmbeddedEngine
    from coa.testing.models import test_model_path

    with EmbeddedEngine.start(test_model_path(), alias="tiny", n_ctx=2048) as running:
        yield running


PROMPTS = [
    ("Count: one, two, three, one, two, three, one, two, three, and so on without end.", False),
    ("[1] Ada came. [2] Bo left. Write the list of all numbers in brackets that there are.", False),
    ("Repeat the sentence 'the whale' for ever.", False),
    ("Write notes on this: The captain sailed to Rome with forty men and a brass key.", False),
    ("请详细总结：王小明离开家乡去了罗马，他带着一把铜钥匙，走了很多天。", True),
    ("重复：山高水长山高水长山高水长", True),
]


@pytest.mark.slow
@pytest.mark.parametrize("max_tokens", [96, 192])
@pytest.mark.parametrize(("text", "wide"), PROMPTS)
async def test_a_small_models_reply_ends_by_itself(engine: Any, text: str, max_tokens: int, *, wide: bool) -> None:
    from coa.llm.chat import Decoding
    from coa.llm.deployments import Deployment, ModelGroup
    from coa.llm.litellm_model import LitellmModel
    from coa.reading import Prompt

    group = ModelGroup("tiny", (Deployment("t", "openai/tiny", "llama_server", engine.base_url, engine.api_key),))
    model = LitellmModel(group)
    grammar = bounded_prose(max_tokens, wide=wide)
    reply = await model.complete(Prompt(tail=text), Decoding(max_tokens, grammar=grammar, repeat_penalty=1.1))
    await model.close()
    assert reply.finish_reason == "stop", reply.text
    assert reply.usage.completion_tokens < max_tokens
    assert "[" not in reply.text
    assert "\n" not in reply.text
