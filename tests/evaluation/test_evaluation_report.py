"""The report: its figures, what it makes of hostile text, thresholds and baselines."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from coa.documents import read_document
from coa.errors import ConfigError
from coa.evaluation.items import question_object
from coa.evaluation.ledger import Ledger
from coa.evaluation.questions import Question, QuestionSet
from coa.evaluation.report import report_html
from coa.evaluation.report_markdown import report_markdown
from coa.evaluation.summary import Summary, summarise
from coa.evaluation.verdicts import changes, fallen_back, fallen_short, threshold
from coa.types import Answer, Citation, Claim, Coverage, Span, Usage

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>|`&amp;"
N_DOCUMENTS = 6


def _set() -> QuestionSet:
    text = "Ada keeps the key. " + "The ferry crossed the sound. " * 20 + "Bo painted the harbour red."
    documents = {f"d{n}": read_document((text + f" Day {n}.").encode(), name=f"d{n}.txt") for n in range(N_DOCUMENTS)}
    questions = []
    for doc_id, document in documents.items():
        late = document.text.index("Bo painted")
        questions += [
            Question(f"{doc_id}-who", doc_id, f"Who? {HOSTILE}", ("Ada",), "who", gold=((Span(0, 18),),)),
            Question(f"{doc_id}-red", doc_id, "Which colour?", ("red",), "colour", gold=((Span(late, late + 27),),)),
        ]
    return QuestionSet("har|bour", documents, tuple(questions), "en", ("f1", "em", "evidence_recall", "coverage"))


def _answer(text: str, *, cites: Sequence[tuple[int, int]] = (), tokens: int = 100) -> Answer:
    return Answer(
        text=text,
        run_id="20260101-000000-abcd",
        strategy="chain",
        model="m",
        question="q",
        coverage=Coverage(4, 4),
        usage=Usage(calls=2, prompt_tokens=tokens, cached_tokens=tokens // 2, completion_tokens=5, cost_usd=0.001),
        citations=tuple(Citation(f"quote {HOSTILE}", *span) for span in cites),
        claims=(Claim(text, tuple(range(1, len(cites) + 1))),),
    )


def _ledger(folder: Path, replies: dict[str, dict[str, Answer | None]]) -> Ledger:
    """A ledger in which each arm of `replies` gives its reply by the question's kind; None is a failure."""
    one, ledger = _set(), Ledger(folder)
    folder.mkdir(exist_ok=True)
    arms = [
        {"name": arm, "strategy": None, "control": "bm25", "model": "m", "options": {"top_k": 2}} for arm in replies
    ]
    told: dict[str, Any] = {
        "name": f"suite {HOSTILE}", "seed": 1, "resamples": 200, "judge": None, "arms": arms,
        "sets": [{"name": one.name, "metrics": list(one.metrics), "documents": N_DOCUMENTS}],
    }  # fmt: skip
    keys = {q.id: {arm: f"{arm}/{q.id}" for arm in replies} for q in one.questions}
    ledger.describe(told, [question_object(q, one, keys[q.id]) for q in one.questions])
    for question in one.questions:
        for arm, by_kind in replies.items():
            answer = by_kind[question.kind]
            ledger.add_result(
                {
                    "item": keys[question.id][arm], "arm": arm, "set": one.name, "question": question.id,
                    "state": "failed" if answer is None else "done", "seconds": 1.5,
                    "error": f"BadOutput: {HOSTILE}" if answer is None else None,
                    "answer": None if answer is None else asdict(answer),
                }
            )  # fmt: skip
    return ledger


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    """Arm "good" answers both kinds, arm "poor" one of them wrongly and the other not at all."""
    good: dict[str, Answer | None] = {
        "who": _answer("Ada [1]", cites=[(0, 18)], tokens=900),
        "colour": _answer("red", tokens=900),
    }
    return summarise(_ledger(tmp_path / "ledger", {"good": good, "poor": {"who": _answer(HOSTILE), "colour": None}}))


def test_figures_are_those_of_the_answers(summary: Summary) -> None:
    def mean(arm: str, metric: str) -> float:
        cell = summary.cell("har|bour", arm, metric)
        assert cell is not None
        return cell.estimate.mean

    assert (mean("good", "em"), mean("good", "f1"), mean("good", "evidence_recall")) == (1, 1, 0.5)
    assert (mean("poor", "em"), mean("poor", "f1"), mean("poor", "coverage")) == (0, 0, 0.5)
    costs = {c.arm: c for c in summary.costs}
    assert (costs["good"].asked, costs["good"].failed, costs["good"].usage.calls) == (12, 0, 24)
    assert (costs["poor"].failed, costs["poor"].answered, costs["poor"].usage.prompt_tokens) == (6, 6, 600)
    (compared,) = summary.comparisons
    assert (compared.difference.mean, compared.difference.documents) == (1, N_DOCUMENTS)
    assert compared.adjusted_p == compared.difference.p == 2 / 2**N_DOCUMENTS
    assert set(summary.by["kind"]) == {"who", "colour"}
    assert set(summary.by["position"]) == {"first fifth", "last fifth"}
    assert json.loads(json.dumps(summary.to_json()))["scores"][0]["metric"] == "f1"


class _Page(HTMLParser):
    """Counts tags, and checks that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value is not None]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        if tag not in {"meta", "input", "br", "img", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_hostile_text_is_text(summary: Summary) -> None:
    html = report_html(summary)
    page = _Page()
    page.feed(html)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert page.handlers == []
    assert "alert(1)" in html
    assert not re.search(r"(?:src|href)=.?(?:https?:)?//", html)
    plots = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert plots == ["token F1 against tokens per question", "token F1 against where the evidence begins"]
    assert "first fifth" in html
    assert html.count("data-score=") == 12


def test_markdown_cells_cannot_be_broken_out_of(summary: Summary) -> None:
    text = report_markdown(summary)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables
    assert "<script" not in text.replace("\\<script", "")
    assert "| good | 100.0 [100.0, 100.0] |" in text


def test_an_evaluation_in_hand_is_reported_with_what_is_missing(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path / "l", {"good": {"who": _answer("Ada"), "colour": _answer("red")}})
    lines = (ledger.folder / "results.jsonl").read_text().splitlines(keepends=True)
    (ledger.folder / "results.jsonl").write_text("".join(lines[:5]) + lines[5][:40])  # killed in the middle of a line
    summary = summarise(ledger)
    assert summary.missing == 7
    assert "Answers still missing: 7" in report_html(summary)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("f1=1", ["har|bour/poor: f1 is 0.000, not 1.000"]),
        ("good:f1=100%", []),
        ("har|bour/f1=0", []),
        ("har|bour/good:evidence_recall=51%", ["har|bour/good: evidence_recall is 0.500, not 0.510"]),
    ],
)
def test_scores_are_held_against_thresholds(summary: Summary, text: str, lines: list[str]) -> None:
    assert fallen_short(summary, [threshold(text)]) == lines


@pytest.mark.parametrize("text", ["f1", "f1=", "f1=high", "f1=2", "f1=-1", "=1", ":f1=1"])
def test_a_threshold_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--fail-under"):
        threshold(text)


def test_a_threshold_may_name_an_arm_with_a_slash_or_a_colon_in_its_name() -> None:
    for text in ("chain@ollama/qwen:4b:f1=0.5", "novel/chain@ollama/qwen:4b:f1=0.5"):
        assert threshold(text).means("novel", "chain@ollama/qwen:4b")
        assert not threshold(text).means("novel", "chain")
    assert threshold("novel/f1=0.5").means("novel", "any")
    assert not threshold("novel/f1=0.5").means("other", "any")


def test_a_threshold_for_a_score_that_is_not_there_is_refused(summary: Summary) -> None:
    with pytest.raises(ConfigError, match="there is no score 'rougeL'"):
        fallen_short(summary, [threshold("rougeL=0.1")])


def test_an_evaluation_is_compared_with_an_earlier_one(summary: Summary, tmp_path: Path) -> None:
    now = summarise(
        _ledger(tmp_path / "now", {"good": {"who": _answer("Ada [1]", cites=[(0, 18)]), "colour": _answer("blue")}})
    )
    found = {c.metric: c for c in changes(now, summary)}
    assert (found["em"].before, found["em"].after, found["em"].difference.mean) == (1, 0.5, -0.5)
    assert found["evidence_recall"].difference.mean == 0
    assert fallen_back(list(found.values()), 0.4) == [
        "har|bour/good: f1 went from 1.000 to 0.500",
        "har|bour/good: em went from 1.000 to 0.500",
    ]
    assert fallen_back(list(found.values()), 0.5) == []
    assert "Against the baseline" in report_html(now, list(found.values()))
