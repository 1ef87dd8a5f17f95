"""Hiding loses nothing: taking out what was put in gives the source back, whatever it holds."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.documents import read_document
from coa.documents.canonical import canonical
from coa.errors import ConfigError
from coa.evaluation.folders import load_folder
from coa.evaluation.generating import (
    SetWriter,
    generate_distractors,
    generate_facts,
    generate_needles,
    generate_threads,
)
from coa.evaluation.haystack import Needle, hidden, readable_text, sized, without
from coa.evaluation.needles import TEMPLATES, needle_questions, thread_questions, wording_for
from tests.evaluation.conftest import DATA

BOOK = "".join(f"On day {n} the ferry crossed the sound. It carried {n + 3} barrels.\n\n" for n in range(60)).strip()
CHINESE = "".join(f"第{n}天，渡船过了海峡。船上有{n + 3}桶鲱鱼。\n" for n in range(60)).strip()


@given(
    st.text(max_size=400).map(canonical),
    st.lists(st.tuples(st.text(min_size=1, max_size=30).map(canonical), st.floats(0, 1)), max_size=6),
    st.sampled_from(["en", "zh", None]),
)
@settings(max_examples=60, deadline=None)
def test_a_haystack_without_its_needles_is_the_source(
    source: str, given_needles: list[tuple[str, float]], language: str | None
) -> None:
    needles = [Needle(text, depth) for text, depth in given_needles if text]
    stack = hidden(source, needles, language)
    assert without(stack.text, stack.inserted) == source
    assert [stack.text[s.start : s.end] for s in stack.needles] == [n.text for n in needles]
    assert list(stack.inserted) == sorted(stack.inserted)


def test_a_needle_stands_behind_the_sentence_nearest_to_its_depth() -> None:
    source = "One one. Two two. Three three."
    for depth, expected in (
        (0, "X. One one."),
        (0.3, "One one. X. Two"),
        (0.55, "Two two. X. Three"),
        (1, "three. X."),
    ):
        assert expected in hidden(source, [Needle("X.", depth)], "en").text


def test_needles_at_ascending_depths_keep_their_order() -> None:
    stack = hidden("A. B.", [Needle(f"{n}.", n / 10) for n in range(10)], "en")
    assert list(stack.needles) == sorted(stack.needles)


def test_text_that_is_not_canonical_is_refused() -> None:
    with pytest.raises(ConfigError, match="canonical"):
        hidden("e\u0301 is not composed.", [Needle("X.", 0.5)], "en")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        hidden("One.", [Needle("X.", 1.5)], "en")


@pytest.mark.parametrize("length", [50, 1000, 20_000])
def test_sources_are_cut_or_begun_again_at_sentences(length: int) -> None:
    text = sized([BOOK], length, "en")
    assert length * 0.5 < len(text) <= max(length, len("On day 0 the ferry crossed the sound."))
    assert text.endswith(".")
    assert text.startswith(BOOK[: min(len(text), len(BOOK))])


@pytest.mark.parametrize("language", sorted(TEMPLATES))
def test_every_wording_asks_for_what_it_hides(language: str) -> None:
    source = CHINESE if language == "zh" else BOOK
    made = needle_questions(
        source, depth=0.5, language=language, wording=wording_for(language), n_others=2, rng=random.Random(1)
    )
    (question,) = made.questions
    (needle,) = question["meta"]["needles"]
    hidden_text = made.text[needle["start"] : needle["end"]]
    assert question["answers"][0] in hidden_text
    assert made.text.count(question["answers"][0]) == 1
    assert without(made.text, [tuple(s) for s in question["meta"]["inserted"]]) == source
    assert not set("$") & set(hidden_text + question["question"])


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_a_thread_leads_to_its_end_in_the_order_asked_for(order: Any) -> None:
    made = thread_questions(
        BOOK, hops=5, n_threads=3, order=order, language="en", wording=wording_for("en"), rng=random.Random(7)
    )
    for question in made.questions:
        path, places = question["meta"]["path"], question["meta"]["needles"]
        links = [made.text[p["start"] : p["end"]] for p in places]
        assert links == [f"From {a} the path leads on to {b}." for a, b in pairwise(path)]
        assert question["answers"] == [path[-1]]
        starts = [p["start"] for p in places]
        if order == "forward":
            assert starts == sorted(starts)
        if order == "backward":
            assert starts == sorted(starts, reverse=True)
        assert without(made.text, [tuple(s) for s in question["meta"]["inserted"]]) == BOOK
    names = [name for q in made.questions for name in q["meta"]["path"]]
    assert len(set(names)) == len(names)


def test_a_thread_longer_than_its_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="too few sentences"):
        thread_questions(
            "One. Two.", hops=5, n_threads=1, order="backward", language="en", wording=wording_for("en"),
            rng=random.Random(1),
        )  # fmt: skip


def test_other_languages_take_a_wording_of_their_own() -> None:
    with pytest.raises(ConfigError, match="no wording for 'fi'"):
        wording_for("fi")
    with pytest.raises(ConfigError, match="needs \\$key"):
        wording_for("fi", needle="Salaisuus on $value.", asked="Mikä on $key?")
    wording = wording_for("fi", needle="Paikan $key luku on $value.", asked="Mikä on paikan $key luku?")
    made = needle_questions(BOOK, depth=1, language="fi", wording=wording, n_others=0, rng=random.Random(3))
    assert made.questions[0]["question"].startswith("Mikä on paikan")


def test_a_generated_set_is_read_back_with_its_evidence_and_is_the_same_for_its_seed(tmp_path: Path) -> None:
    def write(folder: Path, seed: int) -> Path:
        out = SetWriter(folder)
        wording = wording_for("en")
        generate_needles(
            out, [BOOK], lengths=[1000], depths=[0, 0.5, 1], times=2, n_others=1, language="en", wording=wording,
            seed=seed,
        )  # fmt: skip
        generate_threads(
            out, [BOOK], lengths=[2000], hops=3, n_threads=2, orders=["forward", "backward"], times=1, language="en",
            wording=wording, seed=seed,
        )  # fmt: skip
        out.close()
        return folder

    folder = write(tmp_path / "one", 5)
    found = load_folder(folder, name="generated", language="en")
    assert (len(found.documents), len(found.questions)) == (8, 10)
    assert found.metrics[0] == "contains"
    for question in found.questions:
        text = found.documents[question.doc_id].text
        assert question.answers[0] in text[question.gold[-1][0].start : question.gold[-1][0].end]
        assert without(text, [tuple(s) for s in question.meta["inserted"]]) in BOOK  # type: ignore[attr-defined]
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    again, other = write(tmp_path / "two", 5), write(tmp_path / "three", 6)
    assert all((again / f).read_bytes() == (folder / f).read_bytes() for f in files)
    assert (other / "questions.jsonl").read_bytes() != (folder / "questions.jsonl").read_bytes()


def test_facts_are_scattered_in_their_order(tmp_path: Path) -> None:
    story: dict[str, Any] = {
        "facts": ["Mary went to the garden.", "John took the milk.", "John went to the office."],
        "question": "Where is the milk?",
        "answers": ["office"],
        "support": [2, 1],
    }
    file = tmp_path / "stories.jsonl"
    file.write_text(json.dumps({"id": "s1", **story}) + "\n" + json.dumps({**story, "answers": ["garden"]}) + "\n")
    out = SetWriter(tmp_path / "set")
    generate_facts(out, [BOOK], file, lengths=[1500, 3000], times=2, language="en", seed=1)
    out.close()
    found = load_folder(tmp_path / "set", name="facts", language="en")
    assert len(found.questions) == 4
    assert found.metrics[:2] == ("label", "contains")
    for question in found.questions:
        text = found.documents[question.doc_id].text
        assert [text.index(fact) for fact in story["facts"]] == sorted(text.index(fact) for fact in story["facts"])
        assert [text[p[0].start : p[0].end] for p in question.gold] == story["facts"][1:]
        assert question.meta["labels"] == ["garden", "office"]
        assert without(text, [tuple(s) for s in question.meta["inserted"]]) in BOOK  # type: ignore[attr-defined]


def test_a_document_among_others_keeps_its_evidence(folder: Path, tmp_path: Path) -> None:
    out = SetWriter(tmp_path / "set")
    generate_distractors(out, folder, n_others=2, depths=[0, 0.5, 1], times=2, language="en", seed=2)
    out.close()
    original = load_folder(folder, name="ferries", language="en")
    found = load_folder(tmp_path / "set", name="among", language="en")
    assert len(found.questions) == 6
    owns = {d.text for d in original.documents.values()}
    for question in found.questions:
        text = found.documents[question.doc_id].text
        assert without(text, [tuple(s) for s in question.meta["inserted"]]) in owns  # type: ignore[attr-defined]
        assert all(question.answers[0] in text[p[0].start : p[0].end] for p in question.gold)
    with pytest.raises(ConfigError, match="only 2 other documents"):
        generate_distractors(SetWriter(tmp_path / "x"), folder, n_others=3, depths=[0], times=1, language="en", seed=2)


@pytest.mark.data
@pytest.mark.parametrize(("book", "language"), [("de-die-verwandlung-latin1.txt", "de"), ("zh-xiyouji.txt", "zh")])
def test_needles_in_real_books_can_be_taken_out_again(book: str, language: str) -> None:
    path = DATA / "books" / "docs" / book
    if not path.exists():
        pytest.skip("needs the document collection")
    source = sized([readable_text(read_document(path))], 60_000, language)
    made = needle_questions(
        source, depth=0.4, language=language, wording=wording_for(language), n_others=20, rng=random.Random(4)
    )
    assert without(made.text, [tuple(s) for s in made.questions[0]["meta"]["inserted"]]) == source
    assert read_document(made.text.encode()).text == made.text
