"""What a run's nodes are handed: live objects, in langgraph's runtime context rather than in the state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from langgraph.runtime import Runtime

from coa.agents import ManagerReply, WorkerReply
from coa.errors import ConfigError
from coa.events import Event
from coa.graphs.together import Companion
from coa.llm.budget import Budget, Demand
from coa.llm.chat import OnText
from coa.runs import Part, PartAnswer, StoredNote, StoredStep
from coa.types import Chunk, CommunicationUnit, Document, Usage

__all__ = [
    "Answering",
    "Demanding",
    "InMemoryNotes",
    "Interrupted",
    "NoteStore",
    "ReadContext",
    "ReadOptions",
    "Reading",
    "teller",
]

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

    async def note(self, part: int, chunk: int, path: str = "") -> StoredNote | None:
        """What became of a chunk on a chain; None when it has not been finished."""
        ...

    async def add_note(self, note: StoredNote) -> None:
        """Keeps a finished chunk; durable when it returns."""
        ...

    async def step(self, key: str) -> StoredStep | None:
        """What became of a step; None when it has not been finished."""
        ...

    async def add_step(self, step: StoredStep) -> None:
        """Keeps a finished step; durable when it returns."""
        ...

    async def answer(self, part: int) -> PartAnswer | None:
        """The answer of a part; None when it has not been written."""
        ...

    async def add_answer(self, part: int, answer: PartAnswer) -> None:
        """Keeps a part's answer; durable when it returns."""
        ...

    def all_notes(self) -> Sequence[StoredNote]:
        """Every note so far, in reading order, path by path."""
        ...

    def all_steps(self) -> Sequence[StoredStep]:
        """Every step so far."""
        ...

    def all_answers(self) -> Mapping[int, PartAnswer]:
        """The answers so far, by part."""
        ...


@dataclass
class InMemoryNotes:
    """A `NoteStore` for hosts that keep results elsewhere, and for tests."""

    notes: dict[tuple[str, int, int], StoredNote] = field(default_factory=dict)
    """By path, part and chunk."""
    steps: dict[str, StoredStep] = field(default_factory=dict)
    answers: dict[int, PartAnswer] = field(default_factory=dict)

    async def note(self, part: int, chunk: int, path: str = "") -> StoredNote | None:
        """What became of a chunk."""
        return self.notes.get((path, part, chunk))

    async def add_note(self, note: StoredNote) -> None:
        """Keeps a finished chunk."""
        self.notes[note.path, note.part, note.chunk] = note

    async def step(self, key: str) -> StoredStep | None:
        """What became of a step."""
        return self.steps.get(key)

    async def add_step(self, step: StoredStep) -> None:
        """Keeps a finished step."""
        self.steps[step.key] = step

    async def answer(self, part: int) -> PartAnswer | None:
        """The answer of a part."""
        return self.answers.get(part)

    async def add_answer(self, part: int, answer: PartAnswer) -> None:
        """Keeps a part's answer."""
        self.answers[part] = answer

    def all_notes(self) -> Sequence[StoredNote]:
        """Every note so far."""
        return [self.notes[key] for key in sorted(self.notes)]

    def all_steps(self) -> Sequence[StoredStep]:
        """Every step so far."""
        return list(self.steps.values())

    def all_answers(self) -> Mapping[int, PartAnswer]:
        """The answers so far."""
        return dict(self.answers)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a strategy is to go about it; see the settings of the same names."""

    passes: int = 1
    demos: Literal["none", "recycled"] = "none"
    paths: int = 3
    sampling_temperature: float = 0.7
    """Of chains that are to differ from each other."""
    choose: Literal["judge", "vote"] = "judge"
    rounds: int = 2
    top_k: int = 10
    preselect: Literal["auto", "never", "always"] = "auto"
    review: bool = False
    verify: bool = True
    max_parallel: int = 8
    """Steps that are taken side by side before the graph's state is stored: what a drain waits for."""
    quotes: bool = False
    """True when code picks the sentences, because the model is too small to name them."""


@dataclass
class ReadContext:
    """The runtime context of all reading graphs."""

    parts: Sequence[Part]
    """At least one, each with at least one chunk."""
    worker: Reading | None = None
    manager: Answering | None = None
    notes: NoteStore = field(default_factory=InMemoryNotes)
    document: Document | None = None
    """What the chunks were cut from; citations need it."""
    agents: Mapping[str, object] = field(default_factory=dict)
    """Agents besides worker and manager, by role: "retriever", "reasoner", "structurizer", "judge", "checker"."""
    options: ReadOptions = field(default_factory=ReadOptions)
    budget: Budget = field(default_factory=Budget)
    spent: Usage = field(default_factory=Usage)
    """Of the whole run, earlier processes included; the nodes keep it up to date."""
    on_worker_failure: Literal["skip", "fail"] = "skip"
    worker_demand: Demand = field(default_factory=Demand)
    """The most that a read can take, for the budget, where the worker is not `Demanding`."""
    manager_demand: Demand = field(default_factory=Demand)
    """The most that an answer can take."""
    together: Companion | None = None
    """Keeps the run in step with others over the same document."""
    on_event: Callable[[Event], None] | None = None
    """Told of events as they come; None has them go out by the graph's custom stream, for hosts."""
    stores_steps: bool = True
    """Whether the graph's state is stored after each of its steps; else a node may read on by itself."""
    upcoming: Callable[[Sequence[Chunk]], None] | None = None
    """Told when a chunk's reading begins: the chunks that the same path reads after it, in order. Must not raise."""
    _calls: set[asyncio.Task[Any]] = field(default_factory=set, init=False, repr=False)
    _in_flight: Demand = field(default_factory=lambda: Demand(0), init=False, repr=False)
    _n_in_flight: int = field(default=0, init=False, repr=False)
    _released: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)
    _interrupted: bool = field(default=False, init=False, repr=False)

    def agent(self, role: str, kind: type[_T]) -> _T:
        """The agent of that role. Raises: ConfigError where there is none or it is not a `kind` (a protocol that
        is checkable at run time)."""
        found = self.agents.get(role)
        if not isinstance(found, kind):
            what = "has none" if found is None else f"has a {type(found).__name__}"
            raise ConfigError(
                f"this graph needs a {role} and its context {what}.", hint=f"Put one into ReadContext.agents[{role!r}]."
            )
        return found

    def demand(self, worker: Reading, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> Demand:
        """The most that reading `chunk` can take."""
        if isinstance(worker, Demanding):
            return worker.demand(chunk, query, unit)
        return self.worker_demand

    async def reserve(self, demand: Demand, *, answers: bool = False) -> str | None:
        """Why a step that takes `demand` at most may not be begun; None when it may, and then it counts as under
        way until `release`. The answer's share stays free, but for a step that `answers`.

        Waits where only what is under way stands against it: most steps take less than they could.
        """
        kept = Demand(0) if answers else self.manager_demand
        while (refusal := self.budget.refusal(self.spent, demand.plus(self._in_flight), kept)) is not None:
            if not self._n_in_flight or self.budget.refusal(self.spent, demand, kept) is not None:
                return refusal
            self._released.clear()
            await self._released.wait()
        self._in_flight = self._in_flight.plus(demand)
        self._n_in_flight += 1
        return None

    def release(self, demand: Demand, spent: Usage) -> None:
        """Ends what `reserve` began, with what it took."""
        self._in_flight = self._in_flight.minus(demand)
        self._n_in_flight -= 1
        self.spent = self.spent.merged(spent)
        self._released.set()

    async def calling(self, call: Coroutine[Any, Any, _T]) -> _T:
        """The result of model calls that `interrupt` can break off. Raises: Interrupted then."""
        if self._interrupted:
            call.close()
            raise Interrupted
        task = asyncio.create_task(call)
        self._calls.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self._interrupted:
                raise Interrupted from None
            task.cancel()
            raise
        finally:
            self._calls.discard(task)

    def interrupt(self) -> None:
        """Breaks off the calls in hand and lets no other begin; what a node has in hand besides is finished."""
        self._interrupted = True
        for call in self._calls:
            call.cancel()

    @property
    def n_chunks(self) -> int:
        """Chunks of all parts."""
        return sum(len(p.chunks) for p in self.parts)

    def ordinal(self, part: int, chunk: int) -> int:
        """The place of a chunk in the whole run, from 0."""
        return sum(len(p.chunks) for p in self.parts[:part]) + chunk


def teller(runtime: Runtime[ReadContext]) -> Callable[[Event], None]:
    """Whom a node tells of events: the context's listener, or else the graph's custom stream, which takes two turns of
    the event loop and a system call for each."""
    return runtime.context.on_event or runtime.stream_writer
