"""Steps that are paid for once: looked up first, held to the budget, stored before the graph goes on.

Every node of every strategy makes its model calls through one of these, so at-least-once execution (a kill, a
drain, a retry by the host) never pays twice, and a run keeps to its limits whatever it does side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from coa.agents.manager import nothing_found_reply
from coa.errors import BadOutput, ConfigError, ContentRefused, ContextOverflow, ModelError
from coa.events import AnswerStarted, AnswerToken, ChunkRead, ChunkSkipped, ChunkStarted, Event
from coa.graphs.context import Answering, ReadContext, Reading
from coa.graphs.together import Turn
from coa.llm.budget import Demand
from coa.llm.call_labels import labels
from coa.runs import PartAnswer, StoredNote, StoredStep
from coa.types import Chunk, CommunicationUnit, Usage, Verdict

__all__ = [
    "CHUNK_FAILURES",
    "PlannedStep",
    "Refusal",
    "StepReply",
    "answer_part",
    "needed",
    "nothing_found",
    "read_chunk",
    "side_by_side",
    "store_answer",
    "take_step",
    "take_steps",
]

Write = Callable[[Event], None]
_Agent = TypeVar("_Agent")
_T = TypeVar("_T")

CHUNK_FAILURES = (BadOutput, ContentRefused, ContextOverflow)
"""A chunk can be to blame for these. The rest is the server's or the key's fault: the run stops and is resumed
later, since going on would skip chunk after chunk of a book that could have been read."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The budget does not allow a step."""

    reason: str
    """The limit, as in "the limit of 20 calls"."""


class StepReply(NamedTuple):
    """What a step gave and took."""

    payload: Mapping[str, Any]
    """JSON values."""
    usage: Usage


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that may have been taken before."""

    key: str
    """Unique within the run, the same in every process."""
    call: Callable[[], Coroutine[Any, Any, StepReply]]
    """Makes the model calls; not used where the step is stored already. Raises: ModelError."""
    demand: Demand
    """The most that it can take."""
    chunks: tuple[int, ...] = ()
    """The chunks that it reads, as ordinals over the whole run."""
    may_fail: bool = True
    """Whether a reply of no use is stored as the step's end (with its cause) or raised, where the run's setting
    `on_worker_failure` allows skipping."""
    answers: bool = False
    """Whether it writes the answer, for which a share of the budget is kept free."""


async def read_chunk(
    context: ReadContext,
    write: Write,
    worker: Reading,
    unit: CommunicationUnit,
    *,
    question: str | None,
    part: int,
    position: int,
    path: str = "",
    turn: Turn | None = None,
    following: Sequence[Chunk] = (),
) -> StoredNote | Refusal:
    """What reading a chunk gave, by a call or from the store; tells of it by events.

    `turn` is the chunk's place in the path's order, for runs that keep in step; None where there is no order.
    `following` is what the path reads next, as far as that is settled.

    A failure that the chunk may be to blame for becomes a note with a cause and the unit as it was. Raises:
    ModelError for every other.
    """
    companion = context.together if turn is not None else None
    with contextlib.nullcontext() if companion is None or turn is None else companion.taking(turn):
        stored = await context.notes.note(part, position, path)
        reused = stored is not None
        if stored is None:
            if companion is not None:
                await context.calling(companion.wait())
            bought = await _bought(
                context,
                write,
                worker,
                unit,
                question=question,
                part=part,
                position=position,
                path=path,
                following=following,
            )
            if isinstance(bought, Refusal):
                if companion is not None:
                    companion.leave()
                return bought
            stored = bought
    write(_told(context, stored, reused=reused))
    return stored


async def _bought(
    context: ReadContext,
    write: Write,
    worker: Reading,
    unit: CommunicationUnit,
    *,
    question: str | None,
    part: int,
    position: int,
    path: str,
    following: Sequence[Chunk],
) -> StoredNote | Refusal:
    """The chunk's note, read now, as far as the budget allows, and stored."""
    chunk = context.parts[part].chunks[position]
    demand = context.demand(worker, chunk, question, unit)
    refusal = await context.reserve(demand)
    if refusal is not None:
        return Refusal(refusal)
    paid = Usage()
    try:
        write(ChunkStarted(context.ordinal(part, position), context.n_chunks, chunk.n_tokens, path))
        if context.upcoming is not None and following:
            context.upcoming(following)
        with labels(chunk=str(context.ordinal(part, position))):
            note = await _paid(context, worker, unit, question=question, part=part, position=position, path=path)
        paid = note.usage
    except ModelError as error:
        paid = error.usage or Usage()
        raise
    finally:
        context.release(demand, paid)
    await context.notes.add_note(note)
    return note


def _told(context: ReadContext, note: StoredNote, *, reused: bool) -> Event:
    ordinal = context.ordinal(note.part, note.chunk)
    if note.cause is not None:
        return ChunkSkipped(ordinal, context.n_chunks, note.cause, note.path)
    return ChunkRead(
        index=ordinal,
        n_chunks=context.n_chunks,
        n_tokens=context.parts[note.part].chunks[note.chunk].n_tokens,
        note=note.text,
        informative=note.informative,
        usage=context.spent,
        seconds=note.seconds,
        reused=reused,
        path=note.path,
    )


async def _paid(
    context: ReadContext,
    worker: Reading,
    unit: CommunicationUnit,
    *,
    question: str | None,
    part: int,
    position: int,
    path: str,
) -> StoredNote:
    started = time.perf_counter()
    try:
        reply = await context.calling(worker.read(context.parts[part].chunks[position], question, unit))
    except ModelError as error:
        if context.on_worker_failure == "fail" or not isinstance(error, CHUNK_FAILURES):
            raise
        return StoredNote(
            part=part,
            chunk=position,
            text=unit.text,
            unit_chunk=unit.chunk_index,
            informative=False,
            usage=error.usage or Usage(),
            seconds=time.perf_counter() - started,
            cause=error.message,
            path=path,
        )
    return StoredNote(
        part=part,
        chunk=position,
        text=reply.unit.text,
        unit_chunk=reply.unit.chunk_index,
        informative=reply.informative,
        usage=reply.usage,
        seconds=time.perf_counter() - started,
        path=path,
    )


async def take_step(context: ReadContext, planned: PlannedStep) -> StoredStep | Refusal:
    """The step's result, by its call or from the store. Raises: ModelError."""
    stored = await context.notes.step(planned.key)
    if stored is not None:
        return stored
    refusal = await context.reserve(planned.demand, answers=planned.answers)
    if refusal is not None:
        return Refusal(refusal)
    started = time.perf_counter()
    paid = Usage()
    cause: str | None = None
    payload: Mapping[str, Any] = {}
    try:
        reply = await context.calling(planned.call())
        payload, paid = reply.payload, reply.usage
    except ModelError as error:
        paid = error.usage or Usage()
        skips = planned.may_fail and context.on_worker_failure == "skip" and isinstance(error, CHUNK_FAILURES)
        if not skips:
            raise
        cause = error.message
    finally:
        context.release(planned.demand, paid)
    stored = StoredStep(
        key=planned.key,
        payload=payload,
        usage=paid,
        seconds=time.perf_counter() - started,
        chunks=planned.chunks,
        cause=cause,
    )
    await context.notes.add_step(stored)
    return stored


async def take_steps(context: ReadContext, planned: Sequence[PlannedStep]) -> list[StoredStep | Refusal]:
    """The results of steps taken side by side, in the order of `planned`; as many at once as there are.

    When one fails the others are finished and stored before its error is raised: they are being paid for.
    """
    return await side_by_side(take_step(context, step) for step in planned)


async def side_by_side(calls: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """The results of `calls`, in order; an error of one is raised when all have come to their end."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    found: list[_T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found


async def answer_part(
    context: ReadContext,
    write: Write,
    manager: Answering,
    unit: CommunicationUnit,
    *,
    question: str | None,
    part: int,
    verdict: Verdict | None = None,
) -> PartAnswer:
    """The manager's answer for a part, streamed as events; from the store where it is written already.

    The budget has kept its share free. Raises: ModelError.
    """
    stored = await context.notes.answer(part)
    if stored is None:
        write(AnswerStarted())
        paid = Usage()
        try:
            answering = manager.answer(question, unit, on_text=lambda piece: write(AnswerToken(piece)))
            reply = await context.calling(answering)
            paid = reply.usage
        except ModelError as error:
            paid = error.usage or Usage()
            raise
        finally:
            context.spent = context.spent.merged(paid)
        stored = PartAnswer(reply.text, reply.truncated, reply.usage, verdict)
        await context.notes.add_answer(part, stored)
    return stored


async def store_answer(
    context: ReadContext,
    write: Write,
    part: int,
    text: str,
    *,
    truncated: bool = False,
    verdict: Verdict | None = None,
) -> None:
    """Makes `text`, which steps have paid for, the part's answer."""
    if await context.notes.answer(part) is None:
        write(AnswerStarted())
        write(AnswerToken(text))
        await context.notes.add_answer(part, PartAnswer(text, truncated, Usage(), verdict))


async def nothing_found(context: ReadContext, write: Write, *, question: str | None, part: int) -> None:
    """Makes "the text does not say", in the question's language, the part's answer."""
    await store_answer(context, write, part, nothing_found_reply(question, None).text, verdict="not_in_text")


def needed(agent: _Agent | None, role: str) -> _Agent:
    """`agent`, which a graph cannot do without. Raises: ConfigError where it is None."""
    if agent is None:
        raise ConfigError(
            f"this graph needs a {role}.", hint=f"Give one to its build function, or to ReadContext({role}=…)."
        )
    return agent
