"""From a document and a question to a plan of chunks, checked before the first call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from coa.agents import Manager, QuotingWorker, Worker
from coa.agents.demonstrator import DEMONSTRATIONS_TOKENS
from coa.agents.fact_manager import FactManager
from coa.agents.fact_worker import FactWorker
from coa.agents.retriever import Retriever
from coa.chunking import chunk_document
from coa.config import Settings
from coa.errors import ConfigError, DocumentEmpty, LimitsError
from coa.limits import Limits, ReadingProfile, fit_limits
from coa.llm.budget import Budget, Prices
from coa.llm.gateway import Gateway
from coa.reading import SYSTEM, reading_prefix
from coa.runs import Part, RunPlan, RunStore
from coa.types import Document, LeftOut, Span

if TYPE_CHECKING:  # langgraph takes seconds to import, and `coa inspect` does without it
    from coa.graphs import ReadOptions, Strategy
    from coa.graphs.estimates import Estimate

__all__ = [
    "Plan",
    "budget_for",
    "estimate",
    "limits_for",
    "options_of",
    "plan_run",
    "seconds_per_token",
    "shown_at_once",
]

_CHAT_TEMPLATE_TOKENS = 48
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
        *Retriever.template_texts(profile),
    ]
    if settings.notes == "structured":
        templates += [*FactWorker.template_texts(profile), *FactManager.template_texts(profile)]
    counts = gateway.counter.count([SYSTEM + "\n" + reading_prefix("", ()) + text for text in templates])
    demonstrations = DEMONSTRATIONS_TOKENS if options_of(settings, profile).demos != "none" else 0
    fit = partial(
        fit_limits,
        window=gateway.window,
        template_tokens=max(counts) + _CHAT_TEMPLATE_TOKENS + demonstrations,
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


def shown_at_once(question: str | None, strategy: str) -> str | None:
    """What of a run's question has to fit its share of the window: of statements to check, the longest one."""
    lines = question.splitlines() if question is not None and strategy == "check" else []
    return max(lines, key=len) if lines else question


def estimate(
    plan: RunPlan,
    limits: Limits,
    question_tokens: int | None,
    *,
    reading: Strategy,
    options: ReadOptions,
    n_lines: int = 1,
) -> Estimate:
    """The calls and tokens that a plan takes; `question_tokens` None for a summary, `n_lines` of the question."""
    from coa.graphs.estimates import Forecast

    return reading.estimate(Forecast(plan, limits, options, question_tokens, n_lines))


def options_of(settings: Settings, profile: ReadingProfile) -> ReadOptions:
    """How a strategy is to go about it, for a model of that profile."""
    from coa.graphs import ReadOptions

    return ReadOptions(
        # Code picks the same sentences the second time.
        passes=1 if profile.quotes else settings.passes,
        demos="none" if profile.quotes else settings.demos,
        paths=settings.paths,
        choose=settings.choose,
        rounds=settings.rounds,
        top_k=settings.top_k,
        preselect=settings.preselect,
        review=settings.review,
        verify=settings.verify,
        max_parallel=settings.max_parallel_calls,
        quotes=profile.quotes,
    )


def seconds_per_token(runs: RunStore, model: str, notes: str) -> float | None:
    """Model time by prompt tokens, after the newest finished run of that model and kind of notes; None without one."""
    for record in runs.list():
        if record.model == model and record.state == "done" and record.settings.get("notes") == notes:
            answer = runs.answer(record.run_id)
            if answer is not None and answer.usage.prompt_tokens:
                return answer.usage.seconds / answer.usage.prompt_tokens
    return None


def _advised_chunk(gateway: Gateway, settings: Settings) -> int | None:
    """The catalogue's chunk size, unless a window was asked for that it may not fit."""
    if settings.window is not None:
        return None
    quotes = gateway.profile.quotes if settings.notes == "auto" else settings.notes == "quotes"
    return gateway.chunk_tokens if quotes else gateway.long_chunk_tokens


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
