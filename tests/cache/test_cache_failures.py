"""What goes wrong with the cache changes no answer and fails no run: real engines, a real Redis, killed by pid."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coa.config import Settings
from coa.documents import read_document
from coa.events import ChunkRead, Event
from coa.llm.engine_process import EngineProcess
from coa.session import Session
from coa.testing import RedisProcess
from coa.testing.models import test_model_path as model_path
from coa.types import Answer, Document

pytestmark = pytest.mark.slow

KEY = "a-key-of-the-tests"
QUESTION = "Who keeps the key?"
TEXT = (
    "The harbour master kept the brass key in a blue tin behind the clock. Every evening he counted the boats. "
    "On Monday there were nine of them, and on Tuesday there were ten. The baker's daughter saw the tin and said "
    "nothing about it to anyone. She liked the clock, which was always four minutes slow. Nobody had ever mended it. "
)
WINDOW = 1024


@dataclass
class Place:
    """Two replicas of one model with a folder for states, and a Redis."""

    folder: Path
    ports: list[int]
    engines: list[EngineProcess | None]
    redis: RedisProcess
    document: Document
    plain: str = ""
    """The answer and its notes without any cache."""
    tails: int = 0
    """Prompt tokens that are computed where all chunks are saved."""

    def start(self, n: int) -> None:
        self.engines[n] = EngineProcess(
            model_path(),
            alias="m",
            port=self.ports[n],
            api_key=KEY,
            n_ctx=WINDOW,
            n_threads=1,
            slot_save_path=self.folder,
        )

    def kill(self, n: int) -> None:
        engine = self.engines[n]
        assert engine is not None
        os.kill(engine.pid, signal.SIGKILL)
        engine.close()
        self.engines[n] = None

    def settings(
        self, home: Path, *, kv: bool = True, replicas: tuple[int, ...] = (0,), redis: str | None = None
    ) -> Settings:
        entries = [
            {
                "model_name": "m",
                "litellm_params": {
                    "model": "openai/m",
                    "api_base": f"http://127.0.0.1:{self.ports[n]}/v1",
                    "api_key": KEY,
                },
                "model_info": {
                    "id": f"replica-{n}",
                    "kind": "llama_server",
                    "slot_save_path": str(self.folder),
                    "n_ubatch": 128,
                },
            }
            for n in replicas
        ]
        return Settings(
            home=home,
            model="m",
            model_list=entries,
            router_settings={"cooldown_time": 1},
            redis_url=redis,
            kv_cache=kv,
            response_cache=False,
            notes="paper",
            chunk_tokens=300,
            note_tokens=24,
            answer_tokens=16,
            question_tokens=32,
            verify=False,
        )


@dataclass
class Asked:
    answer: Answer
    events: list[Event] = field(default_factory=list)

    @property
    def said(self) -> str:
        return repr((self.answer.text, [n.text for n in self.answer.notes]))

    @property
    def computed(self) -> int:
        return self.answer.usage.prompt_tokens - self.answer.usage.cached_tokens


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("states")
    book = folder / "book.txt"
    book.write_text(TEXT * 5)
    with RedisProcess() as redis:
        place = Place(folder, [free_port(), free_port()], [None, None], redis, read_document(book))
        try:
            for n in range(2):
                place.start(n)
            place.plain = ask(place, tmp_path_factory.mktemp("plain"), kv=False).said
            yield place
        finally:
            for engine in place.engines:
                if engine is not None:
                    engine.close()


def ask(
    place: Place,
    home: Path,
    *,
    kv: bool = True,
    replicas: tuple[int, ...] = (0,),
    redis: str | None = None,
    after_first_chunk: Callable[[], None] = lambda: None,
) -> Asked:
    """One question in a session of its own; coverage has to be whole."""
    events: list[Event] = []

    def on_event(event: Event) -> None:
        if isinstance(event, ChunkRead) and not any(isinstance(e, ChunkRead) for e in events):
            after_first_chunk()
        events.append(event)

    async def run() -> Answer:
        async with Session(place.settings(home, kv=kv, replicas=replicas, redis=redis), on_event=on_event) as session:
            return await session.ask(place.document, QUESTION)

    answer = asyncio.run(run())
    assert answer.coverage.complete
    return Asked(answer, events)


def states(place: Place) -> list[Path]:
    return sorted(place.folder.glob("*.kv"))


@pytest.fixture
def warm(place: Place, tmp_path: Path) -> int:
    """Both chunks are saved; prompt tokens that a question then computes."""
    if not place.tails:
        first, second = ask(place, tmp_path / "first"), ask(place, tmp_path / "second")
        assert first.said == second.said == place.plain
        assert second.computed < first.computed / 2
        place.tails = second.computed
    assert len(states(place)) >= 2
    return place.tails


def test_without_trouble_a_question_of_another_session_computes_the_tails_alone(warm: int) -> None:
    assert warm > 0


def test_redis_absent_at_start(place: Place, warm: int, tmp_path: Path) -> None:
    asked = ask(place, tmp_path, redis=f"redis://127.0.0.1:{free_port()}/0", replicas=(0, 1))
    assert asked.said == place.plain
    assert asked.computed <= warm


@pytest.mark.parametrize("trouble", ["dies", "is flushed", "is slow"])
def test_redis_in_trouble_in_the_middle_of_a_run(place: Place, warm: int, tmp_path: Path, trouble: str) -> None:
    def cause() -> None:
        if trouble == "dies":
            place.redis.kill()
        elif trouble == "is slow":
            place.redis.pause()
        else:
            subprocess.run([sys.executable, "-c", _FLUSH, place.redis.url], check=True)

    try:
        asked = ask(place, tmp_path, redis=place.redis.url, replicas=(0, 1), after_first_chunk=cause)
    finally:
        if trouble == "dies":
            place.redis.start()
        elif trouble == "is slow":
            place.redis.go_on()
    assert asked.said == place.plain
    assert asked.computed <= warm


def test_a_replica_is_restarted(place: Place, warm: int, tmp_path: Path) -> None:
    place.kill(0)
    place.start(0)
    asked = ask(place, tmp_path)
    assert asked.said == place.plain
    assert asked.computed <= warm  # what was saved outlives it


@pytest.mark.parametrize("also_restart", [False, True], ids=["stays dead", "comes back"])
def test_a_replica_dies_in_the_middle_of_a_run(place: Place, warm: int, tmp_path: Path, also_restart: bool) -> None:
    def cause() -> None:
        place.kill(0)
        if also_restart:
            place.start(0)

    try:
        asked = ask(place, tmp_path, redis=place.redis.url, replicas=(0, 1), after_first_chunk=cause)
        cooled = ask(place, tmp_path / "again", redis=place.redis.url, replicas=(0, 1))
    finally:
        if place.engines[0] is None:
            place.start(0)
    assert asked.said == cooled.said == place.plain


@pytest.mark.parametrize("damage", ["truncated", "altered", "vanished", "of another KV type", "without its manifest"])
def test_a_state_is_damaged(place: Place, warm: int, tmp_path: Path, damage: str) -> None:
    file = states(place)[0]
    data = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "altered":
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    elif damage == "vanished":
        file.unlink()
    elif damage == "without its manifest":
        file.with_suffix(".json").unlink()
    else:
        subprocess.run([sys.executable, "-c", _Q8_STATE, str(model_path()), str(file)], check=True)
    asked = ask(place, tmp_path)
    assert asked.said == place.plain
    assert asked.computed > warm  # that chunk was computed again, and saved again
    assert ask(place, tmp_path / "again").computed == warm


def test_the_folder_for_states_is_taken_away(place: Place, warm: int, tmp_path: Path) -> None:
    blocked = place.folder.with_name("moved-away")
    place.folder.rename(blocked)
    try:
        place.folder.write_text("a file where the folder was")
        asked = ask(place, tmp_path)
    finally:
        place.folder.unlink()
        blocked.rename(place.folder)
    assert asked.said == place.plain


_FLUSH = "import sys, redis; redis.Redis.from_url(sys.argv[1]).flushall()"

_Q8_STATE = """
import json, pathlib, sys
import httpx, xllamacpp
from coa.cache.state_folder import file_digest
from coa.llm import embedded
model, file = sys.argv[1], pathlib.Path(sys.argv[2])
made = embedded._params
def params(*args, **kw):
    found = made(*args, **kw)
    found.cache_type_k = xllamacpp.ggml_type(8)  # q8_0
    return found
embedded._params = params
with embedded.EmbeddedEngine.start(model, alias="m", n_ctx=1024, slot_save_path=file.parent) as engine:
    with httpx.Client(base_url=engine.root_url, headers={"Authorization": f"Bearer {engine.api_key}"}, timeout=60) as c:
        c.post("/completion", json={"prompt": list(range(100, 356)), "n_predict": 0, "id_slot": 0}).raise_for_status()
        c.post("/slots/0?action=save", json={"filename": "other"}).raise_for_status()
(file.parent / "other").replace(file)
manifest = json.loads(file.with_suffix(".json").read_text())
manifest |= {"n_bytes": file.stat().st_size, "digest": file_digest(file)}
file.with_suffix(".json").write_text(json.dumps(manifest))
"""
