"""How often the right passages come first, for plain BM25 and for coa's ranking, with no model.

    python tests/tools/retrieval_figures.py [SET ...] [--chunks]

The collections lie in the folder that COA_TEST_DATA names. The documents of a collection are joined into one, its
paragraphs are ranked for each question, and a question counts where all its gold paragraphs are among the first k.
Every second question is "tuned" (weights were set on those), the others are "unseen". Plain BM25 has k1 1.2, b 0.75
and lower-cased words, or single characters for Chinese; where the package bm25s is installed it is shown as well, with
the same words. --chunks measures chunks of 1,000 and 3,000 tokens in place of paragraphs, as alr2 preselects them.
Prints Markdown; the exit code is 1 where coa's ranking finds less than plain BM25 among the first five, for more than
one question in a hundred.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from coa.agents.lexical import SentenceRanker
from coa.agents.preselection import Passage, PassageRanker, passages_of
from coa.sentences import split_sentences
from coa.types import Chunk, Span

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("COA_TEST_DATA", REPOSITORY.parent / "shared" / "data"))

CUTS = (1, 2, 5, 10, 20)
TOLERATED = 0.01
"""Of recall, that coa may fall short of plain BM25 in one set: two or three questions."""
_CHUNKS = (4000, 12000)
"""Characters: about 1,000 and 3,000 tokens; for Chinese a quarter of that."""

Ranking = Callable[[str], list[int]]


class Question(NamedTuple):
    """A question and, for each thing that it needs, the paragraphs that have it."""

    text: str
    gold: tuple[frozenset[int], ...]


@dataclass(frozen=True)
class Collection:
    """Documents joined into one."""

    name: str
    language: str
    paragraphs: list[str]
    questions: list[Question]

    @property
    def text(self) -> str:
        """The joined document."""
        return "\n\n".join(self.paragraphs)


class Figures(NamedTuple):
    """Of one ranking over some questions."""

    recall: dict[int, float]
    """By k: the share of questions whose gold is all among the first k."""
    mrr: float
    """Mean of 1 / the place of the first gold paragraph."""
    ms: float
    """Per question."""


def hotpot() -> Collection:
    """Two gold paragraphs a question, by their titles; eight distractors each."""
    questions = _questions("hotpot100")
    paragraphs = list(dict.fromkeys(p for d in _documents(questions) for p in _paragraphs("hotpot100", d)))
    at: dict[str, set[int]] = {}
    for n, paragraph in enumerate(paragraphs):
        at.setdefault(paragraph.split("\n")[0], set()).add(n)
    asked = [Question(q["question"], tuple(frozenset(at[t]) for t in q["meta"]["titles"])) for q in questions]
    return Collection("hotpot100", "en", paragraphs, asked)


def squad(folder: str, language: str) -> Collection:
    """One gold paragraph a question, by its number in its document."""
    questions = _questions(folder)
    paragraphs, at = _joined(folder, questions)
    asked = [Question(q["question"], (frozenset({at[q["doc_id"], q["meta"]["paragraph"]]}),)) for q in questions]
    return Collection(folder, language, paragraphs, asked)


def cmrc() -> Collection:
    """The paragraphs of the question's document that hold one of its answers."""
    questions = _questions("cmrc")
    paragraphs, at = _joined("cmrc", questions)
    asked = []
    for q in questions:
        held = {n for (d, _), n in at.items() if d == q["doc_id"] and any(a in paragraphs[n] for a in q["answers"])}
        if held:
            asked.append(Question(q["question"], (frozenset(held),)))
    return Collection("cmrc", "zh", paragraphs, asked)


def fairytales() -> Collection:
    """The section that an explicit question was written for; the tales as one anthology."""
    questions = [q for q in _questions("fairytaleqa") if q["meta"].get("explicit") == "explicit"]
    paragraphs, at = _joined("fairytaleqa", questions)
    asked = []
    for q in questions:
        begins = [e[:60] for e in q["evidence"]]
        held = {n for (d, _), n in at.items() if d == q["doc_id"] and any(paragraphs[n].startswith(b) for b in begins)}
        if held:
            asked.append(Question(q["question"], (frozenset(held),)))
    return Collection("fairytaleqa", "en", paragraphs, asked)


COLLECTIONS: dict[str, Callable[[], Collection]] = {
    "hotpot100": hotpot,
    "xquad/en": lambda: squad("xquad/en", "en"),
    "xquad/de": lambda: squad("xquad/de", "de"),
    "xquad/es": lambda: squad("xquad/es", "es"),
    "xquad/zh": lambda: squad("xquad/zh", "zh"),
    "cmrc": cmrc,
    "fairytaleqa": fairytales,
}


def plain_words(text: str) -> list[str]:
    """Lower-cased words; Chinese characters one by one."""
    return re.findall(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+", text.lower())


def plain_bm25(texts: Sequence[str], *, k1: float = 1.2, b: float = 0.75) -> Ranking:
    """BM25 as in the textbook (Robertson and Zaragoza 2009), a word of the question counted once."""
    counts = [Counter(plain_words(t)) for t in texts]
    holding = Counter(w for c in counts for w in c)
    lengths = [c.total() for c in counts]
    mean, n = sum(lengths) / len(texts), len(texts)

    def rank(query: str) -> list[int]:
        scores = [0.0] * n
        for word in set(plain_words(query)) & holding.keys():
            rarity = math.log(1 + (n - holding[word] + 0.5) / (holding[word] + 0.5))
            for at, count in enumerate(counts):
                if f := count.get(word, 0):
                    scores[at] += rarity * f * (k1 + 1) / (f + k1 * (1 - b + b * lengths[at] / mean))
        return _order(scores)

    return rank


def bm25s(texts: Sequence[str]) -> Ranking:
    """The package, with the same words and parameters."""
    import bm25s as package  # type: ignore[import-not-found,import-untyped,unused-ignore]

    index = package.BM25(k1=1.2, b=0.75)
    index.index([plain_words(t) for t in texts], show_progress=False)

    def rank(query: str) -> list[int]:
        words = [w for w in dict.fromkeys(plain_words(query)) if w in index.vocab_dict]
        return _order([float(s) for s in index.get_scores(words)]) if words else []

    return rank


def sentence_ranker(texts: Sequence[str]) -> Ranking:
    """coa's ranking of sentences, over whole paragraphs: no headings."""
    ranker = SentenceRanker(texts)
    return lambda query: _order(ranker.scores(query))


def passage_ranker(texts: Sequence[str]) -> Ranking:
    """coa's ranking of passages, each of `texts` being one."""
    ranker = PassageRanker([Passage(at, 1, 1, text, heading_of(text)) for at, text in enumerate(texts)])
    return lambda query: [ranked.at for ranked in ranker.best(query, len(texts))]


def heading_of(text: str) -> str:
    """The heading that coa sees in a paragraph."""
    spans = tuple(Span(*s) for s in split_sentences(text, None))
    passages = passages_of([Chunk(0, text, Span(0, len(text)), spans, 0, "", False)])
    return passages[0].heading if passages else ""


RANKINGS: dict[str, Callable[[Sequence[str]], Ranking]] = {
    "plain BM25": plain_bm25,
    **({"bm25s": bm25s} if find_spec("bm25s") else {}),
    "sentence ranker": sentence_ranker,
    "coa": passage_ranker,
}


def figures(rank: Ranking, questions: Sequence[Question]) -> Figures:
    """Of a ranking that gives paragraph numbers, best first."""
    found = Counter[int]()
    reciprocal = 0.0
    started = time.perf_counter()
    for question in questions:
        place = {at: n for n, at in enumerate(rank(question.text), 1)}
        places = [min((place[at] for at in gold if at in place), default=math.inf) for gold in question.gold]
        found.update(k for k in CUTS if max(places) <= k)
        reciprocal += 1 / min(places)
    seconds = time.perf_counter() - started
    n = len(questions)
    return Figures({k: found[k] / n for k in CUTS}, reciprocal / n, seconds / n * 1000)


def halves(collection: Collection) -> dict[str, list[Question]]:
    """The questions that weights were set on, and the others."""
    return {"tuned": collection.questions[::2], "unseen": collection.questions[1::2]}


def chunked(collection: Collection, size: int) -> tuple[list[Chunk], list[Question]]:
    """Chunks of about `size` characters, and the questions with the chunks that their paragraphs lie in."""
    text = collection.text
    chunks: list[Chunk] = []
    sentences: list[Span] = []
    for span in (Span(*s) for s in split_sentences(text, collection.language)):
        sentences.append(span)
        if span.end - sentences[0].start >= size or span.end == len(text):
            whole = Span(sentences[0].start, span.end)
            chunks.append(Chunk(len(chunks), text[whole.start : whole.end], whole, tuple(sentences), 0, "", False))
            sentences = []
    starts = [0]
    for paragraph in collection.paragraphs:
        starts.append(starts[-1] + len(paragraph) + 2)

    def holding(paragraph: int) -> frozenset[int]:
        start, end = starts[paragraph], starts[paragraph] + len(collection.paragraphs[paragraph])
        return frozenset(c.index for c in chunks if c.span.start < end and c.span.end > start)

    moved = [
        Question(q.text, tuple(frozenset().union(*(holding(at) for at in gold)) for gold in q.gold))
        for q in collection.questions
    ]
    return chunks, moved


def _order(scores: Sequence[float]) -> list[int]:
    return sorted((at for at, s in enumerate(scores) if s > 0), key=lambda at: (-scores[at], at))


def _questions(folder: str) -> list[dict[str, Any]]:
    lines = (DATA / folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _documents(questions: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({q["doc_id"] for q in questions})


def _paragraphs(folder: str, document: str) -> list[str]:
    text = (DATA / folder / "docs" / f"{document}.txt").read_text(encoding="utf-8")
    return [p.strip() for p in text.split("\n\n") if p.strip()]


def _joined(folder: str, questions: Sequence[dict[str, Any]]) -> tuple[list[str], dict[tuple[str, int], int]]:
    paragraphs: list[str] = []
    at: dict[tuple[str, int], int] = {}
    for document in _documents(questions):
        for n, paragraph in enumerate(_paragraphs(folder, document)):
            at[document, n] = len(paragraphs)
            paragraphs.append(paragraph)
    return paragraphs, at


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(c) for c in cells) + " |"


def _head(*cells: str) -> str:
    return _row(*cells) + "\n" + _row(*("---" for _ in cells))


def _cells(found: Figures) -> list[str]:
    return [*(f"{found.recall[k]:.3f}" for k in CUTS), f"{found.mrr:.3f}", f"{found.ms:.1f}"]


def _measure_paragraphs(names: Sequence[str]) -> bool:
    print(_head("set", "paragraphs", "questions", "ranking", *(f"all in top {k}" for k in CUTS), "MRR", "ms/question"))
    good = True
    for name in names:
        collection = COLLECTIONS[name]()
        for half, questions in halves(collection).items():
            top5 = {}
            for ranking, make in RANKINGS.items():
                found = figures(make(collection.paragraphs), questions)
                top5[ranking] = found.recall[5]
                print(_row(name, len(collection.paragraphs), f"{len(questions)} {half}", ranking, *_cells(found)))
            good = good and top5["coa"] >= top5["plain BM25"] - TOLERATED
    return good


def _measure_chunks(names: Sequence[str]) -> bool:
    print(_head("set", "chunks", "questions", *(f"all in top {k}" for k in CUTS), "MRR", "ms/question"))
    for name in names:
        collection = COLLECTIONS[name]()
        for size in _CHUNKS:
            chunks, questions = chunked(collection, size // 4 if collection.language == "zh" else size)
            ranker = PassageRanker(passages_of(chunks))

            def rank(query: str, ranker: PassageRanker = ranker, n: int = len(chunks)) -> list[int]:
                return [ranked.at for ranked in ranker.best_chunks(query, n)]

            print(_row(name, len(chunks), len(questions), *_cells(figures(rank, questions))))
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 1 where coa finds less than plain BM25, beyond what is tolerated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(COLLECTIONS))
    parser.add_argument("--chunks", action="store_true", help="rank chunks in place of paragraphs")
    options = parser.parse_args(arguments)
    names = options.sets or list(COLLECTIONS)
    unknown = [name for name in names if name not in COLLECTIONS]
    if unknown:
        parser.error(f"there is no set {unknown[0]!r}; sets: {', '.join(COLLECTIONS)}")
    return 0 if (_measure_chunks if options.chunks else _measure_paragraphs)(names) else 1


if __name__ == "__main__":
    sys.exit(main())
