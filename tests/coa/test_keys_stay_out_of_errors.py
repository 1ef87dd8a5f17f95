"""Keys that come back in a server's error: not in what is raised, and not in any file of the run."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, NoReturn

import pytest

from coa.api import Session
from coa.config import Settings
from coa.documents import read_document
from coa.errors import ModelError
from coa.llm.litellm_errors import blotted_cause, translated
from coa.secrets import blotted
from coa.testing.fault_server import ChatRequest, FaultServer

KEY = "sk-key-of-the-environment-0123456789"
HEADER = "header-only-we-know-42"
REDIS = "redis-word-0123456789"
BOOK = "CHAPTER I.\n\n" + "\n".join(f"On day {n} the crew mended sails and sang of week {n}." for n in range(60))


def _echo(call: ChatRequest) -> NoReturn:
    """As careless as servers are that put the request into their error."""
    raise RuntimeError(f"{dict(call.headers)} redis {REDIS}")


async def _failed(home: Path, server: FaultServer, params: dict[str, Any]) -> ModelError:
    entry = {
        "model_name": "readers",
        "litellm_params": {"model": "openai/fault", "api_base": server.base_url, **params},
        "model_info": {"max_input_tokens": 4096},
    }
    settings = Settings(
        home=home,
        model="readers",
        model_list=[entry],
        router_settings={"redis_password": REDIS},
        chunk_tokens=700,
        retries=0,
        on_worker_failure="fail",
    )
    async with Session(settings) as session:
        with pytest.raises(ModelError) as caught:
            await session.ask(read_document(BOOK.encode(), name="sails.txt"), "Who sang?")
    return caught.value


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _chain(error: BaseException) -> list[str]:
    texts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        texts += [str(current), repr(current)]
        current = current.__cause__ or current.__context__
    return texts


@pytest.mark.parametrize("from_environment", [True, False], ids=["environment", "configured"])
async def test_a_key_that_the_server_repeats_reaches_neither_the_caller_nor_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_environment: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    params: dict[str, Any] = {"extra_headers": {"X-Team": HEADER}}
    if not from_environment:
        params["api_key"] = "os.environ/OPENAI_API_KEY"
    with FaultServer(_echo) as server:
        error = await _failed(tmp_path, server, params)
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}", "the key was really sent"
        assert server.requests[0].headers["x-team"] == HEADER
    shown = [*_chain(error), "".join(traceback.format_exception(error))]
    assert "authorization" in str(error), "the rest of the message is there"
    stored = _files(tmp_path)
    assert any(b"authorization" in data for name, data in stored.items() if name.startswith("state.sqlite"))
    for secret in (KEY, HEADER, REDIS):
        assert not [text for text in shown if secret in text]
        assert not [name for name, data in stored.items() if secret.encode() in data]


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "aws_client_secret", "REDIS_PASSWORD"])
def test_values_of_secret_variables_are_blotted_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, KEY + "\n")
    assert str(translated(ValueError(f"said {KEY}!"), deployment="g")) == "the call to g failed: said ********!."


def test_short_values_of_variables_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SORT_KEY", "date")
    assert "a date is" in str(translated(ValueError("a date is"), deployment="g"))


def test_bearer_tokens_are_blotted_out_whoever_they_belong_to() -> None:
    assert blotted("sent 'Bearer ab.cd-ef==' and left", []) == "sent 'Bearer ******** and left"


def test_a_short_key_does_not_make_the_message_unreadable() -> None:
    assert blotted("the key 'k' was taken", ["k", ""]) == "the key '********' was taken"


def test_a_longer_secret_is_gone_whole_where_another_is_its_beginning() -> None:
    assert blotted("x abcdefgh-ijkl", ["abcdefgh", "abcdefgh-ijkl"]) == "x ********"


def test_a_cause_is_replaced_only_if_it_or_what_it_came_from_tells_a_secret() -> None:
    harmless = ValueError("nothing")
    assert blotted_cause(harmless, [KEY]) is harmless
    try:
        try:
            raise ConnectionError(KEY)
        except ConnectionError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        stand_in = blotted_cause(error, [KEY])
    assert str(stand_in) == "ValueError: outer"
    assert (stand_in.__cause__, stand_in.__context__) == (None, None)
