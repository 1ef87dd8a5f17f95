"""Which agents read a run: made for what it asks, and for what its models can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

from coa.agents import Manager, QuotingManager, QuotingWorker, Worker
from coa.agents.aspect_choice import AspectChooser
from coa.agents.checker import Checker
from coa.agents.demonstrator import Demonstrator
from coa.agents.fact_manager import FactManager
from coa.agents.fact_worker import FactWorker
from coa.agents.judge import Judge, QuotingJudge
from coa.agents.lexical_checker import LexicalChecker
from coa.agents.merger import Merger, QuotingMerger
from coa.agents.passages import PassageReader, QuotingPassageReader
from coa.agents.reasoner import ExtractiveReasoner, Reasoner
from coa.agents.retriever import LexicalRetriever, Retriever
from coa.agents.structurizer import Structurizer
from coa.config import Settings
from coa.errors import ConfigError
from coa.limits import Limits, ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import ChatModel
from coa.runs import RunPlan, RunRecord
from coa.structures import StoredStructurizer, StructureStore
from coa.tokens import EstimatedTokens, TokenCounter
from coa.types import Chunk

__all__ = ["DEFAULT_WORDS", "RoleInputs", "Roles", "roles_for"]

DEFAULT_WORDS = 200
"""Of a summary, about."""


@dataclass(frozen=True, slots=True)
class RoleInputs:
    """What agents are made from."""

    record: RunRecord
    plan: RunPlan
    model: ChatModel
    profile: ReadingProfile
    limits: Limits
    settings: Settings
    counter: TokenCounter = field(default_factory=EstimatedTokens)

    @property
    def chunks(self) -> list[Chunk]:
        """Of all parts."""
        return [c for p in self.plan.parts for c in p.chunks]

    @property
    def words(self) -> int:
        """Of a summary."""
        return self.record.words or DEFAULT_WORDS


class Roles(NamedTuple):
    """A run's agents by role."""

    worker: Any
    """Of `coa.graphs.context.Reading`; None where the strategy has none."""
    manager: Any
    """Of `coa.graphs.context.Answering`; None where the strategy has none."""
    agents: Mapping[str, object]
    """The others."""
    manager_demand: Demand
    """The most that an answer can take."""

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record."""
        digests: dict[str, str] = {}
        for agent in (self.worker, self.manager, *self.agents.values()):
            digests |= getattr(agent, "prompt_digests", {})
        return digests


MODEL_OF_AGENT = {"merger": "manager", "passages": "manager", "demonstrator": "worker", "chooser": "structurizer"}
"""Agents that have no model of their own in the setting `roles`, and whose model they use."""


_ANSWERING = frozenset({"manager", "reasoner", "passages"})
"""Agents that write an answer at the end, for which the budget keeps a share free."""


def roles_for(needed: frozenset[str], inputs: Callable[[str], RoleInputs]) -> Roles:
    """The agents of the roles `needed`; `inputs` gives what the agent of a role is made from.

    Raises: ConfigError for a role that coa has no agent for.
    """
    agents: dict[str, object] = {}
    for role in sorted(needed):
        if role not in _MAKERS:
            raise ConfigError(f"coa has no agent for the role {role!r}.", hint=f"Roles: {', '.join(_MAKERS)}.")
        agents[role] = _MAKERS[role](inputs(role))
    manager = inputs("manager")
    demand = Demand(0)
    if needed & _ANSWERING and not manager.profile.quotes:
        limits = manager.limits
        demand = Demand(1, limits.manager_tokens - limits.answer_tokens, limits.answer_tokens)
    return Roles(agents.pop("worker", None), agents.pop("manager", None), agents, demand)


def _worker(inputs: RoleInputs) -> Worker | FactWorker | QuotingWorker:
    if inputs.profile.quotes:
        return QuotingWorker(inputs.model, inputs.chunks)
    if inputs.settings.notes == "structured":
        return FactWorker(inputs.model, inputs.limits, inputs.profile, counter=inputs.counter, **_writing(inputs))
    return Worker(
        inputs.model,
        inputs.limits,
        inputs.profile,
        **_writing(inputs),
    )


def _manager(inputs: RoleInputs) -> Manager | QuotingManager:
    if inputs.profile.quotes:
        return QuotingManager(inputs.model, words=inputs.words)
    kind = FactManager if inputs.settings.notes == "structured" else Manager
    return kind(
        inputs.model,
        inputs.limits,
        inputs.profile,
        words=inputs.words,
        **_writing(inputs),
    )


def _judge(inputs: RoleInputs) -> Judge | QuotingJudge:
    return QuotingJudge() if inputs.profile.quotes else Judge(inputs.model, inputs.limits, inputs.profile)


def _merger(inputs: RoleInputs) -> Merger | QuotingMerger:
    if inputs.profile.quotes:
        return QuotingMerger()
    return Merger(inputs.model, inputs.limits, inputs.profile, **_writing(inputs))


def _passages(inputs: RoleInputs) -> PassageReader | QuotingPassageReader:
    if inputs.profile.quotes:
        return QuotingPassageReader(QuotingWorker(inputs.model, inputs.chunks), QuotingManager(inputs.model))
    return PassageReader(inputs.model, inputs.limits, inputs.profile, words=inputs.words, **_writing(inputs))


def _demonstrator(inputs: RoleInputs) -> Demonstrator:
    return Demonstrator(inputs.model, inputs.limits, inputs.profile, language=inputs.record.language)


def _retriever(inputs: RoleInputs) -> Retriever | LexicalRetriever:
    if inputs.profile.quotes or not inputs.profile.cites:
        return LexicalRetriever(inputs.chunks)
    return Retriever(inputs.model, inputs.limits, inputs.profile, temperature=inputs.settings.temperature)


def _reasoner(inputs: RoleInputs) -> Reasoner | ExtractiveReasoner:
    if inputs.profile.quotes or not inputs.profile.cites:
        return ExtractiveReasoner(inputs.model, inputs.chunks)
    return Reasoner(inputs.model, inputs.limits, inputs.profile, **_writing(inputs))


def _structurizer(inputs: RoleInputs) -> StoredStructurizer:
    """Without a language: titles in the text's own serve questions in every one."""
    structurizer = Structurizer(
        inputs.model,
        inputs.limits,
        inputs.profile,
        form=inputs.record.form,
        temperature=inputs.settings.temperature,
    )
    return StoredStructurizer(structurizer, StructureStore(inputs.settings.home))


def _chooser(inputs: RoleInputs) -> AspectChooser:
    return AspectChooser(inputs.model, inputs.limits, temperature=inputs.settings.temperature)


def _checker(inputs: RoleInputs) -> Checker | LexicalChecker:
    if inputs.profile.quotes or not inputs.profile.cites:
        return LexicalChecker(inputs.chunks)
    return Checker(inputs.model, inputs.limits, inputs.profile, counter=inputs.counter, **_writing(inputs))


class _Writing(TypedDict):
    language: str | None
    temperature: float


def _writing(inputs: RoleInputs) -> _Writing:
    return {"language": inputs.record.language, "temperature": inputs.settings.temperature}


_MAKERS: dict[str, Callable[[RoleInputs], object]] = {
    "worker": _worker,
    "manager": _manager,
    "judge": _judge,
    "merger": _merger,
    "passages": _passages,
    "demonstrator": _demonstrator,
    "retriever": _retriever,
    "reasoner": _reasoner,
    "checker": _checker,
    "structurizer": _structurizer,
    "chooser": _chooser,
}
