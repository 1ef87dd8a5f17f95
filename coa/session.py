"""A model and a home folder, for any number of runs: what wires settings, models, agents and graphs.

Everything is validated before the first call, every finished chunk is on disk before the next begins, and a run
that was stopped or killed goes on with `resume`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from coa.agents.statements import Statement, statements_to_text
from coa.answering import Run, delivered
from coa.blocking import off_loop
from coa.cache.opening import prefix_cache_for
from coa.cache.rates import limiter_for
from coa.cache.responses import responses_for
from coa.config import Settings, load_settings, resolve_environment
from coa.errors import CoaError, ConfigError, RunDrained
from coa.events import Event, StageChanged, WarningRaised
from coa.llm.gateway import Gateway, open_gateway
from coa.llm.rates import RateLimiter
from coa.planning import Plan, budget_for
from coa.questions import OnAnswer, asked_together
from coa.roles import DEFAULT_WORDS
from coa.runs import RunLock, RunPlan, RunRecord, RunStore, Task
from coa.secrets import with_secrets
from coa.stopping import StopSignal
from coa.structures import outline_of
from coa.types import Answer, Document
from coa.warming import OnWarmed, Warmed, warm_document
from coa.wiring import (
    RUN_SETTINGS,
    Wanted,
    begun_run,
    models_for,
    plan_of,
    prepared_run,
    same_models,
)

if TYPE_CHECKING:
    from coa.agents.outline import Outline
    from coa.graphs.together import Companion

__all__ = ["OnEvent", "Session"]

OnEvent = Callable[[Event], None]


class Session:
    """A model and a home folder, for any number of runs; an async context manager."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        on_event: OnEvent | None = None,
        stop: StopSignal | None = None,
        runs: RunStore | None = None,
    ) -> None:
        """`on_event` is called on the event loop's thread, for each event of each run. `runs` None: the home's."""
        self.settings = settings if settings is not None else load_settings().settings
        self.runs = runs or RunStore(self.settings.home)
        self._on_event = on_event
        self._stop = stop or StopSignal()
        self._gateway: Gateway | None = None
        self._opening = asyncio.Lock()
        self._limiter: RateLimiter | None = None
        self._parent: Session | None = None

    def view(self, *, on_event: OnEvent | None = None, stop: StopSignal | None = None, **changes: object) -> Session:
        """A session over the same open models, with events, a stop and settings of its own: for a service that
        serves many at once. `changes` are settings that leave the models as they are ("strategy", "notes",
        "max_calls", …). It need not be closed. Raises: ConfigError for other settings or wrong values."""
        moving = sorted(changes.keys() - RUN_SETTINGS)
        if moving:
            raise ConfigError(f"a view of a session cannot change {', '.join(moving)}.")
        settings = self.settings
        changes = {name: value for name, value in changes.items() if value != getattr(settings, name)}
        try:
            if changes:
                settings = Settings.model_validate({**settings.model_dump(), **changes})
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            raise ConfigError(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}.") from None
        child = Session(settings, on_event=on_event, stop=stop, runs=self.runs)
        child._parent = self
        return child

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the engine, if this session started one; may be called again."""
        gateway, self._gateway = self._gateway, None
        limiter, self._limiter = self._limiter, None
        if gateway is not None:
            await gateway.close()
        if limiter is not None:
            await limiter.close()

    async def open(self) -> None:
        """Opens the models, and loads what calls need, now rather than with the first run.

        Raises: ConfigError, ModelError.
        """
        from coa.graphs import running  # noqa: F401 - langgraph takes seconds to import

        await (await self._open()).chat_model()

    async def ask(self, document: Document, question: str, *, run_id: str | None = None) -> Answer:
        """The answer to `question`, from the whole document.

        `run_id` names the run; one that is there already is gone on with, as by `resume`. Raises: RunDrained after a
        stop was asked for, BudgetExceeded with the partial answer on it, ModelError (the run can be resumed then),
        VerificationFailed with the answer on it where `strict` is set, ConfigError, DocumentError, StorageError.
        """
        return await self._run(document, Wanted(question), run_id)

    async def ask_many(
        self,
        document: Document,
        questions: Sequence[str],
        *,
        run_ids: Sequence[str] | None = None,
        on_answer: OnAnswer | None = None,
        on_event: Callable[[int, Event], None] | None = None,
    ) -> list[Answer | CoaError]:
        """What became of each question, in their order: a run each, as by `ask`, and the error in the place of an
        answer that there is none of.

        The runs read a chunk together before any reads the next, so that its prefix is computed once. `on_answer` is
        told of each that has ended; `on_event` gets the runs' events with the question's number, in place of the
        session's listener. `run_ids` are as in `ask`, one a question. Raises: ConfigError and ModelError where the
        models cannot be opened.
        """
        await self._open()

        async def ask(number: int, companion: Companion) -> Answer:
            told = self._on_event if on_event is None else partial(on_event, number)
            view = self.view(on_event=told, stop=self._stop)
            run_id = None if run_ids is None else run_ids[number]
            return await view._run(document, Wanted(questions[number]), run_id, companion)

        return await asked_together(ask, len(questions), on_answer)

    async def summarize(
        self,
        document: Document,
        *,
        words: int | None = None,
        per: Literal["book", "chapter"] = "book",
        language: str = "auto",
        run_id: str | None = None,
    ) -> Answer:
        """A summary of about `words` words (200 where None), of the book or of each chapter.

        `language` is an ISO 639-1 code; "auto" is the document's own. Raises: as `ask`.
        """
        resolved = document.language if language == "auto" else language
        return await self._run(document, Wanted(None, "summarize", resolved, words or DEFAULT_WORDS, per), run_id)

    async def structure(
        self, document: Document, *, form: Literal["ids", "free"] = "ids", run_id: str | None = None
    ) -> Answer:
        """Structures every chunk that no earlier run did; the text of the answer counts the aspects found.

        `outline` gives the outline itself. `form` "free" has the model restate the text, which takes chunks of a
        third of its window. Raises: as `ask`.
        """
        return await self._run(document, Wanted(None, "structure", strategy="outline", form=form), run_id)

    async def check(
        self, document: Document, statements: Sequence[str | Statement], *, run_id: str | None = None
    ) -> Answer:
        """Whether `statements` are true; `coa.agents.checked.checked_of` gives the labels. Raises: as `ask`."""
        return await self._run(document, Wanted(statements_to_text(statements), "check", strategy="check"), run_id)

    async def warm(self, document: Document, *, on_progress: OnWarmed | None = None) -> Warmed:
        """Has the model read the document's chunks now, so that questions find them read. Raises: as `ask`, before its
        first call."""
        return await warm_document(await self._open(), self.settings, document, on_progress=on_progress)

    def outline(self, run_id: str) -> Outline:
        """The outline by what a run has structured so far; chunks that are missing stand in it as one piece each.

        Raises: RunNotFound, StorageError.
        """
        record = self.runs.get(run_id)
        document = replace(self.runs.document(record.document_sha256), name=record.document)
        return outline_of(document, self.runs.plan(record.run_id, document), self.runs.stored_steps(record.run_id))

    async def resume(self, run_id: str, *, review: object = None) -> Answer:
        """The answer of an earlier run, read on from where it stood; a finished run's as it is stored.

        The run keeps the settings it was started with. `review` is what a person said to a run that ended with
        ReviewNeeded. Raises: RunNotFound, and as `ask`.
        """
        return await self._resumed(run_id, review=review)

    async def _resumed(self, run_id: str, *, review: object = None, companion: Companion | None = None) -> Answer:
        record = self.runs.get(run_id)
        stored = self.runs.answer(record.run_id)
        if stored is not None and record.state in {"done", "partial"}:
            return stored
        settings = Settings.model_validate({**with_secrets(record.settings, self.settings), "home": self.settings.home})
        async with Session(settings, on_event=self._on_event, stop=self._stop, runs=self.runs) as session:
            if same_models(settings, self.settings):  # an engine is not started a second time
                session._parent = self
            document = replace(self.runs.document(record.document_sha256), name=record.document)  # not its first name
            plan = self.runs.plan(record.run_id, document)
            return await session._execute(record, document, plan, review=review, companion=companion)

    async def plan(
        self, document: Document, question: str | None, *, per: str = "book", words: int | None = None
    ) -> Plan:
        """What `ask` (or `summarize` for None) would do; makes no call. Raises: what they raise before their first."""
        gateway = await self._open(calls=False)
        return await plan_of(gateway, self.settings, self.runs, document, question, per=per, words=words)

    @contextlib.asynccontextmanager
    async def prepared(
        self,
        document: Document,
        question: str | None,
        *,
        run_id: str | None = None,
        task: Task = "ask",
        language: str | None = None,
        words: int | None = None,
        per: str = "book",
    ) -> AsyncIterator[Run]:
        """A run whose graph the caller runs: its context, and its answer from what the graph ends with.

        `run_id` names a run of the caller's (a thread's id, say); one that is there already is gone on with, over
        the settings of this session. What was paid for is on disk as with `ask`. Raises: as `ask`, before the first
        call; ConfigError for a run of that id over another document or question.
        """
        if run_id is None or not self.runs.has(run_id):
            record, plan = await self._begun(document, Wanted(question, task, language, words, per), run_id)
        else:
            record, plan = await asyncio.to_thread(lambda: (self.runs.get(run_id), self.runs.plan(run_id, document)))
        if (record.document_sha256, record.question) != (document.sha256, question):
            raise ConfigError(
                f"the run {run_id!r} is about {record.document}, question {record.question!r}.",
                hint="Give another document or question another id.",
            )
        async with self._running(record, document, plan) as run:
            yield run

    async def _run(
        self, document: Document, wanted: Wanted, run_id: str | None = None, companion: Companion | None = None
    ) -> Answer:
        if run_id is not None and await off_loop(self.runs.has, 0, run_id):
            return await self._resumed(run_id, companion=companion)
        record, plan = await self._begun(document, wanted, run_id)
        return await self._execute(record, document, plan, companion=companion)

    async def _begun(self, document: Document, wanted: Wanted, run_id: str | None = None) -> tuple[RunRecord, RunPlan]:
        """A new run, checked and stored before its first call."""
        gateway = await self._open()
        self._emit(StageChanged("counting tokens"))
        await budget_for(gateway, self.settings)  # one that cannot be kept is told before anything is stored
        size = len(document.text)
        return await off_loop(
            begun_run, size, self.runs, document, wanted, run_id, gateway=gateway, settings=self.settings
        )

    async def _execute(
        self,
        record: RunRecord,
        document: Document,
        plan: RunPlan,
        *,
        review: object = None,
        companion: Companion | None = None,
    ) -> Answer:
        """Reads what has not been read yet and answers."""
        from coa.graphs import graph, strategy
        from coa.graphs.running import run_graph

        if companion is not None and not strategy(record.strategy).in_order:
            companion.leave()
        async with self._running(record, document, plan) as run:
            run.context.together = companion
            output = await run_graph(
                graph(record.strategy),
                question=record.question,
                context=run.context,
                run_id=record.run_id,
                checkpoints=self.runs.checkpoints(record.run_id, resolve_environment(self.settings.checkpoints)),
                on_event=self._emit,
                on_control=self._stop.listen,
                review=review,
            )
            answer = await off_loop(run.finished, len(document.text), output)
        return delivered(answer, stopped=output["stopped"], strict=self.settings.strict)

    @contextlib.asynccontextmanager
    async def _running(self, record: RunRecord, document: Document, plan: RunPlan) -> AsyncIterator[Run]:
        """The run, nobody else's while it lasts; keeps its record's state true whatever happens."""
        started = time.perf_counter()
        # Not on a service's loop, which must not wait for a disk.
        lock = self.runs.locked(record.run_id)
        record = await off_loop(self._taken, 0, lock, record)
        try:
            try:
                gateway = await self._open()
                record, notes, context = await off_loop(
                    prepared_run,
                    len(document.text),
                    self.runs,
                    record,
                    document,
                    plan,
                    models=await models_for(record, gateway, self.settings),
                    gateway=gateway,
                    settings=self.settings,
                    budget=await budget_for(gateway, self.settings),
                )
                run = Run(self.runs, record, context, warnings=lambda: gateway.warnings, started=started)
                for warning in gateway.warnings:
                    self._emit(WarningRaised(warning))
                self._emit(run.begun(plan, notes.n_done))
                yield run
            except asyncio.CancelledError:
                self.runs.changed(record, "drained")  # at once: a second cancellation would leave it undone
                raise
            except RunDrained:
                await off_loop(self.runs.changed, 0, record, "drained")
                raise
            except CoaError as error:
                await off_loop(self.runs.changed, 0, record, "failed", error=error.message)
                raise
        finally:
            lock.__exit__(None, None, None)

    def _taken(self, lock: RunLock, record: RunRecord) -> RunRecord:
        """The run, running and this session's; it stays nobody's where its record cannot be written."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock)
            changed = self.runs.changed(record, "running")
            stack.pop_all()  # the lock is held on
            return changed

    async def _open(self, *, calls: bool = True) -> Gateway:
        from coa.graphs import strategy

        strategy(self.settings.strategy)  # a misspelt one is told before anything slow begins
        if self._parent is not None:
            return await self._parent._open(calls=calls)
        async with self._opening:  # questions asked side by side share one engine
            if self._gateway is None:
                self._limiter = limiter_for(self.settings)
                self._gateway = await open_gateway(
                    self.settings,
                    calls=calls,
                    on_stage=lambda stage: self._emit(StageChanged(stage)),
                    limiter=self._limiter,
                    response_store=responses_for(self.settings),
                    make_prefix_cache=prefix_cache_for(self.settings),
                )
            return self._gateway

    def _emit(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event)
