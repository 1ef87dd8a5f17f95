"""Draws what a chain's notes look like as the chunks go by, with rich; meant to be read and changed, cell by cell.

python examples/notes_over_chunks.py examples/novel/the-salt-ledger.txt "Who kept the ledger?"
"""

# %% What is read, and what is asked of it
import asyncio
import sys

from rich.console import Console
from rich.live import Live
from rich.table import Table

from coa import Answer, Session, read_document
from coa.events import ChunkRead, ChunkSkipped, Event

path, question = sys.argv[1], sys.argv[2]
document = read_document(path)
console = Console()
console.print(f"[bold]{document.name}[/]: {len(document.text):,} characters, {len(document.chapters())} chapters")

# %% A row for each chunk: how much of the note is new, and its end
rows: list[tuple[str, str, str]] = []
previous = ""


def drawn() -> Table:
    """The rows so far; of a long book the last ones."""
    table = Table("chunk", "note", "it ends with", title=question, expand=True)
    for row in rows[-(console.height - 6) :]:
        table.add_row(*row)
    return table


def take(event: Event) -> None:
    """Turns an event into a row."""
    global previous  # noqa: PLW0603 - a notebook's cell
    if isinstance(event, ChunkRead):
        bar = "█" * min(30, 1 + len(event.note) // 40)
        style = "green" if event.informative and event.note != previous else "dim"
        rows.append((f"{event.index + 1}/{event.n_chunks}", f"[{style}]{bar}[/]", event.note[-60:].replace("[", r"\[")))
        previous = event.note
    elif isinstance(event, ChunkSkipped):
        rows.append((f"{event.index + 1}/{event.n_chunks}", "[red]skipped[/]", event.cause))


# %% Reading, drawn as it goes
async def read() -> Answer:
    """The answer; `take` and `draw` see every event on the way."""
    with Live(drawn(), console=console) as live:

        def on_event(event: Event) -> None:
            take(event)
            live.update(drawn())

        async with Session(on_event=on_event) as session:
            return await session.ask(document, question)


answer = asyncio.run(read())

# %% The answer, and what it rests on
console.print(f"\n[bold]{answer.text}[/]", highlight=False)
for number, citation in enumerate(answer.citations, 1):
    console.print(f"  [{number}] “{citation.quote}” ({citation.chapter or 'no chapter'})", markup=False)
