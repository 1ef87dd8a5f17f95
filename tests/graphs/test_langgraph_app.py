"""The graphs that LangGraph's server is given: they wire themselves, and a thread pays nothing twice."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from langgraph.checkpoint.memory import InMemorySaver

from coa.testing.fault_server import FaultServer
from coa.testing.reading_model import read_by_words

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TEXT = "The ferry left at noon. Ada Brown kept the lighthouse key in the blue jar. Nobody slept.\n"
QUESTION = "Who kept the lighthouse key in the blue jar?"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """A configured model group, in a home of its own."""
    with FaultServer(reply=lambda request: read_by_words(str(request.messages[-1]["content"]))) as started:
        entry = {
            "model_name": "readers",
            "litellm_params": {"model": "openai/fault", "api_base": started.base_url, "api_key": "k"},
            "model_info": {"max_input_tokens": 8192},
        }
        config = tmp_path / "coa.yaml"
        config.write_text(yaml.safe_dump({"model": "readers", "model_list": [entry]}), encoding="utf-8")
        monkeypatch.setenv("COA_CONFIG", str(config))
        monkeypatch.setenv("COA_HOME", str(tmp_path / "home"))
        yield started


def test_every_graph_of_langgraph_json_is_there_and_takes_a_text() -> None:
    listed = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))["graphs"]
    from coa.graphs import STRATEGIES

    assert set(listed) == STRATEGIES.keys() - {"outline", "check"}
    for path in listed.values():
        file, _, variable = path.partition(":")
        assert (ROOT / file).is_file()
        module = importlib.import_module(file.removeprefix("./").removesuffix(".py").replace("/", "."))
        compiled = getattr(module, variable)
        assert compiled.checkpointer is None
        assert {"text", "question"} <= compiled.get_input_jsonschema()["properties"].keys()


async def test_a_thread_that_is_run_again_makes_no_call(server: FaultServer) -> None:
    from coa import langgraph_app

    saver = InMemorySaver()
    compiled = langgraph_app.chain.builder.compile(checkpointer=saver)
    answers: list[dict[str, Any]] = []
    for _ in range(2):
        config: Any = {"configurable": {"thread_id": "t1"}}
        answers.append(await compiled.ainvoke({"text": TEXT, "question": QUESTION}, config))
    assert answers[0]["answer"] == answers[1]["answer"] == "Ada Brown kept the lighthouse key in the blue jar. [1]"
    assert answers[0]["citations"][0]["quote"] == "Ada Brown kept the lighthouse key in the blue jar."
    assert server.stats().calls == 2, "one worker, one manager, once"
    for session in langgraph_app._sessions.popitem()[1].values():
        await session.close()


async def test_a_long_text_is_read_whatever_number_of_steps_the_server_allows(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coa import langgraph_app

    monkeypatch.setenv("COA_CHUNK_TOKENS", "200")
    text = "".join(
        f"On day {n} the ferry crossed the sound with {n} barrels of herring aboard.\n\n" for n in range(260)
    )
    config: Any = {"recursion_limit": 25}
    output = await langgraph_app.chain.ainvoke({"text": text + TEXT, "question": QUESTION}, config)
    assert output["coverage"]["read"] == output["coverage"]["chunks"] > 25
    assert output["answer"] == "Ada Brown kept the lighthouse key in the blue jar. [1]"
    for session in langgraph_app._sessions.popitem()[1].values():
        await session.close()


async def test_a_thread_that_names_another_model_does_not_get_what_the_first_one_read(
    server: FaultServer, tmp_path: Path
) -> None:
    from coa import langgraph_app

    path = tmp_path / "coa.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["model_list"].append({**config["model_list"][0], "model_name": "others"})
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    thread: Any = {"configurable": {"thread_id": "t1"}}
    for model in (None, "others"):
        context = langgraph_app.ServerContext(model=model)
        await langgraph_app.chain.ainvoke({"text": TEXT, "question": QUESTION}, thread, context=context)
    sessions = list(langgraph_app._sessions.popitem()[1].values())
    assert sorted(record.model for record in sessions[0].runs.list()) == ["others", "readers"]
    for session in sessions:
        await session.close()
