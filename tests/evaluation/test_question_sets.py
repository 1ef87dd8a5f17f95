"""Reading sets: folders of one's own, the files of published benchmarks, and what a suite draws from them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coa.errors import ConfigError, DocumentError
from coa.evaluation.folders import joined, load_folder
from coa.evaluation.locating import located
from coa.evaluation.published import load_published
from coa.evaluation.questions import Question, QuestionSet
from coa.evaluation.scoring import Reply, scored
from coa.evaluation.suite import arms_of, load_suite, question_sets
from tests.evaluation.conftest import DATA

WriteSuite = Callable[..., Path]


def _lines(path: Path, *objects: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects), encoding="utf-8")
    return path


def _shown(found: QuestionSet, question: Question) -> list[str]:
    text = found.documents[question.doc_id].text
    return [text[piece[0].start : piece[0].end] for piece in question.gold]


def _oracle(found: QuestionSet, question: Question) -> dict[str, float]:
    return scored(question, Reply(question.answers[0]), found.metrics, language=found.language_of(question))


def test_a_folder_is_read_with_evidence_and_unanswerable_questions(folder: Path) -> None:
    found = load_folder(folder, name="ferries", language="en")
    by_id = {q.id: q for q in found.questions}
    assert _shown(found, by_id["1-who"]) == ["Bo Lind hid the lighthouse key of sound 1 in an old boot."]
    assert by_id["2-unanswerable"].unanswerable
    assert by_id["2-unanswerable"].gold == ()
    assert "abstention" in found.metrics
    position = by_id["0-number"].position(len(found.documents["sound-0"].text))
    assert position is not None
    assert position < 0.1


def test_joined_documents_keep_their_evidence(folder: Path) -> None:
    apart = load_folder(folder, name="ferries", language="en")
    for size, n_documents in ((2, 2), (None, 1)):
        together = joined(apart, size)
        assert len(together.documents) == n_documents
        assert [_shown(together, q) for q in together.questions] == [_shown(apart, q) for q in apart.questions]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 4: not valid JSON"),
        ("[]", "line 4: expected a JSON object"),
        ('{"id": "x", "question": "q", "answers": []}', "doc_id"),
        ('{"id": "1-who", "doc_id": "sound-1", "question": "q"}', "'1-who' is there twice"),
    ],
)
def test_a_faulty_line_is_told_with_its_number(folder: Path, line: str, message: str) -> None:
    file = folder / "questions.jsonl"
    file.write_text("\n".join([*file.read_text().splitlines()[3:6], line]), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_folder(folder, name="x", language=None)


def test_a_missing_document_is_told(folder: Path) -> None:
    (folder / "docs" / "sound-1.txt").unlink()
    with pytest.raises(DocumentError, match="no document 'sound-1'"):
        load_folder(folder, name="x", language=None)


def test_evidence_is_found_by_turns_paragraphs_sections_and_copied_answers() -> None:
    text = "A: one two.\nB: three.\n\nC: four five.\nD: six.\n\nE: seven eight nine ten eleven."

    def shown(**given: Any) -> list[list[str]]:
        told = {"answers": (), "evidence": (), "meta": {}, **given}
        return [[text[s.start : s.end] for s in piece] for piece in located(text, **told)]

    assert shown(meta={"relevant_turns": [[0, 1], [3, 9]]}) == [
        ["A: one two.\nB: three."],
        ["C: four five.\nD: six.\n\nE: seven eight nine ten eleven."],
    ]
    assert shown(meta={"paragraph": 1}, answers=["six", "four five"]) == [["four five", "six"]]
    assert shown(meta={"sections": "2"}, evidence=["C: four"]) == [["C: four five.\nD: six."]]
    assert shown(evidence=["B:  three.\n\nC:", "not there"]) == [["B: three.\n\nC:"]]
    assert shown(answers=["seven eight nine"]) == [["seven eight nine"]]
    assert shown(answers=["six"]) == []  # so short that it may stand there by chance
    with pytest.raises(ConfigError, match="unknown form"):
        shown(form="guess")


def test_longbench_files_are_read(tmp_path: Path) -> None:
    shared = {"context": "Ada lives in Rome near the old harbour.", "length": 8, "all_classes": None, "language": "en"}
    file = _lines(
        tmp_path / "mixed.jsonl",
        {**shared, "input": "Where does Ada live?", "answers": ["in Rome near the old harbour"], "dataset": "hotpotqa",
         "_id": "a"},
        {**shared, "input": "谁？", "context": "阿达住在罗马。", "answers": ["阿达"], "dataset": "multifieldqa_zh",
         "_id": "b", "language": "zh"},
        {**shared, "input": "Which type?", "answers": ["location"], "dataset": "trec", "_id": "c",
         "all_classes": ["location", "person"]},
        {**shared, "input": "", "answers": ["Ada."], "dataset": "gov_report", "_id": "d"},
    )  # fmt: skip
    found = load_published("longbench", file, name="lb")
    assert len(found.documents) == 2  # the same context is one document
    assert _shown(found, found.questions[0]) == ["in Rome near the old harbour"]
    assert [set(_oracle(found, q)) for q in found.questions] == [
        {"f1"}, {"f1_zh_words"}, {"classification"}, {"rougeL"},
    ]  # fmt: skip
    assert all(value == 1 for q in found.questions for value in _oracle(found, q).values())
    first_line = scored(found.questions[2], Reply("location\nperson"), found.metrics, language="en")
    assert first_line == {"classification": 1.0}


def test_leval_files_are_read(tmp_path: Path) -> None:
    def entry(score: str, asked: str, right: str) -> dict[str, Any]:
        return {"instructions": [asked], "outputs": [right], "input": f"A text for {asked}", "evaluation": score}

    file = _lines(
        tmp_path / "set.jsonl",
        entry("exam", "Which?\n(A) red\n(B) blue", "(B) blue"),
        entry("exam", "True or false?", "True [fact: False]"),
        entry("exam", "How much is it?", "42"),
        entry("f1", "Which clause?", "The term of five years."),
        entry("human", "Sum it up.", "It is about a text and no more."),
    )
    found = load_published("leval", file, name="le")
    replies = ["The answer is B.", "true", "It is 42.", "The term of five years.", "It is about a text and no more."]
    scores = [
        scored(q, Reply(reply), found.metrics, language="en") for q, reply in zip(found.questions, replies, strict=True)
    ]
    assert [set(s) for s in scores] == [{"exam"}, {"choice"}, {"contains"}, {"f1"}, {"rougeL", "rouge1", "rouge2"}]
    assert all(value == 1 for s in scores for value in s.values())
    assert found.questions[3].asked.endswith("Answer in about 5 words.")


def test_ruler_files_are_read(tmp_path: Path) -> None:
    niah = {
        "index": 0,
        "input": "Some special magic numbers are hidden.\nOne of the numbers for ash is: 1234567.\nGrass is green.\n"
        "What is the special magic number for ash?",
        "outputs": ["1234567"],
    }
    qa = {
        "index": 1,
        "input": "Answer from the documents.\n\nDocument 1:\nAda lives in Rome.\n\nOnly give me the answer.\n\n"
        "Question: Where does Ada live?",
        "outputs": ["Rome", "in Rome"],
    }
    _lines(tmp_path / "niah_single_1" / "validation.jsonl", niah)
    _lines(tmp_path / "qa_1" / "validation.jsonl", qa)
    found = load_published("ruler", tmp_path, name="ruler")
    assert [q.text for q in found.questions] == [
        "What is the special magic number for ash?",
        "Where does Ada live?",
    ]
    assert [q.kind for q in found.questions] == ["niah_single_1", "qa_1"]
    assert "What is" not in found.documents[found.questions[0].doc_id].text
    assert [_oracle(found, q) for q in found.questions] == [{"match_all": 1.0}, {"match_part": 1.0}]


def test_qmsum_squality_and_nocha_files_are_read(tmp_path: Path) -> None:
    meeting = {
        "meeting_transcripts": [
            {"speaker": "Ada", "content": "We start."},
            {"speaker": "Bo", "content": "The key\n is lost."},
            {"speaker": "Ada", "content": "We end."},
        ],
        "general_query_list": [{"query": "Summarize the whole meeting.", "answer": "A key is lost."}],
        "specific_query_list": [
            {"query": "What of the key?", "answer": "It is lost.", "relevant_text_span": [["1", "1"]]}
        ],
    }
    found = load_published("qmsum", _lines(tmp_path / "test.jsonl", meeting), name="qm")
    assert [_shown(found, q) for q in found.questions] == [[], ["Bo: The key is lost."]]

    story = {
        "metadata": {"passage_id": "pg1"},
        "document": "Once there was a ship.",
        "questions": [
            {"question_text": "What is the plot?", "question_number": 1,
             "responses": [{"response_text": "A ship."}, {"response_text": "Of a ship."}]},
        ],
    }  # fmt: skip
    found = load_published("squality", _lines(tmp_path / "dev.jsonl", story), name="sq")
    assert found.questions[0].answers == ("A ship.", "Of a ship.")

    claims = [
        {"book_title": "little", "claim": claim, "type": right, "index": 7}
        for claim, right in (("Amy left.", True), ("Amy stayed.", "False"))
    ]
    file = tmp_path / "data_sample.json"
    file.write_text(json.dumps(claims))
    (tmp_path / "classic_books.pkl").write_bytes(pickle.dumps({"little": "Amy left the house."}))
    found = load_published("nocha", file, name="nocha")
    assert [(q.answers, q.pair) for q in found.questions] == [(("True",), "little/7"), (("False",), "little/7")]
    assert found.questions[0].asked.endswith("Reply with one word: True or False.")
    assert found.metrics[0] == "pair_accuracy"


def test_a_pickle_that_could_run_something_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("run",)

    (tmp_path / "classic_books.pkl").write_bytes(pickle.dumps({"little": Evil()}))
    (tmp_path / "data_sample.json").write_text("[]")
    with pytest.raises(ConfigError, match="only texts are loaded"):
        load_published("nocha", tmp_path / "data_sample.json", name="nocha")


def test_a_file_of_another_format_is_told(tmp_path: Path) -> None:
    file = _lines(tmp_path / "x.jsonl", {"something": "else"})
    for form in ("longbench", "leval", "ruler", "qmsum", "squality"):
        with pytest.raises(ConfigError, match=f"not as {form} publishes it"):
            load_published(form, file, name="x")


def test_arms_are_every_strategy_with_every_model_and_options(suite_file: WriteSuite) -> None:
    file = suite_file(
        "  - strategies: [chain, rag]\n    models: [a, b]\n    options: {plain: {}, two: {passes: 2}}\n"
        "  - controls: [bm25]\n",
        more="settings: {top_k: 5}\n",
    )
    arms = arms_of(load_suite(file))
    assert [a.name for a in arms] == [
        "chain+plain@a", "chain+two@a", "chain+plain@b", "chain+two@b",
        "rag+plain@a", "rag+two@a", "rag+plain@b", "rag+two@b", "bm25",
    ]  # fmt: skip
    assert arms[1].options == {"top_k": 5, "passes": 2}
    assert len({a.digest for a in arms}) == len(arms)


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("  - strategies: [chain]\n    options: {x: {modle: a}}\n", "'modle' cannot be set there"),
        ("  - strategies: [chain]\n    options: {x: {passes: 9}}\n", "options 'x': passes"),
        ("  - strategies: [chain, chain]\n", "two arms are called 'chain'"),
        ("  - strategies: [check]\n", "check answers no questions"),
        ("  - controls: [magic]\n", r"arms\.0\.controls\.0"),
        ("  - models: [a]\n", "give strategies or controls"),
        ("  - strategies: [chain]\n    color: red\n", r"arms\.0\.color"),
    ],
)
def test_a_suite_that_cannot_be_is_refused(suite_file: WriteSuite, arms: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_suite(suite_file(arms))


def test_questions_are_drawn_from_all_documents_and_a_larger_draw_holds_the_smaller(suite_file: WriteSuite) -> None:
    file = suite_file("  - controls: [bm25]\n")
    suite = load_suite(file)
    drawn = {n: {q.id for q in question_sets(suite, file.parent, limit=n)[0].questions} for n in (3, 5, 9, 50)}
    assert {ident[0] for ident in drawn[3]} == {"0", "1", "2"}
    assert drawn[3] < drawn[5] < drawn[9] == drawn[50]
    assert {q.id for q in question_sets(suite, file.parent, limit=3)[0].questions} == drawn[3]


def test_the_example_suites_can_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = Path(__file__).resolve().parents[2] / "examples" / "eval"
    novel = load_suite(examples / "novel.yaml")
    (found,) = question_sets(novel, examples)
    assert len(found.questions) == 60
    assert all(q.gold for q in found.questions if not q.unanswerable and q.evidence)
    small = load_suite(examples / "small-model.yaml")
    assert len(arms_of(small)) == 5
    monkeypatch.delenv("COA_TEST_DATA", raising=False)
    with pytest.raises(ConfigError, match="COA_TEST_DATA"):
        question_sets(small, examples)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_gold"),
    [("xquad/zh", 600), ("qmsum", 45), ("contracts", 30)],
)
def test_real_sets_are_read_with_their_evidence(name: str, n_gold: int) -> None:
    if not (DATA / name).exists():
        pytest.skip("needs the document collection")
    found = load_folder(DATA / name, name="set", language=None)
    assert sum(bool(q.gold) for q in found.questions) >= n_gold
    for question in found.questions:
        for piece, shown in zip(question.gold, _shown(found, question), strict=True):
            assert piece
            assert shown.strip()
    assert not any(q.gold for q in found.questions if q.unanswerable)
