"""Packing sentences into chunks of a token budget.

Source: CoA, Zhang et al. 2024, Algorithm 2 (greedy packing). Unlike there the budget is not a function of the
question, so borders serve every question; a sentence over the budget is cut instead of being passed on too
long; and a chunk may end early where a chapter or a paragraph ends.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice, pairwise
from typing import NamedTuple

from coa.chunking.splitting import cut
from coa.errors import ChunkTooLarge
from coa.reading import reading_prefix, render_sentence
from coa.sentences import sentence_ends
from coa.tokens import TokenCounter
from coa.types import Chunk, Document, Span

__all__ = ["chunk_document", "iter_chunks"]

# No sentence that a reader could cite is longer, in code points: text without full stops, tables, code.
_LONGEST_SENTENCE = 4000
# A chunk ends at a chapter's or paragraph's end that lies behind this share of the budget.
_FILLED_RATIO = 0.65
# A last chunk under this share of the budget is evened out with the one before it.
_TINY_RATIO = 0.3
# Where a chapter takes several chunks, they are of the same size and end with it if that fills them this far.
_EVEN_RATIO = 0.75
# A sentence over this share of the budget is cut, since it could leave the chunk before it all but empty.
_LONGEST_RATIO = 0.5
# Below this many tokens a chunk cannot be choosy, and a sentence is cut only where it does not fit.
_SMALL_ROOM = 64
# Pieces of a sentence over the budget are at most this share of it, so that they pack well.
_PIECE_RATIO = 0.25
# Counters may count a whole a little higher than its lines (see TokenCounter): the packing is done again with
# that much less, at most this often, and never with less than half of the budget.
_REPACKINGS = 6
# So many sentences, or chunks, are rendered and counted in one call.
_BATCH = 8192
_BATCH_OF_CHUNKS = 64

_SENTENCE, _PARAGRAPH, _CHAPTER = 0, 1, 2


class _Costs(NamedTuple):
    """What the parts of a reading prefix cost, in tokens."""

    frame: int
    """Everything but the sentences."""
    longer_number: list[int]
    """More for a sentence number of 1, 2, 3 … digits than for "[1]"; index 0 is one digit."""


class _Stretch(NamedTuple):
    """Sentences between two left-out parts, which chunks do not cross; arrays, since a long text has millions."""

    starts: array[int]
    """Where each sentence begins, and where the last one ends."""
    costs: array[int]
    """Of each sentence as number 1 of a chunk."""
    borders: array[int]
    """What begins at each sentence: _SENTENCE, _PARAGRAPH or _CHAPTER."""
    chapters: list[int]
    """The sentences that chapters begin with, and the number of sentences as the last."""

    def sentences(self, a: int, b: int) -> list[Span]:
        """Those from number `a` to before number `b`."""
        return [Span(start, end) for start, end in pairwise(self.starts[a : b + 1])]


class _Packed(NamedTuple):
    """The sentences of one chunk and what they count with its frame."""

    stretch: _Stretch
    start: int
    end: int
    n_tokens: int


class _CostOf(NamedTuple):
    """Tokens of the sentences from `start` to before `end` as one chunk, the frame apart."""

    total: array[int]
    numbers: array[int]

    def __call__(self, start: int, end: int) -> int:
        return self.total[end] - self.total[start] + self.numbers[end - start]


def chunk_document(document: Document, *, budget: int, counter: TokenCounter) -> list[Chunk]:
    """Chunks of the readable text, in document order, each with at most `budget` tokens of `counter`.

    Tokens are those of the chunk's reading prefix (its frame and sentence numbers included; the system text
    not). Chunks do not cross left-out parts; with these they rejoin to the document's text, but for stretches
    of nothing but white space between left-out parts, which are in no chunk. Empty for a document without
    readable text. Borders depend on the document, the budget and the counter alone.

    Raises ChunkTooLarge where `budget` cannot hold one character with its frame.
    """
    return list(iter_chunks(document, budget=budget, counter=counter))


def iter_chunks(document: Document, *, budget: int, counter: TokenCounter) -> Iterator[Chunk]:
    """The chunks of `chunk_document`, made one after the other: for texts that fill the memory.

    All borders are found before the first chunk; raises as `chunk_document`, and before that.
    """
    packed = _plan(document, budget, counter)
    return (_chunk(document.text, index, part, counter) for index, part in enumerate(packed))


def _plan(document: Document, budget: int, counter: TokenCounter) -> list[_Packed]:
    costs = _measure(counter)
    slack = 0
    for _ in range(_REPACKINGS):
        room = budget - costs.frame - slack
        packed = [
            p for s in _stretches(document, room, counter) for p in _counted(document.text, s, room, costs, counter)
        ]
        excess = max((p.n_tokens - budget for p in packed), default=0)
        if excess <= 0:
            return packed
        slack += max(excess, slack)
        if slack * 2 > budget - costs.frame:
            break
    raise ChunkTooLarge(
        f"A chunk counts {budget + excess} tokens where {budget} are allowed, though its lines count fewer.",
        hint=f"The tokenizer {counter.name!r} counts lines otherwise than their whole; use another one.",
    )


def _measure(counter: TokenCounter) -> _Costs:
    samples = [[1], [10, 42, 99], [100, 345, 999], [1000, 4321, 9999], [10_000, 54_321], [100_000, 765_432]]
    flat = [n for numbers in samples for n in numbers]
    counts = dict(zip(flat, counter.count([render_sentence(n, "The end.") for n in flat]), strict=True))
    highest = [max(counts[n] for n in numbers) - counts[1] for numbers in samples]
    return _Costs(
        frame=counter.count([reading_prefix("", [])])[0],
        longer_number=list(accumulate(highest, max)),
    )


def _stretches(document: Document, room: int, counter: TokenCounter) -> Iterator[_Stretch]:
    """The sentences of each readable span with their costs; none costs more than `room` tokens."""
    chapter_starts = sorted({s.span.start for s in document.sections})
    known = set(chapter_starts)
    for span in document.readable():
        if document.text[span.start : span.end].isspace():
            continue
        starts, costs, borders = array("q"), array("q"), array("b")
        for sentence, cost in _fit(document.text, _sentences(document, span, chapter_starts), room, counter):
            starts.append(sentence.start)
            costs.append(cost)
            borders.append(_border_kind(document.text, sentence.start, known))
        starts.append(span.end)
        chapters = [i for i, kind in enumerate(borders) if kind == _CHAPTER]
        yield _Stretch(starts, costs, borders, [*chapters, len(costs)])


def _sentences(document: Document, span: Span, chapter_starts: Sequence[int]) -> Iterator[Span]:
    """The sentences of one readable span; none crosses a chapter's start."""
    text = document.text
    inner = chapter_starts[bisect_right(chapter_starts, span.start) : bisect_right(chapter_starts, span.end - 1)]
    held: Span | None = None
    start = span.start
    for end in [*inner, span.end]:
        # White space alone in front of a heading stays with what comes before it, or goes to the heading.
        part = text[start:end]
        if part.isspace():
            if held is not None:
                held = Span(held.start, end)
                start = end
            continue
        for a, b in pairwise(chain([0], sentence_ends(part, document.language))):
            for piece in cut(text, Span(start + a, start + b), _LONGEST_SENTENCE):
                if held is not None:
                    yield held
                held = piece
        start = end
    if held is not None:
        yield held


def _border_kind(text: str, start: int, chapter_starts: set[int]) -> int:
    if start in chapter_starts:
        return _CHAPTER
    before = text[max(0, start - 200) : start]
    return _PARAGRAPH if before[len(before.rstrip()) :].count("\n") > 1 else _SENTENCE


def _fit(text: str, sentences: Iterable[Span], room: int, counter: TokenCounter) -> Iterator[tuple[Span, int]]:
    """Sentences with their costs, long ones cut into pieces; none costs more than `room`."""
    most = room * _LONGEST_RATIO if room >= _SMALL_ROOM else room
    whole = iter(sentences)
    while batch := list(islice(whole, _BATCH)):
        for sentence, cost in zip(batch, _count(text, batch, counter), strict=True):
            if cost <= most:
                yield sentence, cost
            else:
                yield from _cut_to_fit(text, sentence, cost, room, counter)


def _cut_to_fit(text: str, sentence: Span, cost: int, room: int, counter: TokenCounter) -> list[tuple[Span, int]]:
    if sentence.length <= 1:
        raise _too_small(text, sentence, cost, room, counter)
    target = max(1, room * _PIECE_RATIO if room >= _SMALL_ROOM else room / 2)
    size = max(1, min(int(sentence.length * target / cost), sentence.length // 2))
    pieces = cut(text, sentence, size)
    if len(pieces) == 1:
        raise _too_small(text, sentence, cost, room, counter)
    done: list[tuple[Span, int]] = []
    for piece, piece_cost in zip(pieces, _count(text, pieces, counter), strict=True):
        if piece_cost <= room:
            done.append((piece, piece_cost))
        else:
            done += _cut_to_fit(text, piece, piece_cost, room, counter)
    return done


def _too_small(text: str, span: Span, cost: int, room: int, counter: TokenCounter) -> ChunkTooLarge:
    frame = counter.count([reading_prefix("", [])])[0]
    return ChunkTooLarge(
        f"A chunk budget of {room + frame} tokens cannot hold {text[span.start : span.end]!a} at character "
        f"{span.start}: it takes {cost} tokens as a numbered line, and the frame around the lines {frame}.",
        hint=f"Raise the chunk budget to {cost + frame} tokens at the very least; several hundred make sense.",
    )


def _count(text: str, spans: Sequence[Span], counter: TokenCounter) -> list[int]:
    return counter.count([render_sentence(1, text[s.start : s.end]) for s in spans])


def _counted(text: str, stretch: _Stretch, room: int, costs: _Costs, counter: TokenCounter) -> Iterator[_Packed]:
    """The chunks of a stretch with what each counts as a whole."""
    borders = pairwise(_pack(stretch, room, costs))
    while batch := list(islice(borders, _BATCH_OF_CHUNKS)):
        counts = counter.count([_prefix(text, stretch.sentences(a, b)) for a, b in batch])
        for (a, b), n_tokens in zip(batch, counts, strict=True):
            yield _Packed(stretch, a, b, n_tokens)


def _pack(stretch: _Stretch, room: int, costs: _Costs) -> list[int]:
    """The sentences that chunks begin with, and the number of sentences as the last: greedy, ended early at a good
    border, the last two evened out."""
    n = len(stretch.costs)
    cost = _CostOf(total=array("q", accumulate(stretch.costs, initial=0)), numbers=_number_costs(n, costs))
    cuts = [0]
    while cuts[-1] < n:
        start = cuts[-1]
        end = start + 1
        while end < n and cost(start, end + 1) <= room:
            end += 1
        if end < n:
            end = _good_border(stretch, start, end, cost, room)
            if stretch.borders[end] != _CHAPTER:
                end = min(end, _even_share(stretch, start, end, cost, room))
        cuts.append(end)
    if len(cuts) > 2 and cost(cuts[-2], n) < room * _TINY_RATIO:
        cuts[-2] = _even_border(stretch, cuts[-3], cost, room)
    return cuts


def _number_costs(n: int, costs: _Costs) -> array[int]:
    """What the numbers of the first 0, 1, … n sentences of a chunk cost more than "[1]" each."""
    known = len(costs.longer_number)
    digits = (costs.longer_number[min(len(str(number)), known) - 1] for number in range(1, n + 1))
    return array("q", accumulate(digits, initial=0))


def _good_border(stretch: _Stretch, start: int, end: int, cost: _CostOf, room: int) -> int:
    """Where a chunk that could reach to `end` ends: at the last chapter's end that leaves it well filled, else
    at such a paragraph's end, else at `end`."""
    paragraph = None
    for border in range(end, start, -1):
        if cost(start, border) < room * _FILLED_RATIO:
            break
        if stretch.borders[border] == _CHAPTER:
            return border
        if paragraph is None and stretch.borders[border] == _PARAGRAPH:
            paragraph = border
    return end if paragraph is None else paragraph


def _even_share(stretch: _Stretch, start: int, end: int, cost: _CostOf, room: int) -> int:
    """Where the first of several chunks ends that share the rest of the chapter evenly; `end` where that would
    leave them too empty."""
    chapters = stretch.chapters
    chapter_end = chapters[bisect_right(chapters, start)]
    n_tokens = cost(start, chapter_end)
    n_chunks = -(-n_tokens // room)
    if n_tokens < _EVEN_RATIO * n_chunks * room:
        return end
    share = n_tokens / n_chunks
    even = next((b for b in range(start + 1, end) if cost(start, b) >= share), end)
    near = (b for b in range(even, end + 1) if stretch.borders[b] == _PARAGRAPH)
    return next((b for b in near if cost(start, b) <= share + 0.1 * room), even)


def _even_border(stretch: _Stretch, start: int, cost: _CostOf, room: int) -> int:
    """Where the last two chunks, from `start` on, part so that neither is tiny."""
    n = len(stretch.costs)
    penalty = {_CHAPTER: 0.0, _PARAGRAPH: 0.25, _SENTENCE: 0.35}

    def badness(border: int) -> float:
        first, second = cost(start, border), cost(border, n)
        return abs(first - second) / room + penalty[stretch.borders[border]]

    fitting = (b for b in range(start + 1, n) if cost(start, b) <= room and cost(b, n) <= room)
    return min(fitting, key=badness)


def _prefix(text: str, sentences: Sequence[Span]) -> str:
    start = sentences[0].start
    return reading_prefix(text[start : sentences[-1].end], sentences, offset=start)


def _chunk(text: str, index: int, packed: _Packed, counter: TokenCounter) -> Chunk:
    sentences = packed.stretch.sentences(packed.start, packed.end)
    span = Span(sentences[0].start, sentences[-1].end)
    return Chunk(
        index=index,
        text=text[span.start : span.end],
        span=span,
        sentences=tuple(sentences),
        n_tokens=packed.n_tokens,
        tokenizer=counter.name,
        exact=counter.exact,
    )
