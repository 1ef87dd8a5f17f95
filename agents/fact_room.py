"""Making room in structured notes: what goes first when they outgrow their share of the window.

By rule as far as that costs little: facts that others tell as well, then unsure ones that have nothing to do with the
question. What is dropped beyond that is the least useful by its words; a summary is thinned evenly over the text
instead. Facts that contradict each other count for more and stay together: which of them is right is for the manager
to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coa.agents.fact_notes import Fact, FactNotes
from coa.agents.lexical import SentenceRanker, content_words

__all__ = ["Costs", "cost_of", "made_to_fit", "spared"]

Costs = Callable[[Sequence[str]], list[int]]
"""Tokens of each of some lines, line break included."""

_WORST_ENDING = "+ left out for room: 9999 facts, 9999 ids, 999 threads; cut off: 999 replies"
_THREADS_SHARE = 0.25
_SAID_ELSEWHERE = 0.9
_CONFIRMED = 0.15
"""What another sentence that says the same adds to a fact's usefulness."""
_OPPOSED = 1.5
"""What two facts that contradict each other count for, each as the better of them."""


def cost_of(notes: FactNotes, costs: Costs) -> int:
    """Tokens of the unit."""
    return sum(costs(notes.lines()))


def spared(notes: FactNotes, query: str | None, budget: int, costs: Costs) -> FactNotes:
    """`notes` without what can go at little loss, and no more of it than has to; may still be over `budget`."""
    return _dropped(notes, _dispensable(notes.facts, query), budget, costs)


def made_to_fit(notes: FactNotes, query: str | None, budget: int, costs: Costs) -> FactNotes:
    """`notes` within `budget` tokens: the oldest threads beyond their share go first, then the least useful facts.

    Nothing is left but the line that counts what was left out where `budget` has no room for a single fact.
    """
    if cost_of(notes, costs) <= budget:
        return notes
    threads = costs([str(t) for t in notes.threads])
    n_ended = 0
    while sum(threads[n_ended:]) > budget * _THREADS_SHARE:
        n_ended += 1
    notes = notes.without(threads=range(n_ended))
    notes = _dropped(notes, _by_use(notes.facts, query), budget, costs)
    return notes if cost_of(notes, costs) <= budget else notes.without(threads=range(len(notes.threads)))


def _dropped(notes: FactNotes, order: Sequence[int], budget: int, costs: Costs) -> FactNotes:
    """`notes` without the first of the facts in `order`, as many as have to go."""
    *lines, ending = costs([*map(str, notes.facts), *map(str, notes.threads), _WORST_ENDING])
    total = sum(lines) + ending
    if total - ending + sum(costs(notes.lines()[len(lines) :])) <= budget:
        return notes
    gone = []
    for at in order:
        if total <= budget:
            break
        gone.append(at)
        total -= lines[at]
    return notes.without(facts=gone)


def _dispensable(facts: Sequence[Fact], query: str | None) -> list[int]:
    asked = content_words(query or "")
    opposed = _opposed(facts)
    words = [content_words(f.text) for f in facts]
    again, unsure = [], []
    for at, fact in enumerate(facts):
        if at in opposed:
            continue
        elsewhere = set().union(*(w for n, w in enumerate(words) if n != at and n not in again))
        if fact.references and len(words[at] & elsewhere) >= _SAID_ELSEWHERE * len(words[at]) and not _adds(facts, at):
            again.append(at)
        elif fact.unsure and not words[at] & asked:
            unsure.append(at)
    return again + unsure


def _adds(facts: Sequence[Fact], at: int) -> bool:
    """True where a fact's ids are its own: words alone are a weak sign that others tell it as well."""
    others = {r for n, f in enumerate(facts) if n != at for r in f.references}
    return not set(facts[at].references) <= others


def _by_use(facts: Sequence[Fact], query: str | None) -> list[int]:
    """The facts' places, the least useful first."""
    ranker = SentenceRanker([f.text for f in facts])
    if query is None:
        doubted = (0.5 if f.unsure else 1.0 for f in facts)
        use = [s * d for s, d in zip(ranker.salience(0, len(facts)), doubted, strict=True)]
        return _thinned(facts, _together(facts, use))
    use = _together(facts, [_use(fact, score) for fact, score in zip(facts, ranker.scores(query), strict=True)])
    return sorted(range(len(facts)), key=lambda at: (use[at], at))


def _use(fact: Fact, score: float) -> float:
    doubt = 0.5 if fact.unsure or not fact.references else 1.0
    return (score + _CONFIRMED * len(fact.references)) * doubt


def _together(facts: Sequence[Fact], use: Sequence[float]) -> list[float]:
    """`use` with the facts that contradict each other raised, to the same value."""
    raised = list(use)
    for at, fact in enumerate(facts):
        others = [n for n, f in enumerate(facts) if set(f.references) & set(fact.against)]
        if others:
            best = max(use[n] for n in (at, *others)) * _OPPOSED
            for n in (at, *others):
                raised[n] = max(raised[n], best)
    return raised


def _thinned(facts: Sequence[Fact], weight: Sequence[float]) -> list[int]:
    """The order in which facts go so that what is left is spread over the text: of two neighbours the weaker."""
    chunk = [f.references[0].chunk if f.references else 0 for f in facts]
    left = sorted(range(len(facts)), key=lambda at: (chunk[at], at))
    order = []
    while len(left) > 1:
        near = min(range(len(left) - 1), key=lambda i: (chunk[left[i + 1]] - chunk[left[i]], left[i]))
        order.append(left.pop(near if weight[left[near]] < weight[left[near + 1]] else near + 1))
    return order + left


def _opposed(facts: Sequence[Fact]) -> set[int]:
    """The places of facts that contradict others, and of those others."""
    named = {r for f in facts for r in f.against}
    return {n for n, f in enumerate(facts) if f.against or named & set(f.references)}
