"""EPUB 2 and 3: the pages in reading order, chapters from the book's own table of contents."""

from __future__ import annotations

from collections import Counter

from coa.documents.formats.html import decode_page, language_in, parse_html
from coa.documents.formats.markup import Page, read_page
from coa.documents.formats.package import (
    Entry,
    Package,
    encrypted_names,
    nav_entries,
    ncx_entries,
    protection,
    read_package,
)
from coa.documents.formats.phrases import counted, listed, skipped_phrases
from coa.documents.formats.raw import Block, OutlineEntry, RawText
from coa.documents.formats.xml import parse_xml, without_entities
from coa.documents.formats.zipped import Archive
from coa.documents.languages import language_code
from coa.documents.limits import ReadingLimits
from coa.errors import DocumentError, DocumentTooLarge

__all__ = ["read"]

_FEWEST_ENTRIES = 2


def read(data: bytes, *, name: str, limits: ReadingLimits) -> RawText:
    """The text of the EPUB `data`: the pages of its spine, each read once, places by page and fragment.

    Chapters come from the navigation document (EPUB 3), else from the NCX (EPUB 2). A navigation page inside the
    reading order is kept and marked as not to be read. A book whose package is broken is read in the order of its
    file names, with a warning; pages that are locked or damaged are told. Raises DocumentError where no page can
    be read.
    """
    archive = Archive(data, name=name, limits=limits)
    package = read_package(archive)
    if not package.spine:
        raise DocumentError(f"{name} is an EPUB without a page of text.", hint="Get the file again.")
    locked = encrypted_names(archive)
    if locked and all(page in locked for page in package.spine):
        raise DocumentError(
            f"{name} is locked by {protection(archive)}.", hint="Give a copy without it; coa opens no locked books."
        )
    book = _Book(archive, package, locked, name)
    blocks = book.read()
    outline, method = book.outline(limits.max_depth)
    return RawText(
        blocks=tuple(blocks),
        media_type="application/epub+zip",
        title=package.title,
        language=language_code(package.language) or book.language,
        outline=tuple(outline),
        method=method,
        warnings=(*package.warnings, *book.warnings),
        left_out=(*skipped_phrases(book.skipped), *book.left_out),
    )


class _Book:
    """The pages of a book as they are read."""

    def __init__(self, archive: Archive, package: Package, locked: set[str], name: str) -> None:
        self._archive = archive
        self._package = package
        self._locked = locked
        self._name = name
        self._firsts: dict[str, int] = {}
        """The index of each page's first block."""
        self._anchors: dict[tuple[str, str], int] = {}
        self.skipped: Counter[str] = Counter()
        self.language: str | None = None
        self.warnings: list[str] = []
        self.left_out: list[str] = []

    def read(self) -> list[Block]:
        """The blocks of all pages. Raises DocumentError where not one page could be read."""
        blocks: list[Block] = []
        damaged: list[str] = []
        label: str | None = None
        for item in self._package.spine:
            self._firsts[item] = len(blocks)
            if item in self._locked:
                continue
            try:
                page = self._page(item, label)
            except DocumentTooLarge:
                raise
            except DocumentError:
                damaged.append(item)
                continue
            for anchor, at in page.anchors.items():
                self._anchors.setdefault((item, anchor), len(blocks) + at)
            self.skipped.update(page.skipped)
            blocks += page.blocks
        if len(damaged) == len(self._package.spine):
            raise DocumentError(f"{self._name} is damaged: none of its pages can be read.", hint="Get it again.")
        locked = [item for item in self._package.spine if item in self._locked]
        for names, what in ((damaged, "damaged"), (locked, "locked")):
            if names:
                self.warnings.append(f"Missing from the text: {counted(len(names), 'page')}, {what}: {listed(names)}.")
        if unlisted := self._package.unlisted:
            pages = counted(len(unlisted), "page outside of the reading order")
            self.left_out.append(f"{pages}: {listed(unlisted)}")
        return blocks

    def _page(self, item: str, label: str | None) -> Page:
        decoded = decode_page(self._archive.read(item))
        self.warnings += [f"{item}: {warning}" for warning in decoded.warnings]
        root = parse_xml(
            without_entities(decoded.text.lstrip("\ufeff \r\n\t")).encode(errors="replace"), encoding="utf-8"
        )
        if root is None:
            root = parse_html(decoded.text, name=item).root
        if self.language is None:
            self.language = language_in(root)
        is_nav = item == self._package.nav
        return read_page(
            root,
            item=item,
            label=label,
            left_out={root: ("markup", "table of contents")} if is_nav else None,
        )

    def outline(self, deepest: int) -> tuple[list[OutlineEntry], str]:
        """The book's own chapters and where they stand in it: "nav" or "ncx"; none where it names fewer than two."""
        for method, find in (("nav", nav_entries), ("ncx", ncx_entries)):
            entries = self._located(find(self._archive, self._package, deepest=deepest))
            if len(entries) >= _FEWEST_ENTRIES:
                return entries, method
        return [], ""

    def _located(self, entries: list[Entry]) -> list[OutlineEntry]:
        located: list[OutlineEntry] = []
        for i, entry in enumerate(entries):
            block = self._block_of(entry)
            if block is None and not entry.target:
                # A heading over other entries begins where the first of them does.
                below = (e for e in entries[i + 1 :] if e.target)
                following = next(below, None)
                block = self._block_of(following) if following and following.level > entry.level else None
            if block is not None and entry.title:
                located.append(OutlineEntry(entry.title, entry.level, block))
        return located

    def _block_of(self, entry: Entry) -> int | None:
        name = self._archive.find(entry.target) if entry.target else None
        if name is None or name not in self._firsts:
            return None
        return self._anchors.get((name, entry.fragment), self._firsts[name])
