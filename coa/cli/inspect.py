"""`coa inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.options import Book, CommonOptions
from coa.cli.terminal import write_result

if TYPE_CHECKING:
    from coa.inspection import Inspection
    from coa.types import Span

__all__ = ["inspect"]

_SECTIONS_SHOWN = 12


def inspect(
    ctx: typer.Context,
    book: Book,
    *,
    chapters: Annotated[
        bool, typer.Option("--chapters", envvar="COA_CHAPTERS", help="Only the chapters, all of them.")
    ] = False,
    chunks: Annotated[bool, typer.Option("--chunks", envvar="COA_CHUNKS", help="Only the chunks.")] = False,
    text: Annotated[bool, typer.Option("--text", envvar="COA_TEXT", help="Only the text that is read.")] = False,
    as_json: Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="As JSON.")] = False,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", envvar="COA_ESTIMATE", help="Estimate tokens instead of loading the model."),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", envvar="COA_MODEL", help="Whose tokens to count."),
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option("--chunk-tokens", min=1, metavar="N", envvar="COA_CHUNK_TOKENS", help="Tokens of a chunk."),
    ] = None,
    common: CommonOptions,
) -> int:
    """Shows chapters, language, tokens and chunks of BOOK; calls no model."""
    from coa.cli.book import read_book
    from coa.cli.invocation import settings_of
    from coa.errors import ConfigError

    if chapters + chunks + text > 1:
        raise ConfigError("--chapters, --chunks and --text exclude each other.")
    flags = {"model": model, "chunk_tokens": chunk_tokens}
    settings = settings_of(ctx, common, overrides=flags).settings
    document = read_book(book, settings)
    if text:
        write_result("".join(document.text[span.start : span.end] for span in document.readable()))
        return 0
    import asyncio

    from coa.inspection import inspect_for_model

    found = asyncio.run(inspect_for_model(document, settings, estimate=estimate))
    write_result(_shown(found, as_json=as_json, chapters=chapters, chunks=chunks))
    return 0


def _shown(found: Inspection, *, as_json: bool, chapters: bool, chunks: bool) -> str:
    if as_json:
        from coa.cli.render import to_json

        return to_json(inspection_object(found))
    if chapters or chunks:
        rows = _section_rows(found) if chapters else _chunk_rows(found)
        return "".join("\t".join(row) + "\n" for row in rows)
    return _overview(found)


def inspection_object(found: Inspection) -> dict[str, object]:
    """The inspection as JSON."""
    document = found.document
    return {
        "schema_version": 1,
        "document": document.name,
        "document_sha256": document.sha256,
        "source_sha256": document.source_sha256,
        "title": document.title,
        "media_type": document.media_type,
        "encoding": document.encoding,
        "language": document.language,
        "characters": found.characters,
        "words": found.words,
        "tokens": found.tokens,
        "tokenizer": found.tokenizer,
        "exact": found.exact,
        "chunk_tokens": found.chunk_tokens,
        "chapter_method": document.chapter_method,
        "chapters": [
            {
                "title": share.section.title,
                "kind": share.section.kind,
                "level": share.section.level,
                "number": share.section.number,
                "start": share.section.span.start,
                "end": share.section.span.end,
                "words": share.words,
                "ratio": round(share.ratio, 4),
            }
            for share in found.sections
        ],
        "chunks": [
            {"index": c.index, "start": c.span.start, "end": c.span.end, "tokens": c.n_tokens} for c in found.chunks
        ],
        "left_out": [
            {"start": part.span.start, "end": part.span.end, "cause": part.cause, "detail": part.detail}
            for part in found.left_out
        ],
        "warnings": list(document.warnings),
    }


def _overview(found: Inspection) -> str:
    from coa.cli.render import table_text

    document = found.document
    counted = f"by {found.tokenizer}" if found.exact else f"an estimate ({found.tokenizer})"
    rows = [
        ("document", _one_line(document.name)),
        ("title", _one_line(document.title or "not stated")),
        ("type", f"{document.media_type}, {document.encoding}"),
        ("language", document.language or "unknown"),
        ("size", f"{found.characters:,} characters, {found.words:,} words"),
        ("tokens", f"{found.tokens:,}, {counted}"),
        ("chunks", f"{len(found.chunks):,} of at most {found.chunk_tokens:,} tokens"),
        ("chapters", f"{len(document.chapters()):,} (found by {document.chapter_method})"),
    ]
    text = table_text(rows)
    if found.sections:
        text += "\n" + table_text([_aligned(row) for row in _section_rows(found)[:_SECTIONS_SHOWN]])
        more = len(found.sections) - _SECTIONS_SHOWN
        text += f"... and {more} more (--chapters shows all)\n" if more > 0 else ""
    if found.left_out:
        text += "\nnot read\n" + "".join(
            f"  {_offsets(part.span)}  {part.cause.replace('_', ' ')}"
            + (f": {_one_line(part.detail)}" if part.detail else "")
            + "\n"
            for part in found.left_out
        )
    return text + "".join(f"\nwarning: {_one_line(warning)}\n" for warning in document.warnings)


def _aligned(row: tuple[str, ...]) -> tuple[str, ...]:
    offsets, share, words, title = row
    return ("  " + offsets, share.rjust(6), words.rjust(7) + " words", title)


def _section_rows(found: Inspection) -> list[tuple[str, ...]]:
    return [
        (
            _offsets(share.section.span),
            f"{share.ratio:.1%}",
            str(share.words),
            "  " * (share.section.level - 1) + _one_line(share.section.title),
        )
        for share in found.sections
    ]


def _chunk_rows(found: Inspection) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for chunk in found.chunks:
        section = found.document.section_at(chunk.span.start)
        title = _one_line(section.title) if section is not None else ""
        rows.append((str(chunk.index + 1), _offsets(chunk.span), str(chunk.n_tokens), title))
    return rows


def _offsets(span: Span) -> str:
    return f"{span.start}-{span.end}"


def _one_line(text: str) -> str:
    from coa.cli.terminal import printable

    return printable(" ".join(text.split()))
