"""What the elements of HTML and EPUB pages mean for the text."""

from __future__ import annotations

import re
from enum import Enum, auto

from coa.documents.formats.trees import Element

__all__ = [
    "BLOCKS",
    "HEADINGS",
    "SKIPPED",
    "Tag",
    "epub_types",
    "is_data_table",
    "is_footnote",
    "is_hidden",
    "is_note_mark",
    "is_page_mark",
    "is_permalink",
    "list_marker",
    "local_name",
    "page_label",
    "raised",
]


class Tag(Enum):
    """What an element that sets off its text does beyond that."""

    PLAIN = auto()
    PREFORMATTED = auto()
    LIST = auto()
    ITEM = auto()
    TABLE = auto()
    ROW = auto()
    CELL = auto()


_PLAIN = (
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption figure"
    " footer form frameset h1 h2 h3 h4 h5 h6 header hgroup hr html legend main nav optgroup p search section summary"
    " tbody tfoot thead colgroup"
)
BLOCKS: dict[str, Tag] = dict.fromkeys(_PLAIN.split(), Tag.PLAIN) | {
    "pre": Tag.PREFORMATTED,
    "listing": Tag.PREFORMATTED,
    "xmp": Tag.PREFORMATTED,
    "plaintext": Tag.PREFORMATTED,
    "ol": Tag.LIST,
    "ul": Tag.LIST,
    "menu": Tag.LIST,
    "li": Tag.ITEM,
    "table": Tag.TABLE,
    "tr": Tag.ROW,
    "td": Tag.CELL,
    "th": Tag.CELL,
}
HEADINGS = {f"h{n}": n for n in range(1, 7)}
# What is in no block, as what it is counted; "" where there is nothing in it that a person would miss.
SKIPPED: dict[str, str] = {
    "head": "", "style": "", "link": "", "meta": "", "title": "", "base": "", "col": "", "source": "", "track": "",
    "script": "script", "template": "", "noscript": "message for browsers without scripts",
    "img": "picture", "image": "picture", "svg": "picture", "canvas": "picture", "map": "", "area": "",
    "iframe": "frame", "frame": "frame", "object": "object", "embed": "object",
    "applet": "object", "audio": "recording", "video": "recording",
    "input": "", "select": "form field", "textarea": "form field", "button": "form field", "datalist": "",
    "rt": "reading of ruby", "rp": "", "rtc": "reading of ruby", "annotation": "", "annotation-xml": "",
}  # fmt: skip

_EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"
_PAGE_CLASSES = frozenset(
    [
        "pagenum",
        "pageno",
        "page-number",
        "pagenumber",
        "page_number",
        "pagebreak",
        "x-ebookmaker-pageno",
        "newpage",
        "folionum",
    ]
)
_FOOTNOTE_CLASSES = frozenset(
    ["footnote", "footnotes", "fn", "footnote-text", "endnote", "note-text", "brackets-footnote"]
)
_NOTE_MARK_CLASSES = frozenset(["footnote-reference", "footnote-ref", "fnanchor", "noteref", "footnoteref", "fnref"])
_PERMALINK_CLASSES = frozenset(["headerlink", "permalink", "anchorjs-link", "header-anchor", "ocn", "lnkocn"])
_NOTE_MARK = re.compile(r"\s*(?:\d{1,4}|[a-z]|[ivxl]{1,6}|[*†‡§]{1,3})\s*")
_PAGE_TEXT = re.compile(
    r"[\s\[({|]*(?:(?:pages?|pg|p|seite|s)\b\.?\s*)?[#\[({]*([ivxlcdm]{1,9}|[a-z]?-?\d{1,5}[a-z]?)?[\s\])}|]*",
    re.IGNORECASE,
)
_LONGEST_PAGE_TEXT = 20
_HIDDEN_STYLE = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_RAISED = str.maketrans("0123456789+-−=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ")
_LOWERED = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")
_RAISABLE = re.compile(r"[\d+\-−=()]+")
_LAYOUT_CELL = 1500
_LAYOUT_BLOCKS = 3
_ROMANS = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"),
           (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip


def local_name(element: Element) -> str:
    """The element's name in small letters, without its namespace."""
    tag = element.tag
    if not isinstance(tag, str):  # comments and the like
        return ""
    return (tag.rpartition("}")[2] if tag[0] == "{" else tag).lower()


def epub_types(element: Element) -> set[str]:
    """The words of epub:type and role, "doc-" taken off."""
    words = element.get(_EPUB_TYPE) or element.get("epub:type") or ""
    role = element.get("role") or ""
    return {w.lower().removeprefix("doc-") for w in (*words.split(), *role.split())} if words or role else set()


def is_hidden(element: Element) -> bool:
    """True where a browser would show nothing of it."""
    if element.get("hidden") is not None:
        return True
    style = element.get("style")
    return bool(style and _HIDDEN_STYLE.search(style))


def is_footnote(element: Element, tag: str) -> bool:
    """True for what holds footnotes or endnotes, or one of them."""
    if tag not in ("aside", "div", "dl", "section", "p", "li", "ol", "ul"):
        return False
    classes = (element.get("class") or "").lower().split()
    if not _FOOTNOTE_CLASSES.isdisjoint(classes):
        return True
    return not {"footnote", "footnotes", "rearnote", "rearnotes", "endnote", "endnotes"}.isdisjoint(epub_types(element))


def is_page_mark(element: Element, tag: str) -> bool:
    """True for the number of a page of the printed book, which is no part of its text."""
    if tag not in ("span", "a", "div", "p", "hr", "i", "b", "small"):
        return False
    classes = (element.get("class") or "").lower().split()
    if _PAGE_CLASSES.isdisjoint(classes) and "pagebreak" not in epub_types(element):
        return False
    text = "".join(element.itertext())
    return len(text) <= _LONGEST_PAGE_TEXT and _PAGE_TEXT.fullmatch(text) is not None


def is_permalink(element: Element, tag: str) -> bool:
    """True for a sign or number beside a paragraph that only links to the paragraph itself."""
    if tag not in ("a", "label"):
        return False
    return not _PERMALINK_CLASSES.isdisjoint((element.get("class") or "").lower().split())


def page_label(element: Element) -> str:
    """What is printed on the page that the mark opens; "" where it does not say."""
    for words in (element.get("title"), element.get("aria-label"), "".join(element.itertext()), element.get("id")):
        match = _PAGE_TEXT.fullmatch((words or "").replace("_", " ").strip().removeprefix("Page ")) if words else None
        if match and match[1]:
            return match[1]
    return ""


def is_note_mark(element: Element, tag: str) -> bool:
    """True where the element is the bare number of a footnote, which is to be set in brackets."""
    if tag == "a":
        classes = (element.get("class") or "").lower().split()
        if _NOTE_MARK_CLASSES.isdisjoint(classes) and "noteref" not in epub_types(element):
            parent = element.getparent()
            if parent is None or local_name(parent) != "sup" or "#" not in (element.get("href") or ""):
                return False
    elif tag != "sup" or len(element) != 1 or local_name(element[0]) != "a" or "#" in (element[0].get("href") or ""):
        return False  # a link inside gets the brackets itself
    return _NOTE_MARK.fullmatch("".join(element.itertext())) is not None


def raised(text: str, tag: str) -> str:
    """Digits as the signs for powers and indices, so that 10² does not read as 102; other text as it is."""
    if not _RAISABLE.fullmatch(text.strip()):
        return text
    return text.strip().translate(_RAISED if tag == "sup" else _LOWERED)


def is_data_table(table: Element) -> bool:
    """False for tables that only lay out a page: with tables, headings or long texts in their cells."""
    if table.get("role") in ("presentation", "none"):
        return False
    n_columns = 0
    for element in table.iter():
        name = local_name(element)
        if name == "tr":
            n_columns = max(n_columns, len(element))
        if (name == "table" and element is not table) or name in HEADINGS or name == "pre":
            return False
        if name in ("td", "th"):
            n_blocks = sum(1 for child in element if local_name(child) in BLOCKS)
            if n_blocks >= _LAYOUT_BLOCKS and sum(map(len, element.itertext())) > _LAYOUT_CELL:
                return False
    return n_columns > 1


def list_marker(style: str, number: int) -> str:
    """What stands before a list's item: "-", "3.", "c.", "iii."."""
    if style == "-":
        return "-"
    if style in ("a", "A") and 0 < number <= 26:
        letter = chr(ord("a") + number - 1)
        return f"{letter if style == 'a' else letter.upper()}."
    if style in ("i", "I") and 0 < number < 4000:
        roman, rest = "", number
        for value, sign in _ROMANS:
            roman += sign * (rest // value)
            rest %= value
        return f"{roman if style == 'i' else roman.upper()}."
    return f"{number}."
