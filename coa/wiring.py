"""From settings and open models to what a run's graph is handed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from coa.config import Settings
from coa.limits import Limits, ReadingProfile
from coa.llm.budget import Budget
from coa.llm.call_labels import labelled, labels
from coa.llm.chat import ChatModel
from coa.llm.gateway import Gateway, models_named
from coa.planning import Plan, budget_for, estimate, limits_for, options_of, plan_run, seconds_per_token, shown_at_once
from coa.reading import PREFIX_VERSION, reading_prompt
from coa.roles import DEFAULT_WORDS, MODEL_OF_AGENT, RoleInputs, Roles, roles_for
from coa.run_notes import DiskNotes
from coa.runs import Forecasted, RunPlan, RunRecord, RunStore, Task, now
from coa.secrets import without_secrets
from coa.types import Chunk, Document

if TYPE_CHECKING:  # langgraph takes seconds to import
    from coa.graphs import ReadContext
    from coa.graphs.estimates import Estimate

__all__ = [
    "RUN_SETTINGS",
    "Allowed",
    "Prepared",
    "Wanted",
    "allowed_for",
    "begun_run",
    "models_for",
    "plan_of",
    "prepared_run",
    "profile_of",
    "same_models",
]


RUN_SETTINGS = frozenset(
    {
        "strategy",
        "notes",
        "passes",
        "demos",
        "paths",
        "choose",
        "rounds",
        "top_k",
        "preselect",
        "review",
        "verify",
        "strict",
        "on_worker_failure",
        "temperature",
        "max_calls",
        "max_tokens_total",
        "max_cost_usd",
        "question_tokens",
        "chunk_tokens",
        "note_tokens",
        "answer_tokens",
    }
)
"""Settings that runs over the same open models may differ in."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a document."""

    question: str | None
    task: Task = "ask"
    language: str | None = None
    words: int | None = None
    per: str = "book"
    strategy: str | None = None
    """None: the one of the settings."""
    form: Literal["ids", "free"] = "ids"


class Allowed(NamedTuple):
    """What a call and a run may take."""

    limits: Limits
    budget: Budget


class Prepared(NamedTuple):
    """A run that can be read on."""

    record: RunRecord
    notes: DiskNotes
    context: ReadContext


def same_models(one: Settings, other: Settings) -> bool:
    """Whether runs of these settings can share what is open: all that differs is the runs' own."""
    opening = Settings.model_fields.keys() - RUN_SETTINGS - {"model", "roles"}
    return models_named(one) == models_named(other) and all(getattr(one, f) == getattr(other, f) for f in opening)


def profile_of(gateway: Gateway, settings: Settings, role: str = "worker") -> ReadingProfile:
    """The profile of a role's model, with the notes that the settings ask for."""
    profile = gateway.role_profile(role)
    return profile if settings.notes == "auto" else replace(profile, quotes=settings.notes == "quotes")


async def allowed_for(gateway: Gateway, settings: Settings, words: int | None) -> Allowed:
    """`words` is the length of a summary. Raises: LimitsError, and ConfigError for a limit in dollars on a model
    without a price."""
    limits = await asyncio.to_thread(_limits_of, gateway, settings, words)
    return Allowed(limits, await budget_for(gateway, settings))


def _limits_of(gateway: Gateway, settings: Settings, words: int | None) -> Limits:
    written = words if (words or 0) > DEFAULT_WORDS and not profile_of(gateway, settings).quotes else None
    return limits_for(gateway, settings, words=written)


def begun_run(
    runs: RunStore, document: Document, wanted: Wanted, run_id: str | None, *, gateway: Gateway, settings: Settings
) -> tuple[RunRecord, RunPlan]:
    """A new run, checked and stored before its first call; the one of its id where somebody began that meanwhile.

    Blocking: it counts tokens. Raises: LimitsError, StorageError, and as `plan_run`.
    """
    limits = _limits_of(gateway, settings, wanted.words)
    asked = shown_at_once(wanted.question, wanted.strategy or settings.strategy)
    plan = plan_run(document, asked, gateway=gateway, limits=limits, per_chapter=wanted.per == "chapter")
    expected = _expected_of(gateway, plan, limits, settings, wanted.question, name=wanted.strategy)
    named = runs.new_id() if run_id is None else run_id
    record = _record_of(named, document, wanted, plan=plan, gateway=gateway, settings=settings, expected=expected)
    with runs.locked(named):
        if runs.has(named):
            return runs.get(named), runs.plan(named, document)
        runs.create(record, document, plan)
    return record, plan


def _expected_of(
    gateway: Gateway,
    plan: RunPlan,
    limits: Limits,
    settings: Settings,
    question: str | None,
    *,
    name: str | None = None,
) -> Estimate:
    """What reading `plan` takes by the strategy `name`, the settings' where None. Blocking: it may ask a server."""
    from coa.graphs import strategy

    n_question = gateway.counter.count([question])[0] if question else None
    options = options_of(settings, profile_of(gateway, settings))
    reading, n_lines = strategy(name or settings.strategy), len((question or "").splitlines())
    return estimate(plan, limits, n_question, reading=reading, options=options, n_lines=n_lines)


async def plan_of(
    gateway: Gateway,
    settings: Settings,
    runs: RunStore,
    document: Document,
    question: str | None,
    *,
    per: str,
    words: int | None,
) -> Plan:
    """What a run would do. Raises: LimitsError, and as `plan_run`."""
    limits, _ = await allowed_for(gateway, settings, words)
    asked = shown_at_once(question, settings.strategy)
    plan = await asyncio.to_thread(
        plan_run, document, asked, gateway=gateway, limits=limits, per_chapter=per == "chapter"
    )
    wanted = await asyncio.to_thread(_expected_of, gateway, plan, limits, settings, question)
    speed = await asyncio.to_thread(seconds_per_token, runs, gateway.group.name, settings.notes)
    return Plan(
        document=document.name,
        sha256=document.sha256,
        strategy=settings.strategy,
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


def _record_of(
    run_id: str,
    document: Document,
    wanted: Wanted,
    *,
    plan: RunPlan,
    gateway: Gateway,
    settings: Settings,
    expected: Estimate,
) -> RunRecord:
    created = now()
    return RunRecord(
        run_id=run_id,
        task=wanted.task,
        state="running",
        created=created,
        updated=created,
        document=document.name,
        document_sha256=document.sha256,
        question=wanted.question,
        strategy=wanted.strategy or settings.strategy,
        model=gateway.group.name,
        n_chunks=plan.n_chunks,
        language=wanted.language,
        words=wanted.words,
        per=wanted.per,
        form=wanted.form,
        settings=without_secrets(settings.model_copy(update={"model": models_named(gateway.settings)[0]})),
        estimate=Forecasted(expected.calls, expected.prompt_tokens, expected.completion_tokens_max),
    )


async def models_for(record: RunRecord, gateway: Gateway, settings: Settings) -> Mapping[str, ChatModel]:
    """The model of each agent that the run's strategy needs, its calls labelled with what they are made for."""
    from coa.graphs import strategy

    needed = {*strategy(record.strategy).agents, "manager"}
    if options_of(settings, profile_of(gateway, settings)).demos != "none":
        needed.add("demonstrator")
    return {
        agent: labelled(
            await gateway.role_model(_role_of(agent)),
            run_id=record.run_id,
            role=agent,
            document=record.document_sha256,
        )
        for agent in needed
    }


def prepared_run(
    runs: RunStore,
    record: RunRecord,
    document: Document,
    plan: RunPlan,
    *,
    models: Mapping[str, ChatModel],
    gateway: Gateway,
    settings: Settings,
    budget: Budget,
) -> Prepared:
    """The run with its agents over `models` (see `models_for`), and what it has paid for already.

    Blocking: agents that rank count the words of the whole document. Raises: LimitsError, StorageError.
    """
    limits = _limits_of(gateway, settings, record.words)
    roles = _roles_of(record, plan, models, gateway=gateway, limits=limits, settings=settings)
    record = runs.with_prompts(record, {"reading_prefix": PREFIX_VERSION, **roles.prompt_digests})
    notes = DiskNotes(runs, record.run_id)
    context = _context_of(document, plan, notes, roles=roles, settings=settings, gateway=gateway, budget=budget)
    return Prepared(record, notes, context)


def _roles_of(
    record: RunRecord,
    plan: RunPlan,
    models: Mapping[str, ChatModel],
    *,
    gateway: Gateway,
    limits: Limits,
    settings: Settings,
) -> Roles:
    from coa.graphs import strategy

    def inputs(agent: str) -> RoleInputs:
        profile = profile_of(gateway, settings, _role_of(agent))
        return RoleInputs(record, plan, models[agent], profile, limits, settings, gateway.counter)

    needed = strategy(record.strategy).agents
    return roles_for(needed | (models.keys() & {"demonstrator"}), inputs)


def _role_of(agent: str) -> str:
    return MODEL_OF_AGENT.get(agent, agent)


def _context_of(
    document: Document,
    plan: RunPlan,
    notes: DiskNotes,
    *,
    roles: Roles,
    settings: Settings,
    gateway: Gateway,
    budget: Budget,
) -> ReadContext:
    from coa.graphs import ReadContext

    options = options_of(settings, profile_of(gateway, settings))
    return ReadContext(
        parts=plan.parts,
        worker=roles.worker,
        manager=roles.manager,
        notes=notes,
        document=document,
        agents=roles.agents,
        options=options,
        budget=budget,
        spent=notes.spent,
        on_worker_failure=settings.on_worker_failure,
        manager_demand=roles.manager_demand,
        upcoming=None if options.quotes else _telling(gateway, document),  # quotes are picked sentence by sentence
    )


def _telling(gateway: Gateway, document: Document) -> Callable[[Sequence[Chunk]], None] | None:
    """Tells the prefix cache which chunks are read next; None without one."""
    cache, group = gateway.prefix_cache, gateway.role("worker").group.name
    if cache is None:
        return None

    def tell(following: Sequence[Chunk]) -> None:
        with labels(document=document.sha256):
            cache.upcoming(group, (reading_prompt(chunk, "A") for chunk in following))

    return tell
