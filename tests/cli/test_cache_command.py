"""`coa cache`, and the options that turn the response cache on and off."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coa.llm.response_file import FileResponses, responses_file
from coa.llm.response_store import ENTRY_OVERHEAD, ResponseStore
from coa.testing.redis_process import RedisProcess

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


async def _filled(store: ResponseStore) -> None:
    for n in range(5):
        await store.put(f"{n:064x}", b"x" * 100, model="small" if n < 3 else "large")
    await store.get(f"{0:064x}")
    await store.close()


def fill(cli: Cli) -> None:
    asyncio.run(_filled(FileResponses(responses_file(cli.folder / "home"), 1_000_000)))


def test_statistics_are_tabs_when_piped_and_json_on_request(cli: Cli) -> None:
    fill(cli)
    size = 100 + ENTRY_OVERHEAD
    assert cli("cache", "stats").out == f"responses\tlarge\t2\t{2 * size}\t0\nresponses\tsmall\t3\t{3 * size}\t1\n"
    told = json.loads(cli("cache", "stats", "--json").out)["responses"]
    assert told["place"] == str(responses_file(cli.folder / "home"))
    assert (told["entries"], told["bytes"], told["hits"], told["limit_bytes"]) == (5, 5 * size, 1, 200_000_000)
    assert told["models"]["small"] == {"entries": 3, "bytes": 3 * size, "hits": 1}


def test_statistics_are_a_table_on_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cli)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out = cli("cache", "stats").out
    assert out.startswith("responses: 5 kept, 1.5 kB of 200.0 MB, given again 1 times\n")
    assert out.splitlines()[1].split() == ["MODEL", "KEPT", "SIZE", "GIVEN", "AGAIN"]


def test_where_nothing_was_kept_nothing_is_shown_removed_or_made(cli: Cli) -> None:
    assert cli("cache", "stats").out == ""
    assert cli("cache", "clear").err == "removed 0 replies, 0.0 kB\nremoved 0 states, 0.0 kB\n"
    assert not (cli.folder / "home").exists()


def test_pruning_takes_a_size_or_days_and_clearing_takes_all(cli: Cli) -> None:
    fill(cli)
    size = 100 + ENTRY_OVERHEAD
    assert cli("cache", "prune").err.startswith("removed 0 replies")
    assert cli("cache", "prune", "--unused-days", "1").err.startswith("removed 0 replies")
    pruned = cli("cache", "prune", "responses", "--max-bytes", str(2 * size))
    assert pruned.err == f"removed 3 replies, {3 * size / 1e3:.1f} kB\n"
    assert cli("cache", "clear", "responses").err.startswith("removed 2 replies")
    assert cli("cache", "stats").out == ""
    assert cli("cache", "clear", "everything").code == 2


def test_the_folder_is_printed_for_scripts(cli: Cli) -> None:
    assert cli("cache", "dir").out == f"{cli.folder / 'home' / 'cache'}\n"


def test_the_store_that_calls_use_is_the_one_that_is_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from coa.cache.responses import RedisResponses

    with RedisProcess() as redis:
        monkeypatch.setenv("COA_REDIS_URL", redis.url)
        asyncio.run(_filled(RedisResponses(redis.url, 1_000_000, timeout_s=1.0)))
        assert json.loads(cli("cache", "stats", "--json").out)["responses"]["entries"] == 5
        assert cli("cache", "clear").err.startswith("removed 5 replies")
        redis.kill()
        gone = cli("cache", "stats")
    assert gone.code != 0
    assert "Redis does not answer" in gone.err
    assert gone.out == ""


@pytest.mark.parametrize(
    ("args", "variable", "kept"),
    [
        ((), None, True),
        (("--no-cache",), None, False),
        ((), "false", False),
        (("--cache",), "false", True),
        (("--no-cache",), "true", False),
    ],
)
def test_the_response_cache_is_on_unless_it_is_turned_off(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], variable: str | None, kept: bool
) -> None:
    if variable is not None:
        monkeypatch.setenv("COA_RESPONSE_CACHE", variable)
    assert cli("ask", "book.txt", "Who?", *args).code == 0
    assert cli.api.settings is not None
    assert cli.api.settings.response_cache is kept


def test_replies_that_were_kept_are_told_with_the_answer(cli: Cli) -> None:
    answer = cli.answer()
    cli.api.outcomes = [replace(answer, usage=replace(answer.usage, reused=n)) for n in (0, 1, 12)]
    lines = [cli("ask", "book.txt", "Who?").err.splitlines()[-1].split(" | ")[1] for _ in range(3)]
    assert lines == ["3 calls", "3 calls, 1 reply kept from before", "3 calls, 12 replies kept from before"]
