"""Verifies mutated quotes from books in five languages, and measures what it costs.

    python tests/tools/verify_quotes.py [--quotes 2000] [--seed 1] [--show 10] [--no-timing]

The books lie in the folder that COA_TEST_DATA names. Quotes are made by `mutated_quotes.py`: true ones (verbatim,
other typography, words left out, misspelt, shortened by an ellipsis, said to be elsewhere) and invented ones
(sentences of other texts in the language, halves of two sentences, changed numbers, negations, names and words).
Prints Markdown tables, times of the processor and not of the clock; the exit code is 1 where a bound does not hold.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coa.agents.verification import QuoteVerifier, Verified
from coa.documents import read_document
from coa.types import Span
from tests.tools.live import REPOSITORY
from tests.tools.mutated_quotes import KINDS, Book, Kind, Quote, quotes, squashed

DATA = Path(os.environ.get("COA_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
BOOKS = {
    "en": ("books/docs/en-pride-and-prejudice.txt", ("books/docs/en-alice.txt",)),
    "de": ("books/docs/de-die-verwandlung-latin1.txt", ("xquad/de/docs",)),
    "fr": ("books/docs/fr-tour-du-monde-latin1.txt", ("formats/live-manual.fr.epub",)),
    "es": ("books/docs/es-marianela-latin1.txt", ("xquad/es/docs",)),
    "zh": ("books/docs/zh-xiyouji.txt", ("xquad/zh/docs", "cmrc/docs")),
}
"""The book, and other texts in its language."""
PROSE = (
    "contracts/docs",
    "govreport/docs",
    "squality/docs",
    "qmsum/docs",
    "loogle/docs",
    "lara/docs",
    "nocha/docs",
    "xquad/en/docs",
    "hotpot100/docs",
    "fairytaleqa/docs",
)
"""Where a long English text is made of, for timing."""

SURE: tuple[Kind, ...] = ("exact", "typography", "moved")
DAMAGED: tuple[Kind, ...] = ("words dropped", "misspelt", "ellipsis")
LEAST_SURE, LEAST_DAMAGED, MOST_INVENTED = 0.99, 0.95, 0.005
SLOWEST_MEDIAN_S = 0.02
_SIZES = (500_000, 1_000_000, 2_000_000, 4_000_000)
_LEAST_OVERLAP = 0.5


@dataclass
class Tally:
    """What became of the quotes of one kind."""

    n: int = 0
    right: int = 0
    """True ones found at their place; invented ones not found."""
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[tuple[str, Quote, Verified]] = field(default_factory=list)

    def take(self, book: Book, quote: Quote, found: Verified, seconds: float) -> None:
        self.n += 1
        self.statuses[found.status] += 1
        self.seconds.append(seconds)
        if is_right(book, quote, found):
            self.right += 1
        else:
            self.wrong.append((book.language, quote, found))


def is_right(book: Book, quote: Quote, found: Verified) -> bool:
    """True for an invented quote that was not found, and for a true one found where its words stand."""
    if quote.source is None or found.span is None:
        return quote.source is None and found.status == "not_found"
    start, end = max(quote.source.start, found.span.start), min(quote.source.end, found.span.end)
    same_place = end - start >= _LEAST_OVERLAP * max(quote.source.length, found.span.length)
    same_words = squashed(book.text[slice(*found.span)]) == squashed(book.text[slice(*quote.source)])
    allowed = {"exact": {"exact"}, "typography": {"exact", "normalised"}, "moved": {"moved"}}
    damaged = {"exact", "normalised", "fuzzy"}
    return (same_place or same_words) and found.status in allowed.get(quote.kind, damaged)


def load_book(language: str) -> Book:
    """A book and the texts beside it."""
    own, others = BOOKS[language]
    document = read_document(DATA / own)
    return Book(language, document.text, document.readable(), _joined(others))


def _joined(paths: Iterable[str]) -> str:
    files = itertools.chain.from_iterable(
        sorted((DATA / p).iterdir()) if (DATA / p).is_dir() else [DATA / p] for p in paths
    )
    documents = [read_document(file) for file in itertools.islice(files, 200)]
    return "\n\n".join(d.text[slice(*span)] for d in documents for span in d.readable())


def measured(books: Sequence[Book], n: int, seed: int) -> dict[Kind, Tally]:
    """About `n` quotes, the same number of each kind and book; `seed` decides which."""
    chance = random.Random(seed)
    tallies: dict[Kind, Tally] = {kind: Tally() for kind in KINDS}
    each = max(1, round(n / len(KINDS) / len(books)))
    for book in books:
        verifier = QuoteVerifier(book.text)
        for kind in KINDS:
            for quote in quotes(book, kind, each, chance):
                started = time.thread_time()
                found = verifier.verify(quote.text, quote.near)
                tallies[kind].take(book, quote, found, time.thread_time() - started)
    return tallies


def share(tallies: dict[Kind, Tally], kinds: Iterable[Kind]) -> float:
    """Of quotes of those kinds, how many are right."""
    found = [tallies[kind] for kind in kinds]
    return sum(t.right for t in found) / max(1, sum(t.n for t in found))


def invented() -> tuple[Kind, ...]:
    """The kinds that stand in no book."""
    return tuple(kind for kind, true in KINDS.items() if not true)


def _table(tallies: dict[Kind, Tally]) -> str:
    lines = ["| kind | quotes | right | share | exact | normalised | fuzzy | moved | not found |", "|---|" + "--:|" * 8]
    for kind, t in tallies.items():
        counts = " | ".join(str(t.statuses[s]) for s in ("exact", "normalised", "fuzzy", "moved", "not_found"))
        lines.append(f"| {kind} | {t.n} | {t.right} | {t.right / max(1, t.n):.1%} | {counts} |")
    lines += [
        "",
        f"- exact, typography and moved ones found: {share(tallies, SURE):.2%} (at least {LEAST_SURE:.0%})",
        f"- lightly damaged ones found: {share(tallies, DAMAGED):.2%} (at least {LEAST_DAMAGED:.0%})",
        f"- invented ones taken for true: {1 - share(tallies, invented()):.2%} (at most {MOST_INVENTED:.1%})",
    ]
    return "\n".join(lines)


def _timings(seed: int) -> tuple[str, bool]:
    """Time for a quote in texts of four sizes: English prose, and the Chinese novel as it is."""
    prose = re.sub(r"\s+", " ", _joined(PROSE))
    texts = [("en", prose[:size]) for size in _SIZES if size <= len(prose)]
    texts.append(("zh", load_book("zh").text))
    lines = [
        "| text | code points | UTF-8 bytes | made ready, s | median, ms | p99, ms | slowest kind, median ms |",
        "|---|" + "--:|" * 6,
    ]
    within = True
    for language, text in texts:
        book = Book(language, text, [Span(0, len(text))], load_book(language).others)
        started = time.thread_time()
        verifier = QuoteVerifier(text)
        verifier.verify("No such words as these have ever been written down in it")
        verifier.verify("这些字从来没有写在书里过也不会有人写下来")
        ready = time.thread_time() - started
        chance = random.Random(seed)
        by_kind: dict[Kind, list[float]] = {}
        for kind in KINDS:
            for quote in quotes(book, kind, 25, chance):
                started = time.thread_time()
                verifier.verify(quote.text, quote.near)
                by_kind.setdefault(kind, []).append(time.thread_time() - started)
        seconds = sorted(itertools.chain.from_iterable(by_kind.values()))
        slowest = max(by_kind, key=lambda kind: statistics.median(by_kind[kind]))
        median, p99 = statistics.median(seconds), seconds[int(len(seconds) * 0.99)]
        within = within and median <= SLOWEST_MEDIAN_S
        lines.append(
            f"| {language} | {len(text):,} | {len(text.encode()):,} | {ready:.2f} | {median * 1e3:.2f} "
            f"| {p99 * 1e3:.2f} | {statistics.median(by_kind[slowest]) * 1e3:.2f} ({slowest}) |"
        )
    return "\n".join(lines), within


def _show(tallies: dict[Kind, Tally], most: int) -> None:
    for kind, tally in tallies.items():
        for language, quote, found in tally.wrong[:most]:
            print(f"- {kind} ({language}): {found.status} {found.score:.2f}: {quote.text!r}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quotes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="of each kind, this many that came out wrong, on stderr")
    parser.add_argument("--no-timing", action="store_true")
    options = parser.parse_args(arguments)
    tallies = measured([load_book(language) for language in BOOKS], options.quotes, options.seed)
    print(_table(tallies))
    _show(tallies, options.show)
    holds = (
        share(tallies, SURE) >= LEAST_SURE
        and share(tallies, DAMAGED) >= LEAST_DAMAGED
        and 1 - share(tallies, invented()) <= MOST_INVENTED
    )
    if not options.no_timing:
        timings, within = _timings(options.seed)
        print("\n" + timings)
        holds = holds and within
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
