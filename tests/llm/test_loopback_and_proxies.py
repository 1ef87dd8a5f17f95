"""A proxy that is set for the outside, and servers on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.request import proxy_bypass

import pytest

from coa.config import Settings
from coa.llm.chat import Decoding
from coa.llm.gateway import open_gateway
from coa.llm.litellm_clients import on_loopback, spare_loopback_the_proxy
from coa.reading import Prompt
from coa.testing.fault_server import FaultServer

DEAD_PROXY = "http://127.0.0.1:9"
NAMES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No proxy is set, and what the tested code sets is undone."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that a variable that is not there now is removed again
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(lambda request: "Ada took the brass key.", n_ctx=4096) as running:
        yield running


@pytest.mark.parametrize("kind", ["llama_server", "vllm"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_a_server_on_this_machine_is_not_called_through_a_proxy(
    clean: pytest.MonkeyPatch, tmp_path: Path, server: FaultServer, variable: str, kind: str
) -> None:
    clean.setenv(variable, DEAD_PROXY)
    entry = {
        "model_name": "readers",
        "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "k"},
        "model_info": {"kind": kind},
    }
    settings = Settings(home=tmp_path, model="readers", model_list=[entry], retries=0)
    gateway = await open_gateway(settings)
    try:
        if kind == "llama_server":
            assert gateway.window == 4096, "the server was asked"
        reply = await (await gateway.chat_model()).complete(Prompt(tail="Who?"), Decoding(20))
    finally:
        await gateway.close()
    assert reply.text == "Ada took the brass key."


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_exceptions_that_are_set_already_stay(clean: pytest.MonkeyPatch, name: str) -> None:
    clean.setenv("HTTP_PROXY", DEAD_PROXY)
    clean.setenv(name, "corp.example, 127.0.0.1")
    spare_loopback_the_proxy(["http://127.0.0.5:80/v1", "https://elsewhere.example/v1"])
    assert os.environ[name] == "corp.example,127.0.0.1,localhost,127.0.0.5"
    assert all(proxy_bypass(host) for host in ("corp.example", "127.0.0.5", "localhost"))
    assert not proxy_bypass("elsewhere.example")
    spare_loopback_the_proxy(["http://127.0.0.5:80/v1"])
    assert os.environ[name].count("127.0.0.5") == 1


def test_no_proxy_for_anything_needs_no_exceptions(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("HTTP_PROXY", DEAD_PROXY)
    clean.setenv("NO_PROXY", "*")
    spare_loopback_the_proxy(["http://127.0.0.1:80"])
    assert os.environ["NO_PROXY"] == "*", "* counts only where it stands alone"


@pytest.mark.parametrize(
    ("proxy", "url"), [(None, "http://127.0.0.1:80"), (DEAD_PROXY, "https://elsewhere.example/v1")]
)
def test_the_environment_is_left_alone_without_need(clean: pytest.MonkeyPatch, proxy: str | None, url: str) -> None:
    if proxy is not None:
        clean.setenv("HTTP_PROXY", proxy)
    spare_loopback_the_proxy([url])
    assert "no_proxy" not in os.environ
    assert "NO_PROXY" not in os.environ


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:80", True),
        ("http://10.0.0.1/v1", False),
        ("https://localhost.example/v1", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_loopback_is_told_by_the_host(url: str, expected: bool) -> None:
    assert on_loopback(url) is expected
