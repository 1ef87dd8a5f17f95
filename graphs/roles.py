"""What graphs need of agents besides worker and manager: protocols that are checked when an agent is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from coa.agents.demonstrator import DemonstratorReply
from coa.agents.judge import JudgeReply
from coa.agents.passages import PassageReply
from coa.agents.worker import WorkerReply
from coa.llm.budget import Demand
from coa.llm.chat import OnText
from coa.types import Chunk, CommunicationUnit

__all__ = ["AnsweringPassages", "Demonstrating", "Judging", "Merging"]


@runtime_checkable
class Judging(Protocol):
    """`coa.agents.judge.Judge`, or one of the host's."""

    def demand(self, n_units: int) -> Demand:
        """The most that choosing among so many can take."""
        ...

    async def choose(self, query: str | None, units: Sequence[CommunicationUnit]) -> JudgeReply:
        """The most reliable of `units`. Raises: ModelError."""
        ...


@runtime_checkable
class Merging(Protocol):
    """`coa.agents.merger.Merger`, or one of the host's."""

    @property
    def group_size(self) -> int:
        """How many units one call takes; at least two."""
        ...

    def demand(self, n_units: int) -> Demand:
        """The most that merging so many can take."""
        ...

    async def merge(self, query: str | None, units: Sequence[CommunicationUnit]) -> WorkerReply:
        """One unit in place of several. Raises: ModelError."""
        ...


@runtime_checkable
class AnsweringPassages(Protocol):
    """`coa.agents.passages.PassageReader`, or one of the host's."""

    @property
    def room_tokens(self) -> int:
        """Tokens of passages that one call takes."""
        ...

    def demand(self, query: str | None, chunks: Sequence[Chunk]) -> Demand:
        """The most that `answer` can take."""
        ...

    async def answer(
        self, query: str | None, chunks: Sequence[Chunk], *, on_text: OnText | None = None
    ) -> PassageReply:
        """The answer from `chunks` alone. Raises: ModelError."""
        ...


@runtime_checkable
class Demonstrating(Protocol):
    """`coa.agents.demonstrator.Demonstrator`, or one of the host's."""

    def demand(self, chunk: Chunk) -> Demand:
        """The most that `demonstrate` can take."""
        ...

    async def demonstrate(self, chunk: Chunk) -> DemonstratorReply:
        """A question that `chunk` answers. Raises: ModelError."""
        ...
