"""The node that makes recycled demonstrations (see `coa.agents.demonstrator`) before a chain begins to read."""

from __future__ import annotations

import random

from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from coa.agents.demonstrator import Demonstration, demonstrations_text
from coa.events import StageChanged
from coa.graphs.context import ReadContext, teller
from coa.graphs.roles import Demonstrating
from coa.graphs.steps import PlannedStep, StepReply, take_steps
from coa.types import Chunk

__all__ = ["N_DEMONSTRATIONS", "demonstrate", "demonstrations_of"]

N_DEMONSTRATIONS = 3
_KEY = "demonstration/"


class DemonstratingState(TypedDict):
    """It reads nothing of the state."""


async def demonstrate(state: DemonstratingState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Makes questions from chunks drawn by chance, the same ones in every process; none where the budget ends."""
    context = runtime.context
    demonstrator = context.agent("demonstrator", Demonstrating)
    everywhere = [
        (context.ordinal(part, at), chunk)
        for part, found in enumerate(context.parts)
        for at, chunk in enumerate(found.chunks)
    ]
    drawn = random.Random(len(everywhere)).sample(everywhere, min(N_DEMONSTRATIONS, len(everywhere)))
    teller(runtime)(StageChanged("making examples from the text"))
    await take_steps(context, [_making(demonstrator, ordinal, chunk) for ordinal, chunk in sorted(drawn)])
    return {}


def _making(demonstrator: Demonstrating, ordinal: int, chunk: Chunk) -> PlannedStep:
    async def call() -> StepReply:
        reply = await demonstrator.demonstrate(chunk)
        made = reply.demonstration
        payload = {} if made is None else {"q": made.question, "a": made.answer, "references": made.references}
        return StepReply(payload, reply.usage)

    return PlannedStep(f"{_KEY}{ordinal}", call, demonstrator.demand(chunk))


def demonstrations_of(context: ReadContext) -> str:
    """What agents are told before their instruction; empty where there are no demonstrations."""
    if context.options.demos == "none":
        return ""
    steps = [s for s in context.notes.all_steps() if s.key.startswith(_KEY) and s.payload]
    # In the text's order, not in that of their ends: the same prompts every time.
    made = (s.payload for s in sorted(steps, key=lambda s: int(s.key.removeprefix(_KEY))))
    return demonstrations_text([Demonstration(m["q"], m["a"], m["references"]) for m in made])
