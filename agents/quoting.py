"""Worker and manager for models too small to take notes: the notes are sentences of the source.

A model under a billion parameters that is shown 1,000 tokens writes notes that are invented, and copies its
own notes from chunk to chunk; but it shortens one right sentence into an answer well (measured on a 135M model:
4 of 14 answers right from a whole passage, 12 of 14 from the right sentence). So code ranks the sentences of
each chunk, the model is shown the best one with its neighbours, one at a time, and what it says is taken only
where the sentence holds its words. A unit is a list of quotes, best ones kept, each with its sentence id; the
answer is never anything that is not in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from coa.agents.lexical import SentenceRanker, content_words
from coa.agents.manager import ManagerReply, nothing_found_reply
from coa.agents.prompting import PromptTemplate
from coa.agents.references import Reference, without_references
from coa.agents.worker import WorkerReply
from coa.errors import ModelError
from coa.limits import ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import ChatModel, Decoding, OnText
from coa.reading import SYSTEM, Prompt, harmless, render_text
from coa.tokens import EstimatedTokens
from coa.types import Chunk, CommunicationUnit, Usage

__all__ = ["QUOTES_KEPT", "QUOTE_ANSWER_TOKENS", "Quote", "QuotingManager", "QuotingWorker", "quotes_of"]

_LINE = re.compile(r"\[(\d+)\.(\d+)\] \((\d+\.\d+)\) (.*?)(?: => (.*))?")
_END_MARK = re.compile(r"[.!?:;…。！？：；][\"'”’»)\]]*$|[\"”’»」』]$")
QUOTES_KEPT = 5
_KEPT_FOR_SUMMARY = 40
_LONGEST_QUOTE = 400
QUOTE_ANSWER_TOKENS = 48
_CHAT_TEMPLATE_TOKENS = 48
# Vocabularies of small models take more tokens for languages other than English.
_TOKENS_MARGIN = 0.5
_LEAST_COVERAGE = 0.3
_WORDS_PER_SENTENCE = 22
_BEFORE_NOUNS = frozenset({"a", "an", "the", "of", "in", "on", "at", "to", "by", "from", "with", "his", "her", "their"})

_NEGATIONS = frozenset({"not", "no", "never", "nicht", "kein", "keine", "nie", "pas", "jamais", "nunca"})


@dataclass(frozen=True, slots=True)
class Quote:
    """A line of the unit: a sentence, how well it fits, and what the model made of it."""

    reference: Reference
    score: float
    text: str
    answer: str = ""
    """The model's words, where the sentence holds them; empty otherwise."""

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
        for chunk in chunks:
            starts[chunk.span.start] = at
            at += len(chunk.sentences)
        self._starts = starts
        self._scores: tuple[str, list[float]] | None = None
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
        """The unit with the chunk's best sentence, where it is among the best so far. Raises: ModelError."""
        first = self._starts[chunk.span.start]
        if query is None:
            return self._read_for_summary(chunk, first, unit)
        kept = quotes_of(unit)
        usage = Usage()
        asked = self._asked(chunk, query, unit)
        for at, score in asked:
            answer, usage = await self._shortened(first + at, query, usage)
            quote = Quote(Reference(chunk.index + 1, at + 1), score, self._quote(first + at), answer)
            kept = sorted([*kept, quote], key=lambda q: -q.score)[:QUOTES_KEPT]
        return self._reply(chunk, kept, unit, bool(asked), usage)

    def demand(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> Demand:
        """The most that `read` can take: just as many calls as it will make, their tokens estimated."""
        if query is None:
            return Demand(0)
        first = self._starts[chunk.span.start]
        tails = [self._tail(first + at, query) for at, _ in self._asked(chunk, query, unit)]
        counts = EstimatedTokens(_TOKENS_MARGIN).count([f"{SYSTEM}\n{tail}" for tail in tails])
        return Demand(
            calls=len(tails),
            prompt_tokens=sum(counts) + len(tails) * _CHAT_TEMPLATE_TOKENS,
            completion_tokens=len(tails) * QUOTE_ANSWER_TOKENS,
        )

    def _asked(self, chunk: Chunk, query: str, unit: CommunicationUnit) -> list[tuple[int, float]]:
        """The sentences of the chunk that come to stand among the best so far, and their scores, best first."""
        if self._scores is None or self._scores[0] != query:
            self._scores = (query, self._ranker.scores(query))
        first = self._starts[chunk.span.start]
        scores = self._scores[1][first : first + len(chunk.sentences)]
        kept = sorted((q.score for q in quotes_of(unit)), reverse=True)
        asked: list[tuple[int, float]] = []
        for at in sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:QUOTES_KEPT]:
            if scores[at] <= 0 or (len(kept) >= QUOTES_KEPT and scores[at] <= kept[-1]):
                break
            if _is_heading(self._sentences[first + at]) or self._ranker.coverage(query, first + at) < _LEAST_COVERAGE:
                continue
            asked.append((at, scores[at]))
            kept = sorted([*kept, scores[at]], reverse=True)[:QUOTES_KEPT]
        return asked

    def _read_for_summary(self, chunk: Chunk, first: int, unit: CommunicationUnit) -> WorkerReply:
        salience = [
            0.0 if _is_heading(self._sentences[first + at]) else value
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

    async def _shortened(self, at: int, query: str, usage: Usage) -> tuple[str, Usage]:
        """The model's answer from one sentence and its neighbours; empty where they do not hold its words."""
        around = self._around(at)
        try:
            completion = await self.model.complete(Prompt(tail=self._tail(at, query)), Decoding(QUOTE_ANSWER_TOKENS))
        except ModelError as error:
            error.usage = usage.merged(error.usage or Usage())
            raise
        usage = usage.plus(completion.usage, seconds=completion.seconds)
        said = render_text(completion.text)
        if completion.finish_reason != "stop" or not content_words(said) - content_words(query):
            return "", usage
        answer = _without_echo(said, query)
        if _negations(answer) != _negations(said):  # "It is not under the stone" must not become "under the stone"
            answer = said
        supported = content_words(answer) <= content_words(around) and _negations(answer) <= _negations(around)
        return (answer if supported else ""), usage

    def _around(self, at: int) -> str:
        return " ".join(self._sentences[max(0, at - 1) : at + 2])

    def _tail(self, at: int, query: str) -> str:
        return self._shorten.render(text=self._around(at), question=harmless(query))

    def _quote(self, at: int) -> str:
        # The unit's own arrow, and brackets that would read as ids, must not come from the source.
        text = without_references(self._sentences[at].replace("=>", "= >"))
        return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"


class QuotingManager:
    """Answers with the best quote, shortened where the model's words stand in it; a summary is the quotes in order."""

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


def _negations(text: str) -> frozenset[str]:
    """The words of `text` that turn it round; as function words they are no content words."""
    return _NEGATIONS & {w.casefold() for w in text.replace("n't", " not").replace("n’t", " not").split()}


def _without_echo(said: str, query: str) -> str:
    """The part of an answer that the question does not hold: "a standing heron" of "The key is like a standing heron.".

    Small models repeat the question before they answer it.
    """
    asked = content_words(query)
    words = said.split()
    telling = [at for at, word in enumerate(words) if content_words(word) - asked]
    first, last = telling[0], telling[-1]
    while first > 0 and words[first - 1].lower() in _BEFORE_NOUNS:
        first -= 1
    return " ".join(words[first : last + 1]).rstrip(".,;:!?。")


def _thinned(quotes: list[Quote], most: int) -> list[Quote]:
    """At most `most` of the quotes, spread over the text: of the two nearest neighbours the weaker goes."""
    kept = sorted(quotes, key=lambda q: q.reference)
    while len(kept) > most:
        near = min(range(len(kept) - 1), key=lambda i: kept[i + 1].reference.chunk - kept[i].reference.chunk)
        del kept[near if kept[near].score < kept[near + 1].score else near + 1]
    return kept


def _shorten_template() -> PromptTemplate:
    return PromptTemplate("shorten_answer", "text", "question")
