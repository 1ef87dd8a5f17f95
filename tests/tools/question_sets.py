"""Questions with the places of their answers, each set over one joined text, for measuring and fitting.

XQuAD (English, German, Spanish, Chinese) and CMRC are split by article: two of three are for developing ("dev"),
the third is held out ("held"). HotpotQA, FairytaleQA and the example novel are whole.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("COA_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
NOVEL = REPOSITORY / "examples" / "novel"

Split = Literal["dev", "held"]

_BLANK_LINE = re.compile(r"\n\s*\n")
_ARTICLES = re.compile(r"\b(?:a|an|the|der|die|das|den|dem|ein|eine|einen|le|la|les|un|une|el|los|las|una)\b")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_SEED = 20261122


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a set's text."""

    id: str
    text: str
    answers: tuple[str, ...]
    """Any one is right; none where the text does not say."""
    places: tuple[tuple[int, int], ...]
    """Half-open offsets in the set's text: what a citation has to touch to be right."""


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions over one text."""

    name: str
    language: str
    text: str
    questions: tuple[Question, ...]


def xquad(language: str, split: Split, *, unanswerable: bool = False) -> QuestionSet:
    """Articles of XQuAD joined; with `unanswerable` the questions are those of the other split's articles."""
    raw = _lines(DATA / "xquad" / language / "questions.jsonl")
    here = [q for q in raw if _split(q["meta"]["article"] // 2) == split]
    found = _squad(DATA / "xquad" / language / "docs", here, f"xquad {language} {split}", language)
    if not unanswerable:
        return found
    there = [q for q in raw if _split(q["meta"]["article"] // 2) != split]
    strangers = tuple(Question(q["id"], q["question"], (), ()) for q in there)
    return QuestionSet(f"{found.name} strangers", language, found.text, strangers)


def cmrc(split: Split) -> QuestionSet:
    """Chinese; documents of 16 paragraphs each, joined."""
    raw = _lines(DATA / "cmrc" / "questions.jsonl")
    number = {doc: at for at, doc in enumerate(sorted({q["doc_id"] for q in raw}))}
    here = [q for q in raw if _split(number[q["doc_id"]]) == split]
    return _squad(DATA / "cmrc" / "docs", here, f"cmrc {split}", "zh", by_paragraph=False)


def novel(kind: str = "single") -> QuestionSet:
    """The example novel's questions of one kind."""
    text = _read(NOVEL / "the-salt-ledger.txt")
    found = []
    for raw in _lines(NOVEL / "questions.jsonl"):
        if raw["type"] == kind:
            answers = () if kind == "unanswerable" else tuple(raw["answers"])
            places = (place for quote in raw["evidence"] for place in _occurrences(quote, text))
            found.append(Question(raw["id"], raw["question"], answers, tuple(places)))
    return QuestionSet(f"novel {kind}", "en", text, tuple(found))


def fairytales(n: int = 200) -> list[QuestionSet]:
    """`n` explicit questions, drawn with a fixed seed, a set for each tale; places are sections, not sentences."""
    folder = DATA / "fairytaleqa"
    raw = [q for q in _lines(folder / "questions.jsonl") if q["meta"]["explicit"] == "explicit"]
    drawn = random.Random(_SEED).sample(raw, n)
    sets = []
    for doc in sorted({q["doc_id"] for q in drawn}):
        text = _read(folder / "docs" / f"{doc}.txt")
        questions = (
            Question(q["id"], q["question"], tuple(q["answers"]), tuple(_sections(q["evidence"], text)))
            for q in drawn
            if q["doc_id"] == doc
        )
        sets.append(QuestionSet(f"fairytale {doc}", "en", text, tuple(questions)))
    return sets


def token_f1(answer: str, golds: Iterable[str]) -> float:
    """SQuAD's token F1 against the best of `golds`: case, punctuation and articles aside; Chinese by characters."""
    return max((_f1(_normal(answer), _normal(gold)) for gold in golds), default=0.0)


def exact(answer: str, golds: Iterable[str]) -> bool:
    """True where the normalised words are those of one of `golds`."""
    return any(_normal(answer) == _normal(gold) for gold in golds)


def _f1(a: Sequence[str], b: Sequence[str]) -> float:
    shared = (Counter(a) & Counter(b)).total()
    return 2 * shared / (len(a) + len(b)) if shared else 0.0


def _normal(text: str) -> list[str]:
    spaced = _ARTICLES.sub(" ", re.sub(r"[^\w\s]", " ", text.casefold()))
    return [part for word in spaced.split() for part in (list(word) if _WIDE.search(word) else [word])]


def _split(number: int) -> Split:
    return "held" if number % 3 == 2 else "dev"


def _squad(
    docs: Path, raw: Sequence[dict[str, Any]], name: str, language: str, *, by_paragraph: bool = True
) -> QuestionSet:
    parts: list[str] = []
    starts: dict[str, list[tuple[int, int]]] = {}
    at = 0
    for doc in dict.fromkeys(q["doc_id"] for q in raw):
        for paragraph in _BLANK_LINE.split(_read(docs / f"{doc}.txt").strip()):
            starts.setdefault(doc, []).append((at, at + len(paragraph)))
            parts.append(paragraph)
            at += len(paragraph) + 2
    text = "\n\n".join(parts)
    questions = []
    for q in raw:
        paragraphs = starts[q["doc_id"]]
        begin, end = paragraphs[q["meta"]["paragraph"]] if by_paragraph else (paragraphs[0][0], paragraphs[-1][1])
        places = (
            (begin + a, begin + b) for answer in q["answers"] for a, b in _occurrences(answer.strip(), text[begin:end])
        )
        questions.append(Question(q["id"], q["question"], tuple(q["answers"]), tuple(places)))
    return QuestionSet(name, language, text, tuple(questions))


def _occurrences(quote: str, text: str) -> list[tuple[int, int]]:
    pattern = r"\s+".join(re.escape(word) for word in quote.split())
    return [m.span() for m in re.finditer(pattern, text)] if pattern else []


def _sections(evidence: Sequence[str], text: str) -> list[tuple[int, int]]:
    found = []
    for opening in evidence:
        for begin, _ in _occurrences(opening, text):
            blank = _BLANK_LINE.search(text, begin)
            found.append((begin, blank.start() if blank else len(text)))
    return found


def _read(path: Path) -> str:
    # Byte order marks stand inside some of XQuAD's paragraphs; reading drops them.
    return path.read_text(encoding="utf-8").replace("\ufeff", "")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _one(load: Callable[[str, Split], QuestionSet], language: str) -> list[QuestionSet]:
    return [load(language, "held")]


_XQUAD = ("en", "de", "es", "zh")
SETS: dict[str, Callable[[], list[QuestionSet]]] = {
    "novel": lambda: [novel("single")],
    "two_chapters": lambda: [novel("two_chapters")],
    "unanswerable": lambda: [novel("unanswerable")],
    "fairytaleqa": fairytales,
    **{f"xquad-{code}": partial(_one, xquad, code) for code in _XQUAD},
    **{f"strangers-{code}": partial(_one, partial(xquad, unanswerable=True), code) for code in _XQUAD},
    "cmrc": lambda: [cmrc("held")],
}
"""What can be measured: held-out questions only."""
