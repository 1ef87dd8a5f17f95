"""`coa serve --mcp` in a process of its own, driven by the official client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from coa.testing.fault_server import FaultServer

pytest.importorskip("mcp")

from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import CallToolResult, TextContent

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-m", "coa", "serve", "--mcp")
QUESTION = "Who kept the lighthouse key in the blue jar?"
FACT = "Ada Brown kept the lighthouse key in the blue jar."
N_DAYS = 10


@pytest.fixture
def book(folder: Path) -> Path:
    days = [f"On day {n} the ferry crossed the sound with {n + 3} barrels of herring. " * 4 for n in range(N_DAYS)]
    days[N_DAYS // 2] += FACT
    path = folder / "ferry.txt"
    path.write_text("\n\n".join(days), encoding="utf-8")
    return path


@contextlib.asynccontextmanager
async def _client(folder: Path, errors: TextIO) -> AsyncIterator[Client]:
    parameters = StdioServerParameters(command=COMMAND[0], args=list(COMMAND[1:]), env={**os.environ}, cwd=folder)
    async with Client(stdio_client(parameters, errlog=errors), read_timeout_seconds=120) as client:
        yield client


def _structured(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    found: dict[str, Any] = result.structured_content or {}
    return found


def _said(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


async def test_an_assistant_uses_every_tool_and_is_told_what_cannot_be_done(folder: Path, book: Path) -> None:
    told: list[tuple[float, float | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total))

    with (folder / "errors.txt").open("w") as errors:
        async with _client(folder, errors) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {"ask", "summarize", "inspect", "structure"}
            assert tools["ask"].input_schema["required"] == ["path", "question"]
            asked = await client.call_tool(
                "ask", {"path": str(book), "question": QUESTION}, progress_callback=on_progress
            )
            missing = await client.call_tool("ask", {"path": str(folder / "none.txt"), "question": QUESTION})
            assert missing.is_error
            assert f"There is no file {folder / 'none.txt'}." in _said(missing)
            unknown = await client.call_tool("ask", {"path": str(book), "question": QUESTION, "strategy": "chian"})
            assert unknown.is_error
            assert "did you mean 'chain'?" in _said(unknown)
            answer = _structured(asked)
            assert answer["answer"] == f"{FACT} [1]"
            assert answer["citations"][0]["quote"] == FACT
            chunks = answer["coverage"]["chunks"]
            assert told == [(n + 1, chunks) for n in range(chunks)]
            summary = _structured(await client.call_tool("summarize", {"path": str(book), "words": 50}))
            assert summary["coverage"]["read"] == summary["coverage"]["chunks"]
            inspected = _structured(await client.call_tool("inspect", {"path": str(book)}))
            assert inspected["document"] == "ferry.txt"
            outline = _structured(await client.call_tool("structure", {"path": str(book)}))
            assert outline["nodes"]


async def test_standard_output_holds_nothing_but_the_protocol(folder: Path, book: Path, engine: FaultServer) -> None:
    server = await asyncio.create_subprocess_exec(*COMMAND, "-v", stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=folder)
    assert server.stdin is not None
    assert server.stdout is not None

    async def send(**message: object) -> None:
        assert server.stdin is not None
        server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        await server.stdin.drain()

    info = {"name": "test", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
    await send(id=1, method="initialize", params=hello)
    lines = [await server.stdout.readline()]
    await send(method="notifications/initialized")
    arguments = {"path": str(book), "question": QUESTION}
    await send(id=2, method="tools/call", params={"name": "ask", "arguments": arguments})
    while json.loads(lines[-1]).get("id") != 2:
        lines.append(await server.stdout.readline())
    server.stdin.close()
    rest = await server.stdout.read()
    assert await asyncio.wait_for(server.wait(), 30) == 0
    assert rest == b""
    assert {json.loads(line)["jsonrpc"] for line in lines} == {"2.0"}
    assert json.loads(lines[-1])["result"]["isError"] is False
    assert engine.stats().calls > 0
