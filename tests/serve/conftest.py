"""A service over a fault server that reads by words, in a home of its own."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from coa.config import Settings, load_settings
from coa.serve import ServeLimits, create_app
from coa.testing.fault_server import FaultServer
from coa.testing.reading_model import read_by_words

Client = httpx.AsyncClient


@pytest.fixture(autouse=True)
def _thaw() -> Iterator[None]:
    """What a warm service has frozen is collected again by the other tests of this process."""
    yield
    gc.unfreeze()


@pytest.fixture
def engine() -> Iterator[FaultServer]:
    with FaultServer(reply=lambda request: read_by_words(str(request.messages[-1]["content"]))) as started:
        yield started


@pytest.fixture
def settings(engine: FaultServer, tmp_path: Path) -> Settings:
    entry = {
        "model_name": "readers",
        "litellm_params": {"model": "openai/fault", "api_base": engine.base_url, "api_key": "k"},
        "model_info": {"max_input_tokens": 8192},
    }
    overrides = {
        "home": tmp_path / "home",
        "model": "readers",
        "model_list": [entry],
        "response_cache": False,
        "chunk_tokens": 200,
        "max_document_bytes": 200_000,
    }
    return load_settings(overrides=overrides, env={}, cwd=tmp_path).settings


@pytest.fixture
def folder(engine: FaultServer, tmp_path: Path) -> Path:
    """A working folder whose coa.yaml says what `settings` says: for processes."""
    entry = {
        "model_name": "readers",
        "litellm_params": {"model": "openai/fault", "api_base": engine.base_url, "api_key": "k"},
        "model_info": {"max_input_tokens": 8192},
    }
    config = {"home": "home", "model": "readers", "model_list": [entry], "response_cache": False, "chunk_tokens": 200}
    (tmp_path / "coa.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


@pytest.fixture
def serving(settings: Settings) -> Callable[..., Any]:
    """A context that holds a client of a running service."""

    @contextlib.asynccontextmanager
    async def serve(
        *, limits: ServeLimits | None = None, token: str | None = None, warm: bool = False
    ) -> AsyncIterator[Client]:
        app = create_app(settings, limits=limits, token=token, warm=warm)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with Client(transport=transport, base_url="http://localhost", timeout=60) as client:
                client.app = app  # type: ignore[attr-defined]
                yield client

    return serve
