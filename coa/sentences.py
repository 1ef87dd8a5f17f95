"""Sentences of a text, by the `sentencex` library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from sentencex import get_sentence_boundaries

__all__ = ["sentence_ends", "split_sentences"]

# sentencex 1.0.32 takes quadratic time where quotes open and never close: it gets no more than this at a time.
_WINDOW = 4096
# Paragraphs are looked for in parts of a text of this many code points.
_STRETCH = 1 << 18

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_HEADING_LINE = re.compile(r"^#{1,6}[ \t][^\n]*\n", re.MULTILINE)
_IDEOGRAPHIC_INDENT = re.compile("\n(?=\u3000)")
# No editor wraps lines as late as this many columns, so the line break after such a line was meant.
_WIDEST_WRAP = 160
_LONG_LINE = re.compile(r"[^\n]{81,}\n?")
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uff01-\uff60]")

# What sentencex takes for an ending in front of a capital letter, but is a title or a lone initial.
_ABBREVIATIONS = {
    "en": "Mr Mrs Ms Dr Prof Rev Hon St Messrs Mme Mlle Capt Col Gen Lt Sgt Esq No Vol",
    "de": "Hr Fr Frl Dr Prof Hrn St Nr Bd Kap bzw usw",
    "fr": "M MM Mr Mrs Mme Mmes Mlle Mlles Dr Mgr Me St Ste No",
    "es": "D Dª Da Sr Sra Srta Sres Dr Dra Ud Uds Vd Vds Sto Sta Excmo Ilmo Núm",
    "it": "Sig Dott Prof Avv Ing Mons On S",
    "pt": "Sr Sra D Dr Dra Exmo V",
    "nl": "Dhr Mevr Mw Dr Drs Prof St",
}
_TITLE_ENDING = {
    language: re.compile(rf"(?:^|[\s(«»“”\"'‘’_*-])(?:{'|'.join(words.split())})[.]_?\s*$")
    for language, words in _ABBREVIATIONS.items()
}
# "Chapter I." and "12." in front of a heading's or an item's own words.
_NUMBERING = re.compile(r"^\W{0,3}(?:[^\W\d_]{2,12}\s+)?(?:[IVXLCDM]{1,8}|\d{1,4})[.]\s*$")


def split_sentences(text: str, language: str | None) -> list[tuple[int, int]]:
    """Half-open offsets of the sentences of `text`, in order; they cover it without gaps.

    White space belongs to the sentence before it, at the start of the text to the first sentence. A blank line
    always ends a sentence; a line break inside a paragraph is a blank. `language` is ISO 639-1; None is read
    by the rules for English. Takes time in proportion to the length of `text`, whatever it holds.
    """
    return list(pairwise([0, *sentence_ends(text, language)])) if text else []


def sentence_ends(text: str, language: str | None) -> Iterator[int]:
    """Where the sentences of `text` end, as `split_sentences` has them, without a list of them all."""
    begin = 0
    held: int | None = None
    for start, stop in _stretches(text):
        for a, b in _paragraphs(text, start, stop):
            for end in _sentence_ends(text, a, b, language or "en"):
                # White space alone belongs to the sentence before it; at the start of the text, to the first one.
                if not text[begin:end].isspace():
                    if held is not None:
                        yield held
                    held = end
                elif held is not None:
                    held = end
                begin = end
    if text:
        yield len(text)


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    """`text` in parts of about `_STRETCH` code points that end where a blank line does."""
    start = 0
    while start < len(text):
        blank = _BLANK_LINE.search(text, start + _STRETCH)
        stop = blank.end() if blank else len(text)
        yield start, stop
        start = stop


def _paragraphs(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Stretches from `start` to `stop` that no sentence crosses, with the white space after them."""
    borders = {m.end() for m in _BLANK_LINE.finditer(text, start, stop)}
    borders.update(m.end() for m in _IDEOGRAPHIC_INDENT.finditer(text, start, stop))
    own_lines = list(_HEADING_LINE.finditer(text, start, stop))
    own_lines += [m for m in _LONG_LINE.finditer(text, start, stop) if _columns(m.group()) > _WIDEST_WRAP]
    for match in own_lines:
        borders.add(match.end())
        if text[match.start() - 1 : match.start()] == "\n":
            borders.add(match.start())
    borders |= {start, stop}
    yield from pairwise(sorted(borders))


def _columns(line: str) -> int:
    """Columns that `line` fills, where two are enough to tell: a long line is not measured to its end."""
    head = line[: _WIDEST_WRAP + 2]
    return len(head) + sum(1 for _ in _WIDE.finditer(head))


def _sentence_ends(text: str, start: int, end: int, language: str) -> list[int]:
    """Where the sentences of one paragraph end; the last one is `end`."""
    ends: list[int] = []
    paragraph_start = start
    sentence_start = start
    while start < end:
        window_end = min(start + _WINDOW, end)
        window = text[start:window_end].replace("\n", " ")
        found = [start + b["end_index"] for b in get_sentence_boundaries(language, window)]
        inner = [e for e in found if e < window_end]
        for border in inner:
            if not _goes_on(text, sentence_start, border, paragraph_start, language):
                ends.append(border)
                sentence_start = border
        # The window's last sentence may have been cut: it is read again from its start.
        start = inner[-1] if inner and window_end < end else window_end
    ends.append(end)
    return ends


def _goes_on(text: str, start: int, border: int, paragraph_start: int, language: str) -> bool:
    """True when what ends at `border` is an abbreviation or a number in front of the sentence's own words."""
    if border - start <= 32 and start == paragraph_start and _NUMBERING.match(text[start:border]):
        return True
    titles = _TITLE_ENDING.get(language)
    return titles is not None and titles.search(text[max(start, border - 24) : border]) is not None
