"""Structured notes: facts with the ids of their sentences, open threads, and what had to be left out.

The communication unit's text is all there is; it reads as it stands, and `parse_notes` takes it apart again:

    - Ada left for Rome in May. [3.7][5.2]
    - Ada left for Rome in June. [9.1] (contradicts [3.7])
    - Bo may have followed her. [6.4] (unsure)
    ? 2: Who paid for the passage? [4.1]
    + left out for room: 3 facts, 4 ids; cut off: 1 reply

Facts are appended, never rewritten, so nothing is lost by retelling; what says the same again adds its ids to the
fact that is there. Source of the fields: CoA, Zhang et al. 2024, section 6 (units in human style are not what agents
need of each other) and MemAgent, arXiv 2507.02259 (overwriting loses what was noted early).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from coa.agents.contradiction import clash
from coa.agents.quantities import tokens_of
from coa.agents.references import Reference, references, without_references

__all__ = [
    "Fact",
    "FactNotes",
    "NewNotes",
    "Thread",
    "merged",
    "parse_notes",
    "read_fact",
    "read_thread",
    "restates",
]

_FACT = re.compile(r"[-*•] +(.+)")
_THREAD = re.compile(r"\? (?:(\d{1,4}): )?(.+)")
_LEFT_OUT = "left out for room: "
_COUNTS = {
    "facts_left_out": re.compile(r"(\d+) facts?\b"),
    "ids_left_out": re.compile(r"(\d+) ids?\b"),
    "threads_left_out": re.compile(r"(\d+) threads?\b"),
    "cut_off": re.compile(r"cut off: (\d+)"),
}
_UNSURE = re.compile(r"\((?:unsure|uncertain|not sure|low confidence)\)", re.IGNORECASE)
_AGAINST = re.compile(r"\(?\bcontradict(?:s|ing):? ((?:[\[【][\d., ;–-]+[\]】][, ]*(?:and )?)+)\)?", re.IGNORECASE)
_LEADING_MARK = re.compile(r"^(?:[-*•?+]|\d{1,3}[.)])\s+")
# What is left where ids were: blanks, empty brackets, a comma in front of a full stop, "contradicts" without a whom.
_REMAINS = re.compile(r"\s+(?=[.,;:!?。，；：！？])|[,;](?=[.。])|\((?:contradict\w*)?\s*\)|\[\s*\]", re.IGNORECASE)
_ARTICLE_WORDS = "a an the der die das den dem des ein eine einen einem einer le la les un une el los las"
_ARTICLES = frozenset(_ARTICLE_WORDS.split())

_MOST_THREADS = 12
_LEAST_OVERLAP = 0.75


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the notes."""

    text: str
    """One line, without ids."""
    references: tuple[Reference, ...] = ()
    """The sentences that say so, in the order in which they were read; empty where the model named none."""
    unsure: bool = False
    against: tuple[Reference, ...] = ()
    """Sentences of other facts that say otherwise."""

    def __str__(self) -> str:
        ids = "".join(str(r) for r in self.references)
        against = "".join(str(r) for r in self.against)
        marks = (ids, f"(contradicts {against})" if against else "", "(unsure)" if self.unsure else "")
        return " ".join(["-", self.text, *(m for m in marks if m)])


@dataclass(frozen=True, slots=True)
class Thread:
    """A question that the text has raised and not settled."""

    number: int
    """By which a worker closes it."""
    text: str
    references: tuple[Reference, ...] = ()

    def __str__(self) -> str:
        ids = "".join(str(r) for r in self.references)
        return f"? {self.number}: {self.text}" + (f" {ids}" if ids else "")


@dataclass(frozen=True, slots=True)
class NewNotes:
    """What a worker's reply adds."""

    facts: tuple[Fact, ...] = ()
    opened: tuple[Thread, ...] = ()
    """Their numbers do not count."""
    closed: frozenset[int] = frozenset()
    cut_off: bool = False
    """True when the reply broke off and only its complete lines are here."""

    def __bool__(self) -> bool:
        return bool(self.facts or self.opened or self.closed)


@dataclass(frozen=True, slots=True)
class FactNotes:
    """The notes so far."""

    facts: tuple[Fact, ...] = ()
    """In the order in which they were noted."""
    threads: tuple[Thread, ...] = ()
    facts_left_out: int = 0
    ids_left_out: int = 0
    """Ids that were noted and are in no line any more."""
    threads_left_out: int = 0
    cut_off: int = 0
    """Replies that broke off, so that something of their chunks is missing."""

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The unit's lines; empty where nothing was noted."""
        counts = ((self.facts_left_out, "fact"), (self.ids_left_out, "id"), (self.threads_left_out, "thread"))
        losses = []
        if any(n for n, _ in counts):
            losses.append(_LEFT_OUT + ", ".join(_counted(n, noun) for n, noun in counts if n))
        if self.cut_off:
            losses.append(f"cut off: {self.cut_off} {'reply' if self.cut_off == 1 else 'replies'}")
        ending = [f"+ {'; '.join(losses)}"] if losses else []
        return [*map(str, self.facts), *map(str, self.threads), *ending]

    @property
    def references(self) -> frozenset[Reference]:
        """Every id that a line rests on."""
        of_facts = {r for f in self.facts for r in f.references}
        return frozenset(of_facts.union(*(t.references for t in self.threads)))

    def in_document_order(self) -> FactNotes:
        """These notes with the facts as the text has them; what contradicts a fact comes right behind it."""
        last = Reference(10**9, 0)
        ordered = sorted(self.facts, key=lambda f: f.references[0] if f.references else last)
        placed: list[Fact] = []
        for fact in ordered:
            at = next((i for i, f in enumerate(placed) if _opposed(f, fact)), None)
            placed.insert(len(placed) if at is None else at + 1, fact)
        return replace(self, facts=tuple(placed))

    def without(self, *, facts: Iterable[int] = (), threads: Iterable[int] = ()) -> FactNotes:
        """These notes without the lines at those places, counted as left out."""
        gone, ended = frozenset(facts), frozenset(threads)
        facts_kept = [f for n, f in enumerate(self.facts) if n not in gone]
        named = {r for f in facts_kept for r in f.references}
        kept = replace(
            self,
            facts=tuple(replace(f, against=tuple(r for r in f.against if r in named)) for f in facts_kept),
            threads=tuple(t for n, t in enumerate(self.threads) if n not in ended),
        )
        return replace(
            kept,
            facts_left_out=self.facts_left_out + len(self.facts) - len(kept.facts),
            ids_left_out=self.ids_left_out + len(self.references - kept.references),
            threads_left_out=self.threads_left_out + len(self.threads) - len(kept.threads),
        )

    def with_facts(self, facts: Sequence[Fact]) -> FactNotes:
        """These notes with their facts retold; an id that is in none of them counts as left out."""
        told = {r for f in facts for r in f.references}
        gone = [f for f in self.facts if f.references and not told & set(f.references)]
        kept = replace(self, facts=tuple(facts))
        return replace(
            kept,
            facts_left_out=self.facts_left_out + len(gone),
            ids_left_out=self.ids_left_out + len(self.references - kept.references),
        )


def parse_notes(text: str) -> FactNotes:
    """The notes that a unit's text holds.

    Lines that are of no form become facts without ids, so that another kind of notes can be gone on with.
    """
    counts: dict[str, int] = {}
    facts: list[Fact] = []
    threads: list[Thread] = []
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith(("+ " + _LEFT_OUT, "+ cut off: ")):
            counts = {name: int(found[1]) for name, count in _COUNTS.items() if (found := count.search(bare))}
        elif bare.startswith("? ") and (match := _THREAD.fullmatch(bare)):
            thread = read_thread(match[2], int(match[1] or 0) or _next_number(threads))
            if thread is not None:
                threads.append(thread)
        else:
            match = _FACT.fullmatch(bare)
            fact = read_fact(match[1] if match else bare)
            if fact is not None:
                facts.append(fact)
    return FactNotes(tuple(facts), tuple(threads), **counts)


def read_fact(line: str) -> Fact | None:
    """The fact that a line without its leading mark holds; None for one without words. Ids are taken as they are."""
    against = tuple(dict.fromkeys(r for m in _AGAINST.finditer(line) for r in references(m[1])))
    line = _AGAINST.sub(" ", line)
    unsure = _UNSURE.search(line) is not None
    line = _UNSURE.sub(" ", line)
    ids = tuple(references(line))
    text = _one_line(line)
    return Fact(text, ids, unsure, tuple(r for r in against if r not in ids)) if text else None


def read_thread(line: str, number: int) -> Thread | None:
    """The thread of a line without its leading mark and number; None for one without words."""
    text = _one_line(line)
    return Thread(number, text, tuple(references(line))) if text else None


def merged(notes: FactNotes, new: NewNotes) -> FactNotes:
    """`notes` with what is new at their end.

    A fact that says the same as one that is there adds its ids to it; of the two wordings the fuller stays. What
    contradicts an earlier fact is kept beside it and marked. Ids are only ever those of `notes` and `new`.
    """
    facts = list(notes.facts)
    for fact in new.facts:
        at = next((n for n, known in enumerate(facts) if _says_the_same(known, fact)), None)
        if at is None:
            facts.append(_marked(facts, fact))
        else:
            facts[at] = _folded(facts[at], fact)
    threads = [t for t in notes.threads if t.number not in new.closed]
    for thread in new.opened:
        if all(_plain(t.text) != _plain(thread.text) for t in threads):
            threads.append(replace(thread, number=_next_number([*notes.threads, *threads])))
    grown = replace(notes, facts=tuple(facts), threads=tuple(threads), cut_off=notes.cut_off + new.cut_off)
    # The ids of a closed thread are no loss: its question is answered.
    return grown.without(threads=range(max(0, len(threads) - _MOST_THREADS)))


def restates(fact: Fact, notes: FactNotes) -> bool:
    """True for a fact that tells again, in other words, what the notes' facts with its ids say."""
    if not fact.references or not set(fact.references) <= notes.references:
        return False
    words = {t.stem for t in tokens_of(fact.text) if t.content}
    told = {
        t.stem for f in notes.facts if set(f.references) & set(fact.references) for t in tokens_of(f.text) if t.content
    }
    return len(words & told) >= _LEAST_OVERLAP * len(words)


def _says_the_same(known: Fact, fact: Fact) -> bool:
    """The same words, articles apart, or those of the shorter one in their order with little besides."""
    one, two = _plain(known.text), _plain(fact.text)
    if one == two:
        return True
    short, long = sorted((one, two), key=len)
    if not short or short[0] != long[0] or len(short) < _LEAST_OVERLAP * len(long):
        return False
    rest = iter(long)
    return all(word in rest for word in short) and clash(fact.text, known.text) is None and _denies(one) == _denies(two)


def _folded(known: Fact, fact: Fact) -> Fact:
    ids = tuple(dict.fromkeys((*known.references, *fact.references)))
    return Fact(
        max(known.text, fact.text, key=lambda t: len(_plain(t))),
        ids,
        known.unsure and fact.unsure,
        tuple(r for r in dict.fromkeys((*known.against, *fact.against)) if r not in ids),
    )


def _marked(facts: Sequence[Fact], fact: Fact) -> Fact:
    """`fact` with the ids of what it contradicts: those that the model named, else the first that code finds."""
    if fact.against:
        return fact
    for known in facts:
        elsewhere = known.references and not set(known.references) & set(fact.references)
        if elsewhere and clash(fact.text, known.text, both_ways=True) is not None:
            return replace(fact, against=known.references[:1])
    return fact


def _opposed(one: Fact, other: Fact) -> bool:
    return bool(set(one.references) & set(other.against) or set(other.references) & set(one.against))


def _plain(text: str) -> tuple[str, ...]:
    return tuple(t.stem for t in tokens_of(text) if t.word not in _ARTICLES)


def _denies(words: tuple[str, ...]) -> int:
    return sum(w in {"not", "no", "never", "nicht", "nie", "kein", "pas", "不", "没", "未"} for w in words)


def _next_number(threads: Sequence[Thread]) -> int:
    return max((t.number for t in threads), default=0) + 1


def _one_line(text: str) -> str:
    bare = " ".join(text.split())
    while (tidied := _tidied(bare)) != bare:
        bare = tidied
    return bare if any(c.isalnum() for c in bare) else ""


def _tidied(text: str) -> str:
    text = _LEADING_MARK.sub("", without_references(text))
    return _REMAINS.sub("", text).strip(" ;,")


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
