"""From a document and a question to a plan of chunks, checked before the first call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from coa.agents import Manager, QuotingWorker, Worker
from coa.agents.quoting import QUOTE_ANSWER_TOKENS, QUOTES_KEPT
from coa.cache import aligned_tokens
from coa.chunking import chunk_document
from coa.config import Settings
from coa.errors import ConfigError, DocumentEmpty, LimitsError
from coa.limits import Limits, fit_limits
from coa.llm.budget import Budget, Prices
from coa.llm.gateway import Gateway
from coa.reading import SYSTEM, reading_prefix
from coa.runs import Part, RunPlan, RunStore
from coa.types import Document, LeftOut, Span

__all__ = ["Estimate", "Plan", "budget_for", "estimate", "limits_for", "plan_run", "seconds_per_token"]

_CHAT_TEMPLATE_TOKENS = 48
# Notes grow over the first chunks and then stay near their cap; replies of small models stay under it.
_NOTES_SHARE = 0.6
# Three sentences, the instruction and the chat template.
_SHORTEN_TOKENS = 120
_WORDS_TO_TOKENS = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do, for --dry-run."""

    document: str
    sha256: str
    strategy: str
    model: str
    tokenizer: str
    exact: bool
    chapters: int
    n_chunks: int
    chunk_tokens: int
    window: int
    calls: int
    prompt_tokens: int
    completion_tokens_max: int
    cacheable_ratio: float
    """Share of the prompt tokens that lie in reading prefixes, in whole blocks: what a prefix cache can save."""
    cost_usd: float | None
    """At most; None where the price is unknown."""
    seconds: float | None
    """By the speed of earlier runs of this model here; None before the first one."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens of a plan."""

    calls: int
    prompt_tokens: int
    completion_tokens_max: int
    cacheable_tokens: int


def limits_for(gateway: Gateway, settings: Settings, *, words: int | None = None) -> Limits:
    """The shares of the gateway's window. Blocking where the counter asks a server.

    `words` is how long an answer in the model's own words is to be: its share is enlarged where that would not
    fit in, but for an `answer_tokens` of the settings. Raises: LimitsError.
    """
    profile = gateway.profile
    templates = [
        *Worker.template_texts(profile),
        *Manager.template_texts(profile),
        *QuotingWorker.template_texts(profile),
    ]
    counts = gateway.counter.count([SYSTEM + "\n" + reading_prefix("", ()) + text for text in templates])
    fit = partial(
        fit_limits,
        window=gateway.window,
        template_tokens=max(counts) + _CHAT_TEMPLATE_TOKENS,
        question_tokens=settings.question_tokens,
        chunk_tokens=settings.chunk_tokens or _advised_chunk(gateway, settings),
        note_tokens=settings.note_tokens or gateway.note_tokens,
    )
    limits = fit(answer_tokens=settings.answer_tokens or gateway.answer_tokens)
    if words is None or settings.answer_tokens is not None:
        return limits
    needed = int(words * _WORDS_TO_TOKENS)
    try:
        return limits if needed <= limits.answer_tokens else fit(answer_tokens=needed)
    except LimitsError as error:
        raise LimitsError(error.message, hint=f"Lower --words: {words} words take about {needed} tokens.") from error


async def budget_for(gateway: Gateway, settings: Settings) -> Budget:
    """The limits on spending, with the model's prices where dollars are limited.

    Raises: ConfigError where they are and the price is unknown.
    """
    prices = None
    if settings.max_cost_usd is not None:
        # Each alone, so that of several deployments the dearest counts for either kind of token.
        prompt, completion = await gateway.cost_of(1, 0), await gateway.cost_of(0, 1)
        if prompt is None or completion is None:
            raise ConfigError(
                f"--max-cost cannot be kept: the price of {gateway.group.name!r} is unknown.",
                hint="Configure input_cost_per_token and output_cost_per_token in its model_info, or use "
                "--max-tokens-total.",
            )
        prices = Prices(prompt, completion)
    return Budget(settings.max_calls, settings.max_tokens_total, settings.max_cost_usd, prices)


def plan_run(
    document: Document, question: str | None, *, gateway: Gateway, limits: Limits, per_chapter: bool = False
) -> RunPlan:
    """The parts and chunks to read, in order. Blocking where the counter asks a server.

    Raises: ConfigError for a question over its allowance or chapters that are not there, DocumentEmpty,
    ChunkTooLarge.
    """
    if question is not None:
        if not question.strip():
            raise ConfigError("the question is empty.")
        n_tokens = gateway.counter.count([question])[0]
        if n_tokens > limits.question_tokens:
            raise ConfigError(
                f"the question has {n_tokens} tokens, {limits.question_tokens} are set aside for it.",
                hint="Shorten it, or raise question_tokens (chunk borders move with that setting).",
            )
    wanted: Sequence[tuple[str | None, Document]] = [(None, document)]
    if per_chapter:
        found = document.chapters()
        if not found:
            raise ConfigError(f"no chapters were found in {document.name}.", hint="Use --per book.")
        wanted = [(s.title, _only(document, s.span)) for s in found]
    parts = []
    for title, part in wanted:
        chunks = chunk_document(part, budget=limits.chunk_tokens, counter=gateway.counter)
        if chunks:
            parts.append(Part(title, tuple(chunks)))
    if not parts:
        raise DocumentEmpty(f"{document.name} holds no readable text.")
    return RunPlan(tuple(parts), gateway.counter.name, gateway.counter.exact)


def estimate(plan: RunPlan, limits: Limits, question_tokens: int | None, *, quotes: bool) -> Estimate:
    """The calls and tokens that a plan takes; `question_tokens` None for a summary, `quotes` for quoting notes."""
    if quotes:
        return _estimate_quotes(plan, question_tokens)
    question_tokens = question_tokens or 0
    calls = plan.n_chunks + len(plan.parts)
    tails = calls * (limits.template_tokens + question_tokens + int(limits.note_tokens * _NOTES_SHARE))
    cacheable = sum(aligned_tokens(c.n_tokens) for p in plan.parts for c in p.chunks)
    return Estimate(
        calls=calls,
        prompt_tokens=plan.n_tokens + tails,
        completion_tokens_max=plan.n_chunks * limits.note_tokens + len(plan.parts) * limits.answer_tokens,
        cacheable_tokens=cacheable,
    )


def seconds_per_token(runs: RunStore, model: str, notes: str) -> float | None:
    """Model time by prompt tokens, after the newest finished run of that model and kind of notes; None without one."""
    for record in runs.list():
        if record.model == model and record.state == "done" and record.settings.get("notes") == notes:
            answer = runs.answer(record.run_id)
            if answer is not None and answer.usage.prompt_tokens:
                return answer.usage.seconds / answer.usage.prompt_tokens
    return None


def _estimate_quotes(plan: RunPlan, question_tokens: int | None) -> Estimate:
    """A call for each sentence that enters the best few; in n chunks of like worth that is k + k ln(n / k)."""
    if question_tokens is None:
        return Estimate(0, 0, 0, 0)
    kept = QUOTES_KEPT
    per_part = (kept + kept * math.log(max(1.0, len(p.chunks) / kept)) for p in plan.parts)
    calls = round(sum(per_part))
    prompt = calls * (_SHORTEN_TOKENS + question_tokens)
    return Estimate(calls, prompt, calls * QUOTE_ANSWER_TOKENS, 0)


def _advised_chunk(gateway: Gateway, settings: Settings) -> int | None:
    """The catalogue's chunk size, unless a window was asked for that it may not fit."""
    return gateway.chunk_tokens if settings.window is None else None


def _only(document: Document, span: Span) -> Document:
    """The document with everything outside `span` left out."""
    inside = [
        replace(p, span=Span(max(p.span.start, span.start), min(p.span.end, span.end)))
        for p in document.left_out
        if p.span.end > span.start and p.span.start < span.end
    ]
    before = [LeftOut(Span(0, span.start), "markup", "another chapter")] if span.start > 0 else []
    n = len(document.text)
    after = [LeftOut(Span(span.end, n), "markup", "another chapter")] if span.end < n else []
    return replace(document, left_out=(*before, *inside, *after))
