"""Evidence: sentences that a retriever named, checked, copied from the source and put in order.

Models that are asked for facts make some up (ALR², Li et al. 2024, abstract), so a retriever names sentences and
code copies them: a line of evidence cannot say what the document does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coa.agents.references import Reference, without_references
from coa.reading import render_text
from coa.types import Chunk, Document

__all__ = ["EvidenceLine", "Selected", "Verified", "rendered", "verified"]

# "He" in a sentence is mostly somebody in the one before: a single sentence between two picked ones is shown too.
_LARGEST_GAP = 1


class Selected(NamedTuple):
    """A sentence that a retriever named."""

    reference: Reference
    relevance: float
    """0..1; comparable within one reply."""


@dataclass(frozen=True, slots=True)
class EvidenceLine:
    """Neighbouring sentences of one chunk."""

    references: tuple[Reference, ...]
    """In order, without gaps."""
    texts: tuple[str, ...]
    """The sentences, as they stand in the document, white space around them removed."""
    relevance: float
    """The best of its sentences', 0..1."""
    chapter: str | None = None

    @property
    def text(self) -> str:
        """The sentences on one line, without ids."""
        return " ".join(render_text(t) for t in self.texts)

    def __str__(self) -> str:
        # Brackets of the source must not read as ids.
        pairs = zip(self.references, self.texts, strict=True)
        return " ".join(f"{r} {without_references(render_text(t))}" for r, t in pairs)


class Verified(NamedTuple):
    """Evidence that stands in the document."""

    lines: tuple[EvidenceLine, ...]
    """In document order; no sentence is in two of them."""
    dropped: int
    """Named sentences that do not exist."""


def verified(
    selected: Iterable[Selected],
    chunks: Sequence[Chunk],
    *,
    document: Document | None = None,
    without: Collection[Reference] = (),
) -> Verified:
    """The evidence that `selected` names, duplicates and neighbours merged; chapters need the `document`.

    Sentences in `without` are neither taken nor shown between two others.
    """
    relevance: dict[Reference, float] = {}
    dropped: set[Reference] = set()
    for reference, value in selected:
        if reference in without:
            continue
        if 1 <= reference.chunk <= len(chunks) and 1 <= reference.sentence <= len(
            chunks[reference.chunk - 1].sentences
        ):
            relevance[reference] = max(value, relevance.get(reference, 0.0))
        else:
            dropped.add(reference)
    runs: list[list[Reference]] = []
    for reference in sorted(relevance):
        if runs and _follows(reference, runs[-1][-1], without):
            runs[-1].append(reference)
        else:
            runs.append([reference])
    lines = tuple(_line(run, relevance, chunks[run[0].chunk - 1], document) for run in runs)
    return Verified(lines, len(dropped))


def rendered(evidence: Iterable[EvidenceLine]) -> str:
    """The lines as agents are shown them, under the chapters' titles where those are known."""
    found: list[str] = []
    chapter: str | None = None
    for line in evidence:
        if line.chapter is not None and line.chapter != chapter:
            found.append(f"({without_references(render_text(line.chapter))})")
        chapter = line.chapter
        found.append(str(line))
    return "\n".join(found)


def _follows(reference: Reference, last: Reference, without: Collection[Reference]) -> bool:
    between = [Reference(last.chunk, n) for n in range(last.sentence + 1, reference.sentence)]
    return reference.chunk == last.chunk and len(between) <= _LARGEST_GAP and not any(r in without for r in between)


def _line(
    run: Sequence[Reference], relevance: dict[Reference, float], chunk: Chunk, document: Document | None
) -> EvidenceLine:
    spans = chunk.sentences[run[0].sentence - 1 : run[-1].sentence]
    offset = chunk.span.start
    section = document.section_at(spans[0].start) if document is not None else None
    return EvidenceLine(
        references=tuple(Reference(chunk.index + 1, n) for n in range(run[0].sentence, run[-1].sentence + 1)),
        texts=tuple(chunk.text[s.start - offset : s.end - offset].strip() for s in spans),
        relevance=max(relevance[r] for r in run),
        chapter=section.title if section is not None else None,
    )
