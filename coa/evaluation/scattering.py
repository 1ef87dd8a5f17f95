"""Stories scattered through books, and documents set among others that do not help.

Sources: BABILong (Kuratov et al. 2024: bAbI facts, in order, between the sentences of a book), Lost in the Middle (Liu
et al. 2023: the passage that matters at a chosen place among others), Breaking Focus (Huang et al. 2025: coherent
passages that distract). What is put in is recorded, so the book, or the document alone, can be had back to the
character.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coa.documents.canonical import canonical
from coa.errors import ConfigError
from coa.evaluation.folders import json_lines
from coa.evaluation.haystack import Needle, hidden
from coa.evaluation.needles import Made
from coa.evaluation.questions import Question, QuestionSet
from coa.types import Document, Span

__all__ = ["fact_question", "load_stories", "surrounded"]

_SEPARATOR = "\n\n"


def load_stories(file: Path) -> list[dict[str, Any]]:
    """bAbI stories, an object a line: `facts` in order, `question`, `answers`, `support` (places of facts).

    Raises: ConfigError.
    """
    stories = []
    for n, raw in json_lines(file):
        facts, support = raw.get("facts"), raw.get("support", [])
        named = all(isinstance(raw.get(key), kind) for key, kind in (("question", str), ("answers", list)))
        if not isinstance(facts, list) or not named or any(not 0 <= at < len(facts) for at in support):
            raise ConfigError(f"{file}, line {n}: expected facts, question, answers and support.")
        stories.append({"id": str(raw.get("id", n)), **raw, "support": support})
    if not stories:
        raise ConfigError(f"{file}: holds no story.")
    return stories


def fact_question(
    source: str, story: Mapping[str, Any], labels: Iterable[str], *, language: str | None, rng: random.Random
) -> Made:
    """The story's facts in their order at random places of `source`, and its question.

    `labels` are all answers that the task has, for BABILong's score.
    """
    facts = [canonical(str(fact)) for fact in story["facts"]]
    depths = sorted(rng.random() for _ in facts)
    stack = hidden(source, [Needle(fact, depth) for fact, depth in zip(facts, depths, strict=True)], language)
    support = sorted(story["support"])
    question = {
        "question": story["question"],
        "answers": list(story["answers"]),
        "type": f"{len(support)} facts" if len(support) != 1 else "1 fact",
        "meta": {
            "needles": [{"start": stack.needles[n].start, "end": stack.needles[n].end} for n in support],
            "inserted": [list(span) for span in stack.inserted],
            "metrics": ["label", "contains"],
            "labels": sorted(set(labels)),
        },
    }
    return Made(stack.text, [question])


def surrounded(
    questions: QuestionSet, question: Question, *, n_others: int, depth: float, rng: random.Random
) -> tuple[str, Question, Span]:
    """The question's document among `n_others` others of the set, at `depth` of them (0 first, 1 last): the text, the
    question with its evidence at its new places, and where its own document stands.

    Others that hold one of its answers are not taken. Raises: ConfigError where too few are left.
    """
    own = questions.documents[question.doc_id]
    others = [
        document
        for doc_id, document in questions.documents.items()
        if doc_id != question.doc_id and not _holds_any(document, question.answers)
    ]
    if len(others) < n_others:
        raise ConfigError(
            f"{question.id}: only {len(others)} other documents hold none of its answers; {n_others} are wanted."
        )
    around = rng.sample(others, n_others)
    place = round(depth * n_others)
    before = _SEPARATOR.join([*(d.text for d in around[:place]), ""])
    after = _SEPARATOR.join(["", *(d.text for d in around[place:])])
    text = before + own.text + after
    gold = tuple(tuple(Span(s.start + len(before), s.end + len(before)) for s in piece) for piece in question.gold)
    return text, replace(question, gold=gold), Span(len(before), len(before) + len(own.text))


def _holds_any(document: Document, answers: Sequence[str]) -> bool:
    lower = document.text.lower()
    return any(answer.strip() and answer.strip().lower() in lower for answer in answers)
