"""The answer of graphs that reason over evidence: one call that is shown while it is written, stored at once."""

from __future__ import annotations

from collections.abc import Sequence

from langgraph.runtime import Runtime

from coa.agents.evidence import EvidenceLine
from coa.agents.reasoner import ReasonerReply, Reasoning
from coa.agents.references import Reference
from coa.events import AnswerStarted, AnswerToken
from coa.graphs.context import NoteStore, ReadContext
from coa.runs import PartAnswer, StoredStep

__all__ = ["ask_reasoner", "candidates_of", "keep_answer", "short_id"]


async def ask_reasoner(
    runtime: Runtime[ReadContext], agent: Reasoning, question: str, lines: Sequence[EvidenceLine], *, last: bool
) -> ReasonerReply:
    """What the reasoner says, told by events as it comes, its usage counted. Raises: ModelError."""
    context, write = runtime.context, runtime.stream_writer
    write(AnswerStarted())
    reply = await context.calling(
        agent.reason(question, lines, last_round=last, on_text=lambda piece: write(AnswerToken(piece)))
    )
    context.spent = context.spent.merged(reply.usage)
    return reply


async def keep_answer(notes: NoteStore, part: int, reply: ReasonerReply, *, rounds: int = 1) -> None:
    """Stores the answer, which was paid for, and then what there is to say about it."""
    await notes.add_answer(part, PartAnswer(reply.text, reply.truncated, reply.usage, reply.verdict))
    about = {
        "verdict": reply.verdict,
        "conflicts": [[short_id(r) for r in side] for side in reply.conflicts],
        "candidates": [list(r) for r in reply.candidates],
        "left_out": reply.left_out,
        "rounds": rounds,
    }
    await notes.add_step(StoredStep(_key(part), about))


def candidates_of(notes: NoteStore, part: int) -> list[Reference]:
    """The sentences besides those of its answer that code weighed, best first; empty where a model named them."""
    found = (step.payload["candidates"] for step in notes.all_steps() if step.key == _key(part))
    return [Reference(chunk, sentence) for listed in found for chunk, sentence in listed]


def short_id(reference: Reference) -> str:
    """Without brackets, as people write it: "3.7"."""
    return f"{reference.chunk}.{reference.sentence}"


def _key(part: int) -> str:
    return f"verdict/{part}"
