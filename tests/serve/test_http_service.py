"""The HTTP service: documents, answers, events, who may call, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from coa.config import Settings
from coa.errors import ConfigError
from coa.serve import ServeLimits, create_app
from coa.serve.guard import checked_token
from coa.testing.fault_server import Faults, FaultServer

pytestmark = pytest.mark.slow

Serving = Callable[..., Any]
TEXT = "The ferry left at noon. Ada Brown kept the lighthouse key in the blue jar. Nobody slept.\n"
QUESTION = "Who kept the lighthouse key in the blue jar?"
EVENTS = {"Accept": "text/event-stream"}


def long_text(fact: str, paragraphs: int = 12) -> str:
    lines = [f"On day {n} the ferry crossed the sound with {n + 3} barrels of herring. " * 4 for n in range(paragraphs)]
    return "\n\n".join([*lines[: paragraphs // 2], fact, *lines[paragraphs // 2 :]])


async def _added(client: httpx.AsyncClient, text: str = TEXT, name: str = "a.txt") -> str:
    reply = await client.post("/v1/documents", params={"name": name}, content=text.encode())
    assert reply.status_code == 201
    return str(reply.json()["document"])


def _events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


async def test_a_document_is_sent_once_and_asked_with_citations(serving: Serving) -> None:
    async with serving() as client:
        document = await _added(client, name="../../etc/book.txt")
        info = (await client.get(f"/v1/documents/{document}")).json()
        assert (info["name"], info["characters"]) == ("book.txt", len(TEXT))
        reply = await client.post("/v1/runs", json={"document": document, "question": QUESTION})
        assert reply.status_code == 200
        answer = reply.json()
        assert answer["answer"] == "Ada Brown kept the lighthouse key in the blue jar. [1]"
        assert answer["citations"][0]["quote"] == "Ada Brown kept the lighthouse key in the blue jar."
        stored = (await client.get(f"/v1/runs/{answer['run_id']}")).json()
        assert stored["state"] == "done"
        assert stored["answer"]["answer"] == answer["answer"]


async def test_events_come_as_the_command_line_shows_them_and_end_with_the_answer(serving: Serving) -> None:
    async with serving() as client:
        document = await _added(client, long_text("Ada Brown kept the lighthouse key in the blue jar."))
        reply = await client.post("/v1/runs", json={"document": document, "question": QUESTION}, headers=EVENTS)
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = _events(reply.text)
        kinds = [event["type"] for event in events]
        assert kinds.index("run_started") < kinds.index("chunk_read") < kinds.index("answer_token") < len(kinds) - 1
        assert kinds[-1] == "answer"
        assert events[-1]["coverage"]["read"] == kinds.count("chunk_read") == events[-1]["coverage"]["chunks"] > 2
        streamed = "".join(event["text"] for event in events if event["type"] == "answer_token")
        assert "Ada Brown" in streamed


async def test_a_run_whose_reader_leaves_is_drained_and_can_be_gone_on_with(
    serving: Serving, engine: FaultServer
) -> None:
    engine.faults = Faults(latency_s=0.05)
    async with serving() as client:
        document = await _added(client, long_text("Ada Brown kept the lighthouse key in the blue jar.", 30))
        request = client.build_request(
            "POST", "/v1/runs", json={"document": document, "question": QUESTION}, headers=EVENTS
        )
        run_id = await _left_after_two_chunks(client, request)
        state = "running"
        for _ in range(200):
            state = (await client.get(f"/v1/runs/{run_id}")).json()["state"]
            if state != "running":
                break
            await asyncio.sleep(0.05)
        assert state == "drained"
        before = engine.stats().calls
        answer = (await client.post(f"/v1/runs/{run_id}/resume")).json()
        assert answer["ok"]
        assert "Ada Brown" in answer["answer"]
        assert engine.stats().calls - before < answer["coverage"]["chunks"], "what was read is not read again"


async def _left_after_two_chunks(client: httpx.AsyncClient, request: httpx.Request) -> str:
    """Reads events over the app's own interface until two chunks are read, then goes away as a browser does."""
    app: Any = client.app  # type: ignore[attr-defined]
    body = request.read()
    run_id, n_read = "", 0
    leaving = asyncio.Event()
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await leaving.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal run_id, n_read
        for event in _events(message.get("body", b"").decode()):
            run_id = event.get("run_id", run_id)
            n_read += event["type"] == "chunk_read"
        if n_read >= 2:
            leaving.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": request.url.path,
        "raw_path": request.url.raw_path,
        "query_string": b"",
        "scheme": "http",
        "headers": [(k.lower(), v) for k, v in request.headers.raw],
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return run_id


async def test_a_run_is_stopped_when_asked_to(serving: Serving, engine: FaultServer) -> None:
    engine.faults = Faults(latency_s=0.05)
    async with serving() as client:
        document = await _added(client, long_text("Ada Brown kept the lighthouse key in the blue jar.", 30))
        asking = asyncio.create_task(client.post("/v1/runs", json={"document": document, "question": QUESTION}))
        active = client.app.state.service.active
        for _ in range(1000):
            if any(run.run_id for run in active._runs):
                break
            await asyncio.sleep(0.01)
        run_id = next(run.run_id for run in active._runs)
        under_way = await client.post(f"/v1/runs/{run_id}/resume")
        assert (under_way.status_code, under_way.json()["error"]) == (400, "ConfigError")
        assert (await client.post(f"/v1/runs/{run_id}/stop")).status_code == 202
        reply = await asking
        assert (reply.status_code, reply.json()["error"], reply.json()["run_id"]) == (409, "RunDrained", run_id)


async def test_evidence_can_be_reviewed_before_the_answer(serving: Serving) -> None:
    async with serving() as client:
        document = await _added(client)
        wanted = {"document": document, "question": QUESTION, "strategy": "alr2", "review": True}
        waiting = await client.post("/v1/runs", json=wanted)
        assert waiting.status_code == 202
        body = waiting.json()
        (found,) = body["review"]["evidence"]
        assert found["text"] == "Ada Brown kept the lighthouse key in the blue jar."
        answer = (await client.post(f"/v1/runs/{body['run_id']}/resume", json={"strike": found["ids"]})).json()
        assert answer["verdict"] == "not_in_text"


async def test_a_budget_gives_a_partial_answer_that_says_so(serving: Serving) -> None:
    async with serving() as client:
        document = await _added(client, long_text("Ada Brown kept the lighthouse key in the blue jar.", 30))
        reply = await client.post("/v1/runs", json={"document": document, "question": QUESTION, "max_calls": 6})
        assert reply.status_code == 200
        assert reply.json()["ok"] is False
        assert "the limit of 6 calls" in reply.json()["stopped"]


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"strategy": "nope"}, 400, "ConfigError"),
        ({"document": "0" * 64}, 404, "RunNotFound"),
        ({"document": "x"}, 422, "Invalid"),
        ({"question": None}, 422, "Invalid"),
        ({"question": " "}, 422, "Invalid"),
        ({"surprise": 1}, 422, "Invalid"),
        ({"task": "summarize"}, 422, "Invalid"),
        ({"question": "why " * 900}, 400, "ConfigError"),
    ],
)
async def test_what_is_wrong_is_said_with_its_kind(
    serving: Serving, change: dict[str, Any], status: int, error: str
) -> None:
    async with serving() as client:
        wanted = {"document": await _added(client), "question": QUESTION, **change}
        reply = await client.post("/v1/runs", json=wanted)
        assert (reply.status_code, reply.json()["error"]) == (status, error)
        assert "why why" not in reply.text, "what was sent is not sent back"


async def test_documents_that_are_too_large_or_none_are_refused(serving: Serving) -> None:
    async with serving() as client:
        assert (await client.post("/v1/documents", content=b"x " * 150_000)).status_code == 413
        assert (await client.post("/v1/documents", content=b"")).status_code == 422
        assert (await client.post("/v1/documents", content=b"  \n\n ")).status_code == 422
        assert (await client.post("/v1/documents", content=b"PK\x03\x04broken")).status_code == 422


async def test_a_failing_engine_is_a_bad_gateway_without_the_services_key(
    serving: Serving, engine: FaultServer
) -> None:
    async with serving() as client:
        document = await _added(client)
        engine.faults = Faults(script=["401"] * 5)
        reply = await client.post("/v1/runs", json={"document": document, "question": QUESTION})
        assert (reply.status_code, reply.json()["error"]) == (502, "AuthenticationFailed")
        assert reply.json()["run_id"]


async def test_more_runs_than_allowed_are_told_to_come_again(serving: Serving, engine: FaultServer) -> None:
    engine.faults = Faults(latency_s=0.3)
    async with serving(limits=ServeLimits(max_runs=1)) as client:
        document = await _added(client)
        wanted = {"document": document, "question": QUESTION}
        first, second = await asyncio.gather(*(client.post("/v1/runs", json=wanted) for _ in range(2)))
        assert {first.status_code, second.status_code} == {200, 503}
        refused = first if first.status_code == 503 else second
        assert refused.headers["retry-after"] == "10"


async def test_a_run_over_its_time_ends_and_can_be_gone_on_with(serving: Serving, engine: FaultServer) -> None:
    engine.faults = Faults(latency_s=0.2)
    async with serving(limits=ServeLimits(max_seconds=1.5)) as client:
        document = await _added(client, long_text("Ada Brown kept the lighthouse key in the blue jar.", 30))
        reply = await client.post("/v1/runs", json={"document": document, "question": QUESTION})
        assert (reply.status_code, reply.json()["error"]) == (502, "ModelUnavailable")
        stored = (await client.get(f"/v1/runs/{reply.json()['run_id']}")).json()
        assert stored["state"] == "drained"
        assert len(client.app.state.service.active) == 0


async def test_a_token_is_asked_for_where_one_is_set(serving: Serving) -> None:
    token = "correct horse battery"
    async with serving(token=token) as client:
        assert (await client.get("/v1/strategies")).status_code == 401
        assert (await client.get("/v1/strategies", headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/v1/strategies", headers={"Authorization": f"Bearer {token}"})).status_code == 200


async def test_without_a_token_other_names_than_this_machines_are_refused(serving: Serving) -> None:
    async with serving() as client:
        for host, status in {"evil.example": 403, "127.0.0.1:8321": 200, "[::1]:1": 200, "localhost": 200}.items():
            assert (await client.get("/v1/strategies", headers={"Host": host})).status_code == status


def test_other_addresses_need_a_token_that_is_no_word() -> None:
    assert checked_token("127.0.0.1", None) is None
    assert checked_token("0.0.0.0", "x" * 16) == "x" * 16  # noqa: S104
    with pytest.raises(ConfigError, match="needs a token"):
        checked_token("0.0.0.0", None)  # noqa: S104
    with pytest.raises(ConfigError, match="too short"):
        checked_token("127.0.0.1", "secret")


def test_the_interface_is_described(settings: Settings) -> None:
    described = create_app(settings).openapi()
    assert {"/v1/documents", "/v1/runs", "/v1/runs/{run_id}/resume"} <= described["paths"].keys()
    assert "question" in described["components"]["schemas"]["RunRequest"]["properties"]
