"""A model and a home folder, for any number of runs: what wires settings, models, agents and graphs.

Everything is validated before the first call, every finished chunk is on disk before the next begins, and a run
that was stopped or killed goes on with `resume`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple

from coa.answering import assembled
from coa.config import Settings, load_settings
from coa.errors import BudgetExceeded, CoaError, RunDrained
from coa.events import Event, RunStarted, StageChanged, WarningRaised
from coa.limits import Limits, ReadingProfile
from coa.llm.budget import Budget
from coa.llm.gateway import Gateway, open_gateway
from coa.planning import Plan, budget_for, estimate, limits_for, options_of, plan_run, seconds_per_token
from coa.reading import PREFIX_VERSION
from coa.roles import DEFAULT_WORDS, MODEL_OF_AGENT, RoleInputs, Roles, roles_for
from coa.run_notes import DiskNotes
from coa.runs import RunPlan, RunRecord, RunStore, Task, now
from coa.secrets import with_secrets, without_secrets
from coa.stopping import StopSignal
from coa.structures import outline_of
from coa.types import Answer, Document

if TYPE_CHECKING:
    from coa.agents.outline import Outline
    from coa.graphs.state import ReadOutput

__all__ = ["OnEvent", "Session"]

OnEvent = Callable[[Event], None]


class _Allowed(NamedTuple):
    """What a call and a run may take."""

    limits: Limits
    budget: Budget


class _Work(NamedTuple):
    """A run that is being read."""

    record: RunRecord
    document: Document
    plan: RunPlan
    notes: DiskNotes


class Session:
    """A model and a home folder, for any number of runs; an async context manager."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        on_event: OnEvent | None = None,
        stop: StopSignal | None = None,
    ) -> None:
        """`on_event` is called on the event loop's thread, for each event of each run."""
        self.settings = settings if settings is not None else load_settings().settings
        self.runs = RunStore(self.settings.home)
        self._on_event = on_event
        self._stop = stop or StopSignal()
        self._gateway: Gateway | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the engine, if this session started one; may be called again."""
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            await gateway.close()

    async def ask(self, document: Document, question: str) -> Answer:
        """The answer to `question`, from the whole document.

        Raises: RunDrained after a stop was asked for, BudgetExceeded with the partial answer on it, ModelError
        (the run can be resumed after either), ConfigError, DocumentError, StorageError.
        """
        return await self._run(document, question, task="ask", language=None, words=None, per="book")

    async def summarize(
        self,
        document: Document,
        *,
        words: int | None = None,
        per: Literal["book", "chapter"] = "book",
        language: str = "auto",
    ) -> Answer:
        """A summary of about `words` words (200 where None), of the book or of each chapter.

        `language` is an ISO 639-1 code; "auto" is the document's own. Raises: as `ask`.
        """
        resolved = document.language if language == "auto" else language
        return await self._run(
            document, None, task="summarize", language=resolved, words=words or DEFAULT_WORDS, per=per
        )

    async def structure(self, document: Document, *, form: Literal["ids", "free"] = "ids") -> Answer:
        """Structures every chunk that no earlier run did; the text of the answer counts the aspects found.

        `outline` gives the outline itself. `form` "free" has the model restate the text, which takes chunks of a
        third of its window. Raises: as `ask`.
        """
        return await self._run(
            document, None, task="structure", language=None, words=None, per="book", strategy="outline", form=form
        )

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
        record = self.runs.get(run_id)
        stored = self.runs.answer(record.run_id)
        if stored is not None and record.state in {"done", "partial"}:
            return stored
        settings = Settings.model_validate({**with_secrets(record.settings, self.settings), "home": self.settings.home})
        async with Session(settings, on_event=self._on_event, stop=self._stop) as session:
            # The same text may have been read under another name before.
            document = replace(self.runs.document(record.document_sha256), name=record.document)
            plan = self.runs.plan(record.run_id, document)
            return await session._execute(record, document, plan, review=review)

    async def plan(
        self, document: Document, question: str | None, *, per: str = "book", words: int | None = None
    ) -> Plan:
        """What `ask` (or `summarize` for None) would do; makes no call. Raises: what they raise before their first."""
        from coa.graphs import strategy

        gateway = await self._open(calls=False)
        limits, _ = await self._allowed(gateway, words)
        plan = await asyncio.to_thread(
            plan_run, document, question, gateway=gateway, limits=limits, per_chapter=per == "chapter"
        )
        n_question = gateway.counter.count([question])[0] if question else None
        options = options_of(self.settings, self._profile(gateway))
        wanted = estimate(plan, limits, n_question, reading=strategy(self.settings.strategy), options=options)
        speed = await asyncio.to_thread(seconds_per_token, self.runs, gateway.group.name, self.settings.notes)
        return Plan(
            document=document.name,
            sha256=document.sha256,
            strategy=self.settings.strategy,
            model=gateway.group.name,
            tokenizer=plan.tokenizer,
            exact=plan.exact,
            chapters=len(document.chapters()),
            n_chunks=plan.n_chunks,
            chunk_tokens=limits.chunk_tokens,
            window=gateway.window,
            calls=wanted.calls,
            prompt_tokens=wanted.prompt_tokens,
            completion_tokens_max=wanted.completion_tokens_max,
            cacheable_ratio=wanted.cacheable_tokens / max(1, wanted.prompt_tokens),
            cost_usd=await gateway.cost_of(wanted.prompt_tokens, wanted.completion_tokens_max),
            seconds=None if speed is None else speed * wanted.prompt_tokens,
        )

    async def _run(
        self,
        document: Document,
        question: str | None,
        *,
        task: Task,
        language: str | None,
        words: int | None,
        per: str,
        strategy: str | None = None,
        form: Literal["ids", "free"] = "ids",
    ) -> Answer:
        gateway = await self._open()
        self._emit(StageChanged("counting tokens"))
        allowed = await self._allowed(gateway, words)
        plan = await asyncio.to_thread(
            plan_run, document, question, gateway=gateway, limits=allowed.limits, per_chapter=per == "chapter"
        )
        created = now()
        record = RunRecord(
            run_id=self.runs.new_id(),
            task=task,
            state="running",
            created=created,
            updated=created,
            document=document.name,
            document_sha256=document.sha256,
            question=question,
            strategy=strategy or self.settings.strategy,
            model=gateway.group.name,
            n_chunks=plan.n_chunks,
            language=language,
            words=words,
            per=per,
            form=form,
            settings=without_secrets(self.settings),
        )
        await asyncio.to_thread(self.runs.create, record, document, plan)
        return await self._execute(record, document, plan, allowed)

    async def _execute(
        self,
        record: RunRecord,
        document: Document,
        plan: RunPlan,
        allowed: _Allowed | None = None,
        *,
        review: object = None,
    ) -> Answer:
        """Reads what has not been read yet and answers; keeps the record's state true whatever happens."""
        started = time.perf_counter()
        with self.runs.locked(record.run_id):
            record = self.runs.changed(record, "running")
            notes = DiskNotes(self.runs, record.run_id)
            try:
                gateway = await self._open()
                allowed = allowed or await self._allowed(gateway, record.words)
                roles = await self._roles(record, plan, gateway, allowed)
                record = self.runs.with_prompts(record, {"reading_prefix": PREFIX_VERSION, **roles.prompt_digests})
                output = await self._read(_Work(record, document, plan, notes), roles, gateway, allowed.budget, review)
            except (RunDrained, asyncio.CancelledError):
                self.runs.changed(record, "drained")
                raise
            except CoaError as error:
                self.runs.changed(record, "failed", error=error.message)
                raise
            stopped = output["stopped"]
            answer = assembled(
                record,
                document,
                output,
                notes,
                quotes=self._profile(gateway).quotes,
                warnings=gateway.warnings,
                seconds=time.perf_counter() - started,
            )
            if stopped is None or answer.coverage.read:
                self.runs.save_answer(answer)
            self.runs.changed(record, "done" if answer.coverage.complete else "partial", error=stopped)
        if stopped is not None:
            raise BudgetExceeded(
                f"stopped by {stopped}: {answer.coverage.read} of {answer.coverage.chunks} chunks were read.",
                hint="Start again with a higher limit."
                if answer.coverage.read
                else "One chunk and the answer may take more than that: start again with a higher limit.",
                answer=answer if answer.coverage.read else None,
            )
        return answer

    async def _read(self, work: _Work, roles: Roles, gateway: Gateway, budget: Budget, review: object) -> ReadOutput:
        """Runs the graph to its end."""
        from coa.graphs import ReadContext, strategy
        from coa.graphs.running import run_graph

        record, document, plan, notes = work
        context = ReadContext(
            parts=plan.parts,
            worker=roles.worker,
            manager=roles.manager,
            notes=notes,
            document=document,
            agents=roles.agents,
            options=options_of(self.settings, self._profile(gateway)),
            budget=budget,
            spent=notes.spent,
            on_worker_failure=self.settings.on_worker_failure,
            manager_demand=roles.manager_demand,
        )
        for warning in gateway.warnings:
            self._emit(WarningRaised(warning))
        self._emit(
            RunStarted(
                run_id=record.run_id,
                document=record.document,
                strategy=record.strategy,
                model=record.model,
                n_chunks=plan.n_chunks,
                n_tokens=plan.n_tokens,
                n_done=notes.n_done,
            )
        )
        return await run_graph(
            strategy(record.strategy).build(),
            question=record.question,
            context=context,
            run_id=record.run_id,
            checkpoints=self.runs.path(record.run_id) / "state.sqlite",
            on_event=self._emit,
            on_control=self._stop.listen,
            review=review,
        )

    async def _roles(self, record: RunRecord, plan: RunPlan, gateway: Gateway, allowed: _Allowed) -> Roles:
        """The agents that the run's strategy needs, each over its role's model."""
        from coa.graphs import strategy

        needed = set(strategy(record.strategy).agents)
        if self.settings.demos != "none" and not self._profile(gateway).quotes:
            needed.add("demonstrator")
        names = {agent: MODEL_OF_AGENT.get(agent, agent) for agent in {*needed, "manager"}}
        models = {agent: await gateway.role_model(role) for agent, role in names.items()}

        def inputs(agent: str) -> RoleInputs:
            profile = self._profile(gateway, names[agent])
            return RoleInputs(record, plan, models[agent], profile, allowed.limits, self.settings, gateway.counter)

        return roles_for(frozenset(needed), inputs)

    async def _open(self, *, calls: bool = True) -> Gateway:
        from coa.graphs import strategy

        strategy(self.settings.strategy)  # a misspelt one is told before anything slow begins
        async with self._opening:  # questions asked side by side share one engine
            if self._gateway is None:
                self._gateway = await open_gateway(
                    self.settings, calls=calls, on_stage=lambda stage: self._emit(StageChanged(stage))
                )
            return self._gateway

    def _profile(self, gateway: Gateway, role: str = "worker") -> ReadingProfile:
        """The profile of a role's model, with the notes that the settings ask for."""
        profile = gateway.role_profile(role)
        return profile if self.settings.notes == "auto" else replace(profile, quotes=self.settings.notes == "quotes")

    async def _allowed(self, gateway: Gateway, words: int | None) -> _Allowed:
        """Raises: LimitsError, and ConfigError for a limit in dollars on a model without a price."""
        written = words if (words or 0) > DEFAULT_WORDS and not self._profile(gateway).quotes else None
        limits = await asyncio.to_thread(limits_for, gateway, self.settings, words=written)
        return _Allowed(limits, await budget_for(gateway, self.settings))

    def _emit(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event)
