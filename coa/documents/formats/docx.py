"""Word documents (DOCX): paragraphs, headings, lists, tables, notes and text boxes."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator

from coa.documents.formats.docx_styles import Numbering, Styles, child, numbering_of, value
from coa.documents.formats.phrases import counted, skipped_phrases
from coa.documents.formats.raw import Block, BlockKind, PlaceRef, RawText
from coa.documents.formats.tags import local_name
from coa.documents.formats.trees import Element
from coa.documents.formats.xml import attribute, child_text, parse_xml
from coa.documents.formats.zipped import Archive
from coa.documents.limits import ReadingLimits
from coa.errors import DocumentError, DocumentTooLarge

__all__ = ["read"]

_TABS = re.compile(r"\t[ \t]+")
_CELL_BORDER = " | "
_NO_TITLE = re.compile(
    r"(?:microsoft word\b|untitled|document\d*$|word document|.*\.(?:docx?|rtf|odt)$)", re.IGNORECASE
)
_SHORT_ITEM = 200
# Elements whose text is not the document's own, with what they are counted as.
_SKIPPED = {
    "ppr": "", "rpr": "", "instrtext": "", "deltext": "", "delinstrtext": "", "fallback": "", "rt": "reading of ruby",
    "commentreference": "comment", "chart": "chart", "relids": "diagram", "oleobject": "object",
    "altchunk": "document inside", "sectpr": "", "proofpr": "", "annotationref": "", "tblpr": "", "sdtpr": "",
    "blip": "picture", "imagedata": "picture",
}  # fmt: skip
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "nobreakhyphen": "\u2011", "softhyphen": "", "ptab": "\t"}
_DELETED = frozenset({"del", "movefrom"})
_FURNITURE = re.compile(r"(?:^|/)(?:header|footer)\d*\.xml$")


def read(data: bytes, *, name: str, limits: ReadingLimits) -> RawText:
    """The text of the Word document `data`, places by paragraph.

    Tracked insertions are kept, deletions dropped and told. Footnotes follow the paragraph that refers to them,
    endnotes the text. Headers and footers, comments and pictures are told and not read. Raises DocumentError
    where the main part is missing or damaged.
    """
    archive = Archive(data, name=name, limits=limits)
    main = _main_part(archive)
    root = _part(archive, main)
    body = child(root, "body")
    if body is None:
        raise DocumentError(
            f"{name} is damaged: its main part cannot be read.", hint="Open it in Word and save it again."
        )
    parts = _related(archive, main)
    text = _Text(archive, parts)
    for element in body:
        text.flow(element)
    text.add_endnotes()
    n_furniture = sum(1 for part in archive.names if _FURNITURE.search(part))
    if n_furniture:
        text.skipped["part with headers or footers"] = n_furniture
    core = _part(archive, "docProps/core.xml")
    title = child_text(core, "title") if core is not None else ""
    return RawText(
        blocks=tuple(text.blocks),
        media_type="application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        title=None if not title or _NO_TITLE.match(title) else title,
        warnings=tuple(text.warnings()),
        left_out=skipped_phrases(text.skipped),
    )


def _part(archive: Archive, name: str | None) -> Element | None:
    found = archive.find(name) if name else None
    if found is None:
        return None
    try:
        return parse_xml(archive.read(found))
    except DocumentTooLarge:
        raise
    except DocumentError:
        return None


def _relations(archive: Archive, part: str) -> Iterator[tuple[str, str]]:
    """Type (its last word) and target of what `part` refers to inside the archive."""
    folder, base = posixpath.split(part)
    root = _part(archive, posixpath.join(folder, "_rels", f"{base}.rels"))
    for relation in root if root is not None else ():
        if attribute(relation, "TargetMode") != "External":
            target = posixpath.normpath(posixpath.join("/", folder, attribute(relation, "Target"))).lstrip("/")
            yield attribute(relation, "Type").rpartition("/")[2].lower(), target


def _main_part(archive: Archive) -> str:
    return next((t for kind, t in _relations(archive, "") if kind == "officedocument"), "word/document.xml")


def _related(archive: Archive, main: str) -> dict[str, Element | None]:
    names = dict(reversed(list(_relations(archive, main))))
    folder = posixpath.dirname(main)
    return {
        kind: _part(archive, names.get(kind) or posixpath.join(folder, f"{kind}.xml"))
        for kind in ("styles", "numbering", "footnotes", "endnotes")
    }


class _Text:
    """The blocks of a document as they are read."""

    def __init__(self, archive: Archive, parts: dict[str, Element | None]) -> None:
        self._archive = archive
        self._styles = Styles(parts["styles"])
        self._numbering = Numbering(parts["numbering"])
        self._notes = {kind: _notes(parts[f"{kind}s"]) for kind in ("footnote", "endnote")}
        self._numbers: dict[tuple[str, str], int] = {}
        self._pending: list[tuple[str, str]] = []
        """Footnotes of the paragraph being read."""
        self._endnotes: list[tuple[str, str]] = []
        self._boxes: list[Element] = []
        """Text boxes anchored in the paragraph being read."""
        self._n_paragraphs = 0
        self._carried = ""
        """The text of a paragraph whose end was deleted, so that the next one goes on with it."""
        self.blocks: list[Block] = []
        self.skipped: Counter[str] = Counter()
        self._changes: Counter[str] = Counter()

    def warnings(self) -> list[str]:
        """What was done with tracked changes."""
        if not self._changes:
            return []
        deleted, inserted = self._changes["deleted"], self._changes["inserted"]
        return [f"Tracked changes: {counted(deleted, 'deletion')} dropped, {counted(inserted, 'insertion')} kept."]

    def flow(self, element: Element) -> None:
        """Reads a paragraph, a table, or what holds such."""
        name = local_name(element)
        if name == "p":
            self._paragraph(element)
        elif name == "tbl":
            self._table(element)
        elif name in _DELETED:
            self._changes["deleted"] += 1
        elif name == "alternatecontent":
            self._boxes.append(element)
        elif name in _SKIPPED:
            if _SKIPPED[name]:
                self.skipped[_SKIPPED[name]] += 1
        else:
            for inner in element:
                self.flow(inner)

    def add_endnotes(self) -> None:
        """Adds the endnotes that the text refers to."""
        if self._carried:
            self.blocks.append(Block(self._carried, place=PlaceRef(paragraph=self._n_paragraphs)))
            self._carried = ""
        for note in self._endnotes:
            self._add_note(*note)

    def _paragraph(self, element: Element) -> None:
        self._n_paragraphs += 1
        place = PlaceRef(paragraph=self._n_paragraphs)
        text = self._carried + "".join(self._inline(element))
        self._carried = ""
        properties = child(element, "pPr")
        if child(properties, "rPr", "del") is not None:
            self._changes["deleted"] += 1
            self._carried = text
            return
        if text.strip():
            self._add(_TABS.sub("\t", text).strip(" \t\n"), properties, place)
        self._add_pending()

    def _add(self, text: str, properties: Element | None, place: PlaceRef) -> None:
        style = self._styles.of(value(properties, "pStyle"))
        outline = value(properties, "outlineLvl")
        level = int(outline) + 1 if outline.isdecimal() else style.level
        if level is not None and level > 9:
            level = None
        number = numbering_of(properties) or style.number
        label = self._numbering.label(*number) if number else ""
        kind: BlockKind = "title" if style.is_title else "paragraph"
        tight = False
        if level is not None:
            kind = "heading"
            text = " ".join(text.split())
            label = "" if label == "-" else label
        elif label:
            kind, level = "list_item", (number[1] if number else 0) + 1
            before = self.blocks[-1] if self.blocks else None
            tight = before is not None and before.kind == "list_item" and len(before.text) < _SHORT_ITEM
        self.blocks.append(Block(f"{label} {text}" if label else text, kind, level, place, tight=tight))

    def _add_pending(self) -> None:
        """Adds the text boxes and footnotes that hang on what was read."""
        boxes, self._boxes = self._boxes, []
        for box in boxes:
            for content in _box_contents(box):
                for inner in content:
                    self.flow(inner)
        pending, self._pending = self._pending, []
        for note in pending:
            self._add_note(*note)

    def _add_note(self, kind: str, identity: str) -> None:
        element = self._notes[kind].get(identity)
        if element is None:
            return
        paragraphs = ["".join(self._inline(p)).strip() for p in element.iter() if local_name(p) == "p"]
        text = "\n".join(p for p in paragraphs if p)
        self._boxes, self._pending = [], []
        if text:
            number = self._numbers[kind, identity]
            self.blocks.append(Block(f"[{number}] {text}", "footnote", place=PlaceRef(paragraph=self._n_paragraphs)))

    def _inline(self, element: Element) -> Iterator[str]:
        for inner in element:
            name = local_name(inner)
            if name == "t":
                if inner.text:
                    yield inner.text
            elif name == "r":
                if self._is_hidden(inner):
                    self.skipped["hidden passage"] += 1
                else:
                    yield from self._inline(inner)
            elif name in _SIGNS:
                yield _SIGNS[name]
            elif name in _DELETED:
                self._changes["deleted"] += 1
            elif name in ("footnotereference", "endnotereference"):
                yield self._note_mark(name.removesuffix("reference"), attribute(inner, "id"))
            elif name in ("txbxcontent", "alternatecontent"):
                self._boxes.append(inner)
                if name == "alternatecontent" and any(local_name(e) == "blip" for e in inner.iter()):
                    self.skipped["picture"] += 1
            elif name in _SKIPPED:
                if _SKIPPED[name]:
                    self.skipped[_SKIPPED[name]] += 1
            else:
                if name in ("ins", "moveto"):
                    self._changes["inserted"] += 1
                yield from self._inline(inner)

    def _is_hidden(self, run: Element) -> bool:
        vanish = child(run, "rPr", "vanish") if len(run) and local_name(run[0]) == "rpr" else None
        return vanish is not None and attribute(vanish, "val") not in ("0", "false", "off")

    def _note_mark(self, kind: str, identity: str) -> str:
        if identity not in self._notes.get(kind, {}):
            return ""
        if (kind, identity) not in self._numbers:
            self._numbers[kind, identity] = 1 + sum(1 for k, _ in self._numbers if k == kind)
            (self._pending if kind == "footnote" else self._endnotes).append((kind, identity))
        return f"[{self._numbers[kind, identity]}]"

    def _table(self, table: Element) -> None:
        rows = [row for row in _unwrapped(table, "tr") if child(row, "trPr", "del") is None]
        cells = [list(_unwrapped(row, "tc")) for row in rows]
        if all(len(row) < 2 for row in cells) or any(self._is_layout(cell) for row in cells for cell in row):
            for row in cells:
                for cell in row:
                    for inner in cell:
                        self.flow(inner)
            return
        first = True
        for row in cells:
            place = PlaceRef(paragraph=self._n_paragraphs + 1)
            texts = [self._cell(cell) for cell in row]
            while texts and not texts[-1]:
                texts.pop()
            if any(texts):
                self.blocks.append(Block(_CELL_BORDER.join(texts), "table", place=place, tight=not first))
                first = False
        self._add_pending()

    def _cell(self, cell: Element) -> str:
        texts = []
        for element in cell.iter():
            if local_name(element) == "p":
                self._n_paragraphs += 1
                properties = child(element, "pPr")
                number = numbering_of(properties) or self._styles.of(value(properties, "pStyle")).number
                label = self._numbering.label(*number) if number else ""
                texts.append(f"{label} {''.join(self._inline(element))}")
        return " ".join(" ".join(texts).split())

    def _is_layout(self, cell: Element) -> bool:
        """True for cells that hold tables or headings: the table only arranges the page."""
        return any(
            (name := local_name(e)) == "tbl"
            or (name == "p" and self._styles.of(value(e, "pPr", "pStyle")).level is not None)
            for e in cell.iter()
        )


def _notes(root: Element | None) -> dict[str, Element]:
    """The notes by their ids, without the lines that part them from the text."""
    return {
        attribute(note, "id"): note
        for note in (root if root is not None else ())
        if attribute(note, "type") in ("", "normal")
    }


def _unwrapped(element: Element, name: str) -> Iterator[Element]:
    """The children called `name`, also inside content controls and insertions."""
    for inner in element:
        found = local_name(inner)
        if found == name:
            yield inner
        elif found in ("sdt", "sdtcontent", "ins", "customxml", "smarttag"):
            yield from _unwrapped(inner, name)


def _box_contents(element: Element) -> list[Element]:
    """The text of boxes under `element`, of two forms of one box the first; outermost ones only."""
    if local_name(element) == "txbxcontent":
        return [element]
    if local_name(element) == "alternatecontent":
        forms = [_box_contents(form) for form in element]
        return next((found for found in forms if found), [])
    return [content for inner in element for content in _box_contents(inner)]
