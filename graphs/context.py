"""What a run's nodes are handed: live objects, in langgraph's runtime context rather than in the state."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from coa.agents import ManagerReply, WorkerReply
from coa.llm.budget import Budget, Demand
from coa.llm.chat import OnText
from coa.runs import Part, PartAnswer, StoredNote
from coa.types import Chunk, CommunicationUnit, Usage

__all__ = ["Answering", "Demanding", "InMemoryNotes", "Interrupted", "NoteStore", "ReadContext", "Reading"]


_T = TypeVar("_T")


class Interrupted(Exception):
    """The model call in hand was broken off because the run is being cancelled; seen by nobody outside."""


class Reading(Protocol):
    """What a graph needs of a worker: `coa.agents.Worker`, `coa.agents.QuotingWorker`, or one of the host's."""

    async def read(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> WorkerReply:
        """The unit after `chunk`. Raises: ModelError."""
        ...


@runtime_checkable
class Demanding(Protocol):
    """A worker that says what a read can take; a host's need not."""

    def demand(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> Demand:
        """The most that `read` with these arguments can take, repeated calls included."""
        ...


class Answering(Protocol):
    """What a graph needs of a manager."""

    async def answer(
        self, query: str | None, unit: CommunicationUnit, *, on_text: OnText | None = None
    ) -> ManagerReply:
        """The answer from the last unit. Raises: ModelError."""
        ...


class NoteStore(Protocol):
    """Keeps what was paid for. A node asks it before it calls a model, and tells it before the graph goes on."""

    async def note(self, part: int, chunk: int) -> StoredNote | None:
        """What became of a chunk; None when it has not been finished."""
        ...

    async def add_note(self, note: StoredNote) -> None:
        """Keeps a finished chunk; durable when it returns."""
        ...

    async def answer(self, part: int) -> PartAnswer | None:
        """The answer of a part; None when it has not been written."""
        ...

    async def add_answer(self, part: int, answer: PartAnswer) -> None:
        """Keeps a part's answer; durable when it returns."""
        ...


@dataclass
class InMemoryNotes:
    """A `NoteStore` for hosts that keep results elsewhere, and for tests."""

    notes: dict[tuple[int, int], StoredNote] = field(default_factory=dict)
    answers: dict[int, PartAnswer] = field(default_factory=dict)

    async def note(self, part: int, chunk: int) -> StoredNote | None:
        """What became of a chunk."""
        return self.notes.get((part, chunk))

    async def add_note(self, note: StoredNote) -> None:
        """Keeps a finished chunk."""
        self.notes[note.part, note.chunk] = note

    async def answer(self, part: int) -> PartAnswer | None:
        """The answer of a part."""
        return self.answers.get(part)

    async def add_answer(self, part: int, answer: PartAnswer) -> None:
        """Keeps a part's answer."""
        self.answers[part] = answer


@dataclass
class ReadContext:
    """The runtime context of reading graphs."""

    parts: Sequence[Part]
    """At least one, each with at least one chunk."""
    worker: Reading
    manager: Answering
    notes: NoteStore
    budget: Budget = field(default_factory=Budget)
    spent: Usage = field(default_factory=Usage)
    """Of the whole run, earlier processes included; the nodes keep it up to date."""
    on_worker_failure: Literal["skip", "fail"] = "skip"
    worker_demand: Demand = field(default_factory=Demand)
    """The most that a read can take, for the budget, where the worker is not `Demanding`."""
    manager_demand: Demand = field(default_factory=Demand)
    """The most that an answer can take."""
    _call: asyncio.Task[Any] | None = field(default=None, init=False, repr=False)
    _interrupted: bool = field(default=False, init=False, repr=False)

    def demand(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> Demand:
        """The most that reading `chunk` can take."""
        if isinstance(self.worker, Demanding):
            return self.worker.demand(chunk, query, unit)
        return self.worker_demand

    async def calling(self, call: Coroutine[Any, Any, _T]) -> _T:
        """The result of a model call that `interrupt` can break off. Raises: Interrupted then."""
        if self._interrupted:
            call.close()
            raise Interrupted
        task = asyncio.create_task(call)
        self._call = task
        try:
            return await task
        except asyncio.CancelledError:
            if self._interrupted:
                raise Interrupted from None
            raise
        finally:
            self._call = None

    def interrupt(self) -> None:
        """Breaks off the call in hand and lets no other begin; what a node has in hand besides is finished."""
        self._interrupted = True
        if self._call is not None:
            self._call.cancel()

    @property
    def n_chunks(self) -> int:
        """Chunks of all parts."""
        return sum(len(p.chunks) for p in self.parts)

    def ordinal(self, part: int, chunk: int) -> int:
        """The place of a chunk in the whole run, from 0."""
        return sum(len(p.chunks) for p in self.parts[:part]) + chunk
