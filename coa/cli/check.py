"""`coa check`: statements about a book, true, false or not in the text, with what they rest on."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coa.cli.options import Book, CommonOptions, Format, OutputOptions, RunOptions
from coa.cli.terminal import paint, printable

if TYPE_CHECKING:
    from coa.agents.checked import Checked
    from coa.agents.statements import Statement
    from coa.cli.api_types import SessionLike
    from coa.cli.output import Output
    from coa.config import Settings
    from coa.types import Answer, Document

__all__ = ["check", "check_output", "gather_statements"]

_LABELS = {"true": "true", "false": "false", "not_in_text": "not in the text", None: "not judged"}
_STYLES = {"true": "green", "false": "red", "not_in_text": "yellow", None: "dim"}


def check(
    ctx: typer.Context,
    book: Book,
    claims: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="COA_CLAIMS",
            help='Statements from FILE (- reads standard input): one a line, or JSON lines with "claim" and an "id".',
        ),
    ] = None,
    claim: Annotated[
        list[str] | None, typer.Option("-c", "--claim", metavar="CLAIM", help="A statement; may be repeated.")
    ] = None,
    *,
    run: RunOptions,
    output: OutputOptions,
    common: CommonOptions,
) -> int:
    """Says of statements whether BOOK bears them out, says otherwise, or does not tell, and shows where.

    With --strict it ends in exit code 8 unless all of them are true.
    """
    from coa.agents.statements import statements_to_text
    from coa.cli.ask import dry_run
    from coa.cli.book import read_book
    from coa.cli.invocation import invocation_of, settings_of
    from coa.cli.session import Job, run_jobs
    from coa.errors import ConfigError

    if book == "-" and claims is not None and str(claims) == "-":
        raise ConfigError("BOOK and --claims cannot both be standard input.")
    statements = gather_statements(claim or [], claims)
    settings = settings_of(ctx, common, run, overrides={"strategy": "check"}).settings
    document = read_book(book, settings)
    sink = check_output(output, common, settings, document)
    if run.dry_run:
        return dry_run(invocation_of(ctx), settings, document, [statements_to_text(statements)], sink)

    async def checked(session: SessionLike) -> Answer:
        answer = await session.check(document, statements)
        if settings.strict:
            _raise_unless_true(answer, document, settings)
        return answer

    job = Job(checked, language=document.language)
    return run_jobs(invocation_of(ctx), settings, [job], sink, progress=not output.no_progress)


def check_output(output: OutputOptions, common: CommonOptions, settings: Settings, document: Document) -> Output:
    """Where checked statements go, in the form that was asked for."""
    from coa.cli.output import Output
    from coa.cli.pages import page_of

    if output.form is Format.HTML:
        return Output(output, common.color, page=page_of(settings, document))
    sink = Output(output, common.color, shown=lambda answer: _shown(answer, document, settings, sink))
    return sink


def gather_statements(given: Sequence[str], file: Path | None) -> list[Statement]:
    """Those of the command line, then those of the file, in order.

    Raises:
        ConfigError: there is none, one is empty, or the file is not what it should be.
    """
    from coa.agents.statements import Statement
    from coa.errors import ConfigError

    if any(not text.strip() for text in given):
        raise ConfigError("a claim is empty.")
    found = [Statement(" ".join(text.split())) for text in given]
    if file is not None:
        lines = enumerate(_text_of(file).splitlines(), 1)
        found += [_statement(line.strip(), f"--claims {file}, line {n}") for n, line in lines if line.strip()]
        if len(found) == len(given):
            raise ConfigError(f"--claims {file}: holds no statement.")
    if not found:
        raise ConfigError("no statement.", hint='Give one, as in: coa check book.txt -c "Alice is a cat."')
    return found


def _text_of(file: Path) -> str:
    from coa.errors import ConfigError

    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"--claims {file}: cannot be read ({exc.strerror}).") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"--claims {file}: not UTF-8 (byte {exc.start}).") from exc


def _statement(line: str, where: str) -> Statement:
    """A line's statement: the line itself, or that of a JSON object."""
    from coa.agents.statements import Statement
    from coa.errors import ConfigError

    if not line.startswith("{"):
        return Statement(" ".join(line.split()))
    try:
        entry: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as exc:
        raise ConfigError(f"{where}: not valid JSON: {exc.msg}.") from exc
    for key in ("claim", "statement", "text"):
        text = entry.get(key)
        if isinstance(text, str) and text.strip():
            return Statement(" ".join(text.split()), None if entry.get("id") is None else str(entry["id"]))
    raise ConfigError(f'{where}: has no "claim" text.')


def _checked(answer: Answer, document: Document, settings: Settings) -> list[Checked]:
    from coa.agents.checked import checked_of
    from coa.runs import RunStore

    store = RunStore(settings.home)
    (part,) = store.plan(answer.run_id, document).parts
    return checked_of(document, part.chunks, answer.question or "", store.stored_steps(answer.run_id))


def _raise_unless_true(answer: Answer, document: Document, settings: Settings) -> None:
    from coa.errors import VerificationFailed

    counts = _counts(_checked(answer, document, settings))
    if counts["true"] < counts.total():
        raise VerificationFailed(f"not all statements are true: {_counted(counts)}.", answer=answer)


def _counts(checked: Sequence[Checked]) -> Counter[str | None]:
    return Counter(one.label for one in checked)


def _counted(counts: Counter[str | None]) -> str:
    return ", ".join(f"{counts[label]} {name}" for label, name in _LABELS.items() if label is not None or counts[None])


def _shown(answer: Answer, document: Document, settings: Settings, sink: Output) -> str:
    """The list in the form that was asked for."""
    from coa.cli import render

    checked = _checked(answer, document, settings)
    form = sink.options.form
    if form is Format.JSONL:
        return "".join(render.to_json(_object(one), compact=True) for one in checked)
    if form is Format.JSON:
        return render.to_json(_report(answer, checked))
    blocks = [_block(n, one, markdown=form is Format.MD, colour=sink.paints) for n, one in enumerate(checked, 1)]
    return "\n".join([*blocks, _counted(_counts(checked))]) + "\n"


def _report(answer: Answer, checked: Sequence[Checked]) -> dict[str, object]:
    from coa.cli import render

    counts = _counts(checked)
    return {
        "schema_version": render.SCHEMA_VERSION,
        "ok": answer.coverage.complete,
        "run_id": answer.run_id,
        "model": answer.model,
        "document": answer.document,
        "document_sha256": answer.document_sha256,
        "checks": [_object(one) for one in checked],
        "counts": {"not_judged" if label is None else label: counts[label] for label in _LABELS},
        "usage": render.usage_object(answer.usage),
        "seconds": round(answer.seconds, 3),
        "warnings": list(answer.warnings),
    }


def _object(one: Checked) -> dict[str, object]:
    return {
        "id": one.id,
        "claim": one.text,
        "label": one.label,
        "reason": one.reason,
        "citations": [asdict(c) for c in one.citations],
        "cause": one.cause,
    }


def _block(number: int, one: Checked, *, markdown: bool, colour: bool) -> str:
    """A statement, its label, and the sentences that it rests on."""
    name = printable(one.id if one.id is not None else str(number))
    label, text = _LABELS[one.label], printable(one.text)
    if markdown:
        lines = [f"- **{label}** ({name}): {text}"]
    else:
        lines = [f"{name}. {paint(label, _STYLES[one.label], colour=colour)}: {text}"]
    told = one.cause or one.reason
    if told:
        lines.append("   " + printable(told))
    for citation in one.citations:
        chapter = f"{' '.join(citation.chapter.split())}: " if citation.chapter else ""
        page = f"page {citation.page}, " if citation.page is not None else ""
        quote = printable(f'{chapter}"{" ".join(citation.quote.split())}"')
        lines.append(f"   {quote} ({page}offset {citation.start}-{citation.end})")
    return "\n".join(lines) + "\n"
