"""What a run keeps: its plan and notes as values, and their JSON.

Chunks are stored as offsets, never as text: the document lies beside the runs, and its digest is in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from coa.errors import StorageError
from coa.run_files import fields_of
from coa.types import (
    Answer,
    Chunk,
    Citation,
    Claim,
    Coverage,
    Document,
    Forecasted,
    LeftOut,
    Note,
    Place,
    Section,
    SkippedChunk,
    Span,
    Usage,
    Verdict,
)

__all__ = [
    "CHOICE_KEY",
    "FORMAT",
    "Finished",
    "Part",
    "PartAnswer",
    "RunPlan",
    "StoredNote",
    "StoredStep",
    "answer_from_json",
    "document_from_json",
    "finished_from_json",
    "finished_to_json",
    "plan_from_json",
    "plan_to_json",
]

CHOICE_KEY = "auto/choice"
"""Of the step that holds the strategy which was chosen: `{"strategy": …, "reason": …}`."""
FORMAT = 1
"""Of a run's files; one of another number is refused rather than misread."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the document that gets an answer of its own: the book, or a chapter."""

    title: str | None
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run reads."""

    parts: tuple[Part, ...]
    tokenizer: str
    exact: bool

    @property
    def n_chunks(self) -> int:
        """Chunks of all parts."""
        return sum(len(p.chunks) for p in self.parts)

    @property
    def n_tokens(self) -> int:
        """Tokens of all chunks, as rendered."""
        return sum(c.n_tokens for p in self.parts for c in p.chunks)


@dataclass(frozen=True, slots=True)
class StoredNote:
    """What became of one chunk."""

    part: int
    chunk: int
    """Index within the part."""
    text: str
    """The unit after the chunk."""
    unit_chunk: int
    informative: bool
    usage: Usage
    seconds: float = 0.0
    cause: str | None = None
    """Why the chunk was skipped; None when it was read."""
    path: str = ""
    """Which chain it belongs to, for strategies that read along several."""


@dataclass(frozen=True, slots=True)
class StoredStep:
    """What a step other than reading a chunk of a chain gave: evidence, a structure, a summary of summaries."""

    key: str
    """Unique within the run, the same in every process: "evidence/0/12"."""
    payload: Mapping[str, Any]
    """JSON values."""
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    chunks: tuple[int, ...] = ()
    """The chunks that it read, as ordinals over the whole run."""
    cause: str | None = None
    """Why it gave nothing; None when it succeeded."""
    selected: tuple[int, ...] | None = None
    """Of a step that chooses which chunks are to be read: their ordinals."""


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """The manager's reply for one part, sentence ids still in it."""

    text: str
    truncated: bool
    """True when it was cut off at the token cap."""
    usage: Usage
    verdict: Verdict | None = None


Finished: TypeAlias = StoredNote | StoredStep | tuple[int, PartAnswer]
"""What is paid for, and kept; an answer with its part's number."""


def plan_to_json(plan: RunPlan) -> dict[str, object]:
    """The plan as JSON values: for each chunk its start, tokens, sentence starts and end."""

    def chunk(c: Chunk) -> list[object]:
        return [c.span.start, c.n_tokens, [s.start for s in c.sentences], c.span.end]

    return {
        "format": FORMAT,
        "tokenizer": plan.tokenizer,
        "exact": plan.exact,
        "parts": [{"title": p.title, "chunks": [chunk(c) for c in p.chunks]} for p in plan.parts],
    }


def plan_from_json(raw: Mapping[str, Any], document: Document) -> RunPlan:
    """The plan over `document` that `plan_to_json` gave. Raises: StorageError for another version's."""
    if raw.get("format") != FORMAT:
        raise StorageError("the run was made by another version of coa.", hint="Start it again.")
    tokenizer, exact = str(raw["tokenizer"]), bool(raw["exact"])
    parts = []
    for part in raw["parts"]:
        chunks = []
        for index, (start, n_tokens, starts, end) in enumerate(part["chunks"]):
            sentences = tuple(Span(a, b) for a, b in zip(starts, [*starts[1:], end], strict=True))
            text = document.text[start:end]
            chunks.append(Chunk(index, text, Span(start, end), sentences, n_tokens, tokenizer, exact))
        parts.append(Part(part["title"], tuple(chunks)))
    return RunPlan(tuple(parts), tokenizer, exact)


def finished_to_json(finished: Finished) -> dict[str, object]:
    """What is finished as JSON values, but for its usage: "kind" tells what it is."""
    match finished:
        case StoredNote():
            return {"kind": "note", **fields_of(finished)}
        case StoredStep():
            return {"kind": "step", **fields_of(finished)}
        case (part, answer):
            return {"kind": "answer", "part": part, **fields_of(answer)}


def finished_from_json(line: Mapping[str, Any]) -> Finished | None:
    """What `finished_to_json` gave; None for any other kind."""
    kind = line.get("kind")
    values = {name: value for name, value in line.items() if name != "kind"}
    if kind not in {"note", "step", "answer"}:
        return None
    values["usage"] = Usage(**values["usage"])
    if kind == "note":
        return StoredNote(**values)
    if kind == "answer":
        return values.pop("part"), PartAnswer(**values)
    values["chunks"] = tuple(values["chunks"])
    if values["selected"] is not None:
        values["selected"] = tuple(values["selected"])
    return StoredStep(**values)


def document_from_json(raw: dict[str, Any]) -> Document:
    """The document whose `asdict` is `raw`."""
    raw["sections"] = tuple(Section(**{**s, "span": Span(*s["span"])}) for s in raw["sections"])
    raw["left_out"] = tuple(LeftOut(**{**p, "span": Span(*p["span"])}) for p in raw["left_out"])
    raw["places"] = tuple(Place(**{**p, "span": Span(*p["span"])}) for p in raw.get("places", ()))
    raw["warnings"] = tuple(raw["warnings"])
    return Document(**raw)


def answer_from_json(raw: dict[str, Any]) -> Answer:
    """The answer whose `asdict` is `raw`."""
    coverage = raw["coverage"]
    coverage["skipped"] = tuple(SkippedChunk(**s) for s in coverage["skipped"])
    raw["coverage"] = Coverage(**coverage)
    raw["usage"] = Usage(**raw["usage"])
    raw["citations"] = tuple(Citation(**c) for c in raw["citations"])
    raw["notes"] = tuple(Note(**n) for n in raw["notes"])
    if raw.get("estimate") is not None:
        raw["estimate"] = Forecasted(**raw["estimate"])
    raw["claims"] = tuple(Claim(c["text"], tuple(c["citations"])) for c in raw.get("claims", ()))
    raw["warnings"] = tuple(raw["warnings"])
    return Answer(**raw)
