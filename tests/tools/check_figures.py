"""What `LexicalChecker` says of statements made from the sentences of books: python tests/tools/check_figures.py BOOK…

Each sentence is taken as it stands, with a word left out, and changed by a script in ways that make it false or say
something else. Prints for each kind how many were called true, false and not in the text; the rows "true" and "made
false" are what accuracy and false alarms are read from.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from coa.agents.evidence import verified
from coa.agents.lexical import content_words
from coa.agents.lexical_checker import LexicalChecker
from coa.agents.statements import StatementRanker
from coa.chunking import chunk_document
from coa.documents import read_document
from coa.tokens import EstimatedTokens
from coa.types import Chunk, Document

NUMBERS = "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred"
COLOURS = "red green blue yellow white black grey brown"
PAIRS = """
open closed first last before after old young big small large small left right up down father mother son daughter
brother sister husband wife man woman day night always never more less high low rich poor dead alive early late
warm cold north south east west above below
"""
OPPOSITES = dict(zip(PAIRS.split()[::2], PAIRS.split()[1::2], strict=True))
OPPOSITES |= {other: one for one, other in OPPOSITES.items()}
IDLE = "very quite then still old little great own always also again soon perhaps almost"
AUXILIARIES = "was were is are had has"

Mutation = Callable[[str, random.Random], str | None]


class Made(NamedTuple):
    """A statement and what kind it is of."""

    kind: str
    text: str


def as_it_stands(sentence: str, rng: random.Random) -> str | None:
    """The sentence."""
    return sentence


def a_word_left_out(sentence: str, rng: random.Random) -> str | None:
    """The sentence without one word that says little."""
    return _replaced(sentence, IDLE, lambda word: "", rng)


def another_number(sentence: str, rng: random.Random) -> str | None:
    """The sentence with one number changed."""
    return _replaced(sentence, NUMBERS, lambda word: rng.choice([n for n in NUMBERS.split() if n != word]), rng)


def another_colour(sentence: str, rng: random.Random) -> str | None:
    """The sentence with one colour changed."""
    return _replaced(sentence, COLOURS, lambda word: rng.choice([c for c in COLOURS.split() if c != word]), rng)


def the_opposite(sentence: str, rng: random.Random) -> str | None:
    """The sentence with one word turned round."""
    return _replaced(sentence, PAIRS, OPPOSITES.__getitem__, rng)


def denied(sentence: str, rng: random.Random) -> str | None:
    """The sentence with a "not", where it had none."""
    if re.search(r"\b(?:not|no|never|nor|neither|none|nobody|nothing)\b|n[’']t", sentence):
        return None
    return _replaced(sentence, AUXILIARIES, lambda word: f"{word} not", rng)


def no_longer_denied(sentence: str, rng: random.Random) -> str | None:
    """The sentence without its "not"."""
    if sentence.split().count("not") != 1 or "n't" in sentence or "n’t" in sentence:
        return None
    return " ".join(w for w in sentence.split() if w != "not")


def names_swapped(sentence: str, rng: random.Random) -> str | None:
    """The sentence with two names in each other's place."""
    names = list(dict.fromkeys(re.findall(r"(?<![.!?“\"] )(?<!^)\b[A-Z][a-z]{2,}\b", sentence)))
    if len(names) < 2:
        return None
    one, other = rng.sample(names, 2)
    return re.sub(rf"\b(?:{one}|{other})\b", lambda m: other if m.group() == one else one, sentence)


MUTATIONS: dict[str, tuple[str, Mutation]] = {
    "as it stands": ("true", as_it_stands),
    "a word left out": ("true", a_word_left_out),
    "another number": ("made false", another_number),
    "another colour": ("made false", another_colour),
    "the opposite": ("made false", the_opposite),
    "denied": ("made false", denied),
    "no longer denied": ("made false", no_longer_denied),
    "names swapped": ("made false", names_swapped),
}


def _replaced(sentence: str, among: str, by: Callable[[str], str], rng: random.Random) -> str | None:
    places = [m for m in re.finditer(r"\b[a-z]+\b", sentence) if m.group() in among.split()]
    if not places:
        return None
    place = rng.choice(places)
    return " ".join((sentence[: place.start()] + by(place.group()) + sentence[place.end() :]).split())


def sentences_of(document: Document, chunks: Sequence[Chunk]) -> list[str]:
    """Sentences that assert something on their own: no speech, no question, of middling length."""
    found = []
    for chunk in chunks:
        for span in chunk.sentences:
            text = " ".join(document.text[span.start : span.end].split())
            if re.search(r"[“”\"?!;:*_]|^[‘']", text) or not text.endswith("."):
                continue
            if 6 <= len(content_words(text)) <= 25:
                found.append(text)
    return found


def invented(sentence: str, others: Sequence[str], rng: random.Random) -> str:
    """The sentence with its rarest-looking word taken from another one."""
    word = max(re.findall(r"[a-z]{4,}", sentence), key=len, default="")
    strange = max(re.findall(r"[a-z]{4,}", rng.choice(others)), key=len, default="zeppelin")
    return sentence.replace(word, strange, 1) if word and strange != word else sentence.replace(word, "zeppelin", 1)


def statements(sentences: Sequence[str], foreign: Sequence[str], n: int, rng: random.Random) -> list[Made]:
    """Up to `n` statements of each kind."""
    made = []
    for kind, (_, mutate) in MUTATIONS.items():
        order = rng.sample(sentences, len(sentences))
        texts = [mutate(sentence, rng) for sentence in order]
        made += [Made(kind, text) for text in [t for t in texts if t is not None][:n]]
    made += [
        Made("a word exchanged", invented(s, sentences, rng)) for s in rng.sample(sentences, min(n, len(sentences)))
    ]
    made += [Made("of another book", s) for s in rng.sample(foreign, min(n, len(foreign)))]
    return made


async def figures(books: Sequence[Path], n: int, *, seed: int = 5, show: int = 0) -> dict[str, Counter[str]]:
    """Labels by kind, over all books; statements of another book are taken from the next one."""
    rng = random.Random(seed)
    read = []
    for book in books:
        document = read_document(book)
        read.append((document, chunk_document(document, budget=1200, counter=EstimatedTokens())))
    found: dict[str, Counter[str]] = {}
    for at, (document, chunks) in enumerate(read):
        other_document, other_chunks = read[(at + 1) % len(read)]
        foreign = sentences_of(other_document, other_chunks) if len(read) > 1 else []
        checker = LexicalChecker(chunks)
        made = statements(sentences_of(document, chunks), foreign, n, rng)
        ranker = StatementRanker(chunks)
        for kind, text in made:
            report = await checker.check(text, verified(ranker.selected(text, 10), chunks).lines)
            found.setdefault(kind, Counter())[report.label] += 1
            expected = MUTATIONS.get(kind, ("", None))[0]
            wrong = report.label == "true" if expected != "true" else report.label == "false"
            if wrong and show > 0:
                show -= 1
                sys.stderr.write(f"{kind}: {text}\n  {report.label}: {report.reason} {report.references}\n")
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("books", nargs="+", type=Path)
    parser.add_argument("-n", type=int, default=100, help="statements of each kind from each book")
    parser.add_argument("--show", type=int, default=0, help="so many of the wrong ones, on stderr")
    options = parser.parse_args()
    found = asyncio.run(figures(options.books, options.n, show=options.show))
    sys.stdout.write(f"{'':18}{'n':>6}{'true':>8}{'false':>8}{'not in text':>13}\n")
    for kind, labels in found.items():
        n = labels.total()
        shares = [labels[label] / n for label in ("true", "false", "not_in_text")]
        sys.stdout.write(f"{kind:18}{n:6}{shares[0]:8.1%}{shares[1]:8.1%}{shares[2]:13.1%}\n")


if __name__ == "__main__":
    main()
