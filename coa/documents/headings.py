"""Lines that could be chapter headings, by the style they are written in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from coa.documents.numbers import chinese_number, parse_number, roman_number
from coa.types import Span

__all__ = ["Block", "Heading", "Style", "blocks", "find_headings", "named_heading"]

Style = Literal["chapter", "cjk", "part", "roman", "roman-title", "digits", "digits-title", "word", "contents"]

_CHAPTER_WORDS = (
    "chapter|chap|kapitel|kap|chapitre|capítulo|capitulo|capitolo|cap|hoofdstuk|kapittel|kapitola|rozdział|luku"
    "|глава|stave|canto|letter|scene|scène|szene"
)
_PART_WORDS = (
    "part|book|volume|vol|act|teil|buch|band|partie|livre|tome|acte|akt|parte|libro|tomo|deel|boek|часть|книга|том"
)
_NUMBER = r"[^\W_]+(?:[-‐][^\W_]+)?\.?(?:er|ère|º|ª)?"
_DECORATION = r"[\s*_=~#\[({<|—–-]*"
_SEPARATOR = r"(?:\s*[\])}>|]*\s*[.:,—–*_=~|-]+\s*|\s+|$)"
_WORD_FIRST = re.compile(
    rf"^{_DECORATION}(?P<word>{_CHAPTER_WORDS}|{_PART_WORDS})\b\.?\s*(?:the\s+|n[o°º]\.?\s*)?"
    rf"(?P<number>{_NUMBER}?)(?P<sep>{_SEPARATOR})(?P<title>.*)$",
    re.IGNORECASE,
)
_NUMBER_FIRST = re.compile(
    rf"^{_DECORATION}(?:the\s+|das\s+|der\s+|le\s+|la\s+|el\s+)?(?P<number>{_NUMBER})\s+"
    rf"(?P<word>{_CHAPTER_WORDS}|{_PART_WORDS})(?P<sep>{_SEPARATOR})(?P<title>.*)$",
    re.IGNORECASE,
)
_IS_PART = re.compile(rf"(?:{_PART_WORDS})", re.IGNORECASE)
_CJK = re.compile(
    r"^[\s*_=#【\[〔-]*(?:第|제)\s*(?P<number>[0-9０-９〇零一二三四五六七八九十百千两兩]{1,8})\s*"
    r"(?P<unit>[章回节節話话幕집장卷部篇編编集])(?P<sep>[\s:：、.．】\]〕]*)(?P<title>[^\n]{0,60})$"
)
_CJK_PARTS = frozenset("卷部篇編编集")
_CJK_PROSE = re.compile(r"[。，！？；,]")
_CJK_GOES_ON = re.compile(r"[的是中里内裡说說]")
_BARE = re.compile(
    r"^[\s*_=~\[({|—–.-]*(?P<number>[IVXLC]{1,9}|\d{1,3}|[A-Za-z]{3,12}(?:-[A-Za-z]{3,6})?)[\s*_=~\])}|—–.:-]*$"
)
_WITH_TITLE = re.compile(
    r"^[\s*_\[(—–-]*(?P<number>[IVXLC]{1,9}|\d{1,3})(?:[\])]?\s*[.:)—–-]+\s*|\s+)(?P<title>[^\W\d_a-z«»“”\"'(¿¡].*|[«“\"'(¿¡].*)$"
)
_NAMES: tuple[tuple[Literal["front", "chapter", "back"], str], ...] = (
    ("front", "preface|foreword|introduction|to the reader|dedication|vorwort|einleitung|vorrede|préface|avant-propos"
     "|prefacio|introducción|prefazione|introduzione|voorwoord|inleiding|前言|序|序言|предисловие"),
    ("chapter", "prologue|prolog|prólogo|prologo|proloog|epilogue|epilog|épilogue|epílogo|epilogo|interlude|conclusion"
     "|schluss|schluß|dénouement|conclusión|楔子|引子|序章|终章|尾声|пролог|эпилог"),
    ("back", "afterword|appendix|notes|footnotes|glossary|index|bibliography|nachwort|anhang|anmerkungen|postface"
     "|annexe|apéndice|notas|nawoord|后记|跋|附录|послесловие"),
)  # fmt: skip
_NAMED = re.compile(
    r"^[\s*_=-]*(?:"
    + "|".join(f"(?P<{kind}>{names})" for kind, names in _NAMES)
    + r")(?:[\s.:*_=—-]+(?P<title>.{0,60}))?$",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*")
_LINE = re.compile(r"[^\n]*\S[^\n]*")
_LONGEST_LINE = 110
_MOST_LINES = 4
_EDGES = " \t\u3000.:*_=~|—–-[](){}"


class Block(NamedTuple):
    """Lines between blank lines."""

    span: Span
    lines: tuple[str, ...]
    """Empty where the block is too long to be a heading."""


class Heading(NamedTuple):
    """A line that could open a chapter."""

    span: Span
    number: int | None
    title: str
    """What stands beside or below the number; "" where nothing does."""
    label: str
    """The heading's first line."""
    style: Style
    bare: bool
    """True where the title, if there is one, stands in the next block."""


def blocks(text: str, span: Span) -> list[Block]:
    """The blocks of `span`, in order. A text without blank lines falls into its lines."""
    found = [Span(m.start(), m.end()) for m in _BLOCK.finditer(text, span.start, span.end)]
    n_lines = text.count("\n", span.start, span.end)
    if len(found) * 20 < n_lines:
        found = [Span(m.start(), m.end()) for m in _LINE.finditer(text, span.start, span.end)]
    return [Block(s, _short_lines(text, s)) for s in found]


def _short_lines(text: str, span: Span) -> tuple[str, ...]:
    if span.length > _MOST_LINES * _LONGEST_LINE:
        return ()
    lines = text[span.start : span.end].split("\n")
    return tuple(lines) if len(lines) <= _MOST_LINES and all(len(x) <= _LONGEST_LINE for x in lines) else ()


def find_headings(text: str, found: list[Block]) -> list[Heading]:
    """Every block, and every Chinese line, that could open a chapter, in order and in any style."""
    headings = []
    for block in found:
        if block.lines:
            headings += list(_of_block(block))
        else:
            headings += list(_inside(text, block.span))
    return headings


def named_heading(line: str) -> tuple[Literal["front", "chapter", "back"], str] | None:
    """Kind and title of an unnumbered heading such as "Epilogue"; None for other lines."""
    match = _NAMED.match(line.rstrip()) if len(line) <= _LONGEST_LINE else None
    if match is None or (match["title"] and match["title"][0].islower()):
        return None
    kind: Literal["front", "chapter", "back"]
    kind = "front" if match["front"] else "chapter" if match["chapter"] else "back"
    return kind, line.strip(_EDGES)


def _of_block(block: Block) -> Iterator[Heading]:
    first = block.lines[0]
    if len(block.lines) > 1 and _is_list(block.lines[:2]):
        return
    below = " ".join(line.strip() for line in block.lines[1:])
    for style, number, title in _readings(first):
        if style in ("roman", "digits", "word") and below:
            # "XII" over its title in one block; a lone number over prose is a list or a verse.
            if len(block.lines) > 3:
                continue
            yield Heading(block.span, number, below.strip(_EDGES), first.strip(), style, bare=False)
        else:
            whole = " ".join(x for x in (title, below) if x).strip(_EDGES)
            yield Heading(block.span, number, whole, first.strip(), style, bare=not whole)


def _is_list(lines: Sequence[str]) -> bool:
    """True where the first lines are headings of the same style: entries of a table of contents."""
    first, second = ({style for style, _, _ in _readings(line)} for line in lines)
    return bool(first & second)


def _inside(text: str, span: Span) -> Iterator[Heading]:
    """Headings that open a long block, the text following without a blank line, and Chinese ones inside."""
    starts = [span.start, *(m.end() for m in re.finditer("\n", text[span.start : span.end]))]
    ends = [span.start, *(span.start + at for at in starts[1:]), span.end + 1]
    for i, (start, end) in enumerate(pairwise(ends)):
        line = text[start : end - 1]
        if len(line) > _LONGEST_LINE:
            continue
        if "第" in line or "제" in line or i == 0:
            if i == 0 and len(starts) > 1 and _is_list(text[span.start : span.end].split("\n", 2)[:2]):
                continue
            for style, number, title in _readings(line):
                if style == "cjk" or (i == 0 and style == "chapter"):
                    yield Heading(Span(start, end - 1), number, title, line.strip(), style, bare=False)


def _readings(line: str) -> Iterator[tuple[Style, int, str]]:
    """The ways to read `line` as a numbered heading: style, number, title."""
    line = line.rstrip()
    if match := _CJK.match(line):
        number = chinese_number(match["number"])
        goes_on = not match["sep"] and _CJK_GOES_ON.match(match["title"])
        if number is not None and not goes_on and not _CJK_PROSE.search(match["title"]):
            yield ("part" if match["unit"] in _CJK_PARTS else "cjk"), number, match["title"].strip(_EDGES)
        return
    for pattern in (_WORD_FIRST, _NUMBER_FIRST):
        match = pattern.match(line)
        number = parse_number(match["number"].rstrip(".")) if match else None
        if match and number is not None:
            title = match["title"].strip()
            # "Chapter 3 deals with …" is prose, "Chapter 3. deals" and "CHAPTER 3 Deals" are headings.
            if not (title[:1].islower() and not match["sep"].strip()) and not title.endswith((",", ";")):
                yield ("part" if _IS_PART.fullmatch(match["word"]) else "chapter"), number, title.strip(_EDGES)
                return
    yield from _bare_readings(line)


def _bare_readings(line: str) -> Iterator[tuple[Style, int, str]]:
    if match := _BARE.match(line):
        word = match["number"]
        number = parse_number(word)
        if number:
            yield ("digits" if word.isdigit() else "roman" if roman_number(word) else "word"), number, ""
    elif match := _WITH_TITLE.match(line):
        word, title = match["number"], match["title"].strip()
        number = int(word) if word.isdigit() else roman_number(word)
        if number and not title.endswith((",", ";")):
            yield ("digits-title" if word.isdigit() else "roman-title"), number, title.strip(_EDGES)
