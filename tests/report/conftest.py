"""Runs on disk as sessions leave them, made without a model; a browser; and a reader of pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from coa.chunking import chunk_document
from coa.documents import read_document
from coa.report.facts import RunFacts, facts_of
from coa.runs import Part, PartAnswer, RunPlan, RunRecord, RunStore, StoredNote, StoredStep, Task
from coa.testing.chromium import Chromium, chromium_program
from coa.tokens import EstimatedTokens
from coa.types import Answer, Citation, Coverage, Document, Forecasted, SkippedChunk, Usage

AXE = Path(__file__).resolve().parents[2] / "build" / "axe" / "axe.min.js"
NOVEL = Path(__file__).resolve().parents[2] / "examples" / "novel" / "the-salt-ledger.txt"
CALLED = Usage(calls=1, prompt_tokens=1000, cached_tokens=800, completion_tokens=40, cost_usd=0.0, seconds=1.5)


@dataclass
class StoredRuns:
    """Writes runs into a home folder."""

    store: RunStore
    made: list[str] = field(default_factory=list)

    def begin(self, document: Document, *, budget: int = 700, task: Task = "ask", question: str | None = "Who?") -> str:
        """A new run over `document`, with its plan; nothing is read yet."""
        chunks = tuple(chunk_document(document, budget=budget, counter=EstimatedTokens()))
        plan = RunPlan((Part(None, chunks),), "estimate", exact=False)
        run_id = f"20260101-0000{len(self.made):02}-beef"
        record = RunRecord(
            run_id=run_id,
            task=task,
            state="done",
            created="2026-01-01T00:00:00+00:00",
            updated="2026-01-01T00:01:00+00:00",
            document=document.name,
            document_sha256=document.sha256,
            question=question,
            strategy="chain",
            model="a-model",
            n_chunks=len(chunks),
            estimate=Forecasted(9, 9000, 900),
            prompts={"worker_question": "ab12"},
        )
        self.store.create(record, document, plan)
        self.made.append(run_id)
        return run_id

    def plan(self, run_id: str, document: Document) -> RunPlan:
        return self.store.plan(run_id, document)

    def note(self, run_id: str, chunk: int, text: str, **changes: object) -> None:
        note = StoredNote(0, chunk, text, chunk, informative=True, usage=CALLED, seconds=1.5)
        self.store.add_note(run_id, replace(note, **changes))  # type: ignore[arg-type]

    def notes(self, run_id: str, texts: Sequence[str]) -> None:
        """A note for each chunk, written at once: a session waits for the disk after each."""
        notes = (StoredNote(0, n, text, n, informative=True, usage=CALLED, seconds=1.5) for n, text in enumerate(texts))
        lines = (json.dumps({"kind": "note", **asdict(note)}) + "\n" for note in notes)
        (self.store.path(run_id) / "notes.jsonl").write_text("".join(lines), encoding="utf-8")

    def step(self, run_id: str, key: str, payload: dict[str, object], **changes: object) -> None:
        self.store.add_step(run_id, replace(StoredStep(key, payload, CALLED, 0.5), **changes))  # type: ignore[arg-type]

    def answer(self, run_id: str, text: str, citations: Sequence[Citation], **changes: object) -> None:
        record = self.store.get(run_id)
        self.store.add_part_answer(run_id, 0, PartAnswer(text, False, CALLED))
        answer = Answer(
            text=text,
            run_id=run_id,
            strategy=record.strategy,
            model=record.model,
            question=record.question,
            coverage=Coverage(record.n_chunks, record.n_chunks - 1, (SkippedChunk(0, "no reply"),)),
            usage=CALLED,
            citations=tuple(citations),
            document=record.document,
            document_sha256=record.document_sha256,
            seconds=3.0,
        )
        self.store.save_answer(replace(answer, **changes))  # type: ignore[arg-type]

    def facts(self, run_id: str) -> RunFacts:
        return facts_of(self.store, run_id)


@pytest.fixture
def runs(tmp_path: Path) -> StoredRuns:
    return StoredRuns(RunStore(tmp_path / "home"))


@pytest.fixture(scope="session")
def novel() -> Document:
    return read_document(NOVEL)


def _cited(document: Document, words: str) -> Citation:
    at = document.text.index(words)
    return Citation(words, at, at + len(words), chapter="A chapter")


@pytest.fixture
def cited() -> Callable[[Document, str], Citation]:
    """The citation of words that stand in a document."""
    return _cited


@pytest.fixture(scope="session")
def novel_run(tmp_path_factory: pytest.TempPathFactory, novel: Document) -> RunFacts:
    """A chain over the example novel: notes that grow, one chunk without news, one skipped."""
    runs = StoredRuns(RunStore(tmp_path_factory.mktemp("novel")))
    run_id = runs.begin(novel, question="What was the bow of the key shaped like?")
    chunks = runs.plan(run_id, novel).parts[0].chunks
    lines = [f"- Something of part {n}. [{n}.2]" for n in range(1, len(chunks) + 1)]
    for n in range(len(chunks)):
        if n == 1:
            runs.note(run_id, n, lines[0], informative=False)
        elif n == 2:
            runs.note(run_id, n, lines[0], informative=False, cause="the model refused", usage=Usage())
        else:
            runs.note(run_id, n, "\n".join(lines[: n + 1]))
    key = _cited(novel, "It was a brass key as long as a finger")
    last = _cited(novel, novel.text.rstrip()[-60:])
    runs.answer(run_id, "A **heron** [1], at last [2]. Not [3].", [key, last], warnings=("a *small* model",))
    return runs.facts(run_id)


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    if chromium_program() is None:
        pytest.skip("there is no Chromium here")
    with Chromium() as running:
        yield running


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's program."""
    if not AXE.exists():
        pytest.skip("axe-core is not here: python tests/tools/fetch_axe.py")
    return AXE.read_text(encoding="utf-8")


@dataclass
class Element:
    """A tag with its attributes, and the text in it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


class PageReader(HTMLParser):
    """The elements of a page, each with all the text in it."""

    VOID = frozenset({"meta", "br", "rect", "input"})

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(page)
        self.close()
        assert [e.tag for e in self._open] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in self.VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, tag
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def find(self, tag: str, **attributes: str) -> list[Element]:
        """The elements of that tag whose attributes hold these words ("_" stands for "-", "kind" for class)."""
        named = {name.replace("kind", "class").replace("_", "-"): word for name, word in attributes.items()}
        return [
            e
            for e in self.elements
            if e.tag == tag and all(word in e.attributes.get(name, "").split() for name, word in named.items())
        ]

    @property
    def ids(self) -> list[str]:
        return [e.attributes["id"] for e in self.elements if "id" in e.attributes]

    @property
    def targets(self) -> list[str]:
        """Where links lead to."""
        return [e.attributes["href"] for e in self.find("a")]


@pytest.fixture(scope="session")
def read_page() -> type[PageReader]:
    return PageReader
