"""`coa cache` over saved states: what is there, what it saved, keeping to a budget, and reading ahead."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from coa.cache.blocks import root_hash, segment_hash
from coa.cache.kv_stats import Counts, KvStats, kv_stats_file
from coa.cache.lmcache import lmcache_config
from coa.cache.redis_states import RedisScripts, RedisStates
from coa.cache.slot_files import SlotFiles
from coa.cache.states import StateKey, StateOrigin
from coa.events import StageChanged, WarningRaised
from coa.runs import RunRecord, RunStore
from coa.testing.redis_process import RedisProcess

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

ALICE, EMMA = "a" * 64, "e" * 64
SIZE = 10_000
IDENTITY = root_hash("model")


def key(n: int) -> StateKey:
    return StateKey(IDENTITY, segment_hash([n], IDENTITY), 128)


async def save(store: SlotFiles | RedisStates, n: int, document: str) -> None:
    file = await store.begin(key(n))
    (store.folder / file).write_bytes(bytes([n]) * SIZE)
    assert await store.commit(key(n), file, StateOrigin("smollm2", document, n)) is not None


def kv_dir(cli: Cli) -> Path:
    return cli.folder / "home" / "cache" / "kv"


def fill(cli: Cli) -> None:
    """Two states of one book, one of another; a name for the first; a few counts."""

    async def filled() -> None:
        store = SlotFiles(kv_dir(cli), 1_000_000)
        for n, document in enumerate((ALICE, EMMA, ALICE)):
            await save(store, n, document)
            stem = next(kv_dir(cli).glob(f"{key(n).name}*.json"))
            os.utime(stem, (1000 + n, 1000 + n))

    asyncio.run(filled())
    stats = KvStats(kv_stats_file(cli.folder / "home"))
    counts = Counts(calls=2, prompt_tokens=1000, predicted_tokens=900, cached_tokens=800, computed_tokens=200)
    stats.add(counts, document=ALICE, replica="one")
    stats.add(Counts(saved=3, saved_bytes=3 * SIZE, evicted=1, ahead_tokens=50))
    for why in ("it was never read before", "it was never read before", "evicted"):
        stats.missed(why)
    stats.discarded("truncated")
    stats.flush_now()
    name_alice(cli)


def name_alice(cli: Cli) -> None:
    run = {
        "run_id": "20260101-000000-abcd",
        "task": "ask",
        "state": "done",
        "created": "2026-01-01T00:00:00Z",
        "updated": "2026-01-01T00:00:00Z",
        "document": "alice.epub",
        "document_sha256": ALICE,
        "question": "Who?",
        "strategy": "chain",
        "model": "m",
        "n_chunks": 1,
    }
    RunRecord(**run)  # type: ignore[arg-type]
    folder = RunStore(cli.folder / "home").path("20260101-000000-abcd")
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run))


def test_statistics_are_tabs_when_piped(cli: Cli) -> None:
    fill(cli)
    assert cli("cache", "stats").out.splitlines() == [
        f"states\talice.epub\t2\t{2 * SIZE}\t1000\t800",
        f"states\t{EMMA[:12]}\t1\t{SIZE}\t0\t0",
        "replica\tone\t2\t1000\t900\t800",
        "missed\tit was never read before\t2",
        "missed\tevicted\t1",
        "discarded\ttruncated\t1",
    ]


def test_statistics_as_json_hold_rates_books_and_reasons(cli: Cli) -> None:
    fill(cli)
    told = json.loads(cli("cache", "stats", "--json").out)["states"]
    assert told["folders"] == [{"path": str(kv_dir(cli)), "states": 3, "bytes": 3 * SIZE}]
    assert (told["limit_bytes"], told["redis"]) == (10_000_000_000, None)
    assert (told["predicted_ratio"], told["cached_ratio"], told["ahead_tokens"], told["evicted"]) == (0.9, 0.8, 50, 1)
    book = told["books"][0]
    assert (book["name"], book["sha256"], book["states"], book["cached_tokens"]) == ("alice.epub", ALICE, 2, 800)
    assert told["replicas"]["one"]["cached_ratio"] == 0.8
    assert told["missed"][0] == {"reason": "it was never read before", "times": 2}
    assert told["refused"] == []


def test_statistics_are_words_on_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cli)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = cli("cache", "stats").out.splitlines()
    assert "states: 3 kept, 30.0 kB of 10000.0 MB; written 3, read 0, evicted 1 times" in lines
    assert ["alice.epub", "2", "20.0", "kB", "1,000", "80", "%"] in [line.split() for line in lines]
    said = "prompts: 1,000 tokens in 2 calls; 90 % were expected to be in place, 80 % were; 50 were computed ahead"
    assert said in lines
    assert "computed because: it was never read before (2), evicted (1)" in lines


def test_pruning_keeps_to_the_budget_the_longest_unused_first(cli: Cli) -> None:
    fill(cli)
    budget = 2 * SIZE + 2000
    assert cli("cache", "prune", "states").err == "removed 0 states, 0.0 kB\n"
    assert cli("cache", "prune", "states", "--max-bytes", str(budget)).err.startswith("removed 1 state, 10.")
    assert sum(path.stat().st_size for path in kv_dir(cli).iterdir()) <= budget
    assert [line.split("\t")[:3] for line in cli("cache", "stats").out.splitlines()][:2] == [
        ["states", "alice.epub", "1"],
        ["states", EMMA[:12], "1"],
    ]
    assert cli("cache", "prune", "states", "--unused-days", "1").err.startswith("removed 2 states")


def test_the_configured_budget_holds_without_a_number(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cli)
    monkeypatch.setenv("COA_KV_CACHE_BYTES", str(SIZE + 1000))
    assert cli("cache", "prune").err.splitlines()[1].startswith("removed 2 states")


def test_clearing_takes_states_and_their_counts_and_leaves_replies(cli: Cli) -> None:
    fill(cli)
    assert cli("cache", "clear", "states").err.startswith("removed 3 states")
    assert cli("cache", "stats").out == ""
    assert not list(kv_dir(cli).glob("*.kv"))
    fill_again = cli("cache", "clear", "responses").err
    assert fill_again.startswith("removed 0 replies")


def test_folders_of_configured_engines_are_counted_and_pruned_too(cli: Cli) -> None:
    fill(cli)
    other = cli.folder / "slots"
    other.mkdir()
    asyncio.run(save(SlotFiles(other, 1_000_000), 5, EMMA))
    entry = {
        "model_name": "m",
        "litellm_params": {"model": "openai/m"},
        "model_info": {"slot_save_path": str(other)},
    }
    (cli.folder / "coa.yaml").write_text(yaml.safe_dump({"model_list": [entry]}))
    told = json.loads(cli("cache", "stats", "--json").out)["states"]
    assert [(f["path"], f["states"]) for f in told["folders"]] == [(str(kv_dir(cli)), 3), (str(other), 1)]
    assert cli("cache", "clear", "states").err.startswith("removed 4 states")


def test_states_in_redis_are_shown_and_pruned_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisProcess() as redis:
        monkeypatch.setenv("COA_REDIS_URL", redis.url)
        monkeypatch.setenv("COA_KV_REDIS_BYTES", "1000000")

        async def filled() -> None:
            store = RedisStates(SlotFiles(kv_dir(cli), 1_000_000), RedisScripts(redis.url), 1_000_000, look_s=2.0)
            for n in range(3):
                await save(store, n, ALICE)
            await store.settled()
            await store.close()

        asyncio.run(filled())
        told = json.loads(cli("cache", "stats", "--json").out)["states"]["redis"]
        assert told == {"states": 3, "bytes": 3 * SIZE, "limit_bytes": 1_000_000}
        assert cli("cache", "prune", "states", "--max-bytes", str(SIZE)).code == 0
        told = json.loads(cli("cache", "stats", "--json").out)["states"]
        assert (told["redis"]["states"], told["folders"][0]["states"]) == (1, 0)
        redis.kill()
        assert "Redis does not answer" in cli("cache", "stats").err


def test_the_folder_of_states_is_printed_for_engines(cli: Cli) -> None:
    assert cli("cache", "dir", "states").out == f"{kv_dir(cli)}\n"


def test_reading_ahead_says_how_far_it_is_and_what_it_took(cli: Cli) -> None:
    cli.api.events = [StageChanged("loading model"), WarningRaised("this model is small")]
    done = cli("cache", "warm", "book.txt")
    assert cli.api.calls == [("warm", "book.txt")]
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [
        "warning: this model is small",
        "12 of 12 chunks are in place: 10 computed (14,000 tokens), 2 were there before | 18.2 s",
    ]
    assert "chunk 3 of 12" in cli("cache", "warm", "book.txt", "-v").err.splitlines()
    told = json.loads(cli("cache", "warm", "book.txt", "--json").out)
    assert told == {"chunks": 12, "ready": 12, "found": 2, "computed_tokens": 14_000, "seconds": 18.25}


def test_reading_ahead_that_kept_not_everything_says_so(cli: Cli) -> None:
    cli.api.warmed = replace(cli.api.warmed, ready=3)
    done = cli("cache", "warm", "book.txt")
    assert done.code == 3
    assert "3 of 12 chunks" in done.err


def test_reading_ahead_takes_a_runs_options_and_refuses_what_makes_no_sense(cli: Cli) -> None:
    assert cli("cache", "warm", "book.txt", "--chunk-tokens", "700", "--model", "other").code == 0
    assert cli.api.settings is not None
    assert (cli.api.settings.chunk_tokens, cli.api.settings.model) == (700, "other")
    assert cli("cache", "warm", "book.txt", "--dry-run").out == "12 chunks\n"
    off = cli("cache", "warm", "book.txt", "--no-cache")
    assert (off.code, off.err.startswith("error: kv_cache is off")) == (2, True)
    assert cli("cache", "warm", "missing.txt").code == 5


def test_the_configuration_for_lmcache_is_yaml_without_the_login(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("cache", "lmcache-config").code == 2
    monkeypatch.setenv("COA_REDIS_URL", "redis://me:secret@cache.local:6380/0")
    out = cli("cache", "lmcache-config").out
    assert yaml.safe_load(out) == {
        "chunk_size": 256,
        "local_cpu": True,
        "max_local_cpu_size": 5.0,
        "remote_url": "redis://cache.local:6380/0",
        "remote_serde": "naive",
        "save_decode_cache": False,
    }
    assert "secret" not in out
    assert "left out" in out
    assert "left out" not in lmcache_config("redis://cache.local:6380")


@pytest.mark.slow
def test_statistics_need_neither_litellm_nor_langgraph(cli: Cli) -> None:
    fill(cli)
    code = "import sys; from coa.cli.main import run; run(['cache', 'stats']); run(['cache', 'prune']);"
    code += "print([m for m in ('litellm', 'langgraph', 'rich', 'openai') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
