"""`coa batch status` and `coa batch list` where a batch's ledger cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coa.batch.asking import question_payload
from coa.batch.record import BatchOptions, BatchRecord, BatchStore
from coa.config import Settings

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def created(cli: Cli, name: str, *, redis: bool = False) -> BatchRecord:
    home = cli.folder / "home"
    return BatchStore(home).create(
        task="ask",
        inputs=(str(cli.folder),),
        payloads=(question_payload("Who?"),),
        out=cli.folder / name,
        settings=Settings(home=home),
        options=BatchOptions(jobs=1),
        redis=redis,
    )


@pytest.fixture
def in_redis(cli: Cli) -> BatchRecord:
    """A batch whose ledger is in a Redis that is not configured any more."""
    return created(cli, "results in redis", redis=True)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_status_of_a_batch_whose_redis_is_not_configured_says_so(
    cli: Cli, in_redis: BatchRecord, options: list[str]
) -> None:
    told = cli("batch", "status", in_redis.batch_id, *options)
    assert (told.code, told.out) == (2, "")
    assert f"the ledger of batch {in_redis.batch_id} is in Redis." in told.err
    assert "Set COA_REDIS_URL." in told.err


def test_batches_whose_ledgers_cannot_be_read_are_listed_beside_the_others(cli: Cli, in_redis: BatchRecord) -> None:
    damaged = created(cli, "damaged results")
    path: Path = BatchStore(cli.folder / "home").ledger_path(damaged.batch_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no database at all, and longer than the head of one would be " * 10)
    good = created(cli, "good results")
    told = cli("batch", "list")
    states = {row.split("\t")[0]: row.split("\t")[1] for row in told.out.splitlines()}
    assert told.code == 0
    assert states[good.batch_id] == "open", "nothing was added"
    assert states[in_redis.batch_id].startswith("unknown (the ledger of batch")
    assert states[damaged.batch_id].startswith("unknown (the batch's ledger cannot be used")
