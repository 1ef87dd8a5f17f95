"""Quotes against a text: found where they stand whatever their typography, and not found when they say otherwise."""

from __future__ import annotations

import random
import re
import time
import unicodedata

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coa.agents.verification import QuoteVerifier
from coa.documents.canonical import canonical
from coa.types import CitationStatus, Span
from tests.tools.growth import growth

pytestmark = pytest.mark.slow

TEXT = """Chapter 1. In the year 1815 Ada came to the har-
bour of Straße. “She was not afraid,” said Captain Nemo, “of the well-known sea; it's ﬁne.”
The lamp was lit at seven o'clock by the old keeper, who had never slept. Nobody slept in the town -- not even the
dogs; they can't. He was an unhappy man. The price rose by -5.3 percent and 1,851 men left for Zanzibar that summer.
Elizabeth walked to Meryton with Jane, and Mr. Darcy watched the rain from the window of the library.

他不知道该怎么办。孙悟空拔出如意金箍棒，重一万三千五百斤，向妖怪打去。

Ada went home in the evening, and nobody in the whole of the harbour knew what she had found on the island.
"""
ALL = Span(0, len(TEXT))


@pytest.fixture(scope="module")
def verifier() -> QuoteVerifier:
    return QuoteVerifier(TEXT)


@pytest.mark.parametrize(
    ("quote", "status", "words"),
    [
        ("The lamp was lit at seven o'clock", "exact", "The lamp was lit at seven o'clock"),
        ("  Nobody slept\n", "exact", "Nobody slept"),
        ("他不知道该怎么办。", "exact", "他不知道该怎么办。"),
        ("the lamp was lit at seven o’clock.", "normalised", "The lamp was lit at seven o'clock"),
        ("Ada came to the harbour of Strasse", "normalised", "Ada came to the har-\nbour of Straße"),
        ("it's fine.", "normalised", "it's ﬁne."),
        ("'She was not afraid,' said Captain Nemo, 'of the well-known sea'", "normalised", None),
        ("Nobody slept in the town — not even the dogs", "normalised", None),
        ("孙悟空拔出如意金箍棒, 重一万三千五百斤", "normalised", "孙悟空拔出如意金箍棒，重一万三千五百斤"),
        ("[T]he lamp was lit ...", "normalised", "The lamp was lit"),
        ("The lamp was lit at seven o'clock by the keeper, who had never slept", "fuzzy", None),
        ("Elizabeth waked to Meryton with Jane, and Mr. Darcy watched the rain", "fuzzy", None),
        ("of the well known sea; it's fine", "fuzzy", None),
        ("孙悟空拔出金箍棒，重一万三千五百斤，向妖怪打去", "fuzzy", None),
        ("The lamp was lit ... who had never slept", "fuzzy", None),
        ("The lamp was lit at ... the old keeper ... Nobody slept in the town", "fuzzy", None),
        ("Elizabeth walked to Meryton [...] the window of the library.", "fuzzy", None),
    ],
)
def test_what_stands_in_the_text_is_found_there(
    verifier: QuoteVerifier, quote: str, status: CitationStatus, words: str | None
) -> None:
    found = verifier.verify(quote)
    assert found.status == status
    assert found.span is not None
    assert (found.score == 1.0) == (status != "fuzzy" or "..." in quote)
    if words is not None:
        assert TEXT[slice(*found.span)] == words


@pytest.mark.parametrize(
    "quote",
    [
        "",
        "…",
        "“”",
        "In the year 1851 Ada came to the harbour",
        "Ada came to the harbour of Straße in the year 18",
        "in the year 18",
        "rose by 5.3 percent",
        "3 percent",
        "851 men left",
        "The lamp was lit at eight o'clock by the old keeper",
        "She was afraid, said Captain Nemo, of the well-known sea",
        "the dogs; they can",
        "happy man",
        "the old keeper, who had slept",
        "孙悟空拔出如意金箍棒，重一万三千六百斤，向妖怪打去",
        "知道该怎么办",
        "'She was not afraid,' said Captain Nero, 'of the well-known sea'",
        "Jane walked to Meryton with Elizabeth, and Mr. Darcy watched the rain",
        "Elizabeth walked to Meryton with Jane, and Mr. Bingley watched the rain",
        "Elizabeth walked to Longbourn with Jane, and Mr. Darcy watched the rain",
        "Elizabeth happily walked to Meryton with Jane, and Mr. Darcy watched the rain",
        "Ada came to the harbour of Straße and found it on the island",
        "In the year 1815 Ada went home in the evening",
        "The lamp was lit ... what she had found on the island",
        "Nobody slept ... even the dogs",
        "Nobody ... library",
        "who had never slept ... The lamp was lit",
        "rain the watched Darcy Mr and Jane with Meryton to walked Elizabeth",
        "Summer walked to Meryton with Jane, and Mr. Darcy watched the rain",
        "A dragon burned the whole of Paris down to the ground",
    ],
)
def test_what_the_text_does_not_say_is_not_found(verifier: QuoteVerifier, quote: str) -> None:
    found = verifier.verify(quote)
    assert found == ("not_found", None, 0.0, None)


def test_a_quote_from_elsewhere_has_moved_and_still_has_its_place(verifier: QuoteVerifier) -> None:
    quote = "The lamp was lit at seven o'clock"
    start = TEXT.index(quote)
    first_line = Span(0, TEXT.index("\n"))
    found = verifier.verify(quote, first_line)
    assert (found.status, found.span, found.match) == ("moved", (start, start + len(quote)), "exact")
    assert verifier.verify(quote, Span(start - 5, start + 200)).status == "exact"
    assert verifier.verify(quote.upper(), first_line)[::3] == ("moved", "normalised")
    damaged = verifier.verify("The lamp was lit at seven by the old keeper, who had never slept", first_line)
    assert damaged[::3] == ("moved", "fuzzy")


def test_of_two_places_the_one_that_was_named_is_taken() -> None:
    text = "Rain fell on the town. " * 3 + "The end came. " + "RAIN  fell on the town. "
    verifier = QuoteVerifier(text)
    assert verifier.verify("Rain fell on the town.").span == (0, 22)
    assert verifier.verify("Rain fell on the town.", Span(46, 69)).span == (46, 68)
    last = verifier.verify("Rain fell on the town.", Span(80, len(text)))
    assert (last.status, text[slice(*last.span or (0, 0))]) == ("normalised", "RAIN  fell on the town.")


def test_a_quote_that_runs_over_the_border_of_its_place_is_at_home() -> None:
    start = TEXT.index("Nobody slept in the town")
    assert QuoteVerifier(TEXT).verify("Nobody slept in the town", Span(start + 7, start + 400)).status == "exact"


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("She gave a 👍🏽 to him.", "a 👍"),
        ("The family 👩‍👩‍👧 came.", "family 👩"),
        ("Das cafe\u0323 dort", "Das cafe"),
        ("हिन्दी में", "हिन्द"),
    ],
)
def test_no_character_is_cut_in_two(text: str, quote: str) -> None:
    assert QuoteVerifier(canonical(text)).verify(quote).status == "not_found"


def test_an_empty_text_holds_nothing() -> None:
    assert QuoteVerifier("").verify("Five words are enough here").status == "not_found"


WORDS = ("lamp", "keeper", "harbour", "sea", "Ada", "was", "not", "lit", "at", "seven", "the", "by", "1815", "灯", "不")
WORDY = st.lists(st.sampled_from([*WORDS, "“", "”,", ".", "—", "\n", "_x_"]), min_size=1, max_size=40).map(" ".join)


@settings(deadline=None, max_examples=100)
@given(text=WORDY, data=st.data())
def test_any_run_of_words_of_the_text_is_found_at_a_place_that_reads_the_same(text: str, data: st.DataObject) -> None:
    words = [m.span() for m in re.finditer(r"\S+", text)]
    assume(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    quote = text[words[first][0] : words[last][1]]
    assume(re.search(r"\w", quote))
    assume(text[max(0, words[first][0] - 2) : words[first][0]] != "不 ")
    found = QuoteVerifier(text).verify(quote)
    assert found.status == "exact"
    assert found.span is not None
    assert text[slice(*found.span)] == quote
    shouted = QuoteVerifier(text).verify(re.sub(r"\s+", "  ", quote).upper())
    assert shouted.match in {"exact", "normalised"}


@settings(deadline=None, max_examples=120)
@given(
    text=st.one_of(WORDY, st.text(st.characters(exclude_categories=["Cs"]), max_size=80)).map(canonical),
    quote=st.one_of(WORDY, st.text(max_size=40)),
    place=st.one_of(st.none(), st.tuples(st.integers(0, 90), st.integers(0, 90)).map(lambda p: Span(*sorted(p)))),
)
def test_whatever_is_asked_the_place_lies_in_the_text(text: str, quote: str, place: Span | None) -> None:
    found = QuoteVerifier(text).verify(quote, place)
    if found.span is None:
        assert found.status == "not_found"
    else:
        assert 0 <= found.span.start < found.span.end <= len(text)
        assert text[slice(*found.span)].strip()
        assert 0.0 < found.score <= 1.0


@pytest.mark.parametrize(
    "text",
    [
        "a" * 300_000,
        "ha " * 100_000,
        "“" * 300_000,
        "a-\n" * 50_000,
        "\u0301" * 100_000,
        "他" * 100_000,
        ". " * 100_000,
    ],
    ids=["letters", "one word", "quotes", "hyphens", "marks", "one character", "dots"],
)
def test_no_text_takes_long(text: str) -> None:
    quotes = ["a" * 50, "ha " * 40 + "ho", "他" * 40 + "她", "“" * 60, "ha ha ha ho ha ha ha", text[:2000] + " x y z"]
    quotes += [" ... ".join(["ha ha ho ha"] * 7), "the " * 1900 + "dog ran"]
    started = time.process_time()
    verifier = QuoteVerifier(unicodedata.normalize("NFC", text))
    for quote in quotes:
        verifier.verify(quote, Span(10, 5000))
    assert time.process_time() - started < 10, "what grows with the square takes minutes"


def test_the_time_for_a_quote_grows_no_faster_than_the_text() -> None:
    chance = random.Random(3)
    vocabulary = ["".join(chance.choices("abcdefghij", k=chance.randint(2, 8))) for _ in range(3000)]
    words = chance.choices(vocabulary, k=120_000)
    quotes = [" ".join(chance.choices(vocabulary, k=20)) for _ in range(30)]

    verifiers = {n: QuoteVerifier(" ".join(words[:n])) for n in (30_000, 120_000)}

    def verified(n: int) -> None:
        for quote in quotes:
            verifiers[n].verify(quote)

    for n in verifiers:
        verified(n)
    # Were it the square, 16.
    assert growth(verified, 30_000, 120_000, enough=8) < 8
