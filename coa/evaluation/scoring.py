"""From an answer to its scores: which score means what, and which questions it is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from coa.agents.collapse import is_refusal
from coa.agents.nothing_found import is_nothing_found
from coa.errors import ConfigError
from coa.evaluation import longbench_scores as longbench
from coa.evaluation import metrics
from coa.evaluation.choices import choice, exam
from coa.evaluation.citation_scores import CitedSentence, evidence_recall, gold_citations
from coa.evaluation.questions import Question
from coa.types import Answer, Span

__all__ = ["JUDGED", "METRICS", "Reply", "check_metrics", "refuses", "reply_of", "scored"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What is scored of an answer."""

    text: str
    """Without citation marks."""
    sentences: tuple[CitedSentence, ...] = ()
    citations: tuple[Span, ...] = ()
    verdict: str | None = None
    chunks: int = 0
    read: int = 0

    @property
    def refused(self) -> bool:
        """True where it says only that the text does not tell."""
        return self.verdict == "not_in_text" or refuses(self.text)


_MARK = re.compile(r"\s?\[(\d+)\]")
_Score = Callable[[Question, Reply, str | None], float | None]


def reply_of(answer: Answer) -> Reply:
    """What is scored of `answer`."""
    citations = tuple(Span(c.start, c.end) for c in answer.citations if c.status != "not_found")
    n = len(answer.citations)

    def unmarked(text: str) -> str:
        return _MARK.sub(lambda m: "" if 1 <= int(m[1]) <= n else m[0], text).strip()

    def cited(numbers: Iterable[int]) -> tuple[Span, ...]:
        named = (answer.citations[number - 1] for number in numbers if 1 <= number <= n)
        return tuple(Span(c.start, c.end) for c in named if c.status != "not_found")

    return Reply(
        text=unmarked(answer.text),
        sentences=tuple(CitedSentence(unmarked(c.text), cited(c.citations)) for c in answer.claims),
        citations=citations,
        verdict=answer.verdict,
        chunks=answer.coverage.chunks,
        read=answer.coverage.read,
    )


def refuses(text: str) -> bool:
    """True for an empty text, and one that says only that there is nothing to say."""
    return is_nothing_found(text) or is_refusal(text)


def check_metrics(names: Sequence[str], where: str) -> None:
    """Raises: ConfigError for a name that is no score, or one whose library is missing."""
    known = {*METRICS, *JUDGED, "pair_accuracy"}
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: unknown score {name!r}.", hint=f"Known are {', '.join(sorted(known))}.")
        if name.startswith("rouge"):
            metrics.rouge("a", ["a"])
        if name.endswith("_zh_words"):
            metrics.word_f1_zh("一", ["一"])


def scored(question: Question, reply: Reply | None, names: Sequence[str], *, language: str | None) -> dict[str, float]:
    """The scores of a reply by their names; those that are not for this question are left out.

    A question that was not answered at all (None: the run failed) scores 0. A question may name its own scores
    (`meta.metrics`), which then are the only ones of `names` that it gets. "pair_accuracy" and judges' scores are
    worked out elsewhere.
    """
    own = question.meta.get("metrics")
    if isinstance(own, Sequence) and not isinstance(own, str):
        general = {"coverage", "abstention", "evidence_recall"}
        names = [name for name in names if name in own or name in general or name.startswith("citation_")]
    found: dict[str, float] = {}
    for name in names:
        if name not in METRICS or (reply is None and name == "wrong_refusal"):
            continue
        value = METRICS[name](question, reply if reply is not None else _NOTHING, language)
        if value is not None:
            found[name] = value if reply is not None else 0.0
    return found


_NOTHING = Reply("")


def _shown(question: Question, reply: Reply) -> str:
    """The reply, or its first line where LongBench takes no more."""
    return reply.text.split("\n", 1)[0] if question.meta.get("first_line") else reply.text


def _of_answers(score: Callable[[str, Sequence[str], str | None], float]) -> _Score:
    """A score against the answers; an unanswerable question's is whether the reply says so, as in SQuAD 2.0."""

    def scores(question: Question, reply: Reply, language: str | None) -> float | None:
        if question.unanswerable:
            return float(reply.refused)
        if not question.answers:
            return None
        return score(_shown(question, reply), question.answers, language)

    return scores


def _abstention(question: Question, reply: Reply, language: str | None) -> float | None:
    return float(reply.refused) if question.unanswerable else None


def _wrong_refusal(question: Question, reply: Reply, language: str | None) -> float | None:
    return None if question.unanswerable else float(reply.refused)


def _choice(question: Question, reply: Reply, language: str | None) -> float | None:
    if not question.options:
        return None
    return choice(reply.text, question.answers, question.options, by_words=question.by_words)


def _exam(question: Question, reply: Reply, language: str | None) -> float | None:
    return exam(reply.text, question.answers[0], question.options) if question.answers else None


def _evidence(question: Question, reply: Reply, language: str | None) -> float | None:
    return evidence_recall(reply.citations, question.gold)


def _citations(which: str) -> _Score:
    def scores(question: Question, reply: Reply, language: str | None) -> float | None:
        sentences = reply.sentences or (CitedSentence("", ()),)
        carried = {citation for sentence in reply.sentences for citation in sentence.citations}
        loose = [citation for citation in reply.citations if citation not in carried]
        found = gold_citations(sentences, question.gold, loose=loose)
        return None if found is None else float(getattr(found, which))

    return scores


def _coverage(question: Question, reply: Reply, language: str | None) -> float | None:
    return reply.read / reply.chunks if reply.chunks else 0.0


def _labels(question: Question, reply: Reply, language: str | None) -> float | None:
    labels = question.meta.get("labels")
    if not isinstance(labels, Sequence) or not question.answers:
        return None
    return metrics.label_found(reply.text, question.answers[0], [str(x) for x in labels], question.text)


def _classes(question: Question) -> list[str]:
    classes = question.meta.get("classes")
    return [str(c) for c in classes] if isinstance(classes, Sequence) else []


METRICS: Mapping[str, _Score] = {
    "em": _of_answers(lambda reply, answers, code: metrics.exact_match(reply, answers, language=code)),
    "f1": _of_answers(lambda reply, answers, code: metrics.token_f1(reply, answers, language=code)),
    "f1_zh_words": _of_answers(lambda reply, answers, _: metrics.word_f1_zh(reply, answers)),
    "contains": _of_answers(lambda reply, answers, code: metrics.best_subspan_em(reply, answers, language=code)),
    "match_all": _of_answers(lambda reply, answers, _: metrics.match_all(reply, answers)),
    "match_part": _of_answers(lambda reply, answers, _: metrics.match_part(reply, answers)),
    "rouge1": _of_answers(lambda reply, answers, code: metrics.rouge(reply, answers, language=code).rouge1),
    "rouge2": _of_answers(lambda reply, answers, code: metrics.rouge(reply, answers, language=code).rouge2),
    "rougeL": _of_answers(lambda reply, answers, code: metrics.rouge(reply, answers, language=code).rougeL),
    "rougeL_zh_words": _of_answers(lambda reply, answers, _: metrics.rouge(reply, answers, jieba=True).rougeL),
    "choice": _choice,
    "exam": _exam,
    "label": _labels,
    "classification": lambda question, reply, _: max(
        (longbench.classification(_shown(question, reply), a, _classes(question)) for a in question.answers),
        default=None,
    ),
    "numbers": _of_answers(lambda reply, answers, _: max(longbench.numbers(reply, a) for a in answers)),
    "code_similarity": _of_answers(lambda reply, answers, _: max(longbench.code_similarity(reply, a) for a in answers)),
    "abstention": _abstention,
    "wrong_refusal": _wrong_refusal,
    "evidence_recall": _evidence,
    "citation_precision": _citations("precision"),
    "citation_recall": _citations("recall"),
    "citation_f1": _citations("f1"),
    "coverage": _coverage,
}
"""Scores by name. "wrong_refusal" is the only one of which less is better."""

JUDGED = ("judged_correct", "judged_citation_precision", "judged_citation_recall")
"""Scores that a judge gives: they take calls."""
