"""What an EPUB says of itself: its package document, reading order and table of contents."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from coa.documents.formats.natural import natural_key
from coa.documents.formats.phrases import counted, listed
from coa.documents.formats.tags import epub_types, local_name
from coa.documents.formats.trees import Element
from coa.documents.formats.xml import attribute, child_text, elements, parse_xml, without_entities
from coa.documents.formats.zipped import Archive
from coa.errors import DocumentError, DocumentTooLarge

__all__ = ["Entry", "Package", "encrypted_names", "nav_entries", "ncx_entries", "protection", "read_package", "resolve"]

PAGE_TYPES = frozenset(
    {"application/xhtml+xml", "text/html", "application/html", "text/x-oeb1-document", "application/x-dtbook+xml"}
)
_PAGE_NAME = re.compile(r"\.x?html?$", re.IGNORECASE)
# Fonts that are garbled by these are no protection: the text is in the clear.
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_PROTECTIONS = (
    ("META-INF/license.lcpl", "Readium LCP"),
    ("META-INF/rights.xml", "Adobe DRM"),
    ("META-INF/sinf.xml", "Apple FairPlay"),
)


class Entry(NamedTuple):
    """An entry of a table of contents."""

    title: str
    level: int
    target: str
    """The name of a file in the archive; "" for a heading over other entries."""
    fragment: str


@dataclass(slots=True)
class Package:
    """The package document, with names of files in the archive."""

    title: str | None = None
    language: str = ""
    spine: list[str] = field(default_factory=list)
    """Pages in reading order, each once."""
    nav: str | None = None
    ncx: str | None = None
    unlisted: list[str] = field(default_factory=list)
    """Pages that are in the book and not in its reading order."""
    warnings: list[str] = field(default_factory=list)


def read_package(archive: Archive) -> Package:
    """The package of the book; where it is missing or broken, the pages in the order of their names."""
    package = Package()
    path = _package_path(archive)
    data = _content(archive, path) if path else None
    root = _parsed(data, recover=False)
    if root is None:
        root = _parsed(data, recover=True)
    if root is not None and path:
        _fill(package, archive, root, posixpath.dirname(path))
    if not package.spine:
        package.spine = sorted((n for n in archive.names if _PAGE_NAME.search(n)), key=natural_key)
        package.unlisted = []
        package.warnings.append("The book does not say in which order its pages are read; they follow their names.")
    return package


def _parsed(data: bytes | None, *, recover: bool) -> Element | None:
    if not data:
        return None
    root = parse_xml(data, recover=recover)
    if root is None and b"&" in data:
        root = parse_xml(without_entities(data.decode("utf-8", errors="replace")).encode(), encoding="utf-8")
    return root


def _content(archive: Archive, name: str | None) -> bytes | None:
    """The file's bytes; None where it is not there or damaged."""
    found = archive.find(name) if name else None
    if found is None:
        return None
    try:
        return archive.read(found)
    except DocumentTooLarge:
        raise
    except DocumentError:
        return None


def _package_path(archive: Archive) -> str | None:
    root = _parsed(_content(archive, "META-INF/container.xml"), recover=True)
    for rootfile in elements(root, "rootfile") if root is not None else ():
        path = archive.find(resolve("", attribute(rootfile, "full-path"))[0])
        if path:
            return path
    found = [n for n in archive.names if n.lower().endswith(".opf")]
    return min(found, key=len) if found else None


def _fill(package: Package, archive: Archive, root: Element, folder: str) -> None:
    package.title = child_text(root, "title") or None
    package.language = child_text(root, "language")
    names: dict[str, str] = {}
    types: dict[str, str] = {}
    for item in elements(root, "item"):
        href = resolve(folder, attribute(item, "href"))[0]
        name = archive.find(href) or href
        identity = attribute(item, "id")
        names[identity] = name
        types.setdefault(name, attribute(item, "media-type").lower())
        if "nav" in attribute(item, "properties").split():
            package.nav = name
        if types[name] == "application/x-dtbncx+xml":
            package.ncx = name
    spine = next(iter(elements(root, "spine")), None)
    if spine is not None:
        package.ncx = names.get(attribute(spine, "toc")) or package.ncx
        wanted = [names.get(attribute(ref, "idref")) for ref in elements(spine, "itemref")]
        present = dict.fromkeys(n for n in wanted if n is not None)
        missing = [n for n in present if archive.find(n) is None]
        package.spine = [n for n in present if n not in missing and _is_page(n, types.get(n, ""))]
        n_lost = len(missing) + sum(1 for n in wanted if n is None)
        if n_lost:
            shown = f": {listed(missing)}" if missing else ""
            package.warnings.append(f"Missing from the book: {counted(n_lost, 'page')} that it lists{shown}.")
    pages = [n for n, kind in types.items() if archive.find(n) and _is_page(n, kind)]
    if not package.spine:
        package.spine = [n for n in pages if n != package.nav]
        if package.spine:
            package.warnings.append("The book has no reading order; its pages follow the list of its files.")
    package.unlisted = [n for n in pages if n not in set(package.spine) and n != package.nav]


def _is_page(name: str, media_type: str) -> bool:
    return media_type in PAGE_TYPES or (bool(_PAGE_NAME.search(name)) and not media_type.startswith("image/"))


def resolve(folder: str, href: str) -> tuple[str, str]:
    """The name in the archive and the fragment that `href`, found in a file of `folder`, points to."""
    path, _, fragment = href.strip().partition("#")
    path = unquote(path)
    name = posixpath.normpath(posixpath.join(folder, path)) if path else ""
    return name.lstrip("/"), unquote(fragment)


def encrypted_names(archive: Archive) -> set[str]:
    """The files that cannot be read without a key, garbled fonts apart."""
    found = {n for n in archive.names if archive.is_encrypted(n)}
    root = _parsed(_content(archive, "META-INF/encryption.xml"), recover=True)
    for data in elements(root, "encrypteddata") if root is not None else ():
        method = next(iter(elements(data, "encryptionmethod")), None)
        if method is not None and attribute(method, "Algorithm") in _FONT_OBFUSCATION:
            continue
        for reference in elements(data, "cipherreference"):
            name = archive.find(resolve("", attribute(reference, "URI"))[0])
            if name:
                found.add(name)
    return found


def protection(archive: Archive) -> str:
    """What the book is locked with, to a person."""
    return next((kind for name, kind in _PROTECTIONS if archive.find(name)), "encryption")


def nav_entries(archive: Archive, package: Package, *, deepest: int) -> list[Entry]:
    """The entries of the EPUB 3 navigation document, in order; empty where there is none."""
    root = _parsed(_content(archive, package.nav), recover=True)
    if root is None or package.nav is None:
        return []
    navs = elements(root, "nav")
    toc = next((n for n in navs if "toc" in epub_types(n)), None)
    if toc is None:
        toc = next((n for n in navs if not epub_types(n) & {"landmarks", "page-list"}), None)
    folder = posixpath.dirname(package.nav)
    top = next((c for c in toc.iter() if local_name(c) == "ol"), None) if toc is not None else None
    return list(_nav_list(top, folder, package.nav, 1, deepest)) if top is not None else []


def _nav_list(items: Element, folder: str, own: str, level: int, deepest: int) -> Iterator[Entry]:
    for item in items:
        if local_name(item) != "li":
            continue
        label = next((c for c in item if local_name(c) in ("a", "span")), None)
        if label is not None:
            target, fragment = resolve(folder, attribute(label, "href"))
            title = " ".join("".join(label.itertext()).split()) or attribute(label, "title")
            yield Entry(title, level, target or (own if fragment else ""), fragment)
        if level < deepest:
            for below in item:
                if local_name(below) == "ol":
                    yield from _nav_list(below, folder, own, level + 1, deepest)


def ncx_entries(archive: Archive, package: Package, *, deepest: int) -> list[Entry]:
    """The entries of the EPUB 2 table of contents, in order; empty where there is none."""
    name = package.ncx or next((n for n in archive.names if n.lower().endswith(".ncx")), None)
    root = _parsed(_content(archive, name), recover=True)
    if root is None or name is None:
        return []
    top = next(iter(elements(root, "navmap")), None)
    return list(_nav_points(top, posixpath.dirname(name), 1, deepest)) if top is not None else []


def _nav_points(holder: Element, folder: str, level: int, deepest: int) -> Iterator[Entry]:
    for point in holder:
        if local_name(point) != "navpoint":
            continue
        label = next((c for c in point if local_name(c) == "navlabel"), None)
        content = next((c for c in point if local_name(c) == "content"), None)
        target, fragment = resolve(folder, attribute(content, "src")) if content is not None else ("", "")
        yield Entry(" ".join("".join(label.itertext()).split()) if label is not None else "", level, target, fragment)
        if level < deepest:
            yield from _nav_points(point, folder, level + 1, deepest)
