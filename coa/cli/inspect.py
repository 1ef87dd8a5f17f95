"""`coa inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.options import Book, CommonOptions
from coa.cli.terminal import write_result

if TYPE_CHECKING:
    from coa.inspection import Inspection
    from coa.types import LeftOut, Span

__all__ = ["inspect"]

_SECTIONS_SHOWN = 12
# More stretches that are left out for one cause are shown as their number and size.
_ALIKE_SHOWN = 3


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
    reader: Annotated[
        str | None,
        typer.Option("--reader", metavar="NAME", envvar="COA_READER", help="Reader of the document, such as docling."),
    ] = None,
    common: CommonOptions,
) -> int:
    """Shows chapters, language, tokens and chunks of BOOK; calls no model."""
    from coa.cli.book import read_book
    from coa.cli.invocation import settings_of
    from coa.errors import ConfigError

    if chapters + chunks + text > 1:
        raise ConfigError("--chapters, --chunks and --text exclude each other.")
    overrides = {"model": model, "chunk_tokens": chunk_tokens, "reader": reader}
    settings = settings_of(ctx, common, overrides=overrides).settings
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
        from coa.inspection_json import inspection_object

        return to_json(inspection_object(found))
    if chapters or chunks:
        rows = _section_rows(found) if chapters else _chunk_rows(found)
        return "".join("\t".join(row) + "\n" for row in rows)
    return _overview(found)


def _overview(found: Inspection) -> str:
    from coa.cli.render import table_text
    from coa.inspection import chapter_confidence, places_phrase

    document = found.document
    counted = f"by {found.tokenizer}" if found.exact else f"an estimate ({found.tokenizer})"
    sure = chapter_confidence(document)
    confidence = f", confidence {sure:.0%}" if sure is not None else ""
    rows = [
        ("document", _one_line(document.name)),
        ("title", _one_line(document.title or "not stated")),
        ("type", f"{document.media_type}, {document.encoding}"),
        ("language", document.language or "unknown"),
        ("size", f"{found.characters:,} characters, {found.words:,} words"),
        ("tokens", f"{found.tokens:,}, {counted}"),
        ("chunks", f"{len(found.chunks):,} of at most {found.chunk_tokens:,} tokens"),
        ("chapters", f"{len(document.chapters()):,} (found by {document.chapter_method}{confidence})"),
    ]
    if places := places_phrase(document):
        rows.append(("places", _one_line(places)))
    text = table_text(rows)
    if found.sections:
        text += "\n" + table_text([_aligned(row) for row in _shown_rows(found)])
        more = len(found.sections) - len(_shown_rows(found))
        text += f"... and {more} more (--chapters shows all)\n" if more > 0 else ""
    if found.left_out:
        text += "\nnot read\n" + "".join(f"  {line}\n" for line in _left_out_lines(found.left_out))
    return text + "".join(f"\nwarning: {_one_line(warning)}\n" for warning in document.warnings)


def _shown_rows(found: Inspection) -> list[tuple[str, ...]]:
    """The first sections; where there are more than fit, without what stands below the chapters."""
    rows = list(zip(found.sections, _section_rows(found), strict=True))
    if len(rows) > _SECTIONS_SHOWN and any(share.section.kind == "chapter" for share, _ in rows):
        rows = [(share, row) for share, row in rows if share.section.kind != "section"]
    return [(*row[:-1], row[-1] or "(before the first heading)") for _, row in rows[:_SECTIONS_SHOWN]]


def _left_out_lines(parts: Sequence[LeftOut]) -> list[str]:
    """What is left out, a line each; many stretches of one cause as one line."""
    alike: dict[tuple[str, str], list[LeftOut]] = {}
    for part in parts:
        alike.setdefault((part.cause, part.detail), []).append(part)
    lines = []
    for (cause, detail), same in alike.items():
        what = cause.replace("_", " ") + (f": {_one_line(detail)}" if detail else "")
        if all(part.span.length == 0 for part in same):
            lines.append(f"not in the text: {_one_line(detail)}")
        elif len(same) > _ALIKE_SHOWN:
            size = sum(part.span.length for part in same)
            lines.append(f"{len(same):,} stretches, {size:,} characters  {what}")
        else:
            lines += [f"{_offsets(part.span)}  {what}" for part in same]
    return lines


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
