"""Sets of one's own: a folder with `questions.jsonl` and the documents that they are about.

    FOLDER/questions.jsonl     one object a line: id, doc_id, question, answers, and where there are any options,
                               evidence, type, meta
    FOLDER/docs/<doc_id>.txt   or .md, .epub, .pdf, .docx, .html: whatever coa reads; without docs, beside the questions

`type` is the question's kind; "unanswerable" (also `meta.unanswerable`) marks questions that the text does not answer,
`meta.pair` claims that count together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coa.documents import read_document
from coa.documents.isolation import read_document_isolated
from coa.errors import ConfigError, DocumentError
from coa.evaluation.locating import EvidenceForm, located
from coa.evaluation.questions import Gold, Question, QuestionSet
from coa.types import Document, Span

__all__ = ["document_of", "joined", "json_lines", "load_folder"]

_PLAIN = (".txt", ".md")
_SEPARATOR = "\n\n"


class _Line(BaseModel):
    """A line of questions.jsonl; keys beyond these are kept as they are, unread."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1, coerce_numbers_to_str=True)
    doc_id: str = Field(min_length=1, coerce_numbers_to_str=True)
    question: str
    answers: list[str] = Field(default_factory=list)
    options: list[str] = Field(default_factory=list)
    evidence: list[str] = Field(default_factory=list)
    type: str = ""
    meta: dict[str, Any] = Field(default_factory=dict)


def load_folder(folder: Path, *, name: str, language: str | None, evidence: EvidenceForm = "auto") -> QuestionSet:
    """The set that a folder holds; lines without a question (CMRC has one) are left out.

    Raises: ConfigError for a line that is none, DocumentError for a document that is missing or cannot be read.
    """
    file = folder / "questions.jsonl"
    found = [_line(raw, f"{file}, line {n}") for n, raw in json_lines(file)]
    lines = [line for line in found if line.question.strip()]
    if not lines:
        raise ConfigError(f"{file}: holds no question.")
    ids = [line.id for line in lines]
    if len(set(ids)) < len(ids):
        twice = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise ConfigError(f"{file}: the id {twice!r} is there twice.")
    documents = {doc: document_of(folder, doc) for doc in dict.fromkeys(line.doc_id for line in lines)}
    questions = tuple(_question(line, documents[line.doc_id].text, evidence) for line in lines)
    return QuestionSet(name, documents, questions, language, _metrics_for(questions))


def json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON lines file with their line numbers, from 1. Raises: ConfigError."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 (byte {error.start}).") from error
    for n, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{file}, line {n}: not valid JSON: {error.msg}.") from error
        if not isinstance(value, dict):
            raise ConfigError(f"{file}, line {n}: expected a JSON object.")
        yield n, value


def document_of(folder: Path, doc_id: str) -> Document:
    """The document of that id in a folder's `docs`, or in the folder where it has none. Raises: DocumentError."""
    docs = folder / "docs" if (folder / "docs").is_dir() else folder
    # A doc_id may hold dots, so the name is compared rather than its stem's pattern matched.
    found = sorted(path for path in docs.glob("*") if doc_id in {path.stem, path.name})
    if not found:
        raise DocumentError(f"{docs}: holds no document {doc_id!r}.", hint=f"Expected {doc_id}.txt or the like.")
    path = next((p for p in found if p.suffix in _PLAIN), found[0])
    return read_document(path) if path.suffix in _PLAIN else read_document_isolated(path)


def joined(questions: QuestionSet, size: int | None) -> QuestionSet:
    """The set with its documents joined into longer ones, `size` in each (None: all in one), in the order of the set.

    Evidence is told by its new places; a question's `doc_id` is the joined document's.
    """
    ids = list(questions.documents)
    size = size or len(ids)
    documents: dict[str, Document] = {}
    placed: dict[str, tuple[str, int]] = {}
    for first in range(0, len(ids), size):
        group = ids[first : first + size]
        name = group[0] if len(group) == 1 else f"{questions.name}-{first + 1}-{first + len(group)}"
        at = 0
        texts = []
        for doc_id in group:
            placed[doc_id] = (name, at)
            texts.append(questions.documents[doc_id].text)
            at += len(texts[-1]) + len(_SEPARATOR)
        documents[name] = read_document(_SEPARATOR.join(texts).encode(), name=f"{name}.txt")
    moved = []
    for question in questions.questions:
        name, offset = placed[question.doc_id]
        gold = tuple(tuple(Span(s.start + offset, s.end + offset) for s in piece) for piece in question.gold)
        moved.append(replace(question, doc_id=name, gold=gold))
    return replace(questions, documents=documents, questions=tuple(moved))


def _line(raw: Mapping[str, Any], where: str) -> _Line:
    try:
        return _Line.model_validate(raw)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise ConfigError(f"{where}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}.") from None


def _question(line: _Line, text: str, form: EvidenceForm) -> Question:
    unanswerable = line.type == "unanswerable" or bool(line.meta.get("unanswerable"))
    gold: tuple[Gold, ...] = ()
    # An option's words may stand anywhere in the text.
    if not unanswerable and not (line.options and form == "auto" and not line.evidence):
        gold = located(text, answers=line.answers, evidence=line.evidence, meta=line.meta, form=form)
    pair = line.meta.get("pair")
    return Question(
        id=line.id,
        doc_id=line.doc_id,
        text=line.question,
        answers=tuple(line.answers),
        kind=line.type,
        options=tuple(line.options),
        pair=None if pair is None else f"{line.doc_id}/{pair}",
        unanswerable=unanswerable,
        gold=gold,
        evidence=tuple(line.evidence),
        meta=line.meta,
    )


def _metrics_for(questions: Sequence[Question]) -> tuple[str, ...]:
    """What is scored where a suite does not say: what the questions name themselves, else what fits them."""
    own = dict.fromkeys(str(m) for q in questions for m in q.meta.get("metrics") or ())  # type: ignore[attr-defined]
    found = list(own) or ["f1", "em"]
    if all(q.options for q in questions):
        found = ["choice"]
        if all(q.pair for q in questions):
            found.insert(0, "pair_accuracy")
    if any(q.unanswerable for q in questions):
        found.append("abstention")
    if any(q.gold for q in questions):
        found += ["evidence_recall", "citation_precision", "citation_recall"]
    return tuple(found)
