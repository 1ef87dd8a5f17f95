"""Where the evidence of a question stands in its document.

Sets tell it in several ways: sentences copied from the text, the opening of a paragraph, numbers of lines or of
paragraphs, or nothing but an answer that is itself copied. What cannot be found is left out, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from coa.documents.canonical import canonical
from coa.errors import ConfigError
from coa.evaluation.questions import Gold
from coa.types import Span

__all__ = ["EvidenceForm", "located", "occurrences"]

EvidenceForm = Literal["auto", "quotes", "sections", "turns", "paragraphs", "answers", "needles", "none"]
"""How a set tells where the answer is; "auto" goes by what a question has.

"quotes": `evidence` is copied sentences. "sections": the openings of paragraphs. "turns": `meta.relevant_turns`, pairs
of first and last line, from 0. "paragraphs": `meta.paragraph`, from 0, the answer being in it. "answers": the answer is
copied from the text, and not so short that it may stand there by chance. "needles": `meta.needles`, each with start and
end.
"""

_BLANK_LINE = re.compile(r"\n\s*\n")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_SHORTEST_ANSWER = 12
_SHORTEST_WIDE_ANSWER = 5
_MOST_PLACES = 3
"""An answer that stands in more places than this was not copied from one of them."""


def located(
    text: str,
    *,
    answers: Sequence[str],
    evidence: Sequence[str],
    meta: Mapping[str, object],
    form: EvidenceForm = "auto",
    within: Span | None = None,
) -> tuple[Gold, ...]:
    """The pieces of evidence in the canonical `text`, by offsets; looked for `within` a part of it where given.

    Raises: ConfigError for an unknown `form`, or `meta` that is not as the form has it.
    """
    if form not in get_args(EvidenceForm):
        raise ConfigError(f"evidence: unknown form {form!r}; known are {', '.join(get_args(EvidenceForm))}.")
    base = within.start if within is not None else 0
    part = text if within is None else text[within.start : within.end]
    try:
        found = _found(part, answers, evidence, meta, _form(evidence, meta) if form == "auto" else form)
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(f"evidence: the question's meta is not as the form {form!r} has it ({error}).") from error
    return tuple(tuple(Span(base + s.start, base + s.end) for s in piece) for piece in found if piece)


def occurrences(quote: str, text: str) -> list[Span]:
    """Every place where `quote` stands in `text`, whatever the white space between its words."""
    words = canonical(quote).split()
    if not words:
        return []
    pattern = r"\s+".join(re.escape(word) for word in words)
    return [Span(*match.span()) for match in re.finditer(pattern, text)]


def _form(evidence: Sequence[str], meta: Mapping[str, object]) -> EvidenceForm:
    if meta.get("needles"):
        return "needles"
    if meta.get("relevant_turns"):
        return "turns"
    if evidence:
        return "sections" if meta.get("sections") is not None else "quotes"
    return "paragraphs" if meta.get("paragraph") is not None else "answers"


def _found(
    text: str, answers: Sequence[str], evidence: Sequence[str], meta: Mapping[str, object], form: EvidenceForm
) -> list[Gold]:
    if form == "needles":
        needles: Iterable[Mapping[str, int]] = meta["needles"]  # type: ignore[assignment]
        return [(Span(int(n["start"]), int(n["end"])),) for n in needles]
    if form == "turns":
        lines = _lines(text)
        turns: Iterable[Sequence[int]] = meta["relevant_turns"]  # type: ignore[assignment]
        return [
            (Span(lines[int(a)].start, lines[min(int(b), len(lines) - 1)].end),) for a, b in turns if a < len(lines)
        ]
    if form == "sections":
        return [tuple(_section(text, place) for place in occurrences(opening, text)) for opening in evidence]
    if form == "quotes":
        return [tuple(occurrences(quote, text)) for quote in evidence]
    if form == "paragraphs":
        number = int(str(meta["paragraph"]))
        paragraphs = _paragraphs(text)
        return _copied(text, answers, paragraphs[number]) if number < len(paragraphs) else []
    return _copied(text, answers, Span(0, len(text))) if form == "answers" else []


def _copied(text: str, answers: Sequence[str], within: Span) -> list[Gold]:
    """One piece: the places of any of the answers, where they are few enough to mean something."""
    part = text[within.start : within.end]
    whole = within.length == len(text)
    places: list[Span] = []
    for answer in answers:
        least = _SHORTEST_WIDE_ANSWER if _WIDE.search(answer) else _SHORTEST_ANSWER
        if whole and len(answer.strip()) < least:
            continue
        found = occurrences(answer, part)
        if not whole or len(found) <= _MOST_PLACES:
            places += [Span(within.start + s.start, within.start + s.end) for s in found]
    return [tuple(sorted(set(places)))] if places else []


def _section(text: str, opening: Span) -> Span:
    blank = _BLANK_LINE.search(text, opening.start)
    return Span(opening.start, blank.start() if blank else len(text))


def _paragraphs(text: str) -> list[Span]:
    spans: list[Span] = []
    at = len(text) - len(text.lstrip())
    for blank in _BLANK_LINE.finditer(text, at):
        spans.append(Span(at, blank.start()))
        at = blank.end()
    return [*spans, Span(at, len(text))]


def _lines(text: str) -> list[Span]:
    spans: list[Span] = []
    at = 0
    for line in text.splitlines(keepends=True):
        spans.append(Span(at, at + len(line.rstrip("\n"))))
        at += len(line)
    return spans
