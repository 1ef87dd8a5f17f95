"""Which worker and which manager read a run."""

from __future__ import annotations

from typing import NamedTuple

from coa.agents import Manager, QuotingManager, QuotingWorker, Worker
from coa.limits import Limits, ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import ChatModel
from coa.runs import RunPlan, RunRecord

__all__ = ["DEFAULT_WORDS", "Roles", "roles_for"]

DEFAULT_WORDS = 200
"""Of a summary, about."""


class Roles(NamedTuple):
    """The agents of a chain."""

    worker: Worker | QuotingWorker
    manager: Manager | QuotingManager
    manager_demand: Demand
    """The most that an answer can take."""

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record."""
        return {**self.worker.prompt_digests, **self.manager.prompt_digests}


def roles_for(
    record: RunRecord, plan: RunPlan, model: ChatModel, *, profile: ReadingProfile, limits: Limits, temperature: float
) -> Roles:
    """The agents for what `record` asks and what `profile` says of the model."""
    words = record.words or DEFAULT_WORDS
    if profile.quotes:
        return Roles(
            QuotingWorker(model, [c for p in plan.parts for c in p.chunks]),
            QuotingManager(model, words=words),
            Demand(0),
        )
    return Roles(
        Worker(model, limits, profile, language=record.language, temperature=temperature),
        Manager(model, limits, profile, language=record.language, words=words, temperature=temperature),
        Demand(1, limits.manager_tokens - limits.answer_tokens, limits.answer_tokens),
    )
