"""A run's notes on disk, as the graphs' `NoteStore`."""

from __future__ import annotations

import asyncio

from coa.blocking import at_once
from coa.runs import Finished, PartAnswer, RunStore, StoredNote, StoredStep
from coa.syncing import synced
from coa.types import Usage

__all__ = ["DiskNotes"]


class DiskNotes:
    """Reads the run's file once and writes through; one process at a time works on a run."""

    def __init__(self, runs: RunStore, run_id: str) -> None:
        self._runs = runs
        self._run_id = run_id
        self._notes: dict[tuple[str, int, int], StoredNote] = {}
        self._steps: dict[str, StoredStep] = {}
        self._answers: dict[int, PartAnswer] = {}
        self._writing = asyncio.Lock()
        for finished in runs.journal(run_id):
            self._take(finished)

    @property
    def n_done(self) -> int:
        """Chunks that are finished, on the path that has come furthest; else those that steps have read."""
        paths = [path for path, _, _ in self._notes]
        furthest = max((paths.count(path) for path in set(paths)), default=0)
        return furthest or len({chunk for step in self._steps.values() for chunk in step.chunks})

    @property
    def spent(self) -> Usage:
        """Of all finished chunks, steps and answers."""
        total = Usage()
        for note in self._notes.values():
            total = total.merged(note.usage)
        for step in self._steps.values():
            total = total.merged(step.usage)
        for answer in self._answers.values():
            total = total.merged(answer.usage)
        return total

    def all_notes(self) -> list[StoredNote]:
        """What became of each finished chunk, in reading order, path by path."""
        return [self._notes[key] for key in sorted(self._notes)]

    def all_steps(self) -> list[StoredStep]:
        """The finished steps, in the order that they ended in."""
        return list(self._steps.values())

    def all_answers(self) -> dict[int, PartAnswer]:
        """The answer of each part that has one."""
        return dict(self._answers)

    async def note(self, part: int, chunk: int, path: str = "") -> StoredNote | None:
        """What became of a chunk."""
        return self._notes.get((path, part, chunk))

    async def add_note(self, note: StoredNote) -> None:
        """Keeps a finished chunk; on the disk when it returns."""
        await self._keep(note)

    async def step(self, key: str) -> StoredStep | None:
        """What became of a step."""
        return self._steps.get(key)

    async def add_step(self, step: StoredStep) -> None:
        """Keeps a finished step; on the disk when it returns."""
        await self._keep(step)

    async def answer(self, part: int) -> PartAnswer | None:
        """The answer of a part."""
        return self._answers.get(part)

    async def add_answer(self, part: int, answer: PartAnswer) -> None:
        """Keeps a part's answer; on the disk when it returns."""
        await self._keep((part, answer))

    async def _keep(self, finished: Finished) -> None:
        async with self._writing:
            if at_once():
                with self._runs.keeping(self._run_id, finished) as file:
                    await synced(file)
            else:
                await asyncio.to_thread(self._runs.keep, self._run_id, finished)
        self._take(finished)

    def _take(self, finished: Finished) -> None:
        match finished:
            case StoredNote():
                self._notes[finished.path, finished.part, finished.chunk] = finished
            case StoredStep():
                self._steps[finished.key] = finished
            case (part, answer):
                self._answers[part] = answer
