"""What a worker's reply adds to structured notes: read line by line, leniently, and with a grammar for it.

- a fact, with the ids of its sentences in brackets
? a question that is now open
closed 2
NO_INFORMATION
"""

from __future__ import annotations

import re

from coa.agents.collapse import NO_INFORMATION, is_refusal
from coa.agents.fact_notes import Fact, FactNotes, NewNotes, Thread, read_fact, read_thread, restates
from coa.agents.references import Reference, qualify

__all__ = ["facts_grammar", "read_reply"]

_CLOSED = re.compile(
    r"^(?:[-*•x]\s*)?(?:closed?|settled|answered|resolved)\b[\s:#?]*((?:\d{1,4}(?:\s*,\s*|\s+and\s+)?)+)", re.IGNORECASE
)
_OPENED = re.compile(
    r"^(?:[-*•]\s*)?(?:\?|open(?:ed)?(?: (?:question|thread))?s?:)\s*(?:\d{1,4}[:.)]\s*)?(.+)", re.IGNORECASE
)
_MARKED = re.compile(r"^(?:[-*•]|\d{1,3}[.)])\s+")
_FRAME = re.compile(r"^(?:```|#{1,6}\s|---|===)|[:：]$")
_LABEL = re.compile(r"^(?:new )?facts?:\s*", re.IGNORECASE)
_AFTER_IDS = re.compile(r"(?<=[\]】])(?:\s*[.。;])?\s+(?![\[【(])")
_SHORTEST_FACT = 3
_LINE_CHARS = 240
_WIDE_LINE_CHARS = 80
_TOKENS_PER_CHAR = 0.5
_WIDE_TOKENS_PER_CHAR = 3.0


def read_reply(
    text: str,
    notes: FactNotes,
    *,
    chunk: int,
    n_sentences: int,
    known: frozenset[Reference] | None = None,
    cut_off: bool = False,
    instruction: str = "",
) -> NewNotes:
    """What `text` adds to `notes`, which the worker was given.

    `chunk` counts from 1; ids that are neither of its sentences nor `known` (those of the notes where None) are
    dropped, and a fact that is left without any is unsure (where the chunk's sentences have ids at all: with
    `n_sentences` 0 no fact has one). What only denies, repeats the notes or a line of the `instruction`, or is the
    last line of a reply that broke off, is none.
    """
    lines = [line.strip() for line in text.splitlines()]
    echoed = {f.text for line in instruction.splitlines() for f in _facts(line.removeprefix("? "), False)}
    if cut_off:
        lines = lines[:-1]
    known = notes.references if known is None else known
    facts: list[Fact] = []
    opened: list[Thread] = []
    closed: set[int] = set()
    for line in lines:
        if match := _CLOSED.match(line):
            closed.update(int(n) for n in re.findall(r"\d+", match[1]))
            continue
        said = qualify(line, chunk=chunk, n_sentences=n_sentences, known=known)
        if match := _OPENED.match(said):
            thread = read_thread(match[1], 0)
            if thread is not None and thread.text not in echoed and not is_refusal(thread.text):
                opened.append(thread)
            continue
        new = _facts(said, n_sentences > 0)
        facts.extend(f for f in new if f.text not in echoed and not restates(f, notes))
    open_before = {t.number for t in notes.threads}
    return NewNotes(tuple(facts), tuple(opened), frozenset(closed & open_before), cut_off)


def facts_grammar(max_tokens: int, *, wide: bool = False) -> str:
    """GBNF for replies of that form that stay below `max_tokens` in all but absurd tokenisations.

    `wide` is for scripts without spaces, where a character costs more tokens.
    """
    per_char = _WIDE_TOKENS_PER_CHAR if wide else _TOKENS_PER_CHAR
    chars = min(_WIDE_LINE_CHARS if wide else _LINE_CHARS, max(20, int(max_tokens / per_char)))
    n_lines = max(1, int(max_tokens / (chars * per_char)))
    return (
        f'root ::= "{NO_INFORMATION}" | line ("\\n" line){{0,{n_lines - 1}}}\n'
        "line ::= fact | thread | closed\n"
        'fact ::= "- " text ids against? unsure?\n'
        'thread ::= "? " text ids?\n'
        'closed ::= "closed " number\n'
        f"text ::= [^ \\n\\r\\t\\[\\]()?] [^\\n\\r\\t\\[\\]()]{{3,{chars}}}\n"
        'ids ::= " " id{1,4}\n'
        'id ::= "[" number ("." number)? "]"\n'
        'against ::= " (contradicts " id ")"\n'
        'unsure ::= " (unsure)"\n'
        "number ::= [1-9] [0-9]{0,3}\n"
    )


def _facts(line: str, cites: bool) -> list[Fact]:
    """The facts of a line: one where it is marked as such, else one for each stretch of text that ends in ids."""
    line = _LABEL.sub("", line)
    if not line or _FRAME.search(line):
        return []
    pieces = [line] if _MARKED.match(line) or line[0] in "[【" else _AFTER_IDS.split(line)
    found = []
    for piece in pieces:
        fact = read_fact(_MARKED.sub("", piece))
        if fact is None or len(fact.text) < _SHORTEST_FACT or is_refusal(fact.text):
            continue
        unsure = fact.unsure or (cites and not fact.references)
        found.append(Fact(fact.text, fact.references, unsure, fact.against))
    return found
