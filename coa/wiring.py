"""From settings and open models to what a run's graph is handed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from coa.config import Settings
from coa.limits import Limits, ReadingProfile
from coa.llm.budget import Budget
from coa.llm.call_labels import labelled
from coa.llm.gateway import Gateway, models_named
from coa.planning import budget_for, estimate, limits_for, options_of
from coa.roles import DEFAULT_WORDS, MODEL_OF_AGENT, RoleInputs, Roles, roles_for
from coa.run_notes import DiskNotes
from coa.runs import RunPlan, RunRecord
from coa.types import Document

if TYPE_CHECKING:  # langgraph takes seconds to import
    from coa.graphs import ReadContext
    from coa.graphs.estimates import Estimate

__all__ = [
    "RUN_SETTINGS",
    "Allowed",
    "agents_for",
    "allowed_for",
    "context_for",
    "expected_of",
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


class Allowed(NamedTuple):
    """What a call and a run may take."""

    limits: Limits
    budget: Budget


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
    written = words if (words or 0) > DEFAULT_WORDS and not profile_of(gateway, settings).quotes else None
    limits = await asyncio.to_thread(limits_for, gateway, settings, words=written)
    return Allowed(limits, await budget_for(gateway, settings))


def expected_of(
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


async def agents_for(record: RunRecord, plan: RunPlan, gateway: Gateway, limits: Limits, settings: Settings) -> Roles:
    """The agents that the run's strategy needs, each over its role's model."""
    from coa.graphs import strategy

    needed = set(strategy(record.strategy).agents)
    if options_of(settings, profile_of(gateway, settings)).demos != "none":
        needed.add("demonstrator")
    names = {agent: MODEL_OF_AGENT.get(agent, agent) for agent in {*needed, "manager"}}
    models = {
        agent: labelled(await gateway.role_model(role), run_id=record.run_id, role=agent)
        for agent, role in names.items()
    }

    def inputs(agent: str) -> RoleInputs:
        profile = profile_of(gateway, settings, names[agent])
        return RoleInputs(record, plan, models[agent], profile, limits, settings, gateway.counter)

    # Ranking agents count the words of the whole document.
    return await asyncio.to_thread(roles_for, frozenset(needed), inputs)


def context_for(
    document: Document,
    plan: RunPlan,
    notes: DiskNotes,
    *,
    roles: Roles,
    settings: Settings,
    gateway: Gateway,
    budget: Budget,
) -> ReadContext:
    """The runtime context of a run's graph."""
    from coa.graphs import ReadContext

    return ReadContext(
        parts=plan.parts,
        worker=roles.worker,
        manager=roles.manager,
        notes=notes,
        document=document,
        agents=roles.agents,
        options=options_of(settings, profile_of(gateway, settings)),
        budget=budget,
        spent=notes.spent,
        on_worker_failure=settings.on_worker_failure,
        manager_demand=roles.manager_demand,
    )
