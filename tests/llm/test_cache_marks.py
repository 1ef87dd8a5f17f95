"""Marks on the reading prefix, and what litellm makes of them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from coa.llm.cache_marks import marked_messages, takes_marks
from coa.llm.deployments import Deployment
from coa.llm.litellm_model import load_litellm
from coa.reading import Prompt

PROMPT = Prompt(prefix="Source text.\n", tail="Answer the question.")
CLAUDE = "claude-sonnet-4-5"


@pytest.fixture(scope="module")
def litellm() -> ModuleType:
    return load_litellm()


def _hosted(model: str, **more: Any) -> Deployment:
    return Deployment(model, model, "hosted", **more)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (f"anthropic/{CLAUDE}", True),
        (CLAUDE, True),
        ("bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("bedrock/converse/us.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("bedrock/amazon.nova-lite-v1:0", True),
        (f"vertex_ai/{CLAUDE}", True),
        (f"azure_ai/{CLAUDE}", True),
        ("openrouter/anthropic/claude-sonnet-4.5", True),
        ("anthropic/claude-of-tomorrow", False),
        ("openai/gpt-4o", False),
        ("azure/gpt-4o", False),
        ("gemini/gemini-2.5-flash", False),
        ("vertex_ai/gemini-2.5-flash", False),
        ("deepseek/deepseek-chat", False),
        ("bedrock/meta.llama3-8b-instruct-v1:0", False),
        ("nobody-knows-it", False),
    ],
)
def test_who_takes_marks(litellm: ModuleType, model: str, *, expected: bool) -> None:
    assert takes_marks(_hosted(model), litellm) is expected


def test_a_server_of_ones_own_takes_none_whatever_it_is_called(litellm: ModuleType) -> None:
    assert not takes_marks(Deployment("d", f"anthropic/{CLAUDE}", "vllm", "http://host:8000/v1"), litellm)


def test_the_prefix_is_marked_and_the_text_stays_the_same(litellm: ModuleType) -> None:
    messages = marked_messages(PROMPT, [_hosted(CLAUDE)], litellm)
    assert messages is not None
    parts = messages[1]["content"]
    assert [part.get("cache_control") for part in parts] == [{"type": "ephemeral"}, None]
    joined = [messages[0], {"role": "user", "content": "".join(part["text"] for part in parts)}]
    assert joined == PROMPT.messages()


@pytest.mark.parametrize(
    ("prompt", "models", "reads"),
    [
        (Prompt(tail="Answer."), [CLAUDE], 2),
        (PROMPT, [CLAUDE], 1),
        (PROMPT, [CLAUDE, "openai/gpt-4o"], 2),
        (PROMPT, [], 2),
    ],
    ids=["no prefix", "read once", "one of two knows none", "nobody"],
)
def test_no_marks_where_they_would_cost_or_be_refused(
    litellm: ModuleType, prompt: Prompt, models: list[str], reads: int
) -> None:
    assert marked_messages(prompt, [_hosted(m) for m in models], litellm, reads=reads) is None


def test_anthropic_gets_the_mark_behind_the_prefix(litellm: ModuleType) -> None:
    messages = marked_messages(PROMPT, [_hosted(CLAUDE)], litellm)
    body = litellm.AnthropicConfig().transform_request(
        model=CLAUDE, messages=messages, optional_params={"max_tokens": 5}, litellm_params={}, headers={}
    )
    (user,) = body["messages"]
    assert user["content"] == [
        {"type": "text", "text": PROMPT.prefix, "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": PROMPT.tail},
    ]


def test_bedrock_gets_a_cache_point_behind_the_prefix(litellm: ModuleType) -> None:
    model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    messages = marked_messages(PROMPT, [_hosted(f"bedrock/{model}")], litellm)
    body = litellm.AmazonConverseConfig()._transform_request(
        model=model, messages=messages, optional_params={"maxTokens": 5}, litellm_params={}
    )
    (user,) = body["messages"]
    assert user["content"] == [
        {"text": PROMPT.prefix},
        {"cachePoint": {"type": "default"}},
        {"text": PROMPT.tail},
    ]
