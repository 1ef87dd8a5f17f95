"""What inputs of a batch name, and what results keep."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from coa.batch.asking import (
    fingerprint,
    id_of,
    item_key,
    plain_payload,
    question_of,
    question_payload,
    task_of,
)
from coa.batch.ledger import Known
from coa.batch.results import ResultFolder
from coa.batch.sources import Source, absolute_input, entry_of, sources_of
from coa.config import Settings
from coa.errors import ConfigError

ASKED = (question_payload("Who?"),)


def places(given: Path | str, **more: object) -> list[str]:
    return [source.place for source in sources_of(str(given), **more)]  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.md", "deep/c.txt", "deep/.git/x", ".hidden", "out/documents/r.json"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "in"


def test_a_folder_is_its_files_in_order_without_hidden_ones_and_without_the_results(folder: Path) -> None:
    found = places(folder, skip=folder / "out")
    assert [str(Path(place).relative_to(folder)) for place in found] == ["a.md", "b.txt", "deep/c.txt"]


def test_links_to_folders_are_not_followed_and_links_to_files_are(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)
    (folder / "link.txt").symlink_to(folder / "b.txt")
    assert [Path(place).name for place in places(folder, skip=folder / "out")] == ["a.md", "b.txt", "c.txt", "link.txt"]


def test_a_glob_is_the_files_that_it_matches(folder: Path) -> None:
    assert {Path(place).name for place in places(folder / "**" / "*.txt")} == {"b.txt", "c.txt"}


def test_a_name_that_is_not_utf8_is_no_reason_to_stop(folder: Path) -> None:
    (folder / "odd").mkdir()
    (folder / "odd" / os.fsdecode(b"\xff.txt")).write_text("x")
    (odd,) = [place for place in places(folder) if "odd" in place]
    assert odd.endswith("\\xff.txt")
    entry = entry_of(Source(odd), ASKED, "c")
    assert entry.stamp.startswith("unreadable")


def test_a_manifest_names_documents_beside_it_with_questions_of_their_own(folder: Path) -> None:
    manifest = folder / "list.jsonl"
    rows = [
        '"not an object" is a path',
        json.dumps({"path": "b.txt", "question": "Who  is it?", "id": 7}),
        json.dumps({"document": "deep/c.txt", "questions": ["One?", "Two?"]}),
        json.dumps({"path": "/abs/d.pdf"}),
        "",
    ]
    manifest.write_text("\n".join(rows))
    first, second, third, fourth = sources_of(str(manifest))
    assert first.place == str(folder / '"not an object" is a path')
    assert (second.place, question_of(second.payloads[0]), id_of(second.payloads[0])) == (
        str(folder / "b.txt"),
        "Who is it?",
        "7",
    )
    assert [question_of(payload) for payload in third.payloads] == ["One?", "Two?"]
    assert (fourth.place, fourth.payloads) == ("/abs/d.pdf", ())
    assert [source.payloads for source in sources_of("-", manifest=rows[1])] == [second.payloads]


@pytest.mark.parametrize("line", ['{"path": ', '{"question": "Who?"}', '{"path": "a", "questions": "Who?"}'])
def test_a_broken_line_of_a_manifest_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    manifest = tmp_path / "list.jsonl"
    manifest.write_text(f"a.txt\n{line}\n")
    with pytest.raises(ConfigError, match="line 2"):
        list(sources_of(str(manifest)))


def test_inputs_that_are_not_there_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        absolute_input("nothing.txt", tmp_path)
    assert absolute_input("x/*.txt", tmp_path) == str(tmp_path / "x/*.txt")
    assert absolute_input("s3://bucket/x", tmp_path) == "s3://bucket/x"


def test_the_digest_is_of_the_bytes_and_the_stamp_tells_of_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, again = entry_of(Source(str(folder / "a.md")), ASKED, "c"), entry_of(Source(str(folder / "a.md")), ASKED, "c")
    assert one == again
    (folder / "copy.md").write_text("a.md")
    copy = entry_of(Source(str(folder / "copy.md")), ASKED, "c")
    assert (copy.digest, copy.items) == (one.digest, one.items)
    known = Known(one.digest, one.stamp)
    with monkeypatch.context() as patch:
        patch.setattr("coa.batch.sources._digest", None)  # it is not opened
        assert entry_of(Source(str(folder / "a.md")), ASKED, "c", known=lambda source: known) == one
    (folder / "a.md").write_text("something else")
    other = entry_of(Source(str(folder / "a.md")), ASKED, "c", known=lambda source: known)
    assert other.digest != one.digest


def test_a_key_is_of_document_configuration_and_what_is_asked_but_not_of_the_callers_name() -> None:
    key = item_key("d", "c", question_payload("Who?"))
    assert key == item_key("d", "c", question_payload("Who?", item_id="mine"))
    others = [("e", "c", "Who?"), ("d", "x", "Who?"), ("d", "c", "Whom?")]
    assert len({key, *(item_key(d, c, question_payload(q)) for d, c, q in others)}) == 4
    assert item_key("d", "c", plain_payload("structure", form="ids")) != item_key("d", "c", plain_payload("summarize"))
    assert task_of(plain_payload("summarize", words=None)) == "summarize"


def test_the_configuration_is_what_a_result_depends_on() -> None:
    entry = {"model_name": "m", "litellm_params": {"model": "openai/x", "api_key": "one", "api_base": "http://a"}}
    other = {"model_name": "m", "litellm_params": {"model": "openai/x", "api_key": "two", "api_base": "http://b"}}
    settings = Settings(model="m", model_list=[entry])
    same = settings.model_copy(
        update={"model_list": [other], "retries": 9, "max_calls": 3, "max_cost_usd": 1.0, "home": Path("/x")}
    )
    assert fingerprint(same) == fingerprint(settings)
    moved = {**entry, "litellm_params": {"model": "openai/y"}}
    for change in ({"strategy": "tree"}, {"chunk_tokens": 300}, {"temperature": 0.5}, {"model_list": [moved]}):
        assert fingerprint(settings.model_copy(update=change)) != fingerprint(settings)


def test_results_of_a_document_are_kept_side_by_side(tmp_path: Path) -> None:
    results = ResultFolder(tmp_path / "out")
    results.save("abc", {"sources": ["a"]}, {"k1": {"answer": "one"}})
    results.save("abc", {"sources": ["a", "b"]}, {"k2": {"answer": "two"}})
    assert results.document("abc") == {
        "sources": ["a", "b"],
        "items": {"k1": {"answer": "one"}, "k2": {"answer": "two"}},
    }
    results.path("abc").write_text("{torn")
    assert results.document("abc") == {}
    assert results.document("never") == {}


def test_lines_survive_a_torn_end_and_are_taken_out_by_key(tmp_path: Path) -> None:
    results = ResultFolder(tmp_path / "out")
    results.append([{"key": "a"}, {"key": "b"}])
    with results.lines.open("ab") as file:
        file.write(b'{"key": "torn')
    assert [row["key"] for row in results.rows()] == ["a", "b"]
    results.append([{"key": "c"}])
    assert [row["key"] for row in results.rows()] == ["a", "b", "c"]
    assert results.append_missing([{"key": "a"}, {"key": "c"}]) == 0
    results.forget(["b", "x"], before=results.size())
    assert [row["key"] for row in results.rows()] == ["a", "c"]
    size = results.size()
    results.append([{"key": "a"}])
    results.forget(["a"], before=size)
    assert [row["key"] for row in results.rows()] == ["c", "a"], "its new line stays"
