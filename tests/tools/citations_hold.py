"""Reopens the source of every answer and checks that each citation is verbatim at its span.

    python tests/tools/citations_hold.py check ANSWERS.json... [--source FILE_OR_FOLDER]
    python tests/tools/citations_hold.py run --out DIR [--questions 200] [--seed 1] [--model MODEL] [--notes MODE]

`check` takes what `coa ask --json` (or jsonl) printed; a document is looked for by its name in --source, or at the
path that `run` noted. `run` asks seeded questions from hotpot100, xquad (English, German, Spanish, Chinese) and
contracts in the folder that COA_TEST_DATA names, one engine for all; answers go to DIR/answers.jsonl one by one, so
that a run that was stopped goes on where it stood. Both print a Markdown table; the exit code is 1 where a citation
does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coa.api import Session
from coa.cli.render import answer_object
from coa.config import Settings
from coa.documents import read_document
from coa.errors import CoaError
from coa.testing.models import test_model_path
from coa.types import Document
from tests.tools.live import REPOSITORY

DATA = Path(os.environ.get("COA_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
SETS = {"hotpot100": 0.24, "xquad/en": 0.16, "xquad/de": 0.14, "xquad/es": 0.14, "xquad/zh": 0.14, "contracts": 0.18}
"""Folders with questions, and the share of the questions that each gets."""

STATUSES = ("exact", "normalised", "fuzzy", "moved", "not_found")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a set."""

    key: str
    set: str
    source: Path
    question: str


@dataclass
class Row:
    """What became of a set's questions."""

    answers: int = 0
    without: int = 0
    """Answers that cite nothing."""
    failed: int = 0
    citations: int = 0
    verbatim: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    not_found: int = 0
    """Quotes that a model wrote and that are not in the source."""
    dangling: int = 0
    """Numbers in claims that name no citation."""

    def take(self, answer: Mapping[str, Any], text: str) -> list[str]:
        """Counts an answer in; what does not hold of it."""
        wrong = broken_citations(answer, text)
        citations = answer["citations"]
        self.answers += 1
        self.without += not citations
        self.citations += len(citations)
        self.verbatim += len(citations) - len(wrong)
        self.statuses.update(c["status"] for c in citations)
        self.not_found += answer.get("quotes_not_found", 0)
        numbers = [n for claim in answer.get("claims", ()) for n in claim["citations"]]
        self.dangling += sum(not 1 <= n <= len(citations) for n in numbers)
        return wrong


def broken_citations(answer: Mapping[str, Any], text: str) -> list[str]:
    """What of an answer's citations is not the document's text at the span that they name."""
    wrong = []
    for n, citation in enumerate(answer["citations"], 1):
        start, end = citation["start"], citation["end"]
        if not 0 <= start < end <= len(text) or text[start:end] != citation["quote"]:
            wrong.append(f"[{n}] {start}-{end} {citation['quote']!r} is not {text[start:end]!r}")
        elif citation["status"] == "not_found":
            wrong.append(f"[{n}] {citation['quote']!r} is said not to be found")
    return wrong


@functools.lru_cache(maxsize=8)
def _reopened(path: Path) -> Document:
    return read_document(path)


def checked(answers: Iterable[Mapping[str, Any]], sources: Sequence[Path]) -> tuple[dict[str, Row], list[str]]:
    """Rows by set, and what does not hold; reads every document anew from its file."""
    rows: dict[str, Row] = {}
    wrong: list[str] = []
    for answer in answers:
        row = rows.setdefault(answer.get("set", "all"), Row())
        if "error" in answer:
            row.failed += 1
            wrong.append(f"{answer['id']}: {answer['error']}")
            continue
        document = _reopened(_source_of(answer, sources))
        problems = row.take(answer, document.text)
        if document.sha256 != answer["document_sha256"]:
            problems.append("the document's digest is another one")
        wrong += [f"{answer['run_id']}: {problem}" for problem in problems]
    return rows, wrong


def _source_of(answer: Mapping[str, Any], sources: Sequence[Path]) -> Path:
    if "source" in answer:
        return Path(answer["source"])
    for source in sources:
        path = source / answer["document"] if source.is_dir() else source
        if path.is_file() and (source.is_dir() or path.name == answer["document"]):
            return path
    raise SystemExit(f"where is {answer['document']}? Name it, or its folder, with --source.")


def _answers_in(file: Path) -> Iterator[dict[str, Any]]:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        yield from map(json.loads, text.splitlines())
        return
    found = json.loads(text)
    yield from found if isinstance(found, list) else [found]


def table(rows: Mapping[str, Row]) -> str:
    """Markdown, a line for each set and one for all."""
    head = ["set", "answers", "failed", "citing nothing", "citations", "verbatim at their span", *STATUSES[:4]]
    lines = ["| " + " | ".join([*head, "quotes not found"]) + " |", "|---|" + "--:|" * len(head)]
    total = Row()
    for name, row in [*rows.items(), ("all", total)]:
        share = f"{row.verbatim} ({row.verbatim / row.citations:.1%})" if row.citations else "0"
        cells = [row.answers, row.failed, row.without, row.citations, share]
        cells += [*(row.statuses[s] for s in STATUSES[:4]), row.not_found]
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
        if row is not total:
            for key in ("answers", "failed", "without", "citations", "verbatim", "not_found", "dangling"):
                setattr(total, key, getattr(total, key) + getattr(row, key))
            total.statuses.update(row.statuses)
    return "\n".join(lines)


def questions(n: int, seed: int) -> list[Asked]:
    """`n` questions over all sets, the same ones for the same seed, those about one document together."""
    chance = random.Random(seed)
    found: list[Asked] = []
    for name, part in SETS.items():
        lines = (DATA / name / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        raw = [json.loads(line) for line in lines]
        chosen = chance.sample(raw, min(len(raw), max(1, round(n * part))))
        chosen.sort(key=lambda q: (q["doc_id"], q["id"]))
        docs = DATA / name / "docs"
        found += [Asked(f"{name}:{q['id']}", name, docs / f"{q['doc_id']}.txt", q["question"]) for q in chosen]
    return found


def _left(asked: Sequence[Asked], out: Path) -> list[Asked]:
    done = {answer["id"] for answer in _answers_in(out)} if out.exists() else set()
    return [a for a in asked if a.key not in done]


async def ask_all(left: Sequence[Asked], out: Path, settings: Settings) -> None:
    """Answers each question and adds a line for it to `out`."""
    async with Session(settings) as session:
        for n, a in enumerate(left, 1):
            started = time.perf_counter()
            line: dict[str, Any] = {"id": a.key, "set": a.set, "source": str(a.source)}
            try:
                line |= answer_object(await session.ask(read_document(a.source), a.question))
            except CoaError as error:
                line["error"] = f"{type(error).__name__}: {error}"
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            print(f"{n} of {len(left)}: {a.key}, {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)


def _report(rows: Mapping[str, Row], wrong: Sequence[str]) -> int:
    print(table(rows))
    for problem in wrong:
        print(f"- {problem}", file=sys.stderr)
    dangling = sum(row.dangling for row in rows.values())
    if dangling:
        print(f"- {dangling} numbers in claims name no citation", file=sys.stderr)
    return 1 if wrong or dangling else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check answers that are there")
    check.add_argument("answers", nargs="+", type=Path)
    check.add_argument("--source", action="append", type=Path, default=[])
    run = commands.add_parser("run", help="ask questions, then check")
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--questions", type=int, default=200)
    run.add_argument("--seed", type=int, default=1)
    run.add_argument("--model", help="the model that tests run on where it is left out")
    run.add_argument("--notes", default="auto")
    run.add_argument("--strategy", default="chain")
    options = parser.parse_args(arguments)
    if options.command == "check":
        answers = itertools.chain.from_iterable(map(_answers_in, options.answers))
        return _report(*checked(answers, options.source))
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "answers.jsonl"
    settings = Settings(
        home=options.out / "home",
        model=options.model or str(test_model_path()),
        notes=options.notes,
        strategy=options.strategy,
    )
    asyncio.run(ask_all(_left(questions(options.questions, options.seed), file), file, settings))
    return _report(*checked(_answers_in(file), []))


if __name__ == "__main__":
    sys.exit(main())
