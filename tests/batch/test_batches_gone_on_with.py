"""Batches whose scan was interrupted, that grow, or that somebody else is at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coa.api import StopSignal
from coa.batch.estimating import Expected, Sample
from coa.batch.ledger import Ledger
from coa.batch.opening import open_ledger
from coa.batch.record import BatchRecord
from coa.batch.results import ResultFolder
from coa.batch.running import Listener, only_estimated, open_again, run_batch, scan
from coa.batch.sessions import Sessions
from coa.cli.batch_display import summary_text
from coa.errors import ConfigError
from coa.testing.fault_server import Faults, FaultServer
from tests.batch.place import Place

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(keep=10_000) as running:
        yield running


@pytest.fixture
def place(server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("coa.batch.running._PAGE", 2)
    server.faults = Faults()
    server.reset_stats()
    return Place(tmp_path, server)


def _manifest(place: Place, *rows: dict[str, Any]) -> BatchRecord:
    """A batch over a manifest of these lines."""
    path = place.documents / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(place.record(), inputs=(str(path),), payloads=())


async def test_a_scan_that_was_stopped_is_gone_on_with_and_never_taken_for_the_whole(place: Place) -> None:
    for name in "abcde":
        place.write(f"{name}.txt")
    record, stop = place.record(), StopSignal()
    end = await place.run(record, stop=stop, listener=Listener(on_scanned=lambda n, items: stop.request("test")))
    assert (end.exit_code, end.summary["state"], end.summary["items"]) == (75, "open", 2)
    assert summary_text(end.summary).startswith("2 left, not all documents were looked at yet; 0 calls")
    stop.request("at once")
    end = await place.run(record, stop=stop)
    assert (end.exit_code, end.summary["state"]) == (75, "open")

    record = place.store.get(record.batch_id)
    assert not record.scanned
    end = await place.run(record, new_documents=False)  # as `coa batch resume`
    assert (end.exit_code, end.summary["counts"]["done"]) == (0, 5)
    assert "looked at" not in summary_text(end.summary)
    place.write("f.txt")
    end = await place.run(place.store.get(record.batch_id), new_documents=False)
    assert end.summary["items"] == 5, "all were found once"


async def test_a_stop_before_the_first_document_is_no_end(place: Place) -> None:
    place.write("a.txt")
    stop = StopSignal()
    stop.request("at once")
    end = await place.run(place.record(), stop=stop)
    assert (end.exit_code, end.summary["state"], end.summary["items"]) == (75, "open", 0)


async def test_every_question_of_a_manifest_is_asked_also_where_only_changed_files_are_opened(place: Place) -> None:
    place.write("a.txt")
    place.write("b.txt")
    rows = [{"path": f"{name}.txt", "question": f"{word} had the key?"} for word in ("Who", "What") for name in "ab"]
    record = _manifest(place, *rows, {"path": "a.txt", "question": "Where was the key?"})
    place.store.save(record)
    end = await place.run(record, only_changed=True)
    assert (end.exit_code, end.summary["counts"]["done"]) == (0, 5)
    record = _manifest(place, *rows, {"path": "b.txt", "question": "Why had he the key?"})
    end = await place.run(replace(record, batch_id=end.summary["batch"]), only_changed=True)
    assert end.summary["counts"]["done"] == 6


async def test_a_url_that_is_gone_fails_alone(place: Place) -> None:
    pytest.importorskip("fsspec")
    place.write("a.txt")
    place.write("b.txt")
    urls = [f"file://{place.documents}/{name}.txt" for name in ("a", "gone", "b")]
    record = _manifest(place, *({"url": url, "question": "Who had the key?"} for url in urls))
    end = await place.run(record)
    assert (end.exit_code, end.summary["counts"]["done"], end.summary["counts"]["failed"]) == (3, 2, 1)
    assert "gone.txt" in end.summary["failures"][0]["examples"][0]["cause"]


async def test_a_document_that_cannot_be_forecast_stops_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forecast(self: Sessions, item: Any, document: Any) -> Any:
        if document.name in {"a.txt", "b.txt"}:
            raise ConfigError("no chapters were found.") if document.name == "a.txt" else IndexError
        return await original(self, item, document)

    original = Sessions.forecast
    monkeypatch.setattr(Sessions, "forecast", forecast)
    for name in "abc":
        place.write(f"{name}.txt")
    told = await only_estimated(place.record(), place.settings)
    assert (told.items, told.sampled) == (3, 1)
    (place.documents / "c.txt").unlink()
    (place.documents / "b.txt").unlink()
    with pytest.raises(ConfigError, match="no chapters"):
        await only_estimated(place.record(), place.settings)


async def test_what_is_expected_is_of_the_open_items_only(place: Place) -> None:
    """Whatever a scan has seen beside them."""
    for name in "abcdef":
        place.write(f"{name}.txt")
    record, told = place.record(), list[Expected]()
    done = await run_batch(record, place.settings, listener=Listener(on_expected=told.append))
    per_item = done.summary["usage"]["calls"] / 6
    place.write("g.txt")
    assert (await only_estimated(record, place.settings)).calls == per_item, "six of seven are done"
    ledger = await open_ledger(record, place.settings, place.store)
    await open_again(ledger, ResultFolder(place.out), {"done"})
    await ledger.close()
    place.write("h.txt")
    expected = await only_estimated(record, place.settings)
    assert (expected.items, expected.calls) == (8, 8 * per_item), "one is new, and seven wait"


async def test_nothing_is_opened_again_in_a_batch_that_another_process_works_on(place: Place) -> None:
    place.write("a.txt")
    record = place.record()
    place.server.faults = Faults(when=lambda call: "401")
    await place.run(record)
    called = False

    async def before(ledger: Ledger, results: ResultFolder) -> None:
        nonlocal called
        called = True
        assert await open_again(ledger, results, {"pending"}) == 0

    with place.store.locked(record.batch_id), pytest.raises(ConfigError, match="worked on by another process"):
        await place.run(record, new_documents=False, before=before)
    assert not called
    place.server.faults = Faults()
    end = await place.run(record, new_documents=False, before=before)
    assert (called, end.exit_code) == (True, 0)


async def test_a_configuration_that_was_added_meanwhile_is_looked_up(place: Place) -> None:
    """As `coa batch retry --model` does beside workers that share the ledger."""
    place.write("a.txt")
    record = place.record()
    changed = record.with_config({"model": "others"}, place.settings)
    place.store.save(replace(changed, config=record.config))
    sessions = Sessions(record, place.settings, place.store.runs_of(record))
    assert (await sessions.session(changed.config)).settings.model == "others"
    await sessions.close()
    sessions = Sessions(record, place.settings, place.store.runs_of(record))
    with pytest.raises(ConfigError, match="no configuration 'unknown'"):
        await sessions.session("unknown")


async def test_a_line_that_came_while_items_were_opened_again_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("a.txt")
    record = place.record()
    ledger = await open_ledger(record, place.settings, place.store)
    await scan(record, ledger, place.store, sample=Sample())
    lease = await ledger.lease("me", seconds=60)
    assert lease is not None
    results, key = ResultFolder(place.out), lease.items[0].key
    results.append([{"key": key, "answer": "old"}])
    original = ledger.reopen

    async def reopen(*arguments: Any, **more: Any) -> int:
        n = await original(*arguments, **more)
        results.append([{"key": key, "answer": "new"}])  # by another worker, at once
        return n

    monkeypatch.setattr(ledger, "reopen", reopen)
    await open_again(ledger, results, {"leased"})
    await ledger.close()
    assert [row["answer"] for row in results.rows()] == ["new"]
