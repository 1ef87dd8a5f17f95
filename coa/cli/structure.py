"""`coa structure`: the outline of a book, linked to its text."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.options import Book, CommonOptions, OutputOptions, RunOptions

if TYPE_CHECKING:
    from coa.cli.output import Output
    from coa.config import Settings
    from coa.types import Answer, Document

__all__ = ["outline_output", "structure"]

_PIECE_TOKENS = 1024
"""Of a chunk that a model restates, as in StruXGPT; as many tokens again come out."""


class Form(StrEnum):
    """Values of --form."""

    IDS = "ids"
    FREE = "free"


def structure(
    ctx: typer.Context,
    book: Book,
    form: Annotated[
        Form,
        typer.Option(
            envvar="COA_FORM",
            help="What the model writes: sentence numbers (ids), or the text in its own words (free; slow).",
        ),
    ] = Form.IDS,
    *,
    run: RunOptions,
    output: OutputOptions,
    common: CommonOptions,
) -> int:
    """Outlines BOOK: what each stretch is about, linked to its sentences.

    Structures are kept: what was structured once takes no call again, also for --strategy structured.
    """
    from coa.cli.ask import dry_run
    from coa.cli.book import read_book
    from coa.cli.invocation import invocation_of, settings_of
    from coa.cli.session import Job, run_jobs

    settings = settings_of(ctx, common, run, overrides={"strategy": "outline"}).settings
    if form is Form.FREE and settings.chunk_tokens is None:
        settings = settings.model_copy(update={"chunk_tokens": _PIECE_TOKENS})
    document = read_book(book, settings)
    sink = outline_output(output, common, settings, document)
    if run.dry_run:
        return dry_run(invocation_of(ctx), settings, document, [None], sink)
    job = Job(lambda session: session.structure(document, form=form.value), language=document.language)
    return run_jobs(invocation_of(ctx), settings, [job], sink, progress=not output.no_progress)


def outline_output(output: OutputOptions, common: CommonOptions, settings: Settings, document: Document) -> Output:
    """Where outlines go, in the form that was asked for."""
    from coa.cli.output import Output

    def shown(answer: Answer) -> str:
        from coa.agents.outline_html import outline_to_html
        from coa.agents.outline_rendering import outline_to_json, outline_to_markdown, outline_to_text
        from coa.cli import render
        from coa.cli.options import Format
        from coa.runs import RunStore
        from coa.structures import outline_of

        store = RunStore(settings.home)
        plan = store.plan(answer.run_id, document)
        outline = outline_of(document, plan, store.stored_steps(answer.run_id))
        kind = output.form
        if kind is Format.HTML:
            return outline_to_html(outline, document)
        if kind is Format.MD:
            return outline_to_markdown(outline, document)
        if kind is Format.TEXT:
            return outline_to_text(outline, document)
        told = {
            "ok": answer.coverage.complete,
            "run_id": answer.run_id,
            "model": answer.model,
            **outline_to_json(outline, document),
            "usage": render.usage_object(answer.usage),
            "warnings": list(answer.warnings),
        }
        return render.to_json(told, compact=kind is Format.JSONL)

    return Output(output, common.color, shown=shown)
