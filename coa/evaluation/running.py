"""Running a suite: every question to every arm, kept as it is answered, within a budget.

An evaluation that was stopped or killed is started again with the same folder: items with a result are not asked again,
a run that was under way goes on from its last chunk, and what was spent before counts against the budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from coa.config import Settings
from coa.errors import BadOutput, BudgetExceeded, CoaError, ConfigError, LimitsError
from coa.evaluation.citation_scores import Entailment, entailed_citations
from coa.evaluation.controls import build_control
from coa.evaluation.items import Item, items_of, question_object, settings_of_arm
from coa.evaluation.judges import ModelJudge, load_nli
from coa.evaluation.ledger import Ledger
from coa.evaluation.questions import QuestionSet
from coa.evaluation.scoring import JUDGED, Reply, reply_of
from coa.evaluation.suite import Suite, arms_of
from coa.events import Event, RunStarted
from coa.graphs.running import run_graph
from coa.graphs.steps import CHUNK_FAILURES
from coa.llm.budget import Budget, Demand
from coa.llm.call_labels import labels
from coa.llm.chat import Decoding
from coa.llm.gateway import open_gateway
from coa.llm.recording import MadeCall, listening
from coa.reading import Prompt
from coa.run_format import answer_from_json
from coa.session import Session
from coa.stopping import StopSignal
from coa.tokens import EstimatedTokens
from coa.types import Answer, Usage

__all__ = ["Evaluation", "Progress", "Spending"]


@dataclass(frozen=True, slots=True)
class Progress:
    """An item has come to its end."""

    item: Item
    done: int
    total: int
    failed: str | None
    """Why there is no answer."""
    spent: Usage


class Spending:
    """Hears every call of an evaluation: keeps it, and refuses those over the budget; a `CallListener`."""

    def __init__(self, ledger: Ledger, budget: Budget) -> None:
        self._ledger = ledger
        self._budget = budget
        self._tokens = EstimatedTokens()
        self._in_flight: dict[int, list[Demand]] = {}
        self.spent = ledger.spent()
        """By every process so far."""

    def before(self, model: str, prompt: Prompt, decoding: Decoding) -> None:
        """See `CallListener`. Raises: BudgetExceeded."""
        n_prompt = self._tokens.count([prompt.system + prompt.prefix + prompt.tail])[0]
        demand = Demand(1, n_prompt, decoding.max_tokens)
        under_way = Demand(0)
        for other in (d for waiting in self._in_flight.values() for d in waiting):
            under_way = under_way.plus(other)
        refusal = self._budget.refusal(self.spent, demand, under_way)
        if refusal is not None:
            raise BudgetExceeded(
                f"the evaluation was stopped by {refusal}: {self.spent.calls} calls were made.",
                hint="What was answered is kept; start it again with a higher limit.",
            )
        self._in_flight.setdefault(id(prompt), []).append(demand)

    def after(self, call: MadeCall) -> None:
        """See `CallListener`. Raises: StorageError."""
        waiting = self._in_flight[id(call.prompt)]
        waiting.pop()
        if not waiting:
            del self._in_flight[id(call.prompt)]
        if call.completion is not None:
            self.spent = self.spent.plus(call.completion.usage, seconds=call.completion.seconds)
        else:
            self.spent = self.spent.merged(getattr(call.error, "usage", None) or Usage())
        self._ledger.add_call(call)


class Evaluation:
    """A suite over its ledger; `run` may be called once."""

    def __init__(
        self,
        suite: Suite,
        sets: Sequence[QuestionSet],
        settings: Settings,
        ledger: Ledger,
        *,
        budget: Budget | None = None,
        jobs: int = 1,
        retry_failed: bool = False,
        stop: StopSignal | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """`settings` are those that every arm starts from; `jobs` is how many questions are asked at once.

        Raises: ConfigError for an arm that cannot be, or a judge that is missing.
        """
        self.suite = suite
        self.sets = sets
        self.arms = arms_of(suite)
        self.items = list(items_of(self.arms, sets, settings))
        self._settings = settings
        self._ledger = ledger
        self._spending = Spending(ledger, budget or Budget())
        self._jobs = jobs
        self._retry = retry_failed
        self._stop = stop or StopSignal()
        self._on_progress = on_progress or (lambda progress: None)
        self._on_event = on_event or (lambda event: None)
        self._n_done = 0
        judged = {m for one in sets for m in one.metrics} & set(JUDGED)
        if judged and suite.judge.model is None and (suite.judge.nli is None or "judged_correct" in judged):
            raise ConfigError(f"{min(judged)} needs a judge.", hint="Name one in the suite: judge: {model: …}.")

    def describe(self) -> None:
        """Writes the suite and its questions into the ledger. Raises: StorageError."""
        keys: dict[tuple[str, str], dict[str, str]] = {}
        for item in self.items:
            keys.setdefault((item.set.name, item.question.id), {})[item.arm.name] = item.key
        arms = [{**asdict(arm), "model": arm.model or self._settings.model} for arm in self.arms]
        sets = [{"name": s.name, "metrics": list(s.metrics), "documents": len(s.documents)} for s in self.sets]
        told = {
            "name": self.suite.name,
            "seed": self.suite.seed,
            "resamples": self.suite.resamples,
            "judge": self.suite.judge.model or self.suite.judge.nli,
            "arms": arms,
            "sets": sets,
        }
        lines = [question_object(q, one, keys[one.name, q.id]) for one in self.sets for q in one.questions]
        self._ledger.describe(told, lines)

    def n_finished(self) -> int:
        """Items that have an answer, or a failure that is not to be tried again."""
        results = self._ledger.results()
        return sum(item.key in results and not self._again(results[item.key]) for item in self.items)

    async def run(self, *, only: Sequence[str] = ()) -> Usage:
        """Asks what has no result yet, of the arms named in `only` (all where empty); what all of it has taken.

        Raises: BudgetExceeded, RunDrained after a stop was asked for, ModelError for a model that cannot be reached,
        ConfigError, StorageError; in every case it can be started again.
        """
        unknown = sorted(set(only) - {arm.name for arm in self.arms})
        if unknown:
            raise ConfigError(f"the suite has no arm {unknown[0]!r}.", hint=f"It has {', '.join(self._names())}.")
        wanted = [item for item in self.items if not only or item.arm.name in only]
        results, judged, started = self._ledger.results(), self._ledger.judgements(), self._ledger.started()
        self._n_done, total = 0, len(wanted)
        async with self._judging() as judge:
            for opened, group in self._by_session(wanted):
                left = [item for item in group if not self._finished(item, results, judged, judge)]
                self._n_done += len(group) - len(left)
                if left:
                    async with Session(opened, stop=self._stop) as session:
                        await session.open()  # or the first question would seem to take what loading a model takes
                        asker = _Asker(session, self._ledger, started, self._stop, self._on_event)
                        await self._ask_all(left, asker, results, judge, total)
        return self._spending.spent

    async def _ask_all(
        self, items: Sequence[Item], asker: _Asker, results: dict[str, dict[str, Any]], judge: _Judge | None, total: int
    ) -> None:
        queue = iter(items)

        async def work() -> None:
            for item in queue:
                if self._stop.requested:
                    return
                with listening(self._spending), labels(item=item.key):
                    result = results.get(item.key)
                    if result is None or self._again(result):
                        result = await asker.result(item)
                        self._ledger.add_result(result)
                    if judge is not None and result["answer"] is not None:
                        await self._judge(item, result, judge)
                self._n_done += 1
                self._on_progress(Progress(item, self._n_done, total, result["error"], self._spending.spent))

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._jobs):
                    tasks.create_task(work())
        except BaseExceptionGroup as group:
            raise _first(group) from None

    async def _judge(self, item: Item, result: dict[str, Any], judge: _Judge) -> None:
        answer = answer_from_json(dict(result["answer"]))
        found = await judge.scores(item, reply_of(answer))
        if found:
            self._ledger.add_judgement(item.key, judge.name, found)

    def _finished(self, item: Item, results: dict[str, Any], judged: dict[str, Any], judge: _Judge | None) -> bool:
        result = results.get(item.key)
        if result is None or self._again(result):
            return False
        return judge is None or result["answer"] is None or item.key in judged or not judge.judges(item)

    def _again(self, result: dict[str, Any]) -> bool:
        return self._retry and result["state"] == "failed"

    def _by_session(self, items: Iterable[Item]) -> Iterator[tuple[Settings, list[Item]]]:
        """Items by what their sessions are opened with, so that no model is loaded twice."""
        groups: dict[str, tuple[Settings, list[Item]]] = {}
        opened = {arm.name: settings_of_arm(arm, self._settings).opened for arm in self.arms}
        for item in items:
            settings = opened[item.arm.name]
            groups.setdefault(settings.model_dump_json(), (settings, []))[1].append(item)
        yield from groups.values()

    @contextlib.asynccontextmanager
    async def _judging(self) -> AsyncIterator[_Judge | None]:
        wanted = {m for one in self.sets for m in one.metrics} & set(JUDGED)
        if not wanted:
            yield None
            return
        entry = self.suite.judge
        entailment: Entailment | None = load_nli(entry.nli) if entry.nli is not None else None
        if entry.model is None:
            yield _Judge(None, entailment)
            return
        settings = self._settings.model_copy(update={"model": entry.model, "roles": {}})
        gateway = await open_gateway(settings)
        try:
            model = ModelJudge(await gateway.chat_model())
            yield _Judge(model, entailment or model)
        finally:
            await gateway.close()

    def _names(self) -> list[str]:
        return [arm.name for arm in self.arms]


class _Asker:
    """Puts items to arms over one session."""

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        started: dict[str, str],
        stop: StopSignal,
        on_event: Callable[[Event], None],
    ) -> None:
        self._session = session
        self._ledger = ledger
        self._started = started
        self._stop = stop
        self._on_event = on_event

    async def result(self, item: Item) -> dict[str, Any]:
        """The item's line of the ledger. Raises: what ends the evaluation."""
        began = time.perf_counter()
        answer: Answer | None = None
        problem: str | None = None
        try:
            answer = await (self._control(item) if item.arm.control is not None else self._strategy(item))
        except (
            LimitsError,
            *CHUNK_FAILURES,
        ) as error:  # the question's or the document's doing: others may be answered
            problem = f"{type(error).__name__}: {error}"
        told = None if answer is None else {**asdict(answer), "notes": [], "prompts": dict(answer.prompts)}
        return {
            "item": item.key,
            "arm": item.arm.name,
            "set": item.set.name,
            "question": item.question.id,
            "state": "done" if answer is not None else "failed",
            "error": problem,
            "seconds": round(time.perf_counter() - began, 3),
            "answer": told,
        }

    async def _strategy(self, item: Item) -> Answer:
        view = self._view(item)
        run_id = self._started.get(item.key)
        if run_id is not None and view.runs.has(run_id):
            return await view.resume(run_id)
        return await view.ask(item.set.documents[item.question.doc_id], item.question.asked)

    async def _control(self, item: Item) -> Answer:
        view, asked, control = self._view(item), item.question.asked, item.arm.control or ""
        run_id = self._started.get(item.key)
        if run_id is None:
            run_id = f"eval-{item.key[:8]}-{secrets.token_hex(4)}"  # of this evaluation's own, like a strategy's runs
            self._ledger.start(item.key, run_id)
            self._started[item.key] = run_id
        async with view.prepared(item.set.documents[item.question.doc_id], asked, run_id=run_id) as run:
            output = await run_graph(
                build_control(control),
                question=asked,
                context=run.context,
                run_id=run_id,
                checkpoints=view.runs.path(run_id) / "state.sqlite",
                on_event=self._on_event,
                on_control=self._stop.listen,
            )
            answer = await asyncio.to_thread(run.finished, output)
        # What code finds in the text for an answer from memory was not read.
        return replace(answer, citations=(), claims=()) if control == "closed_book" else answer

    def _view(self, item: Item) -> Session:
        def heard(event: Event) -> None:
            if isinstance(event, RunStarted) and self._started.get(item.key) != event.run_id:
                self._started[item.key] = event.run_id
                self._ledger.start(item.key, event.run_id)
            self._on_event(event)

        settings = settings_of_arm(item.arm, self._session.settings).viewed
        return self._session.view(on_event=heard, stop=self._stop, **settings)


class _Judge:
    """The judges of a suite."""

    def __init__(self, model: ModelJudge | None, entailment: Entailment | None) -> None:
        self._model = model
        self._entailment = entailment

    @property
    def name(self) -> str:
        return " and ".join(dict.fromkeys(j.name for j in (self._model, self._entailment) if j is not None))

    def judges(self, item: Item) -> bool:
        """Whether any of the set's scores is a judge's."""
        return bool(set(item.set.metrics) & set(JUDGED))

    async def scores(self, item: Item, reply: Reply) -> dict[str, float]:
        """The judged scores of the item's set; one that the judge gives no clear word on is left out."""
        found: dict[str, float] = {}
        question = item.question
        if "judged_correct" in item.set.metrics and self._model is not None:
            with contextlib.suppress(BadOutput):
                if question.unanswerable or not reply.text:
                    found["judged_correct"] = float(question.unanswerable and reply.refused)
                else:
                    agrees = await self._model.agrees(question.text, question.answers, reply.text)
                    found["judged_correct"] = float(agrees)
        if {"judged_citation_precision", "judged_citation_recall"} & set(item.set.metrics) and self._entailment:
            with contextlib.suppress(BadOutput):
                text = item.set.documents[question.doc_id].text
                cited = await entailed_citations(reply.sentences, text, self._entailment)
                if cited is not None:
                    found |= {
                        "judged_citation_precision": cited.precision,
                        "judged_citation_recall": cited.recall,
                    }
        return {name: value for name, value in found.items() if name in item.set.metrics}


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to tell of: one of ours before any other."""
    flat: list[BaseException] = []

    def gather(errors: BaseExceptionGroup[BaseException]) -> None:
        for error in errors.exceptions:
            if isinstance(error, BaseExceptionGroup):
                gather(error)
            else:
                flat.append(error)

    gather(group)
    return next((error for error in flat if isinstance(error, CoaError)), flat[0])
