"""How much of a reference text a reader brings out, in order.

    python tests/tools/reader_parity.py BOOK REFERENCE.txt

prints the share of the reference's words that are a common subsequence of both (the longest one, exact), and the
longest stretches that are missing.
"""

from __future__ import annotations

import argparse
import re
import sys
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from coa.documents import read_document

_WORD = re.compile(r"\w+")


class Parity(NamedTuple):
    """What a text shares with its reference, in words."""

    common: int
    reference: int
    text: int

    @property
    def ratio(self) -> float:
        """Of the reference's words, 0..1; 1 for an empty reference."""
        return self.common / self.reference if self.reference else 1.0


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, in order."""
    return _WORD.findall(unicodedata.normalize("NFC", text))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence of two lists, exact.

    Bit-parallel: a column of the dynamic programming table is one big integer.
    Source: Hyyrö, "Bit-parallel LCS-length computation revisited", 2004.
    """
    places: dict[str, int] = {}
    for at, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        if matches := places.get(word):
            common = row & matches
            row = ((row + common) | (row - common)) & full
    return len(first) - row.bit_count()


def parity(text: str, reference: str) -> Parity:
    """The words that `text` and `reference` have in common, in order."""
    mine, theirs = words(text), words(reference)
    return Parity(longest_common_subsequence(theirs, mine), len(theirs), len(mine))


def missing(text: str, reference: str, *, n: int = 20) -> list[str]:
    """The longest stretches of the reference that are not in `text`; roughly, for people."""
    mine, theirs = words(text), words(reference)
    matcher = SequenceMatcher(None, theirs, mine, autojunk=False)
    gaps = [theirs[a:b] for what, a, b, _, _ in matcher.get_opcodes() if what in ("delete", "replace")]
    return [" ".join(gap) for gap in sorted(gaps, key=len, reverse=True)[:n]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("book", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--missing", action="store_true", help="also show what is missing (slow)")
    options = parser.parse_args()
    document = read_document(options.book)
    text = "".join(document.text[span.start : span.end] for span in document.readable())
    reference = options.reference.read_text(encoding="utf-8")
    found = parity(text, reference)
    sys.stdout.write(
        f"{options.book.name}: {found.common:,} of {found.reference:,} words in order = {found.ratio:.2%}"
        f" ({found.text:,} words read)\n"
    )
    if options.missing:
        sys.stdout.writelines(f"  missing: {gap[:200]}\n" for gap in missing(text, reference))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
