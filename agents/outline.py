"""The outline of a book: the structures of its chunks, merged along its chapters.

A chapter that one chunk holds has that chunk's aspects as its nodes; where several chunks make a chapter, each is
a node of its own between chapter and aspects, called by its scope. A structure that crosses a chapter's start is
divided there, so every sentence stands in its own chapter, and in the outline exactly once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from coa.agents.keyphrases import phrase_title
from coa.agents.structure import Aspect, Structure
from coa.types import Chunk, Document, Section, Span

__all__ = ["Outline", "OutlineNode", "Statement", "build_outline"]

# Marks in front of a heading, and blank lines behind and in it.
_HEADING_MARGIN = 40
_UNTITLED = {"front": "Front matter", "back": "Back matter"}

NodeKind = Literal["chapter", "part", "aspect"]
NodeOrigin = Literal["source", "model", "code"]


class Statement(NamedTuple):
    """A model's own wording of a stretch of the text."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class OutlineNode:
    """A chapter, a part of one, or an aspect, with its place in the document."""

    id: str
    """Kind and offset of its first character, such as "aspect-10233"; unique, the same as long as it begins there."""
    number: str
    """Its place in the outline, such as "2.3.1"."""
    kind: NodeKind
    title: str
    span: Span
    """From its first sentence to the end of its last."""
    spans: tuple[Span, ...]
    """Of the sentences that stand in none of its nodes, those that follow each other as one; in order."""
    n_sentences: int
    """Those of its nodes included."""
    origin: NodeOrigin
    """Who wrote the title: the document, a model, or code."""
    nodes: tuple[OutlineNode, ...] = ()
    statements: tuple[Statement, ...] = ()

    def walk(self) -> Iterator[OutlineNode]:
        """This node and all below it, in reading order of the outline."""
        yield self
        for node in self.nodes:
            yield from node.walk()


@dataclass(frozen=True, slots=True)
class Outline:
    """A book as a tree; its nodes' `spans` together are the sentences of its chunks, each once."""

    document: str
    """The document's name."""
    document_sha256: str
    title: str | None
    media_type: str
    n_sentences: int
    nodes: tuple[OutlineNode, ...] = field(repr=False)
    plain: tuple[int, ...] = ()
    """Chunks whose structure is the plain text, since what the model wrote could not be used; counted from 0."""

    def walk(self) -> Iterator[OutlineNode]:
        """All nodes, each before those below it."""
        for node in self.nodes:
            yield from node.walk()


@dataclass(slots=True)
class _Chapter:
    """A section with its sections and what the chunks have in it."""

    section: Section | None
    parent: _Chapter | None = None
    inner: list[_Chapter] = field(default_factory=list)
    pieces: list[_Piece] = field(default_factory=list)


class _Piece(NamedTuple):
    """The sentences of a chunk that stand in one chapter."""

    chunk: Chunk
    structure: Structure
    sentences: frozenset[int]

    @property
    def whole(self) -> bool:
        """True where it is all of its chunk."""
        return len(self.sentences) == self.structure.n_sentences

    def texts(self, numbers: Iterable[int]) -> list[str]:
        """The texts of those of the sentences `numbers` that are in the piece."""
        spans = (self.chunk.sentences[n] for n in numbers if n in self.sentences)
        return [self.chunk.text[s.start - self.chunk.span.start : s.end - self.chunk.span.start] for s in spans]


def build_outline(document: Document, structures: Sequence[tuple[Chunk, Structure]]) -> Outline:
    """The outline of what `structures` cover, in document order.

    Raises: ValueError where a structure is not its chunk's.
    """
    root = _chapters(document)
    for chunk, structure in structures:
        if structure.n_sentences != len(chunk.sentences):
            raise ValueError(f"chunk {chunk.index}: {structure.n_sentences} sentences in its structure")
        inside: dict[int, list[int]] = {}
        found: dict[int, _Chapter] = {}
        for n, sentence in enumerate(chunk.sentences):
            chapter = _chapter_at(root, sentence.start)
            found[id(chapter)] = chapter
            inside.setdefault(id(chapter), []).append(n)
        for key, numbers in inside.items():
            found[key].pieces.append(_Piece(chunk, structure, frozenset(numbers)))
    nodes = _nodes(document, root)
    return Outline(
        document=document.name,
        document_sha256=document.sha256,
        title=document.title,
        media_type=document.media_type,
        n_sentences=sum(len(chunk.sentences) for chunk, _ in structures),
        nodes=_numbered(nodes, ""),
        plain=tuple(chunk.index for chunk, structure in structures if structure.made_by == "plain"),
    )


def _chapters(document: Document) -> _Chapter:
    """The sections as a tree under a root without a section."""
    root = _Chapter(None)
    at = root
    for section in document.sections:
        while at.section is not None and (
            at.section.level >= section.level or at.section.span.end <= section.span.start
        ):
            at = at.parent or root
        made = _Chapter(section, at)
        at.inner.append(made)
        at = made
    return root


def _chapter_at(root: _Chapter, offset: int) -> _Chapter:
    """The innermost chapter that holds the character at `offset`; the root where none does."""
    at = root
    while True:
        n = bisect_right(at.inner, offset, key=_start) - 1
        if n < 0 or offset >= _end(at.inner[n]):
            return at
        at = at.inner[n]


def _start(chapter: _Chapter) -> int:
    return chapter.section.span.start if chapter.section is not None else 0


def _end(chapter: _Chapter) -> int:
    return chapter.section.span.end if chapter.section is not None else 0


def _nodes(document: Document, chapter: _Chapter) -> list[OutlineNode]:
    """The nodes of a chapter's own text and of its chapters, without numbers."""
    pieces = [(p, _aspects(p)) for p in chapter.pieces]
    nodes: list[OutlineNode] = []
    for piece, aspects in pieces:
        if len(pieces) == 1 or len(aspects) == 1:
            nodes += aspects
        else:
            title, origin = _scope(piece)
            nodes.append(_node("part", title, origin, (), tuple(aspects)))
    for inner in chapter.inner:
        below = _nodes(document, inner)
        if below and inner.section is not None:
            nodes.append(_chapter_node(document, inner.section, below))
    return sorted(nodes, key=lambda node: node.span.start)


def _chapter_node(document: Document, section: Section, below: Sequence[OutlineNode]) -> OutlineNode:
    """The chapter's node; an aspect that is nothing but its heading becomes its own text."""
    title = _chapter_title(section, below)
    first = below[0]
    alone = first.kind == "aspect" and not first.nodes and first.span.length <= len(section.title) + _HEADING_MARGIN
    if not alone or _words(document.text[first.span.start : first.span.end]) != _words(section.title):
        return _node("chapter", title, "source", (), tuple(below))
    node = _node("chapter", title, "source", first.spans, tuple(below[1:]))
    return replace(node, n_sentences=node.n_sentences + first.n_sentences)


def _words(heading: str) -> str:
    return " ".join(heading.split()).strip("#*= _-").casefold()


def _chapter_title(section: Section, below: Sequence[OutlineNode]) -> str:
    """The section's own title; what stands before the first chapter and behind the last has none."""
    return " ".join(section.title.split()) or _UNTITLED.get(section.kind) or below[0].title


def _scope(piece: _Piece) -> tuple[str, NodeOrigin]:
    """What a piece is called: its structure's scope; where it is only some of the chunk, phrases of its own."""
    structure = piece.structure
    by_code = structure.made_by in ("code", "plain")
    if not piece.whole:
        texts = piece.texts(range(structure.n_sentences))
        return phrase_title(texts, texts), "code"
    return structure.scope, "code" if by_code else "model"


def _aspects(piece: _Piece) -> list[OutlineNode]:
    made = (_aspect(piece, a) for a in piece.structure.aspects)
    return [node for node in made if node is not None]


def _aspect(piece: _Piece, aspect: Aspect) -> OutlineNode | None:
    """The aspect's node with the sentences that are in the piece; None where there is none."""
    below = tuple(node for node in (_aspect(piece, a) for a in aspect.aspects) if node is not None)
    sentences = piece.chunk.sentences
    spans: list[Span] = []
    statements: list[Statement] = []
    n_own = 0
    for description in aspect.descriptions:
        numbers = [n for n in range(description.start, description.end) if n in piece.sentences]
        if not numbers:
            continue
        n_own += len(numbers)
        span = Span(sentences[numbers[0]].start, sentences[numbers[-1]].end)
        if description.statement:
            statements.append(Statement(description.statement, span))
        if spans and spans[-1].end == span.start:
            spans[-1] = Span(spans[-1].start, span.end)
        else:
            spans.append(span)
    if not spans and not below:
        return None
    title = aspect.title
    if aspect.origin == "code" and not piece.whole:
        title = phrase_title(piece.texts(aspect.sentences()), piece.texts(range(len(sentences))))
    node = _node("aspect", title, aspect.origin, tuple(spans), below)
    return replace(node, n_sentences=node.n_sentences + n_own, statements=tuple(statements))


def _node(
    kind: NodeKind, title: str, origin: NodeOrigin, spans: tuple[Span, ...], nodes: tuple[OutlineNode, ...]
) -> OutlineNode:
    start = min([s.start for s in spans] + [n.span.start for n in nodes])
    end = max([s.end for s in spans] + [n.span.end for n in nodes])
    return OutlineNode("", "", kind, title, Span(start, end), spans, sum(n.n_sentences for n in nodes), origin, nodes)


def _numbered(nodes: Sequence[OutlineNode], above: str, kind_above: str = "") -> tuple[OutlineNode, ...]:
    """The nodes with numbers and ids."""
    found = []
    for n, node in enumerate(nodes, 1):
        number = f"{above}.{n}" if above else str(n)
        # A chapter's first section, and an aspect's first part, begin where it begins.
        name = f"{kind_above}-{node.kind}" if node.kind == kind_above.rpartition("-")[2] else node.kind
        found.append(
            replace(node, id=f"{name}-{node.span.start}", number=number, nodes=_numbered(node.nodes, number, name))
        )
    return tuple(found)
