"""The retriever: names the sentences of a chunk that a question needs. It writes no text of its own.

Source: ALR², Li et al. 2024 (arXiv 2410.03227), first stage; numbers in place of copied facts as in R&R
(Agrawal et al. 2024, arXiv 2403.05004), because models without that paper's training invent what they quote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel

from coa.agents.collapse import is_refusal
from coa.agents.evidence import EvidenceLine, Selected, rendered
from coa.agents.lexical import SentenceRanker
from coa.agents.prompting import PromptTemplate
from coa.agents.references import Reference
from coa.errors import BadOutput, ModelError
from coa.limits import Limits, ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import ChatModel, Completion, Decoding
from coa.llm.structured import Parsed, parse_reply
from coa.reading import harmless, reading_prompt, render_text
from coa.tokens import EstimatedTokens
from coa.types import Chunk, Usage

__all__ = ["LexicalRetriever", "Retriever", "RetrieverReply", "Retrieving", "numbers_up_to", "read_numbers"]

_MOST = 12
"""Sentences of one chunk; whoever names more has not chosen."""
_MOST_CALLS = 2
_NONE = "NONE"
_LARGEST_ENUM = 500
# The vocabularies of small models take up to half as many tokens again.
_TOKENS_MARGIN = 0.5

_AGAIN = "Your last reply named no sentence in the form that was asked for."

_BRACKET = re.compile(r"[\[【(]\s*(\d{1,6}(?:\.\d{1,6})?(?:\s*(?:[,;–-]|and|to)\s*\d{1,6}(?:\.\d{1,6})?)*)\s*[\]】)]")
_ITEM = re.compile(r"(\d{1,6})(?:\.(\d{1,6}))?(?:\s*(?:-|–|to)\s*(?:\d{1,6}\.)?(\d{1,6}))?")
_LETTER = re.compile(r"[^\W\d_]")
_BETWEEN = re.compile(r"\b(?:and|to|sentences?|numbers?)\b", re.IGNORECASE)
_NAMED = re.compile(
    r"\b(?:sentences?|lines?|numbers?|nos?\.|Sätze?|Nr\.|phrases?|oraci(?:ón|ones)|frases?)\s*"
    r"(\d{1,6}(?:\s*(?:,|;|–|-|and|to|und|et|y)\s*\d{1,6})*)|第?\s*(\d{1,6})\s*句",
    re.IGNORECASE,
)
_LISTED = re.compile(r"^\s*(?:[-*•]\s*)?(\d{1,6})\s*[.:)\]]\s+\S", re.MULTILINE)
_LONGEST_RANGE = 12
_SHORTEST_COPY = 20


class _Sentences(BaseModel):
    sentences: list[int]


class RetrieverReply(NamedTuple):
    """The sentences of one chunk that help, the most useful first."""

    selected: tuple[Selected, ...]
    """Empty where the chunk holds nothing of use."""
    usage: Usage
    how: Literal["grammar", "schema", "numbers", "copied", "lexical"]
    """What vouches for the ids. "grammar", "schema": the engine. "numbers": read from the reply. "copied": the
    reply was no list, but holds sentences of the chunk word for word. "lexical": no model was asked."""
    dropped: int = 0
    """Ids in the reply that do not exist."""


@runtime_checkable
class Retrieving(Protocol):
    """What a graph needs of a retriever."""

    async def retrieve(self, chunk: Chunk, query: str, found: Sequence[EvidenceLine] = ()) -> RetrieverReply:
        """The sentences of `chunk` that help to answer `query`, given what was `found` before. Raises: ModelError."""
        ...

    def demand(self, chunk: Chunk, query: str) -> Demand:
        """The most that `retrieve` can take, repeated calls included; no calls where it asks no model."""
        ...


class Retriever:
    """Retrieves over one model; keeps nothing between calls.

    Chunks can be read side by side, or in order with the evidence so far. The prompt begins with the chunk's
    reading prefix, so the chunk is computed once for all questions, rounds and roles.
    """

    def __init__(self, model: ChatModel, limits: Limits, profile: ReadingProfile, *, temperature: float = 0.0) -> None:
        """`profile` has to be one of models that can name sentences (`cites`); others need a LexicalRetriever."""
        if not profile.cites:
            raise ValueError(f"a model of the profile {profile.name!r} cannot name sentences")
        self.model = model
        self._limits = limits
        self._temperature = temperature
        self._template, self._numbers, self._json = _templates()
        self._tokens = EstimatedTokens(_TOKENS_MARGIN)

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record."""
        return {t.name: t.digest for t in (self._template, self._json if self._by_schema else self._numbers)}

    @staticmethod
    def template_texts(profile: ReadingProfile) -> list[str]:
        """What is constant in its prompts."""
        if not profile.cites:
            return []
        template, *forms = _templates()
        return [f"{template.text}{form.text}{_AGAIN}" for form in forms]

    async def retrieve(self, chunk: Chunk, query: str, found: Sequence[EvidenceLine] = ()) -> RetrieverReply:
        """The sentences of `chunk` that help to answer `query`; `found` is evidence of other chunks.

        A reply that names nothing and is no refusal either is asked for once more.

        Raises: BadOutput when the second one is of no use; any other ModelError of the call.
        """
        if not chunk.sentences:
            return RetrieverReply((), Usage(), "numbers")
        usage = Usage()
        for again in (False, True):
            try:
                completion = await self._ask(chunk, query, found, again=again)
            except ModelError as error:
                error.usage = usage.merged(error.usage or Usage())
                raise
            usage = usage.plus(completion.usage, seconds=completion.seconds)
            reply = self._read(chunk, completion, usage)
            if reply is not None:
                return reply
        raise BadOutput(
            f"chunk {chunk.index + 1}: the reply named no sentences, twice.",
            hint="A larger model may follow the form better.",
            deployment=completion.deployment,
            usage=usage,
        )

    def demand(self, chunk: Chunk, query: str) -> Demand:
        """The most that `retrieve` can take."""
        limits = self._limits
        prompt = limits.template_tokens + limits.question_tokens + limits.note_tokens + chunk.n_tokens
        return Demand(_MOST_CALLS, _MOST_CALLS * prompt, _MOST_CALLS * limits.note_tokens)

    async def _ask(self, chunk: Chunk, query: str, found: Sequence[EvidenceLine], *, again: bool) -> Completion:
        n = len(chunk.sentences)
        form = (self._json if self._by_schema else self._numbers).render(most=str(_MOST))
        tail = self._template.render(question=harmless(query), found=self._found(found), form=form)
        decoding = Decoding(
            # As much as a worker's note: models that think before they reply need it.
            max_tokens=self._limits.note_tokens,
            temperature=self._temperature,
            grammar=_grammar(n) if self.model.supports_grammar else None,
            schema=_schema(n) if self._by_schema else None,
        )
        return await self.model.complete(reading_prompt(chunk, f"{tail}\n\n{_AGAIN}" if again else tail), decoding)

    def _read(self, chunk: Chunk, completion: Completion, usage: Usage) -> RetrieverReply | None:
        """What the reply names; None where it is of no use."""
        how: Literal["grammar", "schema", "numbers"] = "schema" if self._by_schema else "numbers"
        if self.model.supports_grammar:
            how = "grammar"
        numbers = read_numbers(completion.text, chunk=chunk.index + 1, cut_off=completion.finish_reason == "length")
        if numbers is None:
            copied = _copied(completion.text, chunk)
            if copied:
                return RetrieverReply(_selected(chunk, copied), usage, "copied")
            return RetrieverReply((), usage, how) if is_refusal(completion.text) and completion.text else None
        there = [n for n in numbers if 1 <= n <= len(chunk.sentences)]
        if numbers and not there:
            return None
        return RetrieverReply(_selected(chunk, there), usage, how, dropped=len(numbers) - len(there))

    @property
    def _by_schema(self) -> bool:
        return self.model.supports_schema and not self.model.supports_grammar

    def _found(self, found: Sequence[EvidenceLine]) -> str:
        """The evidence so far, as much of the best as fits where a worker has its notes."""
        kept: list[EvidenceLine] = []
        left = self._limits.note_tokens
        counts = self._tokens.count([rendered([line]) + "\n" for line in found])
        for line, n_tokens in sorted(zip(found, counts, strict=True), key=lambda pair: -pair[0].relevance):
            if n_tokens <= left:
                kept.append(line)
                left -= n_tokens
        if not kept:
            return ""
        kept.sort(key=lambda line: line.references)
        return f"\nFound in other parts already:\n{harmless(rendered(kept))}\n"


class LexicalRetriever:
    """Picks sentences by their words, for models too small to name them; asks no model."""

    def __init__(self, chunks: Sequence[Chunk], *, most: int = _MOST) -> None:
        """`chunks` are all chunks of the document: sentences compete over all of it, at most `most` are picked."""
        self._most = most
        self._starts: dict[int, int] = {}
        sentences: list[str] = []
        for chunk in chunks:
            self._starts[chunk.span.start] = len(sentences)
            offset = chunk.span.start
            sentences += [render_text(chunk.text[s.start - offset : s.end - offset]) for s in chunk.sentences]
        self._ranker = SentenceRanker(sentences)
        self._best: tuple[str, dict[int, float]] | None = None

    @property
    def prompt_digests(self) -> dict[str, str]:
        """No prompt."""
        return {}

    async def retrieve(self, chunk: Chunk, query: str, found: Sequence[EvidenceLine] = ()) -> RetrieverReply:
        """The chunk's sentences among the document's best, best first; `found` changes nothing."""
        if self._best is None or self._best[0] != query:
            self._best = (query, self._ranked(query))
        first = self._starts[chunk.span.start]
        here = range(first, first + len(chunk.sentences))
        picked = [
            Selected(Reference(chunk.index + 1, at - first + 1), relevance)
            for at, relevance in self._best[1].items()
            if at in here
        ]
        return RetrieverReply(tuple(picked), Usage(), "lexical")

    def demand(self, chunk: Chunk, query: str) -> Demand:
        """Nothing."""
        return Demand(0)

    def _ranked(self, query: str) -> dict[int, float]:
        """The document's best sentences, best first, and how they compare with the very best."""
        scores = self._ranker.scores(query)
        best = sorted((at for at, score in enumerate(scores) if score > 0), key=lambda at: (-scores[at], at))
        return {at: round(scores[at] / scores[best[0]], 3) for at in best[: self._most]}


def read_numbers(reply: str, *, chunk: int, cut_off: bool = False) -> list[int] | None:
    """The sentence numbers that `reply` names, in its order, each once; [] for "none", None where it says neither.

    Reads lists, JSON, `[7]`, `[3.7]` where 3 is `chunk` (counted from 1), "sentences 5 to 7" and lists that start
    with a number; other numbers are figures of the text. The last number of a reply that was `cut_off` may be half
    of one and is left out.
    """
    text = reply.strip()
    if cut_off:
        text = re.sub(r"\d+$", "", text)
    bare = text.strip(" .!*\"'`[]{}()\n")
    if not bare:
        # "[]" is a list without entries, and an empty reply says nothing.
        return [] if "[" in text and not cut_off else None
    if bare.upper() == _NONE:
        return []
    if "{" in text:
        parsed = parse_reply(text, _Sentences, cut_off=cut_off)
        if isinstance(parsed, Parsed):
            return list(dict.fromkeys(parsed.value.sentences))
    listed: list[int] | None = None
    lines = [line for line in text.splitlines() if _is_list(line)]
    if lines:
        listed = _expanded(", ".join(lines), chunk)
    elif not is_refusal(text):
        groups = [m.group(1) for m in _BRACKET.finditer(text)]
        groups = groups or [m.group(1) or m.group(2) for m in _NAMED.finditer(text)] or _LISTED.findall(text)
        listed = _expanded(", ".join(groups), chunk) if groups else None
    return None if listed is None else list(dict.fromkeys(listed))


def numbers_up_to(n: int) -> str:
    """A GBNF alternative for the decimal numbers 1..n, without leading zeros."""
    digits = str(n)
    found = ["[1-9]" + "[0-9]" * (length - 1) for length in range(1, len(digits))]
    for at, digit in enumerate(digits):
        lowest = 1 if at == 0 else 0
        below = int(digit) - 1
        if below >= lowest:
            span = f"[{lowest}-{below}]" if below > lowest else f"[{lowest}]"
            found.append((f'"{digits[:at]}" ' if at else "") + span + "[0-9]" * (len(digits) - at - 1))
    return " | ".join([*found, f'"{digits}"'])


def _grammar(n: int) -> str:
    return f'root ::= "{_NONE}" | number (", " number){{0,{min(_MOST, n) - 1}}}\nnumber ::= {numbers_up_to(n)}\n'


def _schema(n: int) -> Mapping[str, object]:
    number: dict[str, object] = {"type": "integer", "minimum": 1, "maximum": n}
    if n <= _LARGEST_ENUM:
        number = {"type": "integer", "enum": list(range(1, n + 1))}
    return {
        "type": "object",
        "properties": {"sentences": {"type": "array", "items": number, "maxItems": min(_MOST, n)}},
        "required": ["sentences"],
        "additionalProperties": False,
    }


def _is_list(line: str) -> bool:
    """True for a line of numbers and what stands between them."""
    return any(c.isdigit() for c in line) and _LETTER.search(_BETWEEN.sub(" ", line)) is None


def _expanded(body: str, chunk: int) -> list[int]:
    """The numbers of "5, 7-9, 3.12"; those of other chunks are left out."""
    found: list[int] = []
    for item in _ITEM.finditer(body):
        first, of_chunk, last = item.groups()
        if of_chunk is not None and int(first) != chunk:
            continue
        begin = int(of_chunk if of_chunk is not None else first)
        end = int(last) if last is not None and begin <= int(last) <= begin + _LONGEST_RANGE else begin
        found.extend(range(begin, end + 1))
    return found


def _copied(reply: str, chunk: Chunk) -> list[int]:
    """The numbers of the sentences that `reply` holds word for word."""
    said = " ".join(reply.casefold().split())
    offset = chunk.span.start
    texts = [" ".join(chunk.text[s.start - offset : s.end - offset].casefold().split()) for s in chunk.sentences]
    return [n for n, text in enumerate(texts, 1) if len(text) >= _SHORTEST_COPY and text in said]


def _selected(chunk: Chunk, numbers: Sequence[int]) -> tuple[Selected, ...]:
    """The first `_MOST` of them; the earlier a model named one, the more relevant it is."""
    kept = numbers[:_MOST]
    return tuple(Selected(Reference(chunk.index + 1, n), round(1 - at / (_MOST + 1), 3)) for at, n in enumerate(kept))


def _templates() -> tuple[PromptTemplate, PromptTemplate, PromptTemplate]:
    return (
        PromptTemplate("retriever", "question", "found", "form"),
        PromptTemplate("retriever_numbers", "most"),
        PromptTemplate("retriever_json", "most"),
    )
