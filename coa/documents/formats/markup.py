"""Blocks from the tree of an HTML or XHTML page, in one pass."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from coa.documents.formats.page_marks import MARK, without_marks
from coa.documents.formats.raw import Block, BlockKind, LeftOutCause, PlaceRef
from coa.documents.formats.tags import (
    BLOCKS,
    HEADINGS,
    SKIPPED,
    Tag,
    is_data_table,
    is_footnote,
    is_hidden,
    is_note_mark,
    is_page_mark,
    is_permalink,
    list_marker,
    local_name,
    page_label,
    raised,
)
from coa.documents.formats.trees import Element, etree

__all__ = ["Page", "read_page"]

# Stands in for a line break while a block is gathered; XML and HTML both forbid this control.
_BREAK = "\x01"
_BLANKS = f" \t\r\n\f\xa0{_BREAK}"
_SPACES = re.compile(r"[ \t\r\n\f]+")
_AROUND_BREAK = re.compile(f" ?{_BREAK} ?")
_LINES = re.compile(r" *\n[ \n]*")
_TOO_MANY_BREAKS = re.compile(r"\n{3,}")
_LABEL = re.compile(r"\[?(\d{1,4}|[a-z]|[*†‡§]{1,3})\]?[.:)]?")
_HASMARKER = re.compile(r"(?:[•●▪◦‣*–—-]|\(?(?:\d{1,3}|[a-z])[.)])\s")
_SHORT_ITEM = 200
_CELL_BORDER = " | "


@dataclass(slots=True)
class Page:
    """What came out of one page."""

    blocks: list[Block]
    anchors: dict[str, int]
    """Where each id stands: the index of the block that begins there or holds it."""
    skipped: Counter[str]
    """What is in no block: "picture", "script" …, and how many."""


@dataclass(slots=True)
class _Open:
    """What an open element changes for what is in it."""

    kind: BlockKind | None = None
    level: int | None = None
    preformatted: bool = False
    omitted: tuple[LeftOutCause, str] | None = None
    marker: str = ""
    """Of a list: "-", or the style of its numbers."""
    counter: int = 0
    depth: int = 0
    """Of nested lists."""
    data: bool = False
    """A table whose rows become lines."""
    rows: int = 0
    closing: str = ""
    """What is written at the end of an inline element."""


@dataclass(slots=True)
class _Walk:
    """The state of the walk: the block being gathered, and what is open around it."""

    item: str | None
    left_out: dict[object, tuple[LeftOutCause, str]]
    blocks: list[Block] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    parts: list[str] = field(default_factory=list)
    marks: list[PlaceRef] = field(default_factory=list)
    """The page borders in `parts`, in order."""
    kinds: list[_Open] = field(default_factory=list)
    lists: list[_Open] = field(default_factory=list)
    tables: list[_Open] = field(default_factory=list)
    omissions: list[tuple[LeftOutCause, str]] = field(default_factory=list)
    cells: list[str] | None = None
    """Of the row being read; None outside of rows."""
    in_cell: bool = False
    n_preformatted: int = 0
    prefix: str = ""
    """What the next block begins with: a list's marker, a footnote's number."""
    prefix_level: int | None = None
    place: PlaceRef | None = None
    """Of the next block where it begins in another place than the one before it."""
    label: str | None = None
    last_anchor: tuple[str, int] | None = None
    """The last id inside of the block being gathered, and after how many of its parts it stands."""

    def flush(self) -> None:
        """Ends the block being gathered."""
        if not self.parts:
            return
        if self.in_cell:
            self.parts.append(" ")
            return
        raw = "".join(self.parts)
        at_end, self.last_anchor = self._anchor_at_end(), None
        self.parts.clear()
        if self.n_preformatted:
            text = raw.replace(_BREAK, "\n").strip("\r\n").rstrip()
        else:
            text = _SPACES.sub(" ", raw)
            if _BREAK in text:
                text = _TOO_MANY_BREAKS.sub("\n\n", _AROUND_BREAK.sub("\n", text))
            text = text.strip(" \n")
        breaks: tuple[tuple[int, PlaceRef], ...] = ()
        following: PlaceRef | None = None
        if self.marks:
            text, start, breaks, following = without_marks(text, self.marks)
            self.place = start or self.place
            self.marks.clear()
        if text:
            self._add(text, breaks)
        if following is not None:
            self.place = following
        if at_end is not None:
            self.anchors[at_end] = len(self.blocks)
            self.place = self.place or PlaceRef(item=self.item, fragment=at_end, page_label=self.label)

    def _anchor_at_end(self) -> str | None:
        """The id that stands behind the last word of the block, and so marks what follows."""
        if self.last_anchor is None:
            return None
        name, n_parts = self.last_anchor
        behind = any(part.strip(_BLANKS) for part in self.parts[n_parts:])
        return None if behind or self.anchors.get(name) != len(self.blocks) else name

    def _add(self, text: str, breaks: tuple[tuple[int, PlaceRef], ...], *, kind: BlockKind | None = None) -> None:
        opened = self.kinds[-1] if self.kinds else None
        kind = kind or (opened.kind if opened else None) or ("preformatted" if self.n_preformatted else "paragraph")
        level = opened.level if opened else None
        if kind == "heading":
            text = _LINES.sub(" ", text)
        elif kind == "footnote" and not self.prefix and (match := _LABEL.fullmatch(text)):
            self.prefix = f"[{match[1]}] "
            return
        tight = False
        if self.prefix and kind != "heading":
            is_item = self.prefix_level is not None
            if kind == "paragraph" and is_item:
                kind, level = "list_item", self.prefix_level
                before = self.blocks[-1] if self.blocks else None
                tight = before is not None and before.kind == "list_item" and len(before.text) < _SHORT_ITEM
            prefix = self.prefix.lstrip(" ") if not is_item or not _HASMARKER.match(text) else ""
            if prefix:
                text = prefix + text
                breaks = tuple((at + len(prefix), ref) for at, ref in breaks)
        elif kind == "table":
            tight = self.tables[-1].rows > 0
            self.tables[-1].rows += 1
        self.prefix, self.prefix_level = "", None
        cause, detail = self.omissions[-1] if self.omissions else (None, "")
        self.blocks.append(
            Block(text, kind, level, self.place, breaks=breaks, left_out=cause, detail=detail, tight=tight)
        )
        self.place = None

    def has_words(self) -> bool:
        """True where the block being gathered has begun."""
        return any(part.strip(_BLANKS) for part in self.parts)

    def note_anchor(self, name: str, *, begins: bool) -> None:
        self.anchors.setdefault(name, len(self.blocks))
        if not begins and not self.in_cell:
            self.last_anchor = (name, len(self.parts))
        if begins and (self.place is None or self.place.fragment is None):
            self.place = PlaceRef(item=self.item, fragment=name, page_label=self.label)

    def note_page(self, label: str, anchor: str | None) -> None:
        """A border between two pages of the printed book."""
        self.label = label
        ref = PlaceRef(item=self.item, fragment=anchor, page_label=label)
        if anchor:
            self.anchors.setdefault(anchor, len(self.blocks))
        if self.in_cell or not self.has_words():
            self.place = ref
        else:
            self.parts.append(MARK)
            self.marks.append(ref)

    def end_row(self) -> None:
        cells, self.cells = self.cells or [], None
        while cells and not cells[-1]:
            cells.pop()
        if any(cells):
            self._add(_CELL_BORDER.join(cells), (), kind="table")


def read_page(
    root: Element,
    *,
    item: str | None = None,
    label: str | None = None,
    left_out: dict[object, tuple[LeftOutCause, str]] | None = None,
) -> Page:
    """The blocks of the tree under `root`, in document order.

    `item` is what places call the page, `label` the printed page that it begins on. Elements of `left_out` are
    kept as blocks that are not to be read, with cause and detail. Scripts, styles, pictures, ruby readings and
    the like are counted and not kept. Comments have to be removed from the tree before.
    """
    walk = _Walk(item, left_out or {}, label=label)
    if item is not None:
        walk.place = PlaceRef(item=item, page_label=label)
    opened: list[_Open | None] = []
    walker = etree.iterwalk(root, events=("start", "end"))
    for event, element in walker:
        tag = local_name(element)
        if event == "start":
            what = SKIPPED.get(tag)
            if what is None and element.attrib and _is_skipped_by_attributes(walk, element, tag):
                what = ""
            if what is not None:
                if what:
                    walk.skipped[what] += 1
                if tag == "img":
                    _picture(walk, element)
                walker.skip_subtree()
                opened.append(None)
                continue
            change = _start(walk, element, tag)
            opened.append(change)
            if text := element.text:
                is_raised = tag in ("sup", "sub") and not len(element) and bool(walk.parts)
                # A footnote's number and a power stand behind a word or a number.
                walk.parts.append(raised(text, tag) if is_raised and walk.parts[-1][-1:].isalnum() else text)
        else:
            change = opened.pop()
            if change is not None or tag in BLOCKS:
                _end(walk, tag, change)
            if element.tail and element is not root:
                walk.parts.append(element.tail)
    walk.flush()
    return Page(walk.blocks, walk.anchors, walk.skipped)


def _is_skipped_by_attributes(walk: _Walk, element: Element, tag: str) -> bool:
    """Page numbers, marks of notes and hidden words: what has been dealt with when the element opens."""
    if is_page_mark(element, tag):
        anchor = element.get("id") or next((a.get("id") for a in element.iter("a", "{*}a") if a.get("id")), None)
        label = page_label(element)
        if label:
            walk.note_page(label, anchor)
        elif anchor:
            walk.note_anchor(anchor, begins=False)
        return True
    if is_permalink(element, tag):
        walk.skipped["mark beside a paragraph"] += 1
        return True
    # In a row of cells nothing can be kept and left out: it is one line.
    if (tag not in BLOCKS or walk.cells is not None) and is_hidden(element):
        walk.skipped["hidden passage"] += 1
        return True
    return False


def _start(walk: _Walk, element: Element, tag: str) -> _Open | None:
    """Opens an element; what it changes, for `_end`."""
    role = BLOCKS.get(tag)
    change: _Open | None = None
    if role is None:
        change = _start_inline(walk, element, tag)
    else:
        walk.flush()
        change = _start_block(walk, element, tag, role)
    if element.attrib:
        name = element.get("id") or (element.get("name") if tag == "a" else None)
        if name:
            begins = not walk.in_cell and not walk.has_words()
            walk.note_anchor(name, begins=begins)
    return change


def _start_block(walk: _Walk, element: Element, tag: str, role: Tag) -> _Open | None:
    change = _Open()
    omitted = walk.left_out.get(element) if walk.left_out else None
    if omitted is None and element.attrib and is_hidden(element):
        omitted = ("markup", "hidden")
    if omitted:
        change.omitted = omitted
        walk.omissions.append(omitted)
    if tag in HEADINGS:
        change.kind, change.level = "heading", HEADINGS[tag]
    elif element.attrib and is_footnote(element, tag):
        change.kind = "footnote"
    if change.kind:
        walk.kinds.append(change)
    if role is Tag.PREFORMATTED:
        change.preformatted = True
        walk.n_preformatted += 1
    elif role is Tag.LIST:
        change.marker = "-" if tag != "ol" else element.get("type") or "1"
        start = element.get("start") or ""
        change.counter = int(start) - 1 if start.lstrip("-").isdecimal() and len(start) < 8 else 0
        change.depth = len(walk.lists) + 1
        walk.lists.append(change)
    elif role is Tag.ITEM:
        _start_item(walk, element)
    elif role is Tag.TABLE:
        change.data = not walk.tables and is_data_table(element)
        walk.tables.append(change)
    elif walk.tables and walk.tables[-1].data:
        if role is Tag.ROW:
            walk.cells = []
        elif role is Tag.CELL and walk.cells is not None:
            walk.in_cell = True
    return change


def _start_item(walk: _Walk, element: Element) -> None:
    if walk.in_cell:
        return
    holder = walk.lists[-1] if walk.lists else _Open(marker="-", depth=1)
    value = element.get("value") or ""
    holder.counter = int(value) if value.isdecimal() and len(value) < 8 else holder.counter + 1
    walk.prefix = list_marker(holder.marker, holder.counter) + " "
    walk.prefix_level = holder.depth


def _start_inline(walk: _Walk, element: Element, tag: str) -> _Open | None:
    if tag == "br":
        walk.parts.append(" " if walk.in_cell else _BREAK)
    elif tag == "q":
        walk.parts.append("“")
        return _Open(closing="”")
    elif tag in ("sup", "sub", "a") and is_note_mark(element, tag):
        walk.parts.append("[")
        return _Open(closing="]")
    return None


def _end(walk: _Walk, tag: str, change: _Open | None) -> None:
    if tag not in BLOCKS:
        if change and change.closing:
            walk.parts.append(change.closing)
        return
    role = BLOCKS[tag]
    if role is Tag.CELL and walk.in_cell:
        text = _SPACES.sub(" ", "".join(walk.parts).replace(_BREAK, " ").replace(MARK, "")).strip()
        walk.parts.clear()
        walk.in_cell = False
        if walk.cells is not None:
            walk.cells.append(text)
    elif role is Tag.ROW and walk.cells is not None:
        walk.parts.clear()
        walk.end_row()
    else:
        walk.flush()
    if change is None:
        return
    if role is Tag.LIST:
        walk.lists.pop()
    elif role is Tag.ITEM and not walk.in_cell:
        walk.prefix, walk.prefix_level = "", None
    elif role is Tag.TABLE:
        walk.tables.pop()
    if change.preformatted:
        walk.n_preformatted -= 1
    if change.kind:
        walk.kinds.pop()
    if change.omitted:
        walk.omissions.pop()


def _picture(walk: _Walk, element: Element) -> None:
    """A letter drawn as a picture opens its word."""
    alt = (element.get("alt") or "").strip()
    if len(alt) == 1 and alt.isalnum():
        walk.parts.append(alt)
    if name := element.get("id"):
        walk.note_anchor(name, begins=False)
