"""StruXGPT's free form: scope, aspects and descriptions in the model's own words, led back to the sentences.

The form (Liu et al. 2024, figure A4): a heading for the scope with a fenced noun phrase, a heading for the aspects
with a fenced list of two levels, "1. aspect" and, four blanks deeper, "1.1. description". What the model
paraphrased stays beside the sentences that it paraphrases and never takes their place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from coa.agents.lexical import words_of
from coa.agents.structure import Description, Draft

__all__ = ["Statement", "Statements", "aligned", "parse_statements"]

_FENCE = "```"
_INDENT = 4
_STRICT_INDICATOR = re.compile(r"(\d{1,3}(?:\.\d{1,3})*)(\.?)")
_SCOPE_HEAD = re.compile(r"^\W*(?:statement['’]s\s+)?scope\W*(.*)$", re.IGNORECASE)
_ASPECT_HEAD = re.compile(r"^\W*(?:statement['’]s\s+)?(?:main\s+)?aspects?\b.*descriptions?\W*$", re.IGNORECASE)
_LOOSE_ITEM = re.compile(r"^(\s*)(?:(\d{1,3}(?:\.\d{1,3})*)[.):]?\s+|([-*•])\s+|(#{1,6})\s+)(.*\S)\s*$")
_EDGES = " \t\"'“”*_`#:："
# StruXGPT puts a sentence back that no description holds more than half of.
_LEAST_RECALL = 0.5
_LONGEST_TITLE = 160


class Statement(NamedTuple):
    """An aspect and its descriptions, as a model wrote them."""

    aspect: str
    descriptions: tuple[str, ...]


class Statements(NamedTuple):
    """A reply in the free form."""

    scope: str
    aspects: tuple[Statement, ...]
    """Empty where nothing could be read."""
    fault: str | None
    """What is not as it was asked for; None when all is."""


def parse_statements(reply: str) -> Statements:
    """The scope, aspects and descriptions of a reply; never raises, whatever the reply is."""
    found = _strict(reply)
    return found if isinstance(found, Statements) else _loose(reply, found)


def _strict(reply: str) -> Statements | str:
    """The reply where it keeps to the form; else what is wrong with it."""
    pieces = reply.split(_FENCE)
    if len(pieces) < 5:
        return "scope and aspects have to stand in a code fence each"
    scope, body = pieces[-4].strip(), pieces[-2].strip("\n")
    if not scope or "\n" in scope:
        return "the scope is not one line"
    aspects: list[tuple[str, list[str]]] = []
    for line in (line for line in body.splitlines() if line.strip()):
        level, rest = divmod(len(line) - len(line.lstrip(" ")), _INDENT)
        indicator, _, text = line.strip().partition(" ")
        numbered = _STRICT_INDICATOR.fullmatch(indicator)
        if rest or level > 1 or numbered is None or not numbered.group(2) or not text.strip():
            return f"the line {line.strip()[:60]!r} is not of the form '1. aspect' or '    1.1. description'"
        numbers = [int(n) for n in numbered.group(1).split(".")]
        if level == 0 and (len(numbers) != 1 or numbers[0] != len(aspects) + 1 or (aspects and not aspects[-1][1])):
            return f"the aspect {indicator} is out of order, or the one before it has no description"
        if level == 0:
            aspects.append((text.strip(), []))
        elif not aspects or numbers != [len(aspects), len(aspects[-1][1]) + 1]:
            return f"the description {indicator} is out of order"
        else:
            aspects[-1][1].append(text.strip())
    if not aspects or not aspects[-1][1]:
        return "the last aspect has no description"
    return Statements(scope, tuple(Statement(a, tuple(d)) for a, d in aspects), None)


def _loose(reply: str, fault: str) -> Statements:
    """Lists with or without fences, numbers, or the right indentation."""
    scope, scope_next = "", False
    aspects: list[tuple[str, list[str]]] = []
    for line in reply.replace(_FENCE, "\n").splitlines():
        if not line.strip() or _ASPECT_HEAD.match(line):
            continue
        head = _SCOPE_HEAD.match(line)
        if head is not None and not aspects:
            scope = head.group(1).strip(_EDGES)
            scope_next = not scope
            continue
        item = _LOOSE_ITEM.match(line)
        if item is None:
            text = line.strip(_EDGES)
            if scope_next:
                scope, scope_next = text, False
            elif aspects and aspects[-1][1]:
                aspects[-1][1][-1] += " " + text  # a description that goes on
            elif aspects and text:
                aspects[-1][1].append(text)
            continue
        indent, number, bullet, _, text = item.groups()
        deep = "." in number if number is not None else bullet is not None and (bool(aspects) or bool(indent))
        text = text.strip(_EDGES)
        if not deep:
            aspects.append((text, []))
        elif aspects:
            aspects[-1][1].append(text)
        else:
            aspects.append(("", [text]))
    found = tuple(Statement(a[:_LONGEST_TITLE], tuple(t for t in d if t)) for a, d in aspects)
    return Statements(scope[:_LONGEST_TITLE], tuple(s for s in found if s.descriptions), fault)


def aligned(statements: Statements, sentences: Sequence[str]) -> list[Draft]:
    """Drafts that name the sentences which each description paraphrases.

    A sentence goes to the description that holds the largest share of its words, if that is more than half; among
    equals to the next one in reading order. Sentences that no description holds are left for
    `coa.agents.structure.completed` to place; descriptions that hold no sentence are dropped.
    """
    places = [(at, text) for at, s in enumerate(statements.aspects) for text in s.descriptions]
    words = [set(words_of(text)) for _, text in places]
    owner: list[int | None] = []
    last = 0
    for sentence in sentences:
        wanted = set(words_of(sentence))
        best, best_key = None, (_LEAST_RECALL, 0)
        for at, held in enumerate(words):
            recall = len(wanted & held) / len(wanted) if wanted else 0.0
            key = (recall, -abs(at - last))
            if recall > _LEAST_RECALL and key > best_key:
                best, best_key = at, key
        owner.append(best)
        last = best if best is not None else last
    drafts = [Draft(s.aspect) for s in statements.aspects]
    for n, found in enumerate(owner):
        if found is None:
            continue
        aspect, text = places[found]
        ranges = drafts[aspect].ranges
        if n and owner[n - 1] == found:
            ranges[-1] = Description(ranges[-1].start, n + 1, text)
        else:
            ranges.append(Description(n, n + 1, text))
    return drafts
