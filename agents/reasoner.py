"""The reasoner: answers from verified evidence alone, or says what is wrong with it.

Source: ALR², Li et al. 2024 (arXiv 2410.03227), second stage. It never sees the long text: accuracy falls with the
length of a prompt even where the right passages are known (Du et al. 2025, arXiv 2510.05381).

A reply is plain text with one word in front, not JSON: the answer can be shown while it is written, and models that
garble JSON still put a word first. A reply without that word counts as an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from coa.agents.collapse import is_refusal
from coa.agents.evidence import EvidenceLine, rendered
from coa.agents.languages import write_in
from coa.agents.nothing_found import nothing_found, question_language
from coa.agents.prompting import PromptTemplate
from coa.agents.quoting import QuotingManager, QuotingWorker, quotes_of
from coa.agents.references import Reference, qualify, references, without_references
from coa.errors import ModelError
from coa.limits import Limits, ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import ChatModel, Decoding, OnText
from coa.reading import SYSTEM, Prompt, harmless
from coa.tokens import EstimatedTokens
from coa.types import Chunk, CommunicationUnit, Usage, Verdict

__all__ = ["ExtractiveReasoner", "Reasoner", "ReasonerReply", "Reasoning"]

_VERDICTS: dict[str, Verdict] = {
    "ANSWER": "answered",
    "CONFLICT": "contradictory",
    "MORE": "too_little",
    "PARTLY": "too_little",
    "NONE": "not_in_text",
}
_WORDS = "|".join(_VERDICTS)
_OPEN = r"[\s*#\"'`_(\[]*"
_CLOSE = r"[*\"'`_)\]]*"
# "ANSWER The key …" is a verdict, "Answer the door" and "None of the evidence …" are text.
_HEAD = re.compile(
    rf"{_OPEN}(?:({_WORDS})(?:ED|ING|S)?\b{_CLOSE}[\s:.,–—-]*"
    rf"|(?i:({_WORDS})(?:ed|ing|s)?\b){_CLOSE}[ \t]*(?:[:.,–—-]+\s*|(?=\n|$)))"
)
# A first line that has grown this long without a verdict in it is the answer itself.
_LONGEST_HEAD = 12
_LONGEST_QUERY = 300
_MORE_LINE = 160
_TOKENS_MARGIN = 0.5
_CHAT_TEMPLATE_TOKENS = 64
_NO_EVIDENCE = "(nothing was found)"


class ReasonerReply(NamedTuple):
    """What the evidence comes to."""

    text: str
    """The answer, the ids of its sentences in it; empty where `rewritten_query` asks for another round."""
    verdict: Verdict
    usage: Usage
    rewritten_query: str | None = None
    """What to look for in the document, where the evidence was too little and a round is left."""
    conflicts: tuple[tuple[Reference, ...], ...] = ()
    """The sides of a contradiction, two at least; empty for every other verdict."""
    truncated: bool = False
    """True when the answer was cut off at the token cap."""
    left_out: int = 0
    """Lines of evidence that did not fit into the window, the least relevant ones."""
    candidates: tuple[Reference, ...] = ()
    """The sentences that code weighed, best first; empty where a model named those of its answer."""


@runtime_checkable
class Reasoning(Protocol):
    """What a graph needs of a reasoner."""

    async def reason(
        self, query: str, evidence: Sequence[EvidenceLine], *, last_round: bool, on_text: OnText | None = None
    ) -> ReasonerReply:
        """What `evidence` says about `query`. Raises: ModelError."""
        ...

    def demand(self, query: str, evidence: Sequence[EvidenceLine]) -> Demand:
        """The most that `reason` can take; no calls where it asks no model."""
        ...


class Reasoner:
    """Reasons over one model; keeps nothing between calls."""

    def __init__(
        self,
        model: ChatModel,
        limits: Limits,
        profile: ReadingProfile,
        *,
        language: str | None = None,
        temperature: float = 0.0,
    ) -> None:
        """`language` is the ISO 639-1 code of the answer; None answers in the question's language.

        `profile` has to be one of models that can name sentences (`cites`).
        """
        if not profile.cites:
            raise ValueError(f"a model of the profile {profile.name!r} cannot name sentences")
        self.model = model
        self._limits = limits
        self._language = language
        self._temperature = temperature
        self._template, self._more, self._partly = _templates()
        self._tokens = EstimatedTokens(_TOKENS_MARGIN)
        constant = sum(self._tokens.count([SYSTEM, *(t.text for t in _templates())])) + _CHAT_TEMPLATE_TOKENS
        self._template_tokens = max(limits.template_tokens, constant)

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record."""
        return {t.name: t.digest for t in (self._template, self._more, self._partly)}

    async def reason(
        self, query: str, evidence: Sequence[EvidenceLine], *, last_round: bool, on_text: OnText | None = None
    ) -> ReasonerReply:
        """What `evidence`, in document order, says about `query`.

        Where another round is possible (not `last_round`) the reply may be a query for it in place of an answer.
        Without evidence, in the last round, there is nothing to ask a model about: the reply says so, without a
        call. `on_text` receives the answer as it comes, and nothing of a reply that is none.

        Raises: ModelError.
        """
        nothing = nothing_found(self._language or question_language(query))
        if not evidence and last_round:
            if on_text is not None:
                on_text(nothing)
            return ReasonerReply(nothing, "not_in_text", Usage())
        shown = self._fitting(evidence)
        tail = self._template.render(
            evidence=harmless(rendered(shown)) or _NO_EVIDENCE,
            question=harmless(query),
            missing=(self._partly if last_round else self._more).text.strip(),
            language=write_in(self._language) or "Write in the language of the question.",
        )
        decoding = Decoding(
            max_tokens=self._limits.answer_tokens,
            temperature=self._temperature,
            grammar=_grammar(last_round=last_round) if self.model.supports_grammar else None,
        )
        stream = _AnswerStream(on_text, nothing) if on_text is not None else None
        completion = await self.model.complete(Prompt(tail=tail), decoding, on_text=stream)
        usage = Usage().plus(completion.usage, seconds=completion.seconds)
        reply = _read(completion.text, shown, nothing=nothing, query=query, last_round=last_round)
        if stream is not None:
            stream.finish(reply.text)
        return reply._replace(
            usage=usage, truncated=completion.finish_reason == "length", left_out=len(evidence) - len(shown)
        )

    def demand(self, query: str, evidence: Sequence[EvidenceLine]) -> Demand:
        """The most that `reason` can take."""
        limits = self._limits
        prompt = self._template_tokens + limits.question_tokens + self._tokens.count([rendered(evidence)])[0]
        return Demand(1, min(prompt, limits.window - limits.answer_tokens), limits.answer_tokens)

    def _fitting(self, evidence: Sequence[EvidenceLine]) -> list[EvidenceLine]:
        """The evidence without what does not fit into the window: the least relevant lines go first."""
        limits = self._limits
        left = limits.window - limits.question_tokens - limits.answer_tokens - self._template_tokens
        counts = self._tokens.count([rendered([line]) + "\n" for line in evidence])
        kept: list[EvidenceLine] = []
        for line, n_tokens in sorted(zip(evidence, counts, strict=True), key=lambda pair: -pair[0].relevance):
            if n_tokens <= left:
                kept.append(line)
                left -= n_tokens
        return sorted(kept, key=lambda line: line.references)


class ExtractiveReasoner:
    """Answers with the best sentence of the evidence, shortened by the model where its words stand there.

    For models too small to weigh evidence: it cannot tell that a text says nothing, or says two things.
    """

    def __init__(self, model: ChatModel, chunks: Sequence[Chunk]) -> None:
        """`chunks` are all chunks of the document."""
        self.model = model
        self._chunks = chunks
        self._worker = QuotingWorker(model, chunks)
        self._manager = QuotingManager(model)

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record."""
        return {**self._worker.prompt_digests, **self._manager.prompt_digests}

    async def reason(
        self, query: str, evidence: Sequence[EvidenceLine], *, last_round: bool, on_text: OnText | None = None
    ) -> ReasonerReply:
        """The answer by the evidence's own sentences; asks about one sentence at a time. Raises: ModelError."""
        unit, usage = CommunicationUnit(), Usage()
        # Best first: then fewer sentences are asked about that others push out again.
        ordered = sorted(evidence, key=lambda line: (-line.relevance, line.references))
        for chunk in self._chunks_of(ordered):
            try:
                read = await self._worker.read(chunk, query, unit)
            except ModelError as error:
                error.usage = usage.merged(error.usage or Usage())
                raise
            unit, usage = read.unit, usage.merged(read.usage)
        known = {r for line in evidence for r in line.references}
        kept = [q for q in quotes_of(unit) if q.reference in known]
        unit = CommunicationUnit("\n".join(str(q) for q in kept), unit.chunk_index)
        reply = await self._manager.answer(query, unit, on_text=on_text)
        return ReasonerReply(
            text=reply.text,
            verdict="answered" if kept else "not_in_text",
            usage=usage.merged(reply.usage),
            truncated=reply.truncated,
            candidates=tuple(q.reference for q in sorted(kept, key=lambda q: -q.score)),
        )

    def demand(self, query: str, evidence: Sequence[EvidenceLine]) -> Demand:
        """The most that `reason` can take."""
        total = Demand(0)
        for chunk in self._chunks_of(evidence):
            total = total.plus(self._worker.demand(chunk, query, CommunicationUnit()))
        return total

    def _chunks_of(self, evidence: Sequence[EvidenceLine]) -> list[Chunk]:
        """The chunks that the lines stand in, in the lines' order. Chunks are numbered anew in each part of the
        document, so it is the sentences that tell which part a line is of."""
        found: dict[int, Chunk] = {}
        for line in evidence:
            for chunk in self._chunks:
                if _holds(chunk, line):
                    found[chunk.span.start] = chunk
                    break
        return list(found.values())


def _holds(chunk: Chunk, line: EvidenceLine) -> bool:
    first, last, offset = line.references[0], line.references[-1], chunk.span.start
    if first.chunk != chunk.index + 1 or last.sentence > len(chunk.sentences):
        return False
    spans = chunk.sentences[first.sentence - 1 : last.sentence]
    return all(
        chunk.text[s.start - offset : s.end - offset].strip() == t for s, t in zip(spans, line.texts, strict=True)
    )


class _AnswerStream:
    """Passes an answer's text on as it comes, without the verdict in front; holds back what is no answer."""

    def __init__(self, on_text: OnText, nothing: str) -> None:
        self._on_text = on_text
        self._nothing = nothing
        self._held: str | None = ""
        """What came so far, until it is known what it is; None from then on."""
        self._silent = False
        self._told = ""

    def __call__(self, piece: str) -> None:
        if self._silent:
            return
        if self._held is None:
            self._tell(piece)
            return
        self._held += piece
        line, newline, _ = self._held.lstrip().partition("\n")
        if not newline and (len(line) <= _LONGEST_HEAD or line.upper().lstrip("*#\"'`_([ ").startswith("MORE")):
            return
        self._begin()

    def finish(self, text: str) -> None:
        """Tells the rest of what turned out to be the answer's `text`."""
        if self._told and text.startswith(self._told.strip()):
            text = text[len(self._told.strip()) :]
        elif self._told:
            return
        if text.strip():
            self._on_text(text)

    def _begin(self) -> None:
        held = self._held or ""
        self._held = None
        word, body = _split(held)
        if word in ("NONE", "MORE"):
            self._silent = True
        else:
            self._tell(body)

    def _tell(self, piece: str) -> None:
        if not self._told:
            piece = piece.lstrip()
        if piece:
            self._told += piece
            self._on_text(piece)


def _read(reply: str, evidence: Sequence[EvidenceLine], *, nothing: str, query: str, last_round: bool) -> ReasonerReply:
    """What the reply says; ids that the evidence does not have are dropped."""
    known = frozenset(r for line in evidence for r in line.references)
    word, body = _split(reply)
    verdict = _VERDICTS[word]
    if word == "MORE":
        return _more(body, known, query=query, nothing=nothing, last_round=last_round)
    text = qualify(body, chunk=0, n_sentences=0, known=known)
    if verdict == "not_in_text" or not text or (is_refusal(text) and verdict != "too_little"):
        return ReasonerReply(nothing, "not_in_text", Usage())
    conflicts: tuple[tuple[Reference, ...], ...] = ()
    if verdict == "contradictory":
        conflicts = _sides(text)
        if not conflicts:
            verdict = "answered"
    return ReasonerReply(text, verdict, Usage(), conflicts=conflicts)


def _split(reply: str) -> tuple[str, str]:
    """The verdict's word, "ANSWER" where the reply has none in front, and what follows it."""
    head = _HEAD.match(reply)
    return ("ANSWER", reply) if head is None else ((head.group(1) or head.group(2)).upper(), reply[head.end() :])


def _more(body: str, known: frozenset[Reference], *, query: str, nothing: str, last_round: bool) -> ReasonerReply:
    """What follows on "MORE:" is a query; in the last round, where it was not offered, the reply has no answer."""
    line, _, rest = body.strip().partition("\n")
    rewritten = " ".join(without_references(line).split()).strip("\"'“”«» ")[:_LONGEST_QUERY]
    if not last_round:
        same = rewritten.casefold().strip(" ?.") == query.casefold().strip(" ?.")
        return ReasonerReply("", "too_little", Usage(), rewritten_query=None if same or not rewritten else rewritten)
    text = qualify(rest, chunk=0, n_sentences=0, known=known)
    if not text or is_refusal(text):
        return ReasonerReply(nothing, "not_in_text", Usage())
    return ReasonerReply(text, "too_little", Usage())


def _sides(text: str) -> tuple[tuple[Reference, ...], ...]:
    """The ids of each line that has any, or each id for itself where one line has them all; () for less than two."""
    sides = [tuple(references(line)) for line in text.splitlines()]
    sides = [side for side in sides if side]
    if len(sides) == 1:
        sides = [(reference,) for reference in sides[0]]
    return tuple(dict.fromkeys(sides)) if len(set(sides)) > 1 else ()


def _grammar(*, last_round: bool) -> str:
    """GBNF: a verdict's line, then text without bounds."""
    other = '"PARTLY"' if last_round else f'"MORE: " [^\\n]{{8,{_MORE_LINE}}}'
    return f'root ::= ("ANSWER" | "CONFLICT" | {other} | "NONE") "\\n" text\ntext ::= [^\\n] [^\\r]*\n'


def _templates() -> tuple[PromptTemplate, PromptTemplate, PromptTemplate]:
    return (
        PromptTemplate("reasoner", "evidence", "question", "missing", "language"),
        PromptTemplate("reasoner_more"),
        PromptTemplate("reasoner_partly"),
    )
