"""Worker and manager for models too small to take notes: the notes are sentences of the source.

A model under a billion parameters that is shown 1,000 tokens writes notes that are invented, and copies its
own notes from chunk to chunk. So code ranks the sentences of the document, and picks the words of each of the best
ones that answer the question (extracting.py); the model is shown the few best ones, one at a time, and what it says
counts as a second opinion on which words. A unit is a list of quotes, best ones kept, each with its sentence id; the
answer is never anything that is not in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from coa.agents.extracting import Extract, convincing, extract
from coa.agents.lexical import SentenceRanker
from coa.agents.manager import ManagerReply, nothing_found_reply
from coa.agents.prompting import PromptTemplate
from coa.agents.references import Reference, without_references
from coa.agents.word_classes import WORD_CLASSES
from coa.agents.worker import WorkerReply
from coa.errors import ModelError
from coa.limits import ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import ChatModel, Decoding, OnText
from coa.reading import SYSTEM, Prompt, harmless, render_text
from coa.tokens import EstimatedTokens
from coa.types import Chunk, CommunicationUnit, Usage

__all__ = [
    "QUOTES_ASKED",
    "QUOTES_KEPT",
    "QUOTE_ANSWER_TOKENS",
    "Quote",
    "QuotingManager",
    "QuotingWorker",
    "quotes_of",
]

_LINE = re.compile(r"\[(\d+)\.(\d+)\] \((\d+\.\d+)\) (.*?)(?: => (.*))?")
_END_MARK = re.compile(r"[.!?:;…。！？：；][\"'”’»)\]]*$|[\"”’»」』]$")
QUOTES_KEPT = 5
QUOTES_ASKED = 3
"""How many sentences of a part the model is asked about at most."""
_COMPARED = 12
_KEPT_FOR_SUMMARY = 40
_LONGEST_QUOTE = 400
QUOTE_ANSWER_TOKENS = 48
_CHAT_TEMPLATE_TOKENS = 48
# Vocabularies of small models take more tokens for languages other than English.
_TOKENS_MARGIN = 0.5
# Share of the question's rare words that the sentence and its neighbours hold. Of questions that the
# text answers 1 % (English), 5 % (Spanish) and 9 % (German, whose endings and compounds hide words) have no sentence
# that reaches this; of questions about other articles 87, 88 and 92 % (XQuAD, development articles). Of questions that
# a long book nearly answers (LaRA) it is but 36 %, with 3 % of those that it does answer.
_LEAST_COVERAGE = 0.27
# Pairs of characters that are no words of the language count as the question's rarest: 3 % and 90 %.
_LEAST_WIDE_COVERAGE = 0.15
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
# How far a sentence goes down whose words for an answer are doubtful; 0.2 to 0.4 find the right one oftenest (XQuAD).
_CONFIDENCE_SHARE = 0.3
_WORDS_PER_SENTENCE = 22
_SPEECH = re.compile(r"(?:^|\s)['\"‘]|[“”«»„「『]")
# In speech that goes on over several sentences only the first and the last have a mark. In a book told by an "I" all
# sentences are alike, so nothing is lost.
_TALKING = re.compile(
    r"\b(?:i|you|we|me|us|my|your|our|ich|du|wir|mich|mein|je|tu|nous|vous|yo|tú|nosotros|usted)\b|[我你您]",
    re.IGNORECASE,
)
_SPEECH_SHARE = 0.3
_LEANS_BACK = frozenset({"pronoun", "conjunction", "cause", "adverb"})
_LEANING_WORDS = frozenset(
    {"his", "her", "its", "their", "this", "these", "that", "those", "sein", "seine", "ihr", "ihre", "dies", "diese"}
    | {"son", "sa", "ses", "leur", "ce", "cette", "ces", "su", "sus", "este", "esta", "ese", "esa"}
)
_LEANS_BACK_SHARE = 0.6
_FIRST_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Quote:
    """A line of the unit: a sentence, how well it fits, and its words that answer."""

    reference: Reference
    score: float
    text: str
    answer: str = ""
    """A span of the sentence; empty where none is convincing."""

    def __str__(self) -> str:
        return f"{self.reference} ({self.score:.2f}) {self.text}" + (f" => {self.answer}" if self.answer else "")


def quotes_of(unit: CommunicationUnit) -> list[Quote]:
    """The unit's quotes, in its order."""
    found = []
    for line in unit.text.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None:
            chunk, sentence, score, text, answer = match.groups()
            found.append(Quote(Reference(int(chunk), int(sentence)), float(score), text, answer or ""))
    return found


@dataclass(frozen=True, slots=True)
class _Pick:
    """A sentence that is among the best of its part."""

    rank: float
    fit: float
    """`rank` with how sure code is of its answer."""
    asked: bool
    """The model is asked about it."""


class QuotingWorker:
    """Reads chunks whose sentences `chunks` gives, all in one ranking; asks the model about single sentences."""

    def __init__(self, model: ChatModel, chunks: Sequence[Chunk]) -> None:
        """`chunks` are all chunks of the document: rarity is counted, and neighbours found, over all of them."""
        self.model = model
        self._sentences = [
            render_text(c.text[s.start - c.span.start : s.end - c.span.start]) for c in chunks for s in c.sentences
        ]
        self._ranker = SentenceRanker(self._sentences)
        starts, at = {}, 0
        parts = []
        for chunk in chunks:
            if chunk.index == 0:
                parts.append(at)
            starts[chunk.span.start] = at
            at += len(chunk.sentences)
        self._starts = starts
        self._parts = [range(a, b) for a, b in pairwise([*parts, at])]
        self._picks: tuple[str, dict[int, _Pick]] | None = None
        self._shorten = _shorten_template()

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record."""
        return {self._shorten.name: self._shorten.digest}

    @staticmethod
    def template_texts(profile: ReadingProfile) -> list[str]:
        """The prompt files that it may use."""
        return [_shorten_template().text]

    async def read(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> WorkerReply:
        """The unit with the chunk's sentences that are among the best. Raises: ModelError."""
        first = self._starts[chunk.span.start]
        if query is None:
            return self._read_for_summary(chunk, first, unit)
        kept = quotes_of(unit)
        usage = Usage()
        picked = self._picked(chunk, query)
        for at, pick in picked:
            said = ""
            if pick.asked:
                said, usage = await self._said(first + at, query, usage)
            found = self._extract(first + at, query, said)
            text, answer = self._quote(first + at), self._answer(first + at, query, found)
            quote = Quote(
                Reference(chunk.index + 1, at + 1),
                _fitted(pick.rank, found),
                text,
                answer if answer in text else "",  # a mark of the source's own was broken up in between
            )
            kept = sorted([*kept, quote], key=lambda q: -q.score)[:QUOTES_KEPT]
        return self._reply(chunk, kept, unit, bool(picked), usage)

    def demand(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> Demand:
        """The most that `read` can take: just as many calls as it will make, their tokens estimated."""
        if query is None:
            return Demand(0)
        first = self._starts[chunk.span.start]
        tails = [self._tail(first + at, query) for at, pick in self._picked(chunk, query) if pick.asked]
        counts = EstimatedTokens(_TOKENS_MARGIN).count([f"{SYSTEM}\n{tail}" for tail in tails])
        return Demand(
            calls=len(tails),
            prompt_tokens=sum(counts) + len(tails) * _CHAT_TEMPLATE_TOKENS,
            completion_tokens=len(tails) * QUOTE_ANSWER_TOKENS,
        )

    def _picked(self, chunk: Chunk, query: str) -> list[tuple[int, _Pick]]:
        """The chunk's sentences that are among the best of its part, best first."""
        if self._picks is None or self._picks[0] != query:
            self._picks = (query, self._pick(query))
        picks, first = self._picks[1], self._starts[chunk.span.start]
        here = [(at, picks[first + at]) for at in range(len(chunk.sentences)) if first + at in picks]
        return sorted(here, key=lambda one: (-one[1].fit, one[0]))

    def _pick(self, query: str) -> dict[int, _Pick]:
        """The best sentences of each part, by place."""
        scores = self._ranker.scores(query)
        least = _LEAST_WIDE_COVERAGE if _WIDE.search(query) else _LEAST_COVERAGE
        found: dict[int, _Pick] = {}
        for part in self._parts:
            ranked = sorted((i for i in part if scores[i] > 0), key=lambda i: (-scores[i], i))[:_COMPARED]
            fits = {
                i: _fitted(scores[i], self._extract(i, query))
                for i in ranked
                if not _is_heading(self._sentences[i]) and self._ranker.coverage(query, i) >= least
            }
            best = sorted(fits, key=lambda i: (-fits[i], i))
            # Below this a sentence does not come first whatever the model says of it.
            floor = scores[best[0]] * (1 - _CONFIDENCE_SHARE) if best else 0.0
            for place, i in enumerate(best):
                found[i] = _Pick(scores[i], fits[i], place < QUOTES_ASKED and scores[i] >= floor)
        return found

    def _extract(self, at: int, query: str, said: str = "") -> Extract | None:
        return extract(self._sentences[at], query, self._ranker.rarity, said=said)

    def _answer(self, at: int, query: str, found: Extract | None) -> str:
        answer = convincing(found, self._sentences[at], query)
        return answer if answer in self._harmless(at) else ""

    def _read_for_summary(self, chunk: Chunk, first: int, unit: CommunicationUnit) -> WorkerReply:
        salience = [
            0.0 if _is_heading(self._sentences[first + at]) else value * _stands_alone(self._sentences[first + at])
            for at, value in enumerate(self._ranker.salience(first, first + len(chunk.sentences)))
        ]
        at = max(range(len(salience)), key=lambda i: (salience[i], -i), default=None)
        if at is None or salience[at] <= 0:
            return WorkerReply(unit, False, Usage())
        quote = Quote(Reference(chunk.index + 1, at + 1), salience[at], self._quote(first + at))
        kept = _thinned([*quotes_of(unit), quote], _KEPT_FOR_SUMMARY)
        return self._reply(chunk, kept, unit, True, Usage())

    def _reply(
        self, chunk: Chunk, kept: Sequence[Quote], unit: CommunicationUnit, added: bool, usage: Usage
    ) -> WorkerReply:
        if not added:
            return WorkerReply(unit, False, usage)
        return WorkerReply(CommunicationUnit("\n".join(str(q) for q in kept), chunk.index), True, usage)

    async def _said(self, at: int, query: str, usage: Usage) -> tuple[str, Usage]:
        """What the model answers from one sentence and its neighbours; empty where it came to no end."""
        try:
            completion = await self.model.complete(Prompt(tail=self._tail(at, query)), Decoding(QUOTE_ANSWER_TOKENS))
        except ModelError as error:
            error.usage = usage.merged(error.usage or Usage())
            raise
        usage = usage.plus(completion.usage, seconds=completion.seconds)
        return (render_text(completion.text) if completion.finish_reason == "stop" else ""), usage

    def _around(self, at: int) -> str:
        return " ".join(self._sentences[max(0, at - 1) : at + 2])

    def _tail(self, at: int, query: str) -> str:
        return self._shorten.render(text=self._around(at), question=harmless(query))

    def _quote(self, at: int) -> str:
        text = self._harmless(at)
        return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"

    def _harmless(self, at: int) -> str:
        # The unit's own arrow, and brackets that would read as ids, must not come from the source.
        return without_references(self._sentences[at]).replace("=>", "= >")


class QuotingManager:
    """Answers with the words of the best quote that answer, else with all of it; a summary is the quotes in order."""

    def __init__(self, model: ChatModel, *, words: int = 200) -> None:
        """`words` is about the length of a summary."""
        self.model = model
        self._words = words

    @property
    def prompt_digests(self) -> dict[str, str]:
        """No prompt of its own."""
        return {}

    async def answer(
        self, query: str | None, unit: CommunicationUnit, *, on_text: OnText | None = None
    ) -> ManagerReply:
        """The answer, with the ids of its sentences; makes no call."""
        quotes = quotes_of(unit)
        if not quotes:
            return nothing_found_reply(query, None, on_text)
        if query is None:
            chosen = _thinned(quotes, max(1, round(self._words / _WORDS_PER_SENTENCE)))
            text = " ".join(f"{q.text} {q.reference}" for q in chosen)
        else:
            best = quotes[0]
            text = f"{best.answer or best.text} {best.reference}"
        if on_text is not None:
            on_text(text)
        return ManagerReply(text, False, Usage())


def _is_heading(sentence: str) -> bool:
    """True for lines without an end mark: headings, names of authors, entries of tables."""
    return _END_MARK.search(sentence) is None


def _fitted(rank: float, found: Extract | None) -> float:
    """The rank of a sentence with how sure its answer is."""
    return rank * (1 - _CONFIDENCE_SHARE * (1 - (found.confidence if found is not None else 0.0)))


def _stands_alone(sentence: str) -> float:
    """How well a sentence can be read without those before it, 0..1: no speech, no "she" to begin with."""
    match = _FIRST_WORD.search(sentence)
    word = match.group().casefold() if match is not None else ""
    leans = WORD_CLASSES.get(word) in _LEANS_BACK or word in _LEANING_WORDS
    speech = _SPEECH.search(sentence) or _TALKING.search(sentence)
    return (_SPEECH_SHARE if speech else 1.0) * (_LEANS_BACK_SHARE if leans else 1.0)


def _thinned(quotes: list[Quote], most: int) -> list[Quote]:
    """At most `most` of the quotes, spread over the text: of the two nearest neighbours the weaker goes."""
    kept = sorted(quotes, key=lambda q: q.reference)
    while len(kept) > most:
        near = min(range(len(kept) - 1), key=lambda i: kept[i + 1].reference.chunk - kept[i].reference.chunk)
        del kept[near if kept[near].score < kept[near + 1].score else near + 1]
    return kept


def _shorten_template() -> PromptTemplate:
    return PromptTemplate("shorten_answer", "text", "question")
