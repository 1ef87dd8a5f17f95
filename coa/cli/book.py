"""Reading BOOK and the questions: files, or standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coa.cli.terminal import write_note
from coa.errors import ConfigError

if TYPE_CHECKING:
    from coa.config import Settings
    from coa.types import Document

__all__ = ["gather_questions", "read_book"]


def read_book(book: str, settings: Settings) -> Document:
    """The document that BOOK names.

    Raises:
        DocumentError: not there, not readable, not a document, or too large.
    """
    from coa.documents.isolation import read_document_isolated

    source, name = (sys.stdin.buffer, "stdin") if book == "-" else (Path(book), None)
    if book == "-" and sys.stdin.isatty():
        write_note("reading the document from the terminal; Ctrl-D ends it")
    return read_document_isolated(
        source,
        name=name,
        max_bytes=settings.max_document_bytes,
        limits=settings.document_limits,
        reader=settings.reader,
    )


def gather_questions(first: str | None, more: Sequence[str], file: Path | None) -> list[str]:
    """All questions in the order given, each stripped.

    Raises:
        ConfigError: there is none, one is empty, or the file is not what it should be.
    """
    questions = [first] if first is not None else []
    questions += more
    for question in questions:
        if not question.strip():
            raise ConfigError("a question is empty.", hint='Give one, as in: coa ask book.txt "Who is Alice?"')
    if file is not None:
        questions += _questions_of(file)
    if not questions:
        raise ConfigError("no question.", hint='Give one, as in: coa ask book.txt "Who is Alice?"')
    return [" ".join(question.split()) for question in questions]


def _questions_of(file: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"--questions {file}: cannot be read ({exc.strerror}).") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"--questions {file}: not UTF-8 (byte {exc.start}).") from exc
    questions = [
        _question_of(line.strip(), f"--questions {file}, line {number}")
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    ]
    if not questions:
        raise ConfigError(f"--questions {file}: holds no question.")
    return questions


def _question_of(line: str, where: str) -> str:
    """A line's question: the line itself, or the "question" of a JSON object."""
    if not line.startswith("{"):
        return line
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as exc:
        raise ConfigError(f"{where}: not valid JSON: {exc.msg}.") from exc
    question = entry.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ConfigError(f'{where}: has no "question" text.')
    return question
