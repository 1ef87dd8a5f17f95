"""A model that reads by words: it follows coa's prompts, deterministically and without a model file.

It finds the numbered sentences that share the most words with the question, copies them with their ids, and says
that nothing was found where none does. So every strategy gives a right, cited answer over a text that holds the
question's words, and tests of graphs and services can check whole runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coa.agents.lexical import content_words
from coa.llm.chat import Completion, Decoding
from coa.llm.scripted import ScriptedModel
from coa.reading import Prompt

__all__ = ["ReadingModel", "read_by_words"]

_SOURCE = re.compile(r"Source text, its sentences numbered:\n(?P<lines>.*?)\[End of source text\.\]\n", re.DOTALL)
_NUMBERED = re.compile(r"^\[(?P<id>[\d.]+)\] (?P<text>.*)$", re.MULTILINE)
_QUESTION = re.compile(r"^Question: (?P<question>.+)$", re.MULTILINE)
_LEAST_SHARED = 2


class ReadingModel(ScriptedModel):
    """A `ChatModel` whose replies are those of `read_by_words`."""

    def __init__(self, name: str = "reading") -> None:
        def respond(prompt: Prompt, decoding: Decoding) -> str | Completion:
            return read_by_words(prompt.prefix + prompt.tail)

        super().__init__(respond=respond, name=name)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A prompt, taken apart."""

    sentences: Sequence[tuple[str, str]]
    """Ids and texts of the source."""
    tail: str
    question: str | None
    wanted: frozenset[str] = field(default_factory=frozenset)

    def best(self) -> list[tuple[str, str]]:
        """The sentences that share most with the question; all of them for a summary's first."""
        if self.question is None:
            return list(self.sentences[:1])
        return _sharing(self.sentences, self.wanted)


def read_by_words(prompt: str) -> str:
    """The reply to the user message of one of coa's prompts. Raises: ValueError for a prompt that is none of them."""
    match = _SOURCE.search(prompt)
    sentences = [(m["id"], m["text"]) for m in _NUMBERED.finditer(match["lines"])] if match is not None else []
    tail = prompt[match.end() :] if match is not None else prompt
    questions = [m["question"] for m in _QUESTION.finditer(tail)]
    question = questions[-1] if questions else None
    asked = _Asked(sentences, tail, question, frozenset(content_words(question or "")))
    for mark, reply in _ROLES:
        if mark in tail:
            return reply(asked)
    raise ValueError(f"this is no prompt of coa's: {tail[-200:]!r}")


def _sharing(sentences: Sequence[tuple[str, str]], wanted: frozenset[str]) -> list[tuple[str, str]]:
    scored = [(len(wanted & content_words(text)), ident, text) for ident, text in sentences]
    most = max((score for score, *_ in scored), default=0)
    least = min(_LEAST_SHARED, max(1, len(wanted)))
    return [(ident, text) for score, ident, text in scored if score == most >= least]


def _between(text: str, before: str, after: str) -> str:
    return text.partition(before)[2].partition(after)[0].strip()


def _worker(asked: _Asked) -> str:
    notes = _between(asked.tail, "(they may be empty):\n", "\n\n")
    added = [f"{text} [{ident}]" for ident, text in asked.best()]
    if not added:
        return "NO_INFORMATION"
    return " ".join([*([notes] if notes and notes != "(none)" else []), *added])


def _fact_worker(asked: _Asked) -> str:
    return "\n".join(f"- {text} [{ident}]" for ident, text in asked.best()) or "NO_INFORMATION"


def _manager(asked: _Asked) -> str:
    notes = _between(asked.tail, "Notes:\n", "\n\nQuestion:" if asked.question else "\n\nSummary:")
    return notes.replace("\n- ", " ").removeprefix("- ")


def _merged(asked: _Asked) -> str:
    parts = re.findall(r"^Part \d+:\n(.*?)(?=\n\n|\Z)", asked.tail, re.MULTILINE | re.DOTALL)
    return " ".join(part.strip() for part in parts)


def _passages(asked: _Asked) -> str:
    return " ".join(f"{text} [{ident}]" for ident, text in asked.best()) or "NO_INFORMATION"


def _shortened(asked: _Asked) -> str:
    return _between(asked.tail, "Text: ", "\n\nQuestion:")


def _retriever(asked: _Asked) -> str:
    numbers = [int(ident) for ident, _ in asked.best()]
    if "Reply with JSON" in asked.tail:
        return json.dumps({"sentences": numbers})
    return ", ".join(str(n) for n in numbers) or "NONE"


def _reasoner(asked: _Asked) -> str:
    evidence = _between(asked.tail, "Evidence:\n", "\n\nQuestion:")
    lines = re.findall(r"\[([\d.]+)\] ((?:(?! \[[\d.]+\] ).)+)", evidence)
    best = _sharing(lines, asked.wanted)
    if not best:
        return "NONE\nThe text does not say."
    return "ANSWER\n" + " ".join(f"{text.strip()} [{ident}]" for ident, text in best)


def _demonstrator(asked: _Asked) -> str:
    ident, text = asked.sentences[0]
    return f"Sentences: [{ident}]\nQuestion: What does the sentence say?\nAnswer: {text[:80]}"


def _structurizer(asked: _Asked) -> str:
    last = asked.sentences[-1][0]
    if "JSON" in asked.tail:
        aspect = {"title": "the whole part", "first": 1, "last": int(last), "parts": []}
        return json.dumps({"scope": "a part of a text", "aspects": [aspect]})
    return f"Scope: a part of a text\n1. the whole part [1-{last}]"


def _chooser(asked: _Asked) -> str:
    lines = re.findall(r"^(\d+)\. (.*)$", asked.tail, re.MULTILINE)
    return ", ".join(number for number, _ in _sharing(lines, asked.wanted)) or "none"


_ROLES: tuple[tuple[str, Callable[[_Asked], str]], ...] = (
    ("New notes:", _worker),
    ("New lines:", _fact_worker),
    ("Number of the best notes:", lambda asked: "1"),
    ("Merged notes:", _merged),
    ("Make an example of a question", _demonstrator),
    ("Answer the question from the source text above", _passages),
    ("Answer the question from the source text, in a few words", _passages),
    ("Answer the question from the text, in a few words", _shortened),
    ("Write a summary of the source text above", _passages),
    ("Find evidence in the source text above", _retriever),
    ("Answer a question from evidence.", _reasoner),
    ("Work out how the source text above is built", _structurizer),
    ("Here is the outline of a document", _chooser),
    ("from notes. A document was too long", _manager),
    ("Write a summary of a document", _manager),
)
"""Words that stand in one role's prompt alone, and how it replies."""
