"""A run's notes on disk, as the graphs' `NoteStore`."""

from __future__ import annotations

import asyncio

from coa.runs import PartAnswer, RunStore, StoredNote
from coa.types import Usage

__all__ = ["DiskNotes"]


class DiskNotes:
    """Reads the run's file once and writes through; one process at a time works on a run."""

    def __init__(self, runs: RunStore, run_id: str) -> None:
        self._runs = runs
        self._run_id = run_id
        self._notes = {(n.part, n.chunk): n for n in runs.stored_notes(run_id)}
        self._answers = runs.part_answers(run_id)

    @property
    def n_done(self) -> int:
        """Chunks that are finished."""
        return len(self._notes)

    @property
    def spent(self) -> Usage:
        """Of all finished chunks and answers."""
        total = Usage()
        for note in self._notes.values():
            total = total.merged(note.usage)
        for answer in self._answers.values():
            total = total.merged(answer.usage)
        return total

    def stored(self) -> list[StoredNote]:
        """What became of each finished chunk, in reading order."""
        return [self._notes[key] for key in sorted(self._notes)]

    def stored_note(self, part: int, chunk: int) -> StoredNote | None:
        """`note`, without a loop."""
        return self._notes.get((part, chunk))

    def part_answer(self, part: int) -> PartAnswer | None:
        """The answer of a part, without a loop."""
        return self._answers.get(part)

    async def note(self, part: int, chunk: int) -> StoredNote | None:
        """What became of a chunk."""
        return self._notes.get((part, chunk))

    async def add_note(self, note: StoredNote) -> None:
        """Keeps a finished chunk; on the disk when it returns."""
        await asyncio.to_thread(self._runs.add_note, self._run_id, note)
        self._notes[note.part, note.chunk] = note

    async def answer(self, part: int) -> PartAnswer | None:
        """The answer of a part."""
        return self._answers.get(part)

    async def add_answer(self, part: int, answer: PartAnswer) -> None:
        """Keeps a part's answer; on the disk when it returns."""
        await asyncio.to_thread(self._runs.add_part_answer, self._run_id, part, answer)
        self._answers[part] = answer
