"""How the model that comes with coa answers questions whose answers are known: what a newcomer sees.

    python tests/tools/first_impression.py [--sets novel,xquad-en,...] [--most N] [--code-only]

Each set's texts are joined to one document and read with the default settings (`Session.ask`); with `--code-only` the
same agents read without a model, so that its share shows. The sets are held-out ones: nothing was fitted on them.
Prints a Markdown table: in how many percent the right sentence (of FairytaleQA: section) is among the citations and
is the first one, the answer has a token F1 of 0.5 and more with a right one, is a right one exactly; the mean F1; how
many were refused ("the text does not say", which is right for the sets "unanswerable" and "strangers": questions
about other articles); model calls and seconds for a question. Set COA_RESPONSE_CACHE=false for honest seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coa.agents import QuotingManager, QuotingWorker, ground, quotes_of
from coa.api import Session
from coa.chunking import chunk_document
from coa.config import load_settings
from coa.documents import read_document
from coa.llm.scripted import ScriptedModel
from coa.tokens import EstimatedTokens
from coa.types import Citation, CommunicationUnit, Document
from tests.tools.question_sets import SETS, Question, QuestionSet, exact, token_f1

_MARKS = re.compile(r"\s*\[\d+\]")
_CHUNK_TOKENS = 1200
_RIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """What came back for a question."""

    text: str
    citations: Sequence[Citation]
    calls: int


class Asking(Protocol):
    """Answers a question about the document that it was made for."""

    async def __call__(self, question: str) -> Told: ...


@dataclass
class Row:
    """A set's figures, as sums over its questions."""

    questions: int = 0
    cited: int = 0
    first: int = 0
    right: int = 0
    exact: int = 0
    f1: float = 0.0
    refused: int = 0
    calls: int = 0
    seconds: float = 0.0

    def take(self, question: Question, told: Told, seconds: float) -> None:
        """Counts a question in."""
        answer = _MARKS.sub("", told.text).strip()
        touching = [any(c.start < b and a < c.end for a, b in question.places) for c in told.citations]
        f1 = token_f1(answer, question.answers) if told.citations else 0.0
        self.questions += 1
        self.cited += any(touching)
        self.first += touching[:1] == [True]
        self.right += f1 >= _RIGHT
        self.exact += bool(told.citations) and exact(answer, question.answers)
        self.f1 += f1
        self.refused += not told.citations
        self.calls += told.calls
        self.seconds += seconds

    def line(self, name: str) -> str:
        """A row of the table."""
        n = max(1, self.questions)
        shares = (self.cited, self.first, self.right, self.exact, self.refused)
        cited, first, right, exactly, refused = (f"{100 * x / n:.1f}" for x in shares)
        cells = (name, self.questions, cited, first, right, f"{self.f1 / n:.3f}", exactly, refused)
        return "| " + " | ".join(map(str, (*cells, f"{self.calls / n:.1f}", f"{self.seconds / n:.2f}"))) + " |"


HEADER = (
    "| set | questions | cited % | first % | F1 >= 0.5 % | mean F1 | exact % | refused % | calls | s |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def without_model(document: Document) -> Asking:
    """The reading of models under a billion parameters, with a model that says nothing."""
    chunks = chunk_document(document, budget=_CHUNK_TOKENS, counter=EstimatedTokens())
    model = ScriptedModel(respond=lambda *_: "")
    worker, manager = QuotingWorker(model, chunks), QuotingManager(model)

    async def ask(question: str) -> Told:
        unit = CommunicationUnit()
        for chunk in chunks:
            unit = (await worker.read(chunk, question, unit)).unit
        reply = await manager.answer(question, unit)
        quotes = quotes_of(unit)
        if not quotes:
            return Told(reply.text, (), 0)
        found = ground(
            reply.text, document=document, chunks=chunks, question=question, quoted=[q.reference for q in quotes]
        )
        return Told(found.text, found.citations, 0)

    return ask


@asynccontextmanager
async def _session(*, code_only: bool) -> AsyncIterator[Session | None]:
    if code_only:
        yield None
        return
    async with Session(load_settings().settings) as session:
        yield session


def _asking(document: Document, session: Session | None) -> Asking:
    if session is None:
        return without_model(document)

    async def ask(question: str) -> Told:
        answer = await session.ask(document, question)
        return Told(answer.text, answer.citations, answer.usage.calls)

    return ask


async def measured(sets: Sequence[QuestionSet], session: Session | None, *, most: int, show: bool = False) -> Row:
    """The figures of `sets` together; at most `most` questions, spread evenly."""
    every = [(of, question) for of in sets for question in of.questions]
    chosen = every[:: max(1, -(-len(every) // most))]
    row = Row()
    asking: dict[str, Asking] = {}
    with tempfile.TemporaryDirectory() as folder:
        for of, question in chosen:
            if of.name not in asking:
                path = Path(folder) / f"{of.name.replace(' ', '-')}.txt"
                path.write_text(of.text, encoding="utf-8")
                document = await asyncio.to_thread(read_document, path)
                if document.text != of.text:
                    raise ValueError(f"{of.name}: the document differs from its file; places would not hold")
                asking[of.name] = _asking(document, session)
            begun = time.perf_counter()
            told = await asking[of.name](question.text)
            row.take(question, told, time.perf_counter() - begun)
            if show:
                print(f"{question.text} => {told.text} ({' / '.join(question.answers)})", flush=True)
    return row


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS), help=f"of: {', '.join(SETS)}")
    parser.add_argument("--most", type=int, default=10_000, help="questions of a set")
    parser.add_argument("--code-only", action="store_true")
    parser.add_argument("--show", action="store_true", help="each answer beside the right ones")
    options = parser.parse_args()
    print(HEADER, flush=True)
    async with _session(code_only=options.code_only) as session:
        for name in options.sets.split(","):
            row = await measured(SETS[name](), session, most=options.most, show=options.show)
            print(row.line(name), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
