"""The structure of a chunk: scope, aspects, and under each aspect the sentences that describe it.

A structure names sentences by number and holds no text of the source: whoever shows it copies the sentences, so
nothing is paraphrased away (StruXGPT, Liu et al. 2024, section 3; sentence ranges as in the authors' second
version). It depends on the chunk alone, so it is made once and serves every question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

__all__ = ["Aspect", "Description", "Draft", "Structure", "TitleOf", "completed", "covered", "plain_structure"]

MadeBy = Literal["ids", "free", "code", "plain"]
Origin = Literal["model", "code"]

# A few sentences that a model forgot belong to what stands before them; more of them are a subject of their own.
_SHORT_GAP = 3
# What models put around titles.
_MARKS = ' "“”„«»*_`'

TitleOf = Callable[[int, int], str]
"""A title, made by code, for the sentences from `start` to before `end`."""


@dataclass(frozen=True, slots=True)
class Description:
    """Sentences of a chunk that follow each other."""

    start: int
    """Counted from 0 within the chunk."""
    end: int
    """Before this one."""
    statement: str = ""
    """The model's own wording of them (free form); empty where only ids were asked for."""


@dataclass(frozen=True, slots=True)
class Aspect:
    """A subject of a chunk with the sentences that describe it."""

    title: str
    descriptions: tuple[Description, ...] = ()
    """Those that stand in none of its own aspects; in order, disjoint."""
    aspects: tuple[Aspect, ...] = ()
    origin: Origin = "model"
    """Who wrote the title."""

    def sentences(self) -> list[int]:
        """Numbers of all its sentences, those of its own aspects included, ascending."""
        own = [n for d in self.descriptions for n in range(d.start, d.end)]
        return sorted(own + [n for a in self.aspects for n in a.sentences()])

    @property
    def first(self) -> int:
        """The lowest number of its sentences."""
        starts = [d.start for d in self.descriptions] + [a.first for a in self.aspects]
        return min(starts)


@dataclass(frozen=True, slots=True)
class Structure:
    """Every sentence of a chunk, exactly once, under an aspect.

    Raises: ValueError at construction when a sentence is missing, is there twice, or does not exist.
    """

    scope: str
    """What the chunk is about, a noun phrase."""
    aspects: tuple[Aspect, ...]
    """By their first sentences; at least one unless the chunk has no sentence."""
    n_sentences: int
    made_by: MadeBy
    """"ids": a model named sentence ranges. "free": a model wrote statements, which code aligned. "code": by rules,
    without a model. "plain": one aspect over everything, since what the model wrote could not be used."""

    def __post_init__(self) -> None:
        placed = sorted(n for a in self.aspects for n in a.sentences())
        if len(placed) != self.n_sentences or placed != list(range(self.n_sentences)):
            raise ValueError(f"{len(placed)} places for {self.n_sentences} sentences: {placed}")

    def walk(self) -> Iterator[Aspect]:
        """All aspects, each before its own ones."""
        for aspect in self.aspects:
            yield aspect
            yield from aspect.aspects

    def to_json(self) -> dict[str, Any]:
        """JSON values, read back by `from_json`."""
        return {
            "scope": self.scope,
            "n_sentences": self.n_sentences,
            "made_by": self.made_by,
            "aspects": [_aspect_to_json(a) for a in self.aspects],
        }

    @staticmethod
    def from_json(raw: Any) -> Structure:
        """The structure that `to_json` gave. Raises: ValueError, TypeError, KeyError for anything else."""
        made_by = raw["made_by"]
        if made_by not in ("ids", "free", "code", "plain"):
            raise ValueError(f"made by {made_by!r}")
        n_sentences = int(raw["n_sentences"])
        aspects = tuple(_aspect_from_json(a, n_sentences) for a in raw["aspects"])
        return Structure(str(raw["scope"]), aspects, n_sentences, made_by)


@dataclass(slots=True)
class Draft:
    """An aspect as a model wrote it: sentence numbers may be missing, repeated, or not exist."""

    title: str
    ranges: list[Description] = field(default_factory=list)
    parts: list[Draft] = field(default_factory=list)


def plain_structure(n_sentences: int, title: str, *, made_by: MadeBy = "plain") -> Structure:
    """One aspect over everything; none for a chunk without sentences."""
    aspects = (Aspect(title, (Description(0, n_sentences),), origin="code"),) if n_sentences else ()
    return Structure(title, aspects, n_sentences, made_by)


def covered(drafts: Sequence[Draft], n_sentences: int) -> int:
    """How many sentences the drafts name."""
    named: set[int] = set()
    for draft in _flat(drafts):
        for r in draft.ranges:
            named.update(range(max(0, r.start), min(n_sentences, r.end)))
    return len(named)


def completed(
    scope: str, drafts: Sequence[Draft], n_sentences: int, title_of: TitleOf, *, made_by: MadeBy
) -> Structure:
    """The drafts made whole.

    A sentence that two aspects name goes to the first; inside an aspect to the part that names it, else to the
    part before it. Up to three sentences in a row that nobody names join what stands before them (at the start:
    behind them); more get an aspect of their own with a title of `title_of`. Aspects without a sentence go, and
    an aspect's parts have no parts.
    """
    owners: list[tuple[int, int] | None] = [None] * n_sentences
    for at, draft in enumerate(drafts):
        _claim(owners, at, draft)
    extra = _fill(owners, len(drafts))
    owned: dict[int, dict[int, list[int]]] = {}
    for n, owner in enumerate(owners):
        if owner is not None:
            owned.setdefault(owner[0], {}).setdefault(owner[1], []).append(n)
    aspects = [_built(draft, owned[at], title_of) for at, draft in enumerate(drafts) if at in owned]
    aspects += [Aspect(title_of(a, b), (Description(a, b),), origin="code") for a, b in extra]
    aspects.sort(key=lambda a: a.first)
    if not aspects:
        return plain_structure(n_sentences, title_of(0, n_sentences))
    return Structure(_title(scope) or aspects[0].title, tuple(aspects), n_sentences, made_by)


_ASPECT_ITSELF = -1


def _claim(owners: list[tuple[int, int] | None], at: int, draft: Draft) -> None:
    """Gives the sentences that the draft names, and nobody has yet, to it or its parts."""
    for part, inner in enumerate(draft.parts):
        for r in (r for d in _flat([inner]) for r in d.ranges):
            for n in range(max(0, r.start), min(len(owners), r.end)):
                owners[n] = owners[n] or (at, part)
    for r in draft.ranges:
        before: tuple[int, int] = (at, _ASPECT_ITSELF)
        for n in range(max(0, r.start), min(len(owners), r.end)):
            owner = owners[n]
            if owner is None:
                owners[n] = before
            elif owner[0] == at:
                before = owner


def _fill(owners: list[tuple[int, int] | None], n_drafts: int) -> list[tuple[int, int]]:
    """Gives every sentence an owner; the ranges of the new aspects that this takes."""
    extra: list[tuple[int, int]] = []
    at = 0
    while at < len(owners):
        if owners[at] is not None:
            at += 1
            continue
        end = next((n for n in range(at, len(owners)) if owners[n] is not None), len(owners))
        before = owners[at - 1] if at else None
        behind = owners[end] if end < len(owners) else None
        owner = before or behind
        if end - at > _SHORT_GAP or owner is None:
            owner = (n_drafts + len(extra), _ASPECT_ITSELF)
            extra.append((at, end))
        owners[at:end] = [owner] * (end - at)
        at = end
    return extra


def _built(draft: Draft, owned: Mapping[int, Sequence[int]], title_of: TitleOf) -> Aspect:
    """The aspect of a draft from the sentences that it (`_ASPECT_ITSELF`) and its parts own."""
    inner = []
    own: tuple[Description, ...] = ()
    for part, numbers in owned.items():
        wrote = draft if part == _ASPECT_ITSELF else draft.parts[part]
        descriptions = tuple(_worded(run, wrote.ranges) for run in _cut(_runs(numbers), wrote.ranges))
        if part == _ASPECT_ITSELF:
            own = descriptions
        else:
            inner.append(_titled(wrote.title, descriptions, (), title_of))
    if len(inner) == 1 and not own:
        # One part that is the whole: nothing but another title for it.
        return _titled(draft.title or inner[0].title, inner[0].descriptions, (), title_of)
    return _titled(draft.title, own, tuple(sorted(inner, key=lambda a: a.first)), title_of)


def _titled(
    title: str, descriptions: tuple[Description, ...], aspects: tuple[Aspect, ...], title_of: TitleOf
) -> Aspect:
    """The aspect, with a title of `title_of` where the model gave none."""
    made = Aspect(_title(title), descriptions, aspects)
    if made.title:
        return made
    numbers = made.sentences()
    return replace(made, title=title_of(numbers[0], numbers[-1] + 1), origin="code")


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """The unbroken runs in ascending numbers."""
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and runs[-1][1] == n:
            runs[-1] = (runs[-1][0], n + 1)
        else:
            runs.append((n, n + 1))
    return runs


def _cut(runs: Sequence[tuple[int, int]], ranges: Sequence[Description]) -> list[tuple[int, int]]:
    """The runs, cut where a statement of the model's begins."""
    starts = {r.start for r in ranges if r.statement}
    pieces: list[tuple[int, int]] = []
    for start, end in runs:
        borders = [start, *sorted(n for n in starts if start < n < end), end]
        pieces.extend(pairwise(borders))
    return pieces


def _worded(run: tuple[int, int], ranges: Sequence[Description]) -> Description:
    """The run with the statement that covers its first sentence that one covers."""
    found = Description(*run)
    for r in ranges:
        if r.statement and r.start < run[1] and r.end > run[0]:
            return replace(found, statement=r.statement)
    return found


def _flat(drafts: Sequence[Draft]) -> Iterator[Draft]:
    """All drafts, however deep."""
    stack = list(reversed(drafts))
    while stack:
        draft = stack.pop()
        yield draft
        stack.extend(reversed(draft.parts))


def _title(text: str) -> str:
    return " ".join(text.split()).strip(_MARKS)


def _aspect_to_json(aspect: Aspect) -> dict[str, Any]:
    return {
        "title": aspect.title,
        "origin": aspect.origin,
        "descriptions": [[d.start, d.end, *([d.statement] if d.statement else [])] for d in aspect.descriptions],
        "aspects": [_aspect_to_json(a) for a in aspect.aspects],
    }


def _aspect_from_json(raw: Any, n_sentences: int, depth: int = 0) -> Aspect:
    origin = raw["origin"]
    if origin not in ("model", "code") or depth > 1:
        raise ValueError("not an aspect")
    descriptions = []
    for start, end, *statement in raw["descriptions"]:
        if not 0 <= int(start) < int(end) <= n_sentences:
            raise ValueError(f"no sentences: {start}..{end}")
        descriptions.append(Description(int(start), int(end), *(str(s) for s in statement[:1])))
    aspects = tuple(_aspect_from_json(a, n_sentences, depth + 1) for a in raw["aspects"])
    if not descriptions and not aspects:
        raise ValueError("an aspect without sentences")
    return Aspect(str(raw["title"]), tuple(descriptions), aspects, origin)
