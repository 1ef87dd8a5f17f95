"""HTML pages: their main text, in whatever encoding they are."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from typing import NamedTuple

from coa.documents.decoding import Decoded, decode
from coa.documents.formats.markup import read_page
from coa.documents.formats.phrases import skipped_phrases
from coa.documents.formats.raw import LeftOutCause, RawText
from coa.documents.formats.tags import epub_types, local_name
from coa.documents.formats.trees import Element, etree
from coa.documents.languages import language_code
from coa.documents.limits import ReadingLimits
from coa.errors import DocumentError, DocumentTooLarge

__all__ = ["ParsedPage", "decode_page", "parse_html", "read"]

_BOMS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Browsers look at the first 1024 bytes; pages that were saved with a notice in front have it later.
_DECLARED_WITHIN = 8192
_DECLARED = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)|<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w.:-]+)["']""",
    re.IGNORECASE,
)
# What browsers take a declared name for (WHATWG Encoding Standard); the larger sets hold the smaller ones.
_READ_AS = {
    "ascii": "cp1252", "us-ascii": "cp1252", "iso-8859-1": "cp1252", "iso8859-1": "cp1252", "latin1": "cp1252",
    "latin-1": "cp1252", "iso-8859-9": "cp1254", "tis-620": "cp874", "iso-8859-11": "cp874", "gb2312": "gb18030",
    "gbk": "gb18030", "x-gbk": "gb18030", "gb_2312-80": "gb18030", "shift_jis": "cp932", "shift-jis": "cp932",
    "sjis": "cp932", "x-sjis": "cp932", "windows-31j": "cp932", "euc-kr": "cp949", "ks_c_5601-1987": "cp949",
    "big5": "big5hkscs", "x-mac-roman": "mac_roman", "macintosh": "mac_roman", "utf-16": "utf-8",
    "utf-16le": "utf-8", "utf-16be": "utf-8", "unicode": "utf-8",
}  # fmt: skip
_TITLE_END = re.compile(r"\s+(?:[|–—-]|::)\s+[^|–—]{1,60}$")


class ParsedPage(NamedTuple):
    """A page's tree and what its head says."""

    root: Element
    title: str | None
    language: str | None


def read(data: bytes, *, name: str, limits: ReadingLimits) -> RawText:
    """The text of the HTML page `data`.

    With a `main` element what is outside of it is kept and marked as not to be read, and so are navigation and
    what a browser would hide. Raises DocumentError where the page is nested too deeply or in no known encoding.
    """
    try:
        decoded = decode_page(data)
    except DocumentError as exc:
        raise DocumentError(f"{name}: {exc.message}", hint=exc.hint) from exc
    page = parse_html(decoded.text, name=name)
    result = read_page(page.root, left_out=_outside_main(page.root))
    return RawText(
        blocks=tuple(result.blocks),
        media_type="text/html",
        title=None if sum(1 for b in result.blocks if b.kind == "heading" and b.level == 1) == 1 else page.title,
        language=page.language,
        encoding=decoded.encoding,
        warnings=decoded.warnings,
        left_out=skipped_phrases(result.skipped),
    )


def decode_page(data: bytes) -> Decoded:
    """The text of an HTML or XHTML page.

    Tried in this order: a byte order mark; what the page declares, as browsers understand it, unless the bytes
    are UTF-8 that was declared to be something else; what `coa.documents.decoding.decode` finds.
    """
    if data.startswith(_BOMS):
        return decode(data)
    match = _DECLARED.search(data[:_DECLARED_WITHIN])
    declared = (match[1] or match[2]).decode("ascii", errors="replace").lower() if match else ""
    encoding = _READ_AS.get(declared, declared)
    if not encoding or not _is_codec(encoding):
        return decode(data)
    if encoding != "utf-8" and not data.isascii():
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            pass
        else:
            return Decoded(text, "utf-8", (f"The page says that it is in {declared}; it is in UTF-8.",))
    try:
        return Decoded(data.decode(encoding), "iso8859-1" if declared == "iso-8859-1" else encoding)
    except UnicodeDecodeError:
        pass
    if encoding == "cp1252":  # five bytes have no meaning in it
        return Decoded(data.decode("latin-1"), "latin-1")
    found = decode(data)
    return Decoded(found.text, found.encoding, (*found.warnings, f"The page is not in {declared} as it says."))


def parse_html(text: str, *, name: str) -> ParsedPage:
    """The tree of an HTML page, with title and language.

    Raises DocumentError where the page is nested deeper, or a stretch of text in it is longer, than the parser
    takes: it would end there without a word.
    """
    parser = etree.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True, huge_tree=False, recover=True
    )
    data = text.replace("\x00", "").encode("utf-8", errors="replace")
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as exc:
        raise DocumentError(f"{name} holds no text.", hint="Give a page with text in it.") from exc
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" or "Excessive" in entry.message for entry in parser.error_log):
        raise DocumentTooLarge(
            f"{name} is nested too deeply, or has a single word of many megabytes.",
            hint="Open it in a browser and save its text.",
        )
    if root is None:
        raise DocumentError(f"{name} holds no text.", hint="Give a page with text in it.")
    return ParsedPage(root, title_in(root), language_in(root))


def title_in(root: Element) -> str | None:
    """What the title element of the page's head says, the site's name taken off."""
    for element in root.iter("title", "{http://www.w3.org/1999/xhtml}title"):
        title = " ".join("".join(element.itertext()).split())
        return _TITLE_END.sub("", title) or None
    return None


def language_in(root: Element) -> str | None:
    """ISO 639-1 of the page, as its outermost elements declare it."""
    elements: Iterable[Element] = [root, *root]
    for element in elements:
        declared = element.get("lang") or element.get("{http://www.w3.org/XML/1998/namespace}lang")
        declared = declared or element.get("xml:lang")
        if declared and (code := language_code(declared)):
            return code
    return None


def _is_codec(name: str) -> bool:
    try:
        return codecs.lookup(name)._is_text_encoding
    except (LookupError, ValueError):
        return False


def _outside_main(root: Element) -> dict[object, tuple[LeftOutCause, str]]:
    """The elements that are not the page's text: around `main`, and navigation anywhere."""
    left_out: dict[object, tuple[LeftOutCause, str]] = {}
    main: Element | None = None
    for element in root.iter():
        name = local_name(element)
        if name == "nav" or (element.attrib and "navigation" in epub_types(element)):
            left_out[element] = ("markup", "navigation")
        elif main is None and (name == "main" or (element.attrib and "main" in epub_types(element))):
            main = element
    if main is None or not "".join(main.itertext()).strip():
        for body in root.iter("body"):
            for child in body:
                if local_name(child) == "footer":
                    left_out[child] = ("markup", "footer")
        return left_out
    inside: Element | None = main
    while inside is not None:
        parent = inside.getparent()
        for sibling in parent if parent is not None else ():
            if sibling is not inside and local_name(sibling) not in ("head", "main"):
                left_out.setdefault(sibling, ("markup", "outside the main text"))
        inside = parent
    return left_out
