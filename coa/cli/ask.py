"""`coa ask`, `coa summarize` and `coa resume`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from coa.cli.options import Book, CommonOptions, Format, OutputOptions, RunOptions

if TYPE_CHECKING:
    from coa.cli.api_types import PlanLike
    from coa.cli.invocation import Invocation
    from coa.cli.output import Output
    from coa.config import Settings
    from coa.types import Document

__all__ = ["ask", "dry_run", "resume", "summarize"]


class Per(StrEnum):
    """Values of --per."""

    BOOK = "book"
    CHAPTER = "chapter"


def ask(
    ctx: typer.Context,
    book: Book,
    question: Annotated[
        str | None, typer.Argument(metavar="[QUESTION]", help="What to ask.", show_default=False)
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("-q", "--question", metavar="QUESTION", help="One more question; may be repeated."),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="COA_QUESTIONS",
            help='Questions from FILE: one a line, or JSON lines with "question".',
        ),
    ] = None,
    *,
    run: RunOptions,
    output: OutputOptions,
    common: CommonOptions,
) -> int:
    """Answers questions about BOOK, with citations.

    Several questions read the book together, chunk by chunk: that takes far less time than one after the other.
    """
    from coa.cli.book import gather_questions, read_book
    from coa.cli.invocation import invocation_of, settings_of
    from coa.cli.output import Output
    from coa.cli.pages import page_of
    from coa.cli.session import Job, run_jobs
    from coa.cli.several import run_questions

    asked = gather_questions(question, more or [], questions)
    sink = Output(output, common.color, several=len(asked) > 1)
    settings = settings_of(ctx, common, run).settings
    document = read_book(book, settings)
    sink.page = page_of(settings, document)
    if run.dry_run:
        return dry_run(invocation_of(ctx), settings, document, asked, sink)

    progress = not output.no_progress
    if len(asked) > 1:
        return run_questions(invocation_of(ctx), settings, document, asked, sink, progress=progress)
    job = Job(lambda session: session.ask(document, asked[0]), title=asked[0], language=document.language)
    return run_jobs(invocation_of(ctx), settings, [job], sink, progress=progress)


def summarize(
    ctx: typer.Context,
    book: Book,
    per: Annotated[Per, typer.Option(envvar="COA_PER", help="One summary, or one for each chapter.")] = Per.BOOK,
    words: Annotated[int | None, typer.Option(min=1, metavar="N", envvar="COA_WORDS", help="About how long.")] = None,
    language: Annotated[
        str, typer.Option(metavar="auto|xx", envvar="COA_LANGUAGE", help="Of the summary; auto: the book's own.")
    ] = "auto",
    *,
    run: RunOptions,
    output: OutputOptions,
    common: CommonOptions,
) -> int:
    """Summarizes BOOK."""
    from coa.cli.book import read_book
    from coa.cli.invocation import invocation_of, settings_of
    from coa.cli.output import Output
    from coa.cli.pages import page_of
    from coa.cli.session import Job, run_jobs
    from coa.errors import ConfigError

    if language != "auto" and not (2 <= len(language) <= 3 and language.isascii() and language.isalpha()):
        raise ConfigError(f"--language {language!r}: expected auto or a code of two or three letters, such as de.")
    sink = Output(output, common.color)
    settings = settings_of(ctx, common, run).settings
    document = read_book(book, settings)
    sink.page = page_of(settings, document)
    if run.dry_run:
        return dry_run(invocation_of(ctx), settings, document, [None], sink, per=per.value, words=words)
    job = Job(
        lambda session: session.summarize(document, words=words, per=per.value, language=language.lower()),
        language=document.language,
    )
    return run_jobs(invocation_of(ctx), settings, [job], sink, progress=not output.no_progress)


def resume(
    ctx: typer.Context,
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The run, or the beginning of its id.", show_default=False)
    ] = None,
    last: Annotated[bool, typer.Option("--last", envvar="COA_LAST", help="The run that was started last.")] = False,
    strike: Annotated[
        str | None,
        typer.Option(metavar="IDS", envvar="COA_STRIKE", help="Evidence to leave out, of a run that waits for review."),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", envvar="COA_ACCEPT", help="Take the evidence of such a run as it is.")
    ] = False,
    *,
    output: OutputOptions,
    common: CommonOptions,
) -> int:
    """Goes on with a stopped run, or prints a finished answer again.

    The run keeps the model, strategy and limits that it was started with.
    """
    from coa.cli.check import check_output
    from coa.cli.invocation import invocation_of, settings_of
    from coa.cli.output import Output
    from coa.cli.pages import page_of
    from coa.cli.review import ids_in
    from coa.cli.session import Job, run_jobs
    from coa.cli.structure import outline_output
    from coa.errors import ConfigError
    from coa.runs import RunStore

    if (run is None) == (not last):
        raise ConfigError("name a run or say --last, and not both.", hint="`coa runs list` shows the runs.")
    settings = settings_of(ctx, common).settings
    store = RunStore(settings.home)
    record = store.get(run) if run is not None else store.last()
    document = replace(store.document(record.document_sha256), name=record.document)
    shown = {"structure": outline_output, "check": check_output}.get(record.task)
    if shown is None:
        sink = Output(output, common.color, page=page_of(settings, document))
    else:
        sink = shown(output, common, settings, document)
    told = ids_in(strike) if strike is not None else [] if accept else None
    job = Job(
        lambda session: session.resume(record.run_id, review=told), title=record.question, language=document.language
    )
    return run_jobs(invocation_of(ctx), settings, [job], sink, progress=not output.no_progress)


def dry_run(
    invocation: Invocation,
    settings: Settings,
    document: Document,
    questions: Sequence[str | None],
    output: Output,
    *,
    per: Literal["book", "chapter"] = "book",
    words: int | None = None,
) -> int:
    """Prints what the questions would take."""
    import asyncio

    from coa.cli import render

    async def plans() -> list[PlanLike]:
        async with invocation.load_api().Session(settings) as session:
            return [await session.plan(document, question, per=per, words=words) for question in questions]

    found = asyncio.run(plans())
    form = output.options.form
    objects = [render.plan_object(plan, question) for plan, question in zip(found, questions, strict=True)]
    if form is Format.JSON:
        output.put(render.to_json(objects[0] if len(objects) == 1 else objects))
    elif form is Format.JSONL:
        output.put("".join(render.to_json(each, compact=True) for each in objects))
    else:
        texts = (render.plan_text(plan, question) for plan, question in zip(found, questions, strict=True))
        output.put("\n".join(texts))
    output.finish()
    return 0
