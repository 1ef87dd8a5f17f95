"""A run's page: what was asked, the answer, the chain, and the text, all linked with each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from coa.agents.references import Reference
from coa.agents.structure import Aspect, Description, Structure
from coa.documents import read_document
from coa.report.facts import RunFacts, cached_share
from coa.report.run_page import run_page
from coa.types import Citation, Document, Usage

Read = Callable[[str], Any]


def _checked(read_page: Read, facts: list[RunFacts]) -> Any:
    """The page, its links all leading somewhere in it."""
    page = read_page(run_page(facts))
    assert len(page.ids) == len(set(page.ids))
    assert {t for t in page.targets if not t.startswith("#")} == set()
    assert {t[1:] for t in page.targets} <= set(page.ids)
    return page


def test_the_answer_its_citations_and_the_marked_text_are_linked(read_page: Read, novel_run: RunFacts) -> None:
    page = _checked(read_page, [novel_run])
    assert [e.text for e in page.find("h1")] == ["What was the bow of the key shaped like?"]
    assert [e.attributes["href"] for e in page.find("a", kind="cites")] == ["#r1c1", "#r1c2"]
    assert [e.text for e in page.find("strong")][:1] == ["heron"]
    (mark,) = page.find("mark", id="r1c1")
    assert mark.text == "It was a brass key as long as a finger"
    assert page.find("a", kind="back", href="#r1q1")
    (text,) = page.find("div", kind="text")
    novel = novel_run.document.text
    shown = re.sub(r"Chunk\d+", "", "".join(text.text.split()))
    assert shown == "".join(novel.split())


def test_the_chain_tells_of_each_chunk_what_is_new_and_what_it_took(read_page: Read, novel_run: RunFacts) -> None:
    page = _checked(read_page, [novel_run])
    entries = page.find("li", kind="entry")
    assert len(entries) == len(novel_run.plan.parts[0].chunks) + 1
    assert "1.5 s · 1,000 tokens in, 80% cached, 40 out" in entries[0].text
    assert "nothing to note" in entries[1].text
    assert "skipped" in entries[2].text
    assert "the model refused" in entries[2].text
    assert "Something of part 4." in entries[3].text
    assert "Something of part 1." not in entries[3].text
    assert "1 line as before" in entries[3].text
    assert len(page.find("g", data_go="r1e0")) == 1


def test_usage_and_warnings_are_told(read_page: Read, novel_run: RunFacts) -> None:
    page = _checked(read_page, [novel_run])
    (table,) = page.find("table", kind="usage")
    told = " ".join(table.text.split())
    assert "Prompt tokens1,0009,000 of these cached800 (80%) of these computed200" in told
    assert "Costfree" in told
    (warnings,) = page.find("section", kind="warnings")
    assert "a small model" in warnings.text
    assert "Chunk 1 was not read: no reply" in warnings.text


def test_several_questions_share_one_text(read_page: Read, novel_run: RunFacts, runs: Any) -> None:
    second = runs.begin(novel_run.document, question="Who built the clock?")
    runs.answer(second, "Nobody says. [1]", [novel_run.answer.citations[0]] if novel_run.answer else [])
    page = _checked(read_page, [novel_run, runs.facts(second)])
    assert [e.text for e in page.find("h1")] == ["2 questions"]
    assert {"r1c1", "r2c1"} <= set(page.ids)
    assert len(page.find("div", kind="text")) == 1
    assert page.find("mark", data_c="r2c1")[0].text == page.find("mark", data_c="r1c1")[0].text


def test_runs_over_different_documents_are_no_page(novel_run: RunFacts) -> None:
    other = replace(novel_run, document=replace(novel_run.document, sha256="1" * 64))
    with pytest.raises(ValueError, match="one document"):
        run_page([novel_run, other])
    with pytest.raises(ValueError, match="one document"):
        run_page([])


def test_a_citation_that_is_nowhere_in_the_text_is_told_without_a_mark(
    read_page: Read, runs: Any, novel: Document
) -> None:
    run_id = runs.begin(novel)
    runs.answer(run_id, "So it is. [1]", [Citation("no such words", 0, 0, status="not_found")])
    page = _checked(read_page, [runs.facts(run_id)])
    assert [e.attributes["href"] for e in page.find("a", kind="cites")] == ["#r1q1"]
    assert page.find("mark") == []
    (quote,) = page.find("li", id="r1q1")
    assert "not found" in quote.text


def test_evidence_is_shown_as_sentences_that_link_to_their_places(read_page: Read, runs: Any, novel: Document) -> None:
    run_id = runs.begin(novel)
    runs.step(run_id, "auto/choice", {"strategy": "alr2", "reason": "it is long"}, usage=Usage())
    runs.step(run_id, "evidence/0/1/2", {"selected": [[3, 0.9], [99, 0.5]], "dropped": 0}, chunks=(2,))
    runs.step(run_id, "evidence/0/1/1", {"selected": [], "dropped": 0}, chunks=(1,))
    facts = runs.facts(run_id)
    assert [e.title for e in facts.entries] == ["Choice of the strategy", "Chunk 2: evidence", "Chunk 3: evidence"]
    assert [e.informative for e in facts.entries] == [True, False, True]
    (span,) = facts.entries[2].evidence
    page = _checked(read_page, [facts])
    (item,) = page.find("ul", kind="evidence")
    assert " ".join(item.text.split()) == " ".join(novel.text[span.start : span.end].split())
    assert "There is no answer: the run is done" in page.find("article")[0].text


def test_chains_that_were_read_side_by_side_are_shown_one_after_the_other(
    read_page: Read, runs: Any, novel: Document
) -> None:
    run_id = runs.begin(novel)
    for n in range(3):
        runs.note(run_id, n, f"- on {n}. [1.1]", path="forward")
        runs.note(run_id, 5 - n, f"- back {n}.", path="backward")
    facts = runs.facts(run_id)
    assert [(e.path, e.title) for e in facts.entries] == [
        *[("forward", f"Chunk {n}") for n in (1, 2, 3)],
        *[("backward", f"Chunk {n}") for n in (6, 5, 4)],
    ]
    assert facts.entries[0].places.keys() == {Reference(1, 1)}
    page = _checked(read_page, [facts])
    assert [e.text for e in page.find("h3") if "Reading" in e.text] == ["Reading “forward”", "Reading “backward”"]


def test_a_structured_run_has_its_outline_linked_to_the_text(read_page: Read, runs: Any) -> None:
    document = read_document(b"One. Two.\n\nThree. Four.", name="a.txt")
    run_id = runs.begin(document, task="structure", question=None)
    (chunk,) = runs.plan(run_id, document).parts[0].chunks
    n = len(chunk.sentences)
    structure = Structure("All", (Aspect("Whole of it", (Description(0, n),)),), n, "ids")
    runs.step(run_id, "structure/0/0", {"structure": structure.to_json(), "how": "model"}, chunks=(0,))
    page = _checked(read_page, [runs.facts(run_id)])
    (tree,) = page.find("ul", kind="outline")
    assert "Whole of it" in tree.text
    assert page.find("a", href="#s0")


def test_statements_are_shown_with_their_labels_and_what_they_rest_on(
    read_page: Read, runs: Any, novel: Document
) -> None:
    run_id = runs.begin(novel, task="check", question="It is so.\nIt is not so.")
    found = {"statement": "It is so.", "label": "true", "references": [[1, 2], [2, 3]], "reason": "all words"}
    runs.step(run_id, "check/0", found, chunks=(0, 1))
    page = _checked(read_page, [runs.facts(run_id)])
    (listed,) = page.find("ol", kind="checked")
    assert "true: It is so." in listed.text
    assert "not judged: It is not so." in listed.text
    assert [e.attributes["data-n"] for e in page.find("a", kind="back")] == ["1a", "1b"]
    assert page.find("h1")[0].text == "2 statements checked"


def test_notes_are_cut_where_they_would_outgrow_the_text_and_say_so(
    read_page: Read, runs: Any, novel: Document
) -> None:
    run_id = runs.begin(novel, budget=400)
    n_chunks = runs.plan(run_id, novel).n_chunks
    for n in range(n_chunks):
        runs.note(run_id, n, f"{n} " + "new words " * 3_000)
    page = run_page([runs.facts(run_id)])
    assert len(page) < 2 * len(novel.text) + 500_000
    assert page.count("cut here: coa runs show --notes has it whole") == n_chunks


def test_a_share_is_only_told_where_there_was_a_prompt() -> None:
    assert cached_share(Usage()) is None
    assert cached_share(Usage(prompt_tokens=200, cached_tokens=50)) == 0.25
