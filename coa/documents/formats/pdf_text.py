"""Lines of a PDF page with where they stand, by PDFium's text page."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import pypdfium2.raw as pdfium_c

__all__ = ["Frame", "Line", "Word", "line_of", "page_words", "unmapped_share"]

# What PDFium writes for any hyphen at a line's end; the line break behind it is not in its text.
_HYPHEN_MARKS = "\ufffe\x02"
_LINE = re.compile(rf"[^\r\n{_HYPHEN_MARKS}]+[{_HYPHEN_MARKS}]?|[{_HYPHEN_MARKS}]")
_WORD = re.compile(r"\S+")
_NOTED = re.compile(r"(.*[^\W\d_]{2}[.,;:!?)\"'”’»]*)\d{1,3}$")
_RAISED_RATIO = 0.85
_FIXED_NAME = re.compile(r"mono|courier|consol|typewriter|cmtt|menlo|fixed", re.IGNORECASE)
_BOLD_NAME = re.compile(r"bold|black|heavy|cmbx|-bd\b", re.IGNORECASE)
_FIXED_FLAG, _FORCE_BOLD_FLAG = 1, 1 << 18
_PRESENTATION_FORMS = str.maketrans(
    {
        "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st",
        "\ufb06": "st", "\uf0b7": "•", "\uf0a7": "•", "\uf0d8": "•", "\uf0fc": "•", "\uf02d": "-", "\uf020": " ",
    }
)  # fmt: skip


class Frame(NamedTuple):
    """How a page is shown: its size in points as seen, and by how much it is turned."""

    width: float
    height: float
    rotation: int
    """Degrees clockwise: 0, 90, 180 or 270."""

    def shown(self, x: float, y: float) -> tuple[float, float]:
        """A point of the page's own space as it is seen, the origin at the lower left."""
        if self.rotation == 90:
            return y, self.height - x
        if self.rotation == 180:
            return self.width - x, self.height - y
        if self.rotation == 270:
            return self.width - y, x
        return x, y


class Word(NamedTuple):
    """Characters without white space between them, and their box in points."""

    text: str
    x0: float
    x1: float
    bottom: float
    top: float
    bold: bool
    fixed: bool


@dataclass(slots=True)
class Line:
    """A line as it is printed, in one column."""

    text: str
    page: int
    """Counted from 0."""
    x0: float
    x1: float
    bottom: float
    top: float
    first_width: float
    """Of the first word, in points."""
    bold: bool
    fixed: bool
    left: float = 0.0
    """Of the column that the line stands in."""
    right: float = 0.0
    column: int = 0
    soft_hyphen: bool = False
    """True where the line ends in a hyphen that the file marks as one that breaks a word (U+00AD)."""
    level: int | None = None
    """Of the heading that the line is; set by who finds headings."""
    entry: int | None = None
    """The outline's entry that the line opens."""
    opens: int | None = None
    """The level of the section that begins with the line."""
    title_of: int | None = None
    """The entry, or the heading, whose title the line is a part of."""

    @property
    def size(self) -> float:
        """Height of the font's box, a little over its size, in points."""
        return self.top - self.bottom


def page_words(text_page: Any, frame: Frame) -> list[list[Word]]:
    """The words of each line of a PDFium text page (a raw handle), in PDFium's order."""
    n_chars = pdfium_c.FPDFText_CountChars(text_page)
    if n_chars <= 0:
        return []
    boxes = _Boxes(text_page, frame)
    fonts = _Fonts(text_page)
    lines: list[list[Word]] = []
    text = _page_text(text_page, n_chars)
    for match in _LINE.finditer(text):
        words = [w for m in _WORD.finditer(match.group()) for w in _words(m, match.start(), boxes, fonts)]
        if not words:
            continue
        if lines and _goes_on(lines[-1][-1], words[0]):
            lines[-1] += words
        else:
            lines.append(words)
    return lines


def line_of(words: list[Word], page: int) -> Line:
    """One printed line that `words` make up, from left to right as they come."""
    text = " ".join(word.text for word in words)
    soft = text.endswith("\u00ad")
    return Line(
        text=text.rstrip("\u00ad") + "-" if soft else text,
        page=page,
        x0=min(w.x0 for w in words),
        x1=max(w.x1 for w in words),
        bottom=median(w.bottom for w in words),
        top=median(w.top for w in words),
        first_width=words[0].x1 - words[0].x0,
        bold=all(w.bold for w in words),
        fixed=all(w.fixed for w in words),
        soft_hyphen=soft,
    )


def _page_text(text_page: Any, n_chars: int) -> str:
    """The page's text with one code point per PDFium character, so that indices of both agree."""
    buffer = (ctypes.c_ushort * (n_chars + 1))()
    n_units = pdfium_c.FPDFText_GetText(text_page, 0, n_chars, buffer) - 1
    text = bytes(buffer)[: 2 * max(n_units, 0)].decode("utf-16-le", "surrogatepass")
    if len(text) != n_chars:
        codes = (pdfium_c.FPDFText_GetUnicode(text_page, i) for i in range(n_chars))
        text = "".join(chr(code) if 0 < code < 0x110000 else "\ufffd" for code in codes)
    return text


def _goes_on(last: Word, first: Word) -> bool:
    """True where PDFium broke a line that goes on to the right, also where one side is raised."""
    shared = min(last.top, first.top) - max(last.bottom, first.bottom)
    smaller, larger = sorted((last.top - last.bottom, first.top - first.bottom))
    near = -0.1 * larger < first.x0 - last.x1 < 2 * larger
    return near and shared > 0.6 * smaller > 0


def _words(match: re.Match[str], offset: int, boxes: _Boxes, fonts: _Fonts) -> list[Word]:
    """One word, or a word and the raised number of the note that belongs to it."""
    text, at = match.group(), offset + match.start()
    if noted := _NOTED.match(text):
        border = noted.end(1)
        base, mark = boxes.at(at), boxes.at(at + border)
        if 0 < mark[3] - mark[1] < _RAISED_RATIO * (base[3] - base[1]) and mark[1] > base[1]:
            return [_word(text[:border], at, boxes, fonts), _word(text[border:], at + border, boxes, fonts)]
    return [_word(text, at, boxes, fonts)]


def _word(text: str, at: int, boxes: _Boxes, fonts: _Fonts) -> Word:
    first, last = boxes.at(at), boxes.at(at + len(text) - 1)
    bold, fixed = fonts.at(at)
    if text[-1] in _HYPHEN_MARKS:
        text = text[:-1] + "-"
    return Word(
        text.translate(_PRESENTATION_FORMS),
        min(first[0], last[0]),
        max(first[2], last[2]),
        first[1],
        first[3],
        bold,
        fixed,
    )


class _Boxes:
    """Boxes of single characters as seen: left, bottom, right, top."""

    def __init__(self, text_page: Any, frame: Frame) -> None:
        self._page = text_page
        self._frame = frame
        self._rect = pdfium_c.FS_RECTF()
        self._pointer = ctypes.byref(self._rect)

    def at(self, index: int) -> tuple[float, float, float, float]:
        rect = self._rect
        if not pdfium_c.FPDFText_GetLooseCharBox(self._page, index, self._pointer):
            return (0.0, 0.0, 0.0, 0.0)
        if not self._frame.rotation:
            return rect.left, rect.bottom, rect.right, rect.top
        ax, ay = self._frame.shown(rect.left, rect.bottom)
        bx, by = self._frame.shown(rect.right, rect.top)
        return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)


class _Fonts:
    """Weight and pitch of single characters' fonts."""

    def __init__(self, text_page: Any) -> None:
        self._page = text_page
        self._name = ctypes.create_string_buffer(128)
        self._flags = ctypes.c_int()
        self._pointer = ctypes.byref(self._flags)
        self._known: dict[tuple[bytes, int], tuple[bool, bool]] = {}

    def at(self, index: int) -> tuple[bool, bool]:
        """(bold, fixed pitch)"""
        length = pdfium_c.FPDFText_GetFontInfo(self._page, index, self._name, 128, self._pointer)
        key = (self._name.value if 0 < length <= 128 else b"", self._flags.value)
        if key not in self._known:
            name = key[0].decode("utf-8", errors="replace")
            bold = bool(_BOLD_NAME.search(name) or key[1] & _FORCE_BOLD_FLAG)
            self._known[key] = (bold, bool(_FIXED_NAME.search(name) or key[1] & _FIXED_FLAG))
        return self._known[key]


def unmapped_share(lines: Iterator[str]) -> float:
    """The share of characters that have no Unicode value: private use, controls, U+FFFD."""
    n_all = n_bad = 0
    for text in lines:
        n_all += len(text)
        n_bad += sum(1 for c in text if c == "\ufffd" or "\ue000" <= c <= "\uf8ff" or c < " ")
    return n_bad / n_all if n_all else 0.0
