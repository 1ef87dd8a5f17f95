"""A small world for graphs: a text with one fact worth asking for, agents over a scripted model, runs on disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from coa.chunking import chunk_document
from coa.config import Settings
from coa.documents import read_document
from coa.events import Event
from coa.graphs import InMemoryNotes, ReadContext, ReadOptions, ReadOutput, Strategy, graph, strategy
from coa.graphs.context import NoteStore
from coa.graphs.running import run_graph
from coa.limits import FULL, Limits
from coa.llm.budget import Budget
from coa.llm.chat import ChatModel
from coa.roles import RoleInputs, Roles, roles_for
from coa.runs import Part, RunPlan, RunRecord
from coa.testing.reading_model import ReadingModel
from coa.tokens import EstimatedTokens
from coa.types import Document, Usage

LIMITS = Limits(4096, 2000, 256, 400, 300, 500)
QUESTION = "Who kept the lighthouse key in the blue jar?"
FACT = "Ada Brown kept the lighthouse key in the blue jar."


def text_of(n_paragraphs: int) -> str:
    """A paragraph a chunk, about 60 tokens each; the fact stands in the middle one."""
    paragraphs = []
    for n in range(n_paragraphs):
        extra = f" {FACT}" if n == n_paragraphs // 2 else ""
        paragraphs.append(
            f"On day {n} the ferry number {n} crossed the sound with {n + 3} barrels of herring aboard. "
            f"Its master wrote a line about the weather, and nobody answered him.{extra}\n"
        )
    return "\n".join(paragraphs)


@dataclass
class World:
    """A document and what a run over it needs; `run` may be called again, over the same folder and notes."""

    folder: Path
    n_paragraphs: int = 6
    question: str | None = QUESTION
    options: ReadOptions = field(default_factory=ReadOptions)
    notes: NoteStore = field(default_factory=InMemoryNotes)
    model: Any = field(default_factory=ReadingModel)
    budget: Budget = field(default_factory=Budget)
    settings: Mapping[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    on_event: Callable[[Event], None] = lambda event: None
    drain: Callable[[str], None] = lambda reason: None
    run_id: str = "run"
    checkpoints: Path | str | None = None
    """None: a file in the folder."""
    keeps_checkpoints: bool = True
    context: ReadContext | None = None

    def __post_init__(self) -> None:
        self.document: Document = read_document(text_of(self.n_paragraphs).encode(), name="ferry.txt")
        chunks = chunk_document(self.document, budget=130, counter=EstimatedTokens())
        self.plan = RunPlan((Part(None, tuple(chunks)),), "estimate", False)

    @property
    def n_chunks(self) -> int:
        return self.plan.n_chunks

    def roles(self, found: Strategy) -> Roles:
        record = RunRecord("run", "ask", "running", "", "", "ferry.txt", "", self.question, found.name, "reading")
        settings = Settings(home=self.folder, **self.settings)

        def inputs(role: str) -> RoleInputs:
            return RoleInputs(
                record, self.plan, cast("ChatModel", self.model), FULL, LIMITS, settings, EstimatedTokens()
            )

        needed = found.agents | ({"demonstrator"} if self.options.demos != "none" else frozenset())
        return roles_for(needed, inputs)

    def new_context(self, name: str) -> ReadContext:
        roles = self.roles(strategy(name))
        spent = Usage()
        for paid in (*self.notes.all_notes(), *self.notes.all_steps(), *self.notes.all_answers().values()):
            spent = spent.merged(cast("Any", paid).usage)
        self.context = ReadContext(
            parts=self.plan.parts,
            worker=roles.worker,
            manager=roles.manager,
            notes=self.notes,
            document=self.document,
            agents=roles.agents,
            options=self.options,
            budget=self.budget,
            spent=spent,
            manager_demand=roles.manager_demand,
        )
        return self.context

    async def run(self, name: str, *, review: object = None) -> ReadOutput:
        def told(event: Event) -> None:
            self.events.append(event)
            self.on_event(event)

        def control(drain: Callable[[str], None]) -> None:
            self.drain = drain

        return await run_graph(
            graph(name),
            question=self.question,
            context=self.new_context(name),
            run_id=self.run_id,
            checkpoints=(self.checkpoints or self.folder / "state.sqlite") if self.keeps_checkpoints else None,
            on_event=told,
            on_control=control,
            review=review,
        )


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    """Makes a `World`, each in a folder of its own."""
    numbers = itertools.count()

    def make(**changes: Any) -> World:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return World(folder, **changes)

    return make
