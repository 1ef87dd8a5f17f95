"""Options of `coa batch`, and what they say is asked of each document."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coa.batch.ledger import ItemState, SpendingLimits
    from coa.batch.record import BatchOptions, BatchRecord, BatchStore
    from coa.cli.options import CommonOptions
    from coa.config import Settings

__all__ = [
    "AgainOptions",
    "AskedOptions",
    "Batch",
    "BatchTask",
    "Engine",
    "EngineOptions",
    "Json",
    "Last",
    "LimitOptions",
    "NoProgress",
    "PaceOptions",
    "Processes",
    "Yes",
    "named",
    "options_of",
    "payloads_of",
    "processes_kept",
]


Json = Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="As JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", envvar="COA_YES", help="Don't ask, however much it may cost.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", envvar="COA_NO_PROGRESS", help="No table on the terminal.")]
Batch = Annotated[
    str | None,
    typer.Argument(
        metavar="[BATCH]", help="Its id, the beginning of it, or the folder of its results.", show_default=False
    ),
]
Last = Annotated[bool, typer.Option("--last", envvar="COA_LAST", help="The batch that was started last.")]


AUTO = "auto"


def _n_processes(text: str) -> str:
    """`text` as it is. Raises: BadParameter for what is neither a number from 1 on nor "auto"."""
    if text != AUTO and not (text.isdecimal() and int(text)):
        raise typer.BadParameter(f"{text!r} is neither a number nor auto.")
    return text


Processes = Annotated[
    str | None,
    typer.Option(
        "--processes",
        metavar="N|auto",
        envvar="COA_PROCESSES",
        callback=lambda given: None if given is None else _n_processes(given),
        help="Work with N processes of this machine, which share calls and documents at once [default: 1].",
        show_default=False,
    ),
]


def processes_kept(given: str | None) -> dict[str, object]:
    """What a batch keeps of --processes."""
    return {} if given is None else {"processes": AUTO if given == AUTO else int(given)}


class BatchTask(StrEnum):
    """Values of --task."""

    ASK = "ask"
    SUMMARIZE = "summarize"
    STRUCTURE = "structure"
    CHECK = "check"


class Engine(StrEnum):
    """Values of --engine."""

    LOCAL = "local"
    RAY = "ray"


class _Per(StrEnum):
    BOOK = "book"
    CHAPTER = "chapter"


class _Form(StrEnum):
    IDS = "ids"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class AskedOptions:
    """What is asked of each document."""

    task: Annotated[BatchTask, typer.Option("--task", envvar="COA_TASK", help="What is done with each document.")] = (
        BatchTask.ASK
    )
    question: Annotated[
        list[str] | None,
        typer.Option("-q", "--question", metavar="QUESTION", help="A question to ask of each; may be repeated."),
    ] = None
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions",
            metavar="FILE",
            envvar="COA_QUESTIONS",
            help='Questions from FILE: one a line, or JSON lines with "question".',
        ),
    ] = None
    claim: Annotated[
        list[str] | None, typer.Option("-c", "--claim", metavar="CLAIM", help="A statement to check; may be repeated.")
    ] = None
    statements: Annotated[
        Path | None,
        typer.Option(
            "--statements",
            "--claims",
            metavar="FILE",
            envvar="COA_CLAIMS",
            help='Statements from FILE: one a line, or JSON lines with "claim" and an "id".',
        ),
    ] = None
    words: Annotated[
        int | None, typer.Option("--words", min=1, metavar="N", envvar="COA_WORDS", help="Of a summary, about.")
    ] = None
    per: Annotated[_Per, typer.Option("--per", envvar="COA_PER", help="One summary, or one for each chapter.")] = (
        _Per.BOOK
    )
    language: Annotated[
        str,
        typer.Option(
            "--language", metavar="auto|xx", envvar="COA_LANGUAGE", help="Of summaries; auto: the document's."
        ),
    ] = "auto"
    form: Annotated[
        _Form, typer.Option("--form", envvar="COA_FORM", help="Of structures: sentence numbers, or the model's words.")
    ] = _Form.IDS


@dataclass(frozen=True, slots=True)
class PaceOptions:
    """How many at once, and what one document may take."""

    jobs: Annotated[
        int | None,
        typer.Option(
            "-j",
            "--jobs",
            min=1,
            metavar="N",
            envvar="COA_JOBS",
            help="Documents at once [default: a few more than calls].",
        ),
    ] = None
    max_cost_per_document: Annotated[
        float | None,
        typer.Option(min=0, metavar="USD", envvar="COA_MAX_COST_PER_DOCUMENT", help="For all questions about one."),
    ] = None
    max_tokens_per_document: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", envvar="COA_MAX_TOKENS_PER_DOCUMENT", help="The same in tokens, in and out."),
    ] = None
    max_calls_per_document: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", envvar="COA_MAX_CALLS_PER_DOCUMENT", help="The same in calls."),
    ] = None
    max_seconds: Annotated[
        float | None,
        typer.Option(
            "--max-seconds", min=0.001, metavar="S", envvar="COA_MAX_SECONDS", help="For one document, all questions."
        ),
    ] = None
    max_tries: Annotated[
        int, typer.Option("--max-tries", min=1, metavar="N", envvar="COA_MAX_TRIES", help="Of an item, then it fails.")
    ] = 3
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", envvar="COA_KEEP_RUNS", help="Keep the notes of finished items, too.")
    ] = False


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where the documents are worked on."""

    engine: Annotated[Engine, typer.Option("--engine", envvar="COA_ENGINE", help="This machine, or a Ray cluster.")] = (
        Engine.LOCAL
    )
    processes: Processes = None
    actors: Annotated[
        int | None, typer.Option("--actors", min=1, metavar="N", envvar="COA_ACTORS", help="Of --engine ray.")
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", metavar="ADDRESS", envvar="COA_RAY_ADDRESS", help="Of the Ray cluster."),
    ] = None

    def extra(self) -> dict[str, object]:
        """What the batch keeps of it, beside the engine's name. Raises: ConfigError for what belongs to another one."""
        from coa.errors import ConfigError

        if self.engine is not Engine.RAY:
            return processes_kept(self.processes)
        if self.processes is not None:
            raise ConfigError("--processes belongs to --engine local.", hint="A Ray cluster has --actors.")
        return {"actors": self.actors, "ray_address": self.ray_address}


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """What a batch that goes on may spend, where that is another than when it began."""

    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            min=0,
            metavar="USD",
            envvar="COA_BATCH_MAX_COST_USD",
            help="Of the whole batch, from now on.",
        ),
    ] = None
    max_tokens_total: Annotated[
        int | None,
        typer.Option(
            "--max-tokens-total",
            min=1,
            metavar="N",
            envvar="COA_BATCH_MAX_TOKENS_TOTAL",
            help="The same in tokens, in and out.",
        ),
    ] = None
    max_calls: Annotated[
        int | None,
        typer.Option("--max-calls", min=1, metavar="N", envvar="COA_BATCH_MAX_CALLS", help="The same in calls."),
    ] = None

    def instead_of(self, limits: SpendingLimits) -> SpendingLimits:
        """The limits, but for those that are given here."""
        return limits._replace(
            max_cost_usd=limits.max_cost_usd if self.max_cost is None else self.max_cost,
            max_tokens=self.max_tokens_total or limits.max_tokens,
            max_calls=self.max_calls or limits.max_calls,
        )


@dataclass(frozen=True, slots=True)
class AgainOptions:
    """Which items are tried again, and with what."""

    failed: Annotated[
        bool, typer.Option("--failed", envvar="COA_RETRY_FAILED", help="Items that failed [default].")
    ] = False
    partial: Annotated[
        bool, typer.Option("--partial", envvar="COA_RETRY_PARTIAL", help="Items that are partial, anew.")
    ] = False
    cause: Annotated[
        list[str] | None,
        typer.Option(
            "--cause",
            metavar="KIND",
            envvar="COA_RETRY_CAUSE",
            help="Only those of this kind of cause; may be repeated.",
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="GROUP", envvar="COA_RETRY_MODEL", help="Another model for these items."),
    ] = None

    def states(self) -> list[ItemState]:
        """Those of the items; failed ones where nothing is said."""
        failed: list[ItemState] = ["failed"] if self.failed or not self.partial else []
        return [*failed, "partial"] if self.partial else failed


def payloads_of(asked: AskedOptions, *, manifest: bool) -> tuple[str, ...]:
    """What is asked of every document; with a `manifest` there may be nothing but what its lines ask.

    Raises: ConfigError for options that do not belong to the task, questions that are missing or cannot be read.
    """
    from coa.batch.asking import check_payload, plain_payload, question_payload
    from coa.cli.book import gather_questions
    from coa.cli.check import gather_statements
    from coa.errors import ConfigError

    _refuse_strays(asked)
    if asked.task is BatchTask.ASK:
        if manifest and not asked.question and asked.questions is None:
            return ()
        return tuple(question_payload(text) for text in gather_questions(None, asked.question or [], asked.questions))
    if asked.task is BatchTask.CHECK:
        return (check_payload(gather_statements(asked.claim or [], asked.statements)),)
    if asked.task is BatchTask.STRUCTURE:
        return (plain_payload("structure", form=asked.form.value),)
    language = asked.language.lower()
    if language != "auto" and not (2 <= len(language) <= 3 and language.isascii() and language.isalpha()):
        raise ConfigError(f"--language {language!r}: expected auto or a code of two or three letters, such as de.")
    return (plain_payload("summarize", words=asked.words, per=asked.per.value, language=language),)


def _refuse_strays(asked: AskedOptions) -> None:
    """Options of another task would be ignored, and nobody would notice."""
    from coa.errors import ConfigError

    of_task: dict[BatchTask, dict[str, object]] = {
        BatchTask.ASK: {"-q": asked.question, "--questions": asked.questions},
        BatchTask.CHECK: {"-c": asked.claim, "--statements": asked.statements},
        BatchTask.SUMMARIZE: {
            "--words": asked.words,
            "--per": asked.per if asked.per is not _Per.BOOK else None,
            "--language": asked.language if asked.language != "auto" else None,
        },
        BatchTask.STRUCTURE: {"--form": asked.form if asked.form is not _Form.IDS else None},
    }
    for task, options in of_task.items():
        given = [name for name, value in options.items() if value]
        if given and task is not asked.task:
            raise ConfigError(f"{given[0]} belongs to --task {task}.", hint=f"The task is {asked.task}.")


def options_of(pace: PaceOptions, settings: Settings) -> BatchOptions:
    """How the batch goes about it; the limits of `settings` on spending are those of the whole batch."""
    from coa.batch.ledger import SpendingLimits
    from coa.batch.record import BatchOptions

    calls = settings.max_parallel_calls
    return BatchOptions(
        jobs=pace.jobs or calls + max(2, calls // 4),  # while some are read, the others keep the model busy
        limits=SpendingLimits(settings.max_calls, settings.max_tokens_total, settings.max_cost_usd),
        document_limits=SpendingLimits(
            pace.max_calls_per_document, pace.max_tokens_per_document, pace.max_cost_per_document
        ),
        max_seconds=pace.max_seconds,
        max_tries=pace.max_tries,
        keep_runs=pace.keep_runs,
    )


def named(
    ctx: typer.Context, batch: str | None, common: CommonOptions, *, last: bool
) -> tuple[Settings, BatchStore, BatchRecord]:
    """The settings, the batches, and the one that is named. Raises: ConfigError where none is, RunNotFound."""
    from coa.batch.record import BatchStore
    from coa.cli.invocation import settings_of
    from coa.errors import ConfigError

    settings = settings_of(ctx, common).settings
    store = BatchStore(settings.home)
    if batch is None and not last:
        raise ConfigError("name a batch or say --last.", hint="`coa batch list` shows them.")
    return settings, store, store.get(batch) if batch is not None else store.last()
