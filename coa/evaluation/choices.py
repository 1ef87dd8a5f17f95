"""Which option a reply chooses.

Source: L-Eval's exams count a letter, with a quarter for a proper part of several right ones; it takes "A" where a
reply names none, which gives a silent model a quarter of the points: here such a reply is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from coa.evaluation.normalising import normalised
from coa.evaluation.questions import LETTERS

__all__ = ["choice", "chosen_letters", "chosen_word", "exam"]

_TAGGED = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.IGNORECASE | re.DOTALL)
_ANNOUNCED = re.compile(
    r"\b(?:answers?|options?|choices?)\b\s*(?:is|are|:)?\s*(?:option\s*)?[\s:(*\[\"']*"
    r"([A-Z](?:\s*(?:,|and|&)?\s*[A-Z])*)(?![A-Za-z'])"
)
_LEADING = re.compile(r"^[\s(*\[\"']*([A-Z](?:\s*(?:,|and|&)\s*[A-Z]|[A-Z])*)(?=[\s).:,*\]\"']|$)")
_BARE = re.compile(r"[\s(*\[\"']*([A-Za-z])[\s).:,*\]\"']*")
# Not A and not I, which are words.
_ALONE = re.compile(r"(?<![\w'])([B-HJ-Z])(?![\w'])")
_MARKED = re.compile(r"[(\[]([A-Z])[)\]]|(?<![A-Za-z])([A-Z])(?=[).:])")


def choice(reply: str, answers: Sequence[str], options: Sequence[str], *, by_words: bool) -> float:
    """1 where the reply chooses one of the right options and no other; `answers` are letters or options' texts."""
    if by_words:
        said = chosen_word(reply, options)
        return float(said is not None and said.lower() in {answer.strip().lower() for answer in answers})
    right = {_letter_of(answer, options) for answer in answers}
    chosen = chosen_letters(reply, options)
    return float(len(chosen) == 1 and chosen[0] in right)


def exam(reply: str, right: str, options: Sequence[str]) -> float:
    """L-Eval's score where several letters may be right at once ("AC"): 1 for all of them, 0.25 for a part, else 0."""
    wanted = {letter for letter in right.upper() if letter in LETTERS}
    said = set(chosen_letters(reply, options))
    if said == wanted:
        return 1.0
    return 0.25 if said and said < wanted else 0.0


def chosen_letters(reply: str, options: Sequence[str]) -> tuple[str, ...]:
    """The letters that a reply names as its choice, in order; by an option's text where it names no letter.

    Looked for in turn: an <answer> tag, "the answer is B", a letter that the reply begins with, letters that are marked
    as such ("(B)", "B."), the one letter that stands alone, the one option whose text stands in the reply.
    """
    known = LETTERS[: len(options)] if options else LETTERS
    tagged = _TAGGED.findall(reply)
    text = tagged[-1] if tagged else reply.strip()
    bare = _BARE.fullmatch(text)
    if bare is not None:
        return tuple(c for c in bare[1].upper() if c in known)
    for pattern in (_ANNOUNCED, _LEADING):
        match = pattern.search(text)
        if match is not None and not _is_word(match, text):
            letters = tuple(dict.fromkeys(c for c in match[1].replace("and", "") if c in known))
            if letters:
                return letters
    marked = dict.fromkeys(a or b for a, b in _MARKED.findall(text))
    letters = tuple(letter for letter in marked if letter in known)
    if letters:
        return letters
    alone = {c for c in _ALONE.findall(text) if c in known}
    if len(alone) == 1:
        return tuple(alone)
    named = [
        letter
        for letter, option in zip(LETTERS, options, strict=False)
        if normalised(option) and f" {normalised(option)} " in f" {normalised(text)} "
    ]
    return (named[0],) if len(named) == 1 else ()


def chosen_word(reply: str, options: Sequence[str]) -> str | None:
    """The one option whose word the reply names: in its last <answer> tag, else first sentence, else anywhere."""
    tagged = _TAGGED.findall(reply)
    places = [tagged[-1]] if tagged else [re.split(r"[.!?\n]", reply.strip(), maxsplit=1)[0], reply]
    for place in places:
        named = [option for option in options if re.search(rf"(?<!\w){re.escape(option)}(?!\w)", place, re.IGNORECASE)]
        if len(named) == 1:
            return named[0]
    return None


def _is_word(match: re.Match[str], text: str) -> bool:
    """True for "A tale of…" and "I think": a letter that is a word of a sentence."""
    if match[1] not in {"A", "I"}:
        return False
    following = text[match.end(1) :]
    return re.match(r"\s+[a-z]", following) is not None


def _letter_of(answer: str, options: Sequence[str]) -> str:
    bare = answer.strip()
    if len(bare) == 1 and bare.upper() in LETTERS:
        return bare.upper()
    for letter, option in zip(LETTERS, options, strict=False):
        if normalised(option) == normalised(bare):
            return letter
    return bare
