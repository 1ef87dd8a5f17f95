"""Benchmarks in the files that their authors publish: LongBench, L-Eval, RULER, QMSum, SQuALITY and NoCha.

Each file is read as it is; nothing has to be converted or fetched through another library. Documents that several
questions share are one document.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coa.documents import read_document
from coa.errors import ConfigError, DocumentEmpty
from coa.evaluation.choices import chosen_letters
from coa.evaluation.folders import document_of, json_lines
from coa.evaluation.locating import located
from coa.evaluation.questions import Question, QuestionSet
from coa.types import Document

__all__ = ["FORMATS", "load_published"]

_Made = tuple[list[Question], dict[str, Document], tuple[str, ...]]


def load_published(form: str, path: Path, *, name: str, language: str | None = None) -> QuestionSet:
    """The set that a file (or a folder of such files) of the format `form` holds.

    Raises: ConfigError for an unknown format, a file that is not in it, or a set without questions.
    """
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r} of a set.", hint=f"Known are folder, {', '.join(sorted(FORMATS))}.")
    try:
        questions, documents, metrics = FORMATS[form](path)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}: not as {form} publishes it ({type(error).__name__}: {error}).") from error
    if not questions:
        raise ConfigError(f"{path}: holds no question.")
    return QuestionSet(name, documents, tuple(questions), language, metrics)


_LONGBENCH_METRICS = {
    "multifieldqa_zh": ("f1_zh_words",),
    **dict.fromkeys(("gov_report", "qmsum", "multi_news", "samsum"), ("rougeL",)),
    **dict.fromkeys(("vcsum", "dureader"), ("rougeL_zh_words",)),
    **dict.fromkeys(("trec", "lsht"), ("classification",)),
    "passage_count": ("numbers",),
    **dict.fromkeys(("passage_retrieval_en", "passage_retrieval_zh"), ("numbers",)),
    **dict.fromkeys(("lcc", "repobench-p"), ("code_similarity",)),
}
_FIRST_LINE = frozenset({"trec", "triviaqa", "samsum", "lsht"})


def _longbench(path: Path) -> _Made:
    questions: list[Question] = []
    documents: dict[str, Document] = {}
    metrics: dict[str, None] = {}
    for raw in _objects(path):
        task = raw["dataset"].removesuffix("_e")
        metrics |= dict.fromkeys(_LONGBENCH_METRICS.get(task, ("f1",)))
        doc_id = _add(documents, raw["context"], task)
        questions.append(
            Question(
                id=str(raw["_id"]),
                doc_id=doc_id,
                text=raw["input"].strip() or _WITHOUT_INPUT.get(task, "Write a summary of the text."),
                answers=tuple(raw["answers"]),
                kind=raw["dataset"],
                gold=located(documents[doc_id].text, answers=raw["answers"], evidence=(), meta={}),
                language=raw["language"] if raw["language"] in {"en", "zh"} else "",
                meta={
                    "metrics": _LONGBENCH_METRICS.get(task, ("f1",)),
                    "classes": raw.get("all_classes") or [],
                    "first_line": task in _FIRST_LINE,
                },
            )
        )
    return questions, documents, tuple(metrics)


_WITHOUT_INPUT = {
    "passage_count": "How many different paragraphs are there, repeated ones not counted? Reply with the number alone.",
    "lcc": "What is the next line of the code?",
}


def _leval(path: Path) -> _Made:
    questions: list[Question] = []
    documents: dict[str, Document] = {}
    metrics: dict[str, None] = {}
    for n, raw in enumerate(_objects(path)):
        doc_id = _add(documents, raw["input"], f"{path.stem}-{n:03d}")
        score = {"exam": "exam", "f1": "f1"}.get(raw["evaluation"], "rouge")
        for at, (asked, right) in enumerate(zip(raw["instructions"], raw["outputs"], strict=True)):
            question, own = _leval_question(f"{path.stem}-{n:03d}-{at:02d}", doc_id, asked, right, score)
            questions.append(question)
            metrics |= dict.fromkeys(own)
    return questions, documents, tuple(metrics)


def _leval_metrics(score: str) -> tuple[str, ...]:
    return ("rougeL", "rouge1", "rouge2") if score == "rouge" else (score,)


def _leval_question(ident: str, doc_id: str, asked: str, right: str, score: str) -> tuple[Question, tuple[str, ...]]:
    """The question and what it is scored by."""
    says = re.match(r"\s*(True|False)\b", right)
    options: tuple[str, ...] = ()
    answers: tuple[str, ...] = (right,)
    own = _leval_metrics(score)
    if score == "exam" and says:
        options, answers, own = ("True", "False"), (says[1],), ("choice",)
    elif score == "exam" and chosen_letters(right, ()):
        answers = ("".join(chosen_letters(right, ())),)
    elif score == "exam":  # gsm100 and topic retrieval: the answer itself
        own = ("contains",)
    hint = "" if score == "exam" else f"Answer in about {max(1, len(right.split()))} words."
    question = Question(
        ident, doc_id, asked.strip(), answers, score, options=options, instruction=hint, meta={"metrics": own}
    )
    return question, own


_RULER_QUESTION = re.compile(r"\n(?:Question:\s*)?(?P<question>[^\n]*\S[^\n]*)\s*\Z")


def _ruler(path: Path) -> _Made:
    questions: list[Question] = []
    documents: dict[str, Document] = {}
    metrics: dict[str, None] = {}
    for file, raw in _located_objects(path):
        task = file.parent.name if file.stem in {"validation", "test"} else file.stem
        score = "match_part" if task.startswith("qa") else "match_all"
        metrics[score] = None
        match = _RULER_QUESTION.search(raw["input"])
        if match is None:
            raise ValueError(f"no question at the end of the input {raw['index']}")
        doc_id = _add(documents, raw["input"][: match.start()], f"{task}-{raw['index']}")
        text = documents[doc_id].text
        needles = [answer for answer in raw["outputs"] if text.count(answer) == 1]
        questions.append(
            Question(
                id=f"{task}-{raw['index']}",
                doc_id=doc_id,
                text=match["question"],
                answers=tuple(raw["outputs"]),
                kind=task,
                gold=located(text, answers=(), evidence=needles, meta={}, form="quotes"),
                meta={"metrics": (score,)},
            )
        )
    return questions, documents, tuple(metrics)


def _qmsum(path: Path) -> _Made:
    questions: list[Question] = []
    documents: dict[str, Document] = {}
    for n, raw in enumerate(_objects(path)):
        turns = (f"{turn['speaker']}: {' '.join(turn['content'].split())}" for turn in raw["meeting_transcripts"])
        doc_id = _add(documents, "\n".join(turns), f"{path.stem}-{n:02d}")
        asked = [("whole meeting", q) for q in raw["general_query_list"]]
        asked += [("query summary", q) for q in raw["specific_query_list"]]
        for at, (kind, query) in enumerate(asked):
            spans = [[int(a), int(b)] for a, b in query.get("relevant_text_span", ())]
            gold = (
                located(documents[doc_id].text, answers=(), evidence=(), meta={"relevant_turns": spans}, form="turns")
                if spans
                else ()
            )
            ident = f"{path.stem}-{n:02d}-{at:02d}"
            questions.append(Question(ident, doc_id, query["query"], (query["answer"],), kind, gold=gold))
    return questions, documents, ("rougeL", "rouge1", "rouge2", "evidence_recall")


def _squality(path: Path) -> _Made:
    questions: list[Question] = []
    documents: dict[str, Document] = {}
    for n, raw in enumerate(_objects(path)):
        doc_id = _add(documents, raw["document"], str(raw.get("metadata", {}).get("passage_id", n)))
        for asked in raw["questions"]:
            number = asked["question_number"]
            answers = tuple(response["response_text"] for response in asked["responses"])
            kind = "plot" if int(number) == 1 else "question"
            questions.append(Question(f"{doc_id}-{number}", doc_id, asked["question_text"], answers, kind))
    return questions, documents, ("rougeL", "rouge1", "rouge2")


def _nocha(path: Path) -> _Made:
    """`path` is the JSON file; the books lie beside it, as `docs/<book_title>.txt` or the authors' pickle."""
    claims = json.loads(path.read_text(encoding="utf-8"))
    books = _pickled_texts(path.parent / "classic_books.pkl")
    documents: dict[str, Document] = {}
    questions = []
    for raw in claims:
        title = raw["book_title"]
        if title not in documents:
            documents[title] = (
                read_document(books[title].encode(), name=title) if title in books else document_of(path.parent, title)
            )
        says = "True" if str(raw["type"]).lower() == "true" else "False"
        questions.append(
            Question(
                id=f"{title}-{raw['index']}-{says[0].lower()}",
                doc_id=title,
                text=f"Is this claim about the text true or false? {raw['claim']}",
                answers=(says,),
                kind="claim",
                options=("True", "False"),
                pair=f"{title}/{raw['index']}",
            )
        )
    return questions, documents, ("pair_accuracy", "choice")


FORMATS: Mapping[str, Callable[[Path], _Made]] = {
    "longbench": _longbench,
    "leval": _leval,
    "ruler": _ruler,
    "qmsum": _qmsum,
    "squality": _squality,
    "nocha": _nocha,
}
"""Loaders by the formats' names."""


class _TextsAlone(pickle.Unpickler):
    """Loads dicts, lists and strings; a pickle that names any class or function is refused, so that none can run."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds a {module_name}.{global_name}, and only texts are loaded")


def _pickled_texts(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        found = _TextsAlone(io.BytesIO(file.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, MemoryError) as error:
        raise ConfigError(
            f"{file}: cannot be read ({error}).", hint="Write the books to docs/<book_title>.txt beside it instead."
        ) from error
    return {str(title): text for title, text in dict(found).items() if isinstance(text, str)}


def _add(documents: dict[str, Document], text: str, name: str) -> str:
    """The id of the document that holds `text`, which is read at its first appearance."""
    doc_id = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    known = next((found for found in documents if found.endswith(doc_id[-9:])), None)
    if known is not None:
        return known
    try:
        documents[doc_id] = read_document(text.encode(), name=f"{doc_id}.txt")
    except DocumentEmpty as error:
        raise ValueError(f"{name} has no text") from error
    return doc_id


def _objects(path: Path) -> Iterator[Mapping[str, Any]]:
    return (raw for _, raw in _located_objects(path))


def _located_objects(path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for file in _files(path):
        for _, raw in json_lines(file):
            yield file, raw


def _files(path: Path) -> Sequence[Path]:
    return sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
