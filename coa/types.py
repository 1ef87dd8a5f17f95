"""Documents, chunks, notes and answers.

Every span is a half-open pair of code-point offsets into `Document.text`.
Sources: CoA, Zhang et al. 2024 (NeurIPS), section 3 for the communication unit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

__all__ = [
    "Answer",
    "CallUsage",
    "Chunk",
    "Citation",
    "CitationStatus",
    "Claim",
    "CommunicationUnit",
    "Coverage",
    "Document",
    "Evidence",
    "Forecasted",
    "LeftOut",
    "Note",
    "Place",
    "Section",
    "SectionKind",
    "SkippedChunk",
    "Span",
    "Usage",
    "Verdict",
]


class Span(NamedTuple):
    """Half-open code-point offsets into a document's canonical text."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Code points between start and end."""
        return self.end - self.start


SectionKind = Literal["front", "part", "chapter", "section", "back", "body"]


@dataclass(frozen=True, slots=True)
class Section:
    """A titled stretch of the text: a chapter, a part, or what stands before the first chapter."""

    title: str
    span: Span
    """From the first character of the heading to the next section's start."""
    kind: SectionKind = "chapter"
    level: int = 1
    """1 for the outermost heading."""
    number: int | None = None
    """The chapter's own number where its heading carries one."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Text that is kept in the document but not read, and why."""

    span: Span
    cause: Literal["boilerplate", "licence", "running_head", "page_number", "markup"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stretch of the text stands in the source file."""

    span: Span
    page: int | None = None
    """Counted from 1 (PDF)."""
    page_label: str | None = None
    """What is printed on the page where it differs: "xii", "A-3"."""
    item: str | None = None
    """The file inside an archive: an EPUB spine item, a chapter file of a folder or .zip."""
    fragment: str | None = None
    """The id in that item that the stretch begins at."""
    paragraph: int | None = None
    """Counted from 1 (DOCX)."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document's canonical text with its structure."""

    text: str = field(repr=False)
    """NFC, newline is LF, no BOM, no NUL."""
    sha256: str
    """Of `text` in UTF-8, hexadecimal."""
    name: str
    """How to call it to a person: the file's name, or "stdin"."""
    title: str | None = None
    language: str | None = None
    """ISO 639-1, where known."""
    media_type: str = "text/plain"
    encoding: str = "utf-8"
    """What the bytes were decoded from."""
    source_sha256: str = ""
    """Of the bytes that were read."""
    sections: tuple[Section, ...] = field(default=(), repr=False)
    """In order; the outermost level covers the readable text without gaps or overlap."""
    left_out: tuple[LeftOut, ...] = field(default=(), repr=False)
    """In order, without overlap; never part of a chunk."""
    places: tuple[Place, ...] = field(default=(), repr=False)
    """In order, without overlap: pages, spine items or paragraphs; empty where the source has none."""
    chapter_method: str = "none"
    """How sections were found: "markdown", "headings:<pattern>", "contents", or "none"."""
    warnings: tuple[str, ...] = ()

    def section_at(self, offset: int) -> Section | None:
        """The innermost section that holds the character at `offset`."""
        found: Section | None = None
        for section in self.sections:
            if section.span.start > offset:
                break
            if offset < section.span.end:
                found = section
        return found

    def place_at(self, offset: int) -> Place | None:
        """Where the character at `offset` stands in the source file."""
        at = bisect_right(self.places, offset, key=lambda place: place.span.start) - 1
        return self.places[at] if at >= 0 and offset < self.places[at].span.end else None

    def chapters(self) -> list[Section]:
        """The sections that are chapters, or the outermost ones where none is marked so; empty without structure."""
        found = [s for s in self.sections if s.kind == "chapter"]
        return found or [s for s in self.sections if s.level == 1 and s.kind in {"part", "section"}]

    def readable(self) -> tuple[Span, ...]:
        """What is to be read: the text without `left_out`, in order."""
        spans: list[Span] = []
        at = 0
        for part in self.left_out:
            if part.span.start > at:
                spans.append(Span(at, part.span.start))
            at = part.span.end
        if at < len(self.text):
            spans.append(Span(at, len(self.text)))
        return tuple(spans)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A contiguous stretch of the text that one worker reads."""

    index: int
    text: str = field(repr=False)
    span: Span
    sentences: tuple[Span, ...] = field(repr=False)
    """In document order; they cover `span` without gaps (white space belongs to the sentence before)."""
    n_tokens: int
    """Of the rendered reading prefix's chunk part (sentence ids included), by `tokenizer`."""
    tokenizer: str
    exact: bool
    """False where `n_tokens` is an estimate."""


@dataclass(frozen=True, slots=True)
class CommunicationUnit:
    """What worker i hands to worker i+1.

    Source: CoA, Zhang et al. 2024, section 3.1 and Algorithm 1 (CU).
    """

    text: str = ""
    chunk_index: int = -1
    """The last chunk that changed it; -1 for the empty unit before the first chunk."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A quote from the source with its relevance."""

    quote: str
    span: Span | None
    """None when the quote was not found in the source."""
    score: float = 0.0


CitationStatus = Literal["exact", "normalised", "fuzzy", "moved", "not_found"]


@dataclass(frozen=True, slots=True)
class Citation:
    """A place in the source that an answer rests on; `quote` is copied from the text by code."""

    quote: str
    start: int
    end: int
    chapter: str | None = None
    page: int | None = None
    status: CitationStatus = "exact"
    origin: Literal["model", "located"] = "model"
    """"model": a worker or the manager named the sentence. "located": code found it by its words."""
    score: float | None = None
    """Share of the claim's rare words that the quote holds, 0..1; only for located ones."""


@dataclass(frozen=True, slots=True)
class CallUsage:
    """Tokens and price of one model call."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of `prompt_tokens`, those that the engine did not have to compute."""
    completion_tokens: int = 0
    cost_usd: float | None = None
    """None: the price is unknown. 0.0: the model is known to be free."""
    reasoning_tokens: int = 0
    """Of `completion_tokens`, those that a thinking model spent before its reply; they are in no note or answer."""
    reused: bool = False
    """True for a reply out of the response cache: no call was made, and its tokens were not paid again."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over the calls of a run."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    """None as soon as one call's price is unknown."""
    seconds: float = 0.0
    """Of model time, summed over calls."""
    reasoning_tokens: int = 0
    """Of `completion_tokens`, those of thinking models' thoughts."""
    reused: int = 0
    """Replies out of the response cache; they are in none of the other sums."""

    def plus(self, call: CallUsage, *, seconds: float = 0.0) -> Usage:
        """These sums with one more call."""
        if call.reused:
            return replace(self, reused=self.reused + 1)
        one = Usage(
            calls=1,
            prompt_tokens=call.prompt_tokens,
            cached_tokens=call.cached_tokens,
            completion_tokens=call.completion_tokens,
            cost_usd=call.cost_usd,
            seconds=seconds,
            reasoning_tokens=call.reasoning_tokens,
        )
        return self.merged(one)

    def merged(self, other: Usage) -> Usage:
        """The sums of both."""
        cost = None if self.cost_usd is None or other.cost_usd is None else self.cost_usd + other.cost_usd
        return Usage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost_usd=cost,
            seconds=self.seconds + other.seconds,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            reused=self.reused + other.reused,
        )


@dataclass(frozen=True, slots=True)
class SkippedChunk:
    """A chunk that no note came from."""

    index: int
    cause: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the readable text the answer rests on."""

    chunks: int
    read: int
    skipped: tuple[SkippedChunk, ...] = ()
    """Chunks that should have been read and were not."""
    unselected: int = 0
    """Chunks that the strategy left out on purpose: a ranking found them to be of no use for the question."""

    @property
    def complete(self) -> bool:
        """True when every chunk was read, or left out on purpose."""
        return self.read + self.unselected == self.chunks


@dataclass(frozen=True, slots=True)
class Note:
    """The unit after one chunk, as shown by --show-notes."""

    chunk: int
    text: str
    informative: bool = True
    """False when the chunk left the unit as it was."""
    path: str = ""
    """Which chain it belongs to, for strategies that read along several."""


Verdict = Literal["answered", "not_in_text", "too_little", "contradictory"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of an answer with what it rests on."""

    text: str
    """Without citation marks."""
    citations: tuple[int, ...] = ()
    """Numbers of `Answer.citations`, counted from 1; empty for a sentence that nothing vouches for."""


@dataclass(frozen=True, slots=True)
class Forecasted:
    """What a run was expected to take."""

    calls: int
    prompt_tokens: int
    completion_tokens_max: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run returns."""

    text: str
    run_id: str
    strategy: str
    model: str
    question: str | None
    """None for a summary."""
    coverage: Coverage
    usage: Usage
    citations: Sequence[Citation] = ()
    notes: Sequence[Note] = field(default=(), repr=False)
    warnings: Sequence[str] = ()
    document: str = ""
    document_sha256: str = ""
    seconds: float = 0.0
    """Wall time of this process's share of the run."""
    claims: Sequence[Claim] = field(default=(), repr=False)
    """The answer's sentences, in order."""
    quotes_not_found: int = 0
    """Quotes that a model wrote itself and that stand nowhere in the source; none of them is a citation."""
    verdict: Verdict | None = None
    """What strategies that weigh evidence say of it; None where the strategy does not."""
    estimate: Forecasted | None = None
    """What the run was expected to take, worked out before its first call; `usage` is what it took."""
    strategy_reason: str | None = None
    """Why `strategy` was taken, where coa chose it."""
    prompts: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Prompt names and the digests of their files, the reading prefix's version among them."""
