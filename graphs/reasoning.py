"""The answer of graphs that reason over evidence: one call that is shown while it is written, stored at once."""

from __future__ import annotations

from collections.abc import Sequence

from langgraph.runtime import Runtime

from coa.agents.evidence import EvidenceLine
from coa.agents.reasoner import ReasonerReply, Reasoning
from coa.agents.references import Reference
from coa.events import AnswerStarted, AnswerToken
from coa.graphs.context import NoteStore, ReadContext, teller
from coa.llm.budget import Demand
from coa.runs import PartAnswer, StoredStep

__all__ = ["ask_reasoner", "candidates_of", "keep_answer", "short_id"]


async def ask_reasoner(
    runtime: Runtime[ReadContext], agent: Reasoning, question: str, lines: Sequence[EvidenceLine], *, last: bool
) -> ReasonerReply:
    """What the reasoner says, told by events as it comes, its usage counted.

    Where the budget does not allow all evidence, the least relevant lines go. Raises: ModelError.
    """
    context, write = runtime.context, teller(runtime)
    shown = _affordable(context, agent, question, lines)
    write(AnswerStarted())
    reply = await context.calling(
        agent.reason(question, shown, last_round=last, on_text=lambda piece: write(AnswerToken(piece)))
    )
    context.spent = context.spent.merged(reply.usage)
    return reply._replace(left_out=reply.left_out + len(lines) - len(shown))


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


def _affordable(
    context: ReadContext, agent: Reasoning, question: str, lines: Sequence[EvidenceLine]
) -> list[EvidenceLine]:
    """As much of the evidence as the budget has left; one line always: an answer's share was kept free."""
    kept = sorted(lines, key=lambda line: -line.relevance)
    while len(kept) > 1 and context.budget.refusal(context.spent, agent.demand(question, kept), Demand(0)) is not None:
        kept.pop()
    return sorted(kept, key=lambda line: line.references)


def _key(part: int) -> str:
    return f"verdict/{part}"
