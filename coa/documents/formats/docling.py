"""Whatever docling converts, by its models of page layout and its OCR; chosen by name, with the extra `docling`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from coa.documents.formats.phrases import skipped_phrases
from coa.documents.formats.raw import Block, BlockKind, PlaceRef, RawText
from coa.documents.limits import ReadingLimits
from coa.documents.signatures import kind_of
from coa.errors import CoaError, ConfigError, DocumentError, DocumentTooLarge

if TYPE_CHECKING:
    from docling.datamodel.document import ConversionResult
    from docling_core.types.doc.document import DocItem, DoclingDocument, NodeItem, TableItem

__all__ = ["blocks_of", "read"]

_CELL_BORDER = " | "
_SHORT_ITEM = 200
_MOST_WARNINGS = 5
_KINDS: dict[str, BlockKind] = {
    "list_item": "list_item", "checkbox_selected": "list_item", "checkbox_unselected": "list_item",
    "footnote": "footnote", "code": "preformatted", "formula": "preformatted",
    "page_header": "running_head", "page_footer": "running_head",
}  # fmt: skip
_NO_TEXT = {
    "picture": "picture", "chart": "chart", "form": "form", "key_value_region": "form", "field_region": "form",
}  # fmt: skip
_HIDDEN = {"notes": "comment", "invisible": "hidden part", "background": "part of the background"}
_PAGE_NUMBER = re.compile(r"\W*(?:\d{1,5}|[ivxlcdm]{1,8})\W*", re.IGNORECASE)
_NO_SPACE_BEFORE = frozenset(",.;:!?)]}%…”’»")
_NO_SPACE_AFTER = frozenset("([{“‘«")


def read(data: bytes, *, name: str, limits: ReadingLimits) -> RawText:
    """What docling makes of `data`, with places where it knows pages.

    Its models for PDF and pictures are fetched at their first use, unless DOCLING_ARTIFACTS_PATH names their folder.
    Raises ConfigError where docling is not installed, DocumentTooLarge over `limits.max_pages` or the depth, and
    DocumentError for what docling refuses.
    """
    result = _converted(data, name, limits)
    document = result.document
    found = blocks_of(document, name=name, limits=limits)
    errors = dict.fromkeys(f"docling: {' '.join(e.error_message.split())}" for e in result.errors)
    origin = document.origin
    return RawText(
        blocks=found.blocks,
        media_type=origin.mimetype if origin is not None else "application/octet-stream",
        title=found.title,
        warnings=tuple(errors)[:_MOST_WARNINGS],
        left_out=skipped_phrases(found.skipped),
    )


def _converted(data: bytes, name: str, limits: ReadingLimits) -> ConversionResult:
    try:
        from docling.datamodel.backend_options import HTMLBackendOptions
        from docling.datamodel.base_models import DocumentStream, InputFormat
        from docling.document_converter import DocumentConverter, HTMLFormatOption
    except ImportError as exc:
        raise ConfigError(
            f"The reader 'docling' is not installed ({exc.name or exc} is missing).",
            hint="pip install 'coa-orchestrator[docling]'",
        ) from exc
    # Docling takes all that stands before a page's first heading for furniture: a foreword, a dedication.
    whole_page = HTMLFormatOption(backend_options=HTMLBackendOptions(infer_furniture=False))
    try:
        converter = DocumentConverter(format_options={InputFormat.HTML: whole_page})
        stream = DocumentStream(name=_file_name(data, name), stream=BytesIO(data))
        return converter.convert(stream, max_num_pages=limits.max_pages)
    except (MemoryError, CoaError):
        raise
    except Exception as exc:
        raise _refused(exc, data, name, limits) from exc


def _file_name(data: bytes, name: str) -> str:
    """`name` with the extension that goes with the content: docling looks at both."""
    kind = kind_of(data)
    if kind in ("pdf", "docx", "html", "epub"):
        return name if name.lower().endswith(f".{kind}") else f"{name}.{kind}"
    return name if "." in name else f"{name}.md"


def _refused(error: Exception, data: bytes, name: str, limits: ReadingLimits) -> DocumentError:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    if any(isinstance(e, MemoryError) for e in chain):
        raise MemoryError from error
    if any(type(e).__module__.startswith("huggingface_hub") for e in chain):
        return DocumentError(
            f"{name} needs docling's models, which are not on this machine and cannot be fetched.",
            hint="Fetch them with `docling-tools models download`, and name their folder in DOCLING_ARTIFACTS_PATH.",
        )
    if kind_of(data) == "pdf" and (n_pages := _pages_of_pdf(data)) > limits.max_pages:
        return DocumentTooLarge(
            f"{name} has {n_pages:,} pages where at most {limits.max_pages:,} are read.",
            hint="Split it, or raise max_pages in the setting reading_limits.",
        )
    said = " ".join(str(error).split())[:300]
    return DocumentError(
        f"{name} is refused by docling: {said or type(error).__name__}",
        hint="Read it without `--reader docling`, or convert it first.",
    )


def _pages_of_pdf(data: bytes) -> int:
    import pypdfium2

    with suppress(pypdfium2.PdfiumError):
        return len(pypdfium2.PdfDocument(data))
    return 0


class Found(NamedTuple):
    """What a DoclingDocument holds."""

    blocks: tuple[Block, ...]
    title: str | None
    skipped: Counter[str]
    """What has no text, or is hidden, by its name in the singular."""


def blocks_of(document: DoclingDocument, *, name: str, limits: ReadingLimits) -> Found:
    """The blocks of `document` in its reading order. Raises DocumentTooLarge where it is nested too deep."""
    text = _Text(document, name, limits)
    text.flow(document.body, depth=0, lists=0)
    titles = [b for b in text.blocks if b.kind == "title"]
    if len(titles) > 1:  # of chapters, that is
        text.blocks = [_as_heading(b) if b.kind == "title" else b for b in text.blocks]
    return Found(tuple(text.blocks), text.title or (titles[0].text if len(titles) == 1 else None), text.skipped)


def _as_heading(block: Block) -> Block:
    return Block(block.text, "heading", level=1, place=block.place, breaks=block.breaks)


class _Text:
    """The blocks of a document as its tree is walked."""

    def __init__(self, document: DoclingDocument, name: str, limits: ReadingLimits) -> None:
        self._document = document
        self._name = name
        self._limits = limits
        self._done: set[str] = set()
        """References of what is in a block: a caption may stand in the body, too."""
        self.blocks: list[Block] = []
        self.title: str | None = None
        """Of the file, where it stands outside of the text."""
        self.skipped: Counter[str] = Counter()

    def flow(self, node: NodeItem, *, depth: int, lists: int) -> None:
        """The items below `node`, each before its own children."""
        from docling_core.types.doc.document import DocItem, InlineGroup, ListGroup

        if depth > self._limits.max_depth:
            raise DocumentTooLarge(
                f"{self._name} is nested deeper than {self._limits.max_depth} levels.", hint="Save it in another form."
            )
        n_items = 0
        for child in self._children(node):
            n_items += getattr(child, "enumerated", False)
            if isinstance(child, InlineGroup):
                self._add_text(child, _first_item(self._children(child)), lists)
            elif isinstance(child, DocItem):
                self._item(child, depth, lists, number=n_items)
            else:
                self.flow(child, depth=depth + 1, lists=lists + isinstance(child, ListGroup))

    def _children(self, node: NodeItem) -> list[NodeItem]:
        return [ref.resolve(self._document) for ref in node.children]

    def _item(self, item: DocItem, depth: int, lists: int, number: int = 0) -> None:
        from docling_core.types.doc.document import FloatingItem, InlineGroup, TableItem

        hidden = _HIDDEN.get(item.content_layer.value)
        if hidden:
            self.skipped[hidden] += 1
            return
        if isinstance(item, FloatingItem):
            told = [ref.resolve(self._document) for ref in (*item.captions, *item.footnotes)]
            for each in told:
                self._add_text(each, each, lists)
            if isinstance(item, TableItem):
                self._table(item)
            elif item.label.value in _NO_TEXT:
                self.skipped[_NO_TEXT[item.label.value]] += 1
            elif hasattr(item, "text"):
                self._add_text(item, item, lists)
            return
        # An item whose words differ in style is empty itself and has them in a group.
        inline = [child for child in self._children(item) if isinstance(child, InlineGroup)]
        if not getattr(item, "text", "").strip() and inline:
            self._add_text(inline[0], item, lists, number)
            for child in self._children(item):
                if child is not inline[0]:
                    self._below(child, depth, lists)
            return
        self._add_text(item, item, lists, number)
        self.flow(item, depth=depth + 1, lists=lists)

    def _below(self, child: NodeItem, depth: int, lists: int) -> None:
        from docling_core.types.doc.document import DocItem, ListGroup

        if isinstance(child, DocItem):
            self._item(child, depth + 1, lists)
        else:
            self.flow(child, depth=depth + 1, lists=lists + isinstance(child, ListGroup))

    def _plain(self, node: NodeItem) -> str:
        """The words of an item, or of the parts of a group in a line."""
        own = getattr(node, "text", "") or getattr(node, "orig", "")
        if own:
            return str(own)
        line = ""
        for piece in (self._plain(child).strip() for child in self._children(node)):
            tight = not line or piece[:1] in _NO_SPACE_BEFORE or line[-1] in _NO_SPACE_AFTER
            line += piece if tight else f" {piece}"
        return line

    def _add_text(self, source: NodeItem, item: DocItem | None, lists: int, number: int = 0) -> None:
        """A block with the words of `source`, of the kind and at the place of `item`."""
        text = self._plain(source)
        if not text.strip() or item is None or source.self_ref in self._done:
            return
        self._done.add(source.self_ref)
        label = item.label.value
        furniture = item.content_layer.value == "furniture"
        if label == "title" and furniture:
            self.title = self.title or " ".join(text.split())
            return
        kind, level = _KINDS.get(label, "paragraph"), None
        if label == "title":
            kind = "title"
        elif label in ("section_header", "field_heading"):
            kind, level = "heading", getattr(item, "level", 1) + 1
        elif kind == "list_item":
            level = max(lists, 1)
        elif furniture and kind != "footnote":
            kind = "running_head"
        if kind == "running_head" and _PAGE_NUMBER.fullmatch(text.strip()):
            kind = "page_number"
        mark = _mark(item, number) if kind == "list_item" else ""
        before = self.blocks[-1] if self.blocks else None
        tight = kind == "list_item" and before is not None and before.kind == kind and len(before.text) < _SHORT_ITEM
        place, breaks = _places(item, len(text), len(mark))
        self.blocks.append(Block(mark + text, kind, level, place, breaks=breaks, tight=tight))

    def _table(self, table: TableItem) -> None:
        place, _ = _places(table, 0, 0)
        first = True
        for n, row in enumerate(table.data.grid):
            cells = [
                " ".join(cell.text.split())
                for column, cell in enumerate(row)
                if (cell.start_row_offset_idx, cell.start_col_offset_idx) == (n, column)  # else it spans to here
            ]
            if any(cells):
                self.blocks.append(Block(_CELL_BORDER.join(cells), "table", place=place, tight=not first))
                first = False


def _first_item(nodes: list[NodeItem]) -> DocItem | None:
    from docling_core.types.doc.document import DocItem

    return next((node for node in nodes if isinstance(node, DocItem)), None)


def _mark(item: DocItem, number: int) -> str:
    """The number or bullet in front of a list item, which is the `number`th of those that count."""
    if item.label.value.startswith("checkbox"):
        return "[x] " if item.label.value == "checkbox_selected" else "[ ] "
    bullet = f"{number}." if getattr(item, "enumerated", False) else "-"
    return f"{getattr(item, 'marker', '').strip() or bullet} "


def _places(item: DocItem, length: int, shift: int) -> tuple[PlaceRef | None, tuple[tuple[int, PlaceRef], ...]]:
    """The page of an item, and where in its text, `shift` further on in the block, it runs on on other pages."""
    pages = [(each.charspan[0], each.page_no) for each in item.prov]
    if not pages:
        return None, ()
    return PlaceRef(page=pages[0][1]), tuple(_breaks(pages, length, shift))


def _breaks(pages: list[tuple[int, int]], length: int, shift: int) -> Iterator[tuple[int, PlaceRef]]:
    at, current = 0, pages[0][1]
    for start, page in pages[1:]:
        if page != current and at < start < length:
            yield start + shift, PlaceRef(page=page)
            at, current = start, page
