"""What a call asks of the engine besides text: schemas, grammars, seeds; and thoughts that are no part of a reply."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment, DeploymentKind, ModelGroup
from coa.llm.litellm_model import LitellmModel
from coa.reading import Prompt
from coa.testing.fault_server import FaultServer, Reply

ASK = Prompt(tail="Who took the brass key from the harbour, and when?")
SCHEMA = {
    "type": "object",
    "properties": {"who": {"type": "string", "maxLength": 20}, "day": {"type": "integer"}},
    "required": ["who", "day"],
    "additionalProperties": False,
}
GRAMMAR = 'root ::= "yes" | "no"'
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(lambda call: '{"who": "Ada", "day": 3}') as running:
        yield running


def _group(url: str, *kinds: tuple[str, DeploymentKind]) -> ModelGroup:
    made = (Deployment(f"one/{at}", model, kind, url, "none") for at, (model, kind) in enumerate(kinds))
    return ModelGroup("one", tuple(made))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("openai/served", "llama_server"),
        ("hosted_vllm/served", "vllm"),
        ("hosted_vllm/served", "sglang"),
        ("openai/gpt-4o-mini", "hosted"),
    ],
)
async def test_a_schema_goes_to_every_engine_that_enforces_it(
    server: FaultServer, model: str, kind: DeploymentKind
) -> None:
    chat = LitellmModel(_group(server.base_url, (model, kind)))
    assert chat.supports_schema
    await chat.complete(ASK, Decoding(50, schema=SCHEMA, grammar=GRAMMAR, seed=7))
    await chat.close()
    body = server.requests[0].body
    form = body["response_format"]
    assert (form["type"], form["json_schema"]["schema"]) == ("json_schema", SCHEMA)
    assert "grammar" not in body, "a schema and a grammar are never sent together"
    assert body["seed"] == 7


async def test_a_schema_goes_to_ollama_as_its_format() -> None:
    litellm = pytest.importorskip("litellm")
    config = litellm.OllamaChatConfig()
    form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": SCHEMA, "strict": True}}
    sent = config.map_openai_params({"response_format": form, "seed": 3}, {}, "served", drop_params=True)
    assert sent["format"] == SCHEMA
    assert sent["seed"] == 3
    chat = LitellmModel(_group("http://127.0.0.1:9", ("ollama_chat/served", "ollama")))
    assert chat.supports_schema
    await chat.close()


@pytest.mark.parametrize(
    "kinds",
    [
        [("openai/of-nobody", "hosted")],
        [("openai/served", "llama_server"), ("openai/of-nobody", "hosted")],
    ],
    ids=["unknown", "mixed"],
)
async def test_a_schema_is_not_sent_where_one_of_the_group_would_not_obey(
    server: FaultServer, kinds: list[tuple[str, DeploymentKind]]
) -> None:
    chat = LitellmModel(_group(server.base_url, *kinds))
    assert not chat.supports_schema
    await chat.complete(ASK, Decoding(50, schema=SCHEMA))
    await chat.close()
    assert "response_format" not in server.requests[0].body


async def test_a_llama_server_among_others_keeps_what_it_always_gets(server: FaultServer) -> None:
    chat = LitellmModel(_group(server.base_url, ("openai/a", "llama_server"), ("openai/b", "hosted")))
    for _ in range(12):
        await chat.complete(ASK, Decoding(50, grammar=GRAMMAR))
    await chat.close()
    by_model = {call.body["model"]: call.body for call in server.requests}
    assert by_model["a"]["cache_prompt"] is False
    assert "cache_prompt" not in by_model["b"]
    assert all("grammar" not in body for body in by_model.values())


async def test_without_seed_and_schema_nothing_is_said_of_them(server: FaultServer) -> None:
    chat = LitellmModel(_group(server.base_url, ("openai/served", "llama_server")))
    await chat.complete(ASK, Decoding(50))
    await chat.close()
    assert server.requests[0].body.keys() & {"seed", "response_format", "grammar"} == set()


@STREAMED
@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply("Ada did.", thoughts="Was it Bo? No, it was Ada."), True),
        (Reply("<think>Was it Bo? No, it was Ada.</think>Ada did."), False),
    ],
    ids=["field", "tags"],
)
async def test_thoughts_are_left_out_and_counted(reply: Reply, told: bool, *, streamed: bool) -> None:
    with FaultServer(lambda call: reply) as server:
        chat = LitellmModel(_group(server.base_url, ("openai/served", "hosted")))
        pieces: list[str] = []
        said = await chat.complete(ASK, Decoding(200), on_text=pieces.append if streamed else None)
        await chat.close()
        stats = server.stats()
    assert said.text == "Ada did."
    assert not streamed or "".join(pieces) == "Ada did."
    assert said.usage.completion_tokens == stats.completion_tokens
    visible = stats.completion_tokens - said.usage.reasoning_tokens
    assert 1 <= visible <= 5 if told else 1 <= visible <= stats.completion_tokens / 2


async def test_thoughts_alone_are_an_empty_reply_that_is_asked_for_again() -> None:
    async def no_wait(seconds: float) -> None:
        """As if it had passed."""

    said = iter([Reply("", thoughts="Hm."), Reply("Ada.", thoughts="Ah.")])
    with FaultServer(lambda call: next(said)) as server:
        chat = LitellmModel(_group(server.base_url, ("openai/served", "hosted")), sleep=no_wait)
        reply = await chat.complete(ASK, Decoding(50))
        await chat.close()
    assert (reply.text, reply.attempts) == ("Ada.", 2)
    assert reply.usage.reasoning_tokens > 0


@pytest.mark.slow
@STREAMED
async def test_the_embedded_engine_keeps_to_a_schema_and_to_a_seed(*, streamed: bool) -> None:
    from coa.llm.embedded import EmbeddedEngine
    from coa.testing.models import test_model_path

    with EmbeddedEngine.start(test_model_path(), alias="served", n_ctx=1024) as engine:
        group = ModelGroup(
            "one", (Deployment("one/0", "openai/served", "llama_server", engine.base_url, engine.api_key),)
        )
        chat = LitellmModel(group, retries=0)
        on_text = (lambda text: None) if streamed else None
        for _ in range(2):
            reply = await chat.complete(ASK, Decoding(80, schema=SCHEMA), on_text=on_text)
            given = json.loads(reply.text)
            assert given.keys() == {"who", "day"}
            assert isinstance(given["day"], int)
        warm = [
            await chat.complete(ASK, Decoding(16, temperature=1.5, seed=seed), on_text=on_text) for seed in (1, 1, 2)
        ]
        await chat.close()
    assert warm[0].text == warm[1].text != warm[2].text
