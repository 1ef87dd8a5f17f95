"""Generated sets: written as folders that `coa eval run` reads, the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coa.evaluation.folders import load_folder
from coa.evaluation.haystack import sized
from coa.evaluation.needles import Made, Order, Wording, needle_questions, thread_questions
from coa.evaluation.scattering import fact_question, load_stories, surrounded
from coa.run_files import write_atomically

__all__ = ["SetWriter", "generate_distractors", "generate_facts", "generate_needles", "generate_threads"]


class SetWriter:
    """A folder that is being filled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[dict[str, Any]] = []
        self.n_documents = 0

    @property
    def n_questions(self) -> int:
        """So far."""
        return len(self._lines)

    def add(self, doc_id: str, made: Made) -> None:
        """Writes the document and takes its questions. Raises: StorageError."""
        write_atomically(self._folder / "docs" / f"{doc_id}.txt", made.text)
        self.n_documents += 1
        for n, question in enumerate(made.questions, 1):
            ident = doc_id if len(made.questions) == 1 else f"{doc_id}-{n}"
            self._lines.append({"id": ident, "doc_id": doc_id, **question})

    def close(self) -> None:
        """Writes questions.jsonl. Raises: StorageError."""
        lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines)
        write_atomically(self._folder / "questions.jsonl", lines)


def generate_needles(
    out: SetWriter,
    sources: Sequence[str],
    *,
    lengths: Sequence[int],
    depths: Sequence[float],
    times: int,
    n_others: int,
    language: str | None,
    wording: Wording,
    seed: int,
) -> None:
    """`times` documents for each length and depth."""
    for length in lengths:
        source = sized(sources, length, language)
        for depth in depths:
            for n in range(times):
                rng = random.Random(f"needle/{seed}/{length}/{depth}/{n}")
                made = needle_questions(
                    source, depth=depth, language=language, wording=wording, n_others=n_others, rng=rng
                )
                out.add(f"needle-{length}-{round(depth * 100):03d}-{n}", made)


def generate_threads(
    out: SetWriter,
    sources: Sequence[str],
    *,
    lengths: Sequence[int],
    hops: int,
    n_threads: int,
    orders: Sequence[Order],
    times: int,
    language: str | None,
    wording: Wording,
    seed: int,
) -> None:
    """`times` documents for each length and order."""
    for length in lengths:
        source = sized(sources, length, language)
        for order in orders:
            for n in range(times):
                rng = random.Random(f"thread/{seed}/{length}/{order}/{hops}/{n_threads}/{n}")
                made = thread_questions(
                    source, hops=hops, n_threads=n_threads, order=order, language=language, wording=wording, rng=rng
                )
                out.add(f"thread-{length}-{order}-{n}", made)


def generate_facts(
    out: SetWriter,
    sources: Sequence[str],
    stories: Path,
    *,
    lengths: Sequence[int],
    times: int,
    language: str | None,
    seed: int,
) -> None:
    """`times` stories of the file for each length, the same ones for every length."""
    found = load_stories(stories)
    labels = {str(answer) for story in found for answer in story["answers"]}
    chosen = random.Random(f"facts/{seed}").sample(found, min(times, len(found)))
    for length in lengths:
        source = sized(sources, length, language)
        for story in chosen:
            rng = random.Random(f"facts/{seed}/{length}/{story['id']}")
            out.add(f"facts-{length}-{story['id']}", fact_question(source, story, labels, language=language, rng=rng))


def generate_distractors(
    out: SetWriter, folder: Path, *, n_others: int, depths: Sequence[float], times: int, language: str | None, seed: int
) -> None:
    """`times` questions of a folder for each depth, their documents set among `n_others` others; the same questions
    for every depth."""
    questions = load_folder(folder, name=folder.name, language=language)
    drawn = random.Random(f"distractors/{seed}").sample(questions.questions, min(times, len(questions.questions)))
    for depth in depths:
        for question in drawn:
            rng = random.Random(f"distractors/{seed}/{question.id}")
            text, moved, own = surrounded(questions, question, n_others=n_others, depth=depth, rng=rng)
            inserted = [[start, end] for start, end in ((0, own.start), (own.end, len(text))) if end > start]
            line = {
                "question": moved.text,
                "answers": list(moved.answers),
                "type": moved.kind,
                "options": list(moved.options),
                "meta": {
                    "needles": [{"start": p[0].start, "end": p[0].end} for p in moved.gold if p],
                    "inserted": inserted,
                    "depth": depth,
                },
            }
            out.add(f"{question.id}-{round(depth * 100):03d}", Made(text, [line]))
