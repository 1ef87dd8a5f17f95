"""A graph of a host's own, with its own state, that has coa's chain as one of its nodes.

    python examples/host_graph/host.py examples/novel/the-salt-ledger.txt "Who kept the ledger?"

The host's state knows nothing of coa's: the node `read` maps between them and hands coa's graph its runtime context.
Coa's events come out of the host's own stream, since `subgraphs=True` passes them up; the host's checkpointer, if it
compiles one in, keeps the inner graph's steps as well.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from typing_extensions import TypedDict

from coa import Document, Session, read_document
from coa.events import ChunkRead
from coa.graphs import ReadContext, ReadInput, ReadOutput, build_chain


class TicketState(TypedDict, total=False):
    """The host's: a ticket that somebody has to answer."""

    ticket: str
    found: str
    sources: list[str]
    reply: str


Host = CompiledStateGraph[TicketState, ReadContext, TicketState, TicketState]


def build_host() -> Host:
    """The host's graph: it reads the manual for the ticket's question, then writes a letter."""
    chain = build_chain().compile(name="chain")

    async def read(state: TicketState) -> TicketState:
        # The runtime context of the host's graph reaches the inner one by itself.
        output = cast("ReadOutput", await chain.ainvoke(ReadInput(question=state["ticket"])))
        return {"found": output["answer"], "sources": [citation["quote"] for citation in output["citations"]]}

    def write(state: TicketState) -> TicketState:
        sources = "".join(f"\n  [{n}] {quote}" for n, quote in enumerate(state["sources"], 1))
        return {"reply": f"You asked: {state['ticket']}\n\n{state['found']}{sources}"}

    graph: StateGraph[TicketState, ReadContext, TicketState, TicketState] = StateGraph(
        TicketState, context_schema=ReadContext
    )
    graph.add_node("read", read)
    graph.add_node("write", write)
    graph.add_edge(START, "read")
    graph.add_edge("read", "write")
    graph.add_edge("write", END)
    return graph.compile(name="host")


async def reply_to(
    session: Session, document: Document, ticket: str, on_event: Callable[[object], None]
) -> TicketState:
    """The host's state at its end; `on_event` sees coa's events as they come."""
    state: TicketState = {"ticket": ticket}
    async with session.prepared(document, ticket) as run:
        stream = build_host().astream(
            state,
            cast("Any", {"recursion_limit": 100 + 20 * run.context.n_chunks}),
            context=run.context,
            stream_mode=["custom", "values"],
            subgraphs=True,
        )
        async for namespace, mode, part in cast("Any", stream):
            if mode == "custom":
                on_event(part)
            elif not namespace:  # the host's own state, not the inner graph's
                state = part
    return state


async def main() -> None:
    parser = argparse.ArgumentParser(description="Answers a ticket from a manual.")
    parser.add_argument("manual", type=Path)
    parser.add_argument("ticket")
    given = parser.parse_args()

    def show(event: object) -> None:
        if isinstance(event, ChunkRead):
            print(f"read {event.index + 1} of {event.n_chunks}", file=sys.stderr)

    async with Session() as session:
        state = await reply_to(session, read_document(given.manual), given.ticket, show)
    print(state["reply"])


if __name__ == "__main__":
    asyncio.run(main())
