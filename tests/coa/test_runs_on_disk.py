"""Runs on disk: nothing that was paid for is lost, whatever happens to the process or the disk."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.chunking import chunk_document
from coa.documents import read_document
from coa.errors import ConfigError, RunNotFound, StorageError
from coa.run_files import append_line, read_lines, write_atomically
from coa.run_format import document_from_json, plan_from_json, plan_to_json
from coa.runs import Part, PartAnswer, RunPlan, RunRecord, RunStore, StoredNote
from coa.tokens import EstimatedTokens
from coa.types import Answer, Citation, Coverage, Document, Note, SkippedChunk, Usage

BOOK = "CHAPTER I.\n\nAda came to the harbour. She saw the lamp.\n\nCHAPTER II.\n\nNobody slept. Rain fell.\n"


def _document(text: str = BOOK) -> Document:
    return read_document(text.encode(), name="book.txt")


def _plan(document: Document) -> RunPlan:
    chunks = chunk_document(document, budget=200, counter=EstimatedTokens())
    return RunPlan((Part(None, tuple(chunks)),), EstimatedTokens().name, False)


def _record(run_id: str, document: Document, **changes: Any) -> RunRecord:
    record = RunRecord(
        run_id=run_id,
        task="ask",
        state="done",
        created="2026-01-01T00:00:00+00:00",
        updated="2026-01-01T00:00:00+00:00",
        document=document.name,
        document_sha256=document.sha256,
        question="Who?",
        strategy="chain",
        model="readers",
        settings={"model": "readers"},
        prompts={"worker": "abc"},
    )
    return replace(record, **changes)


def _note(chunk: int, text: str = "note", cause: str | None = None) -> StoredNote:
    return StoredNote(0, chunk, text, chunk, cause is None, Usage(1, 10, 2, 3, None, 0.5), 0.5, cause)


def _store(home: Path, *run_ids: str, text: str = BOOK) -> RunStore:
    store, document = RunStore(home), _document(text)
    for run_id in run_ids:
        store.create(_record(run_id, document), document, _plan(document))
    return store


def test_everything_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    store, document = _store(tmp_path, "20260101-000000-aaaa"), _document()
    run_id = "20260101-000000-aaaa"
    assert store.get(run_id) == _record(run_id, document)
    assert store.document(document.sha256) == document
    assert store.plan(run_id, document) == _plan(document)
    notes = [_note(0, "Ada’s note\u2028 in 中文\n"), _note(1, cause="filtered")]
    for note in notes:
        store.add_note(run_id, note)
    answer = PartAnswer("Ada [1.1]", False, Usage(calls=1))
    store.add_part_answer(run_id, 0, answer)
    assert store.stored_notes(run_id) == notes
    assert store.notes(run_id) == [Note(0, notes[0].text)]
    assert store.part_answers(run_id) == {0: answer}
    whole = Answer(
        "Ada [1].",
        run_id,
        "chain",
        "readers",
        "Who?",
        Coverage(2, 1, (SkippedChunk(1, "filtered"),)),
        Usage(calls=2, cost_usd=None),
        (Citation("Ada came", 3, 11, chapter="I", score=0.5, origin="located"),),
        (Note(0, "n"),),
        ("a warning",),
        "book.txt",
        document.sha256,
        1.5,
    )
    assert store.answer(run_id) is None
    store.save_answer(whole)
    assert store.answer(run_id) == whole


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), min_size=1, max_size=300))
def test_documents_and_plans_survive_their_json(text: str) -> None:
    document = replace(Document(text, "ab" * 32, "x"), warnings=("w",))
    assert document_from_json(json.loads(json.dumps(asdict(document)))) == document
    plan = _plan(document)
    again = plan_from_json(json.loads(json.dumps(plan_to_json(plan))), document)
    assert again == plan


@pytest.mark.parametrize("cut", [1, 2, 10, 40])
def test_a_torn_last_line_is_left_out_and_the_next_one_is_whole(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "notes.jsonl"
    for n in range(3):
        append_line(path, {"n": n, "text": "long enough to be cut somewhere in its middle"})
    path.write_bytes(path.read_bytes()[:-cut])
    assert [line["n"] for line in read_lines(path)] == [0, 1]
    append_line(path, {"n": 3})
    assert [line["n"] for line in read_lines(path)] == [0, 1, 3]


def test_a_damaged_line_in_the_middle_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b'{"n":0}\n{"n":\x00\xff\n[1]\n{"n":3}\n')
    assert [line["n"] for line in read_lines(path)] == [0, 3]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 99}'])
def test_a_damaged_plan_is_a_storage_error(tmp_path: Path, damage: str) -> None:
    store = _store(tmp_path, "r1")
    (store.path("r1") / "plan.json").write_text(damage)
    with pytest.raises(StorageError):
        store.plan("r1", _document())


def _in_a_small_disk(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` where no file can grow over 4 KiB: what a full disk looks like to a process."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=60,
    )


def test_a_full_disk_is_a_storage_error_and_loses_no_earlier_note(tmp_path: Path) -> None:
    done = _in_a_small_disk(
        tmp_path,
        """
        import sys
        from pathlib import Path
        from coa.errors import StorageError
        from coa.run_files import append_line, read_lines, write_atomically
        path = Path(sys.argv[1]) / "notes.jsonl"
        n = 0
        try:
            while True:
                append_line(path, {"n": n, "text": "x" * 300})
                n += 1
        except StorageError as error:
            print(n, len(read_lines(path)), error)
        record = Path(sys.argv[1]) / "run.json"
        write_atomically(record, "old")
        try:
            write_atomically(record, "x" * 9000)
        except StorageError as error:
            print(record.read_text(), sorted(p.name for p in Path(sys.argv[1]).iterdir()))
        """,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    n, kept, message = first.split(" ", 2)
    assert int(n) == int(kept) > 5
    assert "notes.jsonl" in message
    assert "COA_HOME" in message
    assert second == "old ['notes.jsonl', 'run.json']"
    append_line(tmp_path / "notes.jsonl", {"n": int(n)})
    assert [line["n"] for line in read_lines(tmp_path / "notes.jsonl")] == list(range(int(n) + 1))


def test_only_one_process_works_on_a_run(tmp_path: Path) -> None:
    store = _store(tmp_path, "r1")
    store.save(replace(store.get("r1"), state="running"))
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from coa.runs import RunStore\n"
            "with RunStore(Path(sys.argv[1])).locked('r1'): print('held', flush=True); sys.stdin.read()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert store.get("r1").state == "running"
        with pytest.raises(ConfigError, match=f"worked on by process {child.pid}"), store.locked("r1"):
            pass
        with pytest.raises(ConfigError):
            store.remove("r1")
    finally:
        child.kill()
        child.communicate()
    assert store.get("r1").state == "interrupted", "a killed process lets go of its run"
    with store.locked("r1"):
        assert store.get("r1").state == "running"


def test_an_interrupted_run_counts_its_stored_chunks(tmp_path: Path) -> None:
    store = _store(tmp_path, "r1")
    store.save(replace(store.get("r1"), state="running"))
    store.add_note("r1", _note(0))
    record = store.get("r1")
    assert (record.state, record.n_done) == ("interrupted", 1)


def test_a_run_is_found_by_what_begins_only_its_id(tmp_path: Path) -> None:
    store = _store(tmp_path, "20260101-000000-aaaa", "20260101-000000-abcd", "20260202-000000-aaaa")
    assert store.get("202602").run_id == "20260202-000000-aaaa"
    assert store.last().run_id == "20260202-000000-aaaa"
    assert [r.run_id for r in store.list()] == sorted((r.run_id for r in store.list()), reverse=True)
    with pytest.raises(RunNotFound, match="2 runs begin with '20260101-000000-a'"):
        store.get("20260101-000000-a")
    for nothing in ("", "x", "..", "2026/..", ".hidden"):
        with pytest.raises(RunNotFound):
            store.get(nothing)
    for outside in ("", "../x", "a/b", ".."):
        with pytest.raises(RunNotFound):
            store.path(outside)


def test_a_document_goes_with_its_last_run(tmp_path: Path) -> None:
    store = _store(tmp_path, "r1", "r2")
    other = _store(tmp_path, "r3", text="Another book. It is short.\n")
    sha, other_sha = store.get("r1").document_sha256, other.get("r3").document_sha256
    store.remove("r1")
    assert not store.path("r1").exists()
    assert store.document(sha).name == "book.txt"
    store.remove("r2")
    with pytest.raises(StorageError):
        store.document(sha)
    assert store.document(other_sha)
    with pytest.raises(RunNotFound):
        store.remove("r1")


def test_folders_that_are_no_runs_are_passed_over(tmp_path: Path) -> None:
    store = _store(tmp_path, "r1")
    (tmp_path / "runs" / "junk").mkdir()
    (tmp_path / "runs" / "later").mkdir()
    (tmp_path / "runs" / "later" / "run.json").write_text('{"format": 2, "unknown": 1}')
    assert [r.run_id for r in store.list()] == ["r1"]
    assert RunStore(tmp_path / "nowhere").list() == []


def test_new_ids_sort_by_time_and_differ(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    ids = [store.new_id() for _ in range(50)]
    assert ids == sorted(set(ids))
    with ThreadPoolExecutor(8) as threads:
        ids.extend(threads.map(lambda _: store.new_id(), range(200)))
    assert len(set(ids)) == 250
    assert all(len(run_id) == 20 for run_id in ids)
