"""The reader `docling`: what it says where docling is not installed, and what it makes of docling's documents."""

from __future__ import annotations

import sys
import zipfile
from io import BytesIO
from typing import Any

import pytest

from coa.documents import read_document
from coa.documents.formats.assembly import assemble
from coa.documents.formats.docling import blocks_of
from coa.documents.formats.raw import Block, PlaceRef, RawText
from coa.documents.isolation import end_workers, read_document_isolated
from coa.documents.limits import DEFAULT_LIMITS, ReadingLimits
from coa.errors import ConfigError, DocumentError, DocumentTooLarge
from coa.testing.pdf_files import Page, pdf_file, prose

PAGE = (
    b"<html><head><title>Harbours</title></head><body><p>A foreword by nobody.</p><h1>The Harbour</h1>"
    b"<h2>Chapter I</h2><p>It <b>rained</b>, and <i>rained</i>.</p><ol><li>boats</li><li>ropes</li></ol>"
    b"<h2>Chapter II</h2><table><tr><th>Boat</th><th>Crew</th></tr><tr><td>Orrow</td><td>3</td></tr></table>"
    b"</body></html>"
)


def test_without_docling_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == "docling"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "docling", None)
    with pytest.raises(ConfigError, match="The reader 'docling' is not installed") as caught:
        read_document(b"# A text", name="a.md", reader="docling")
    assert caught.value.hint == "pip install 'coa-orchestrator[docling]'"
    assert "\n" not in str(caught.value)


def test_no_content_chooses_docling() -> None:
    assert read_document(PAGE, name="a.html").chapter_method != ""
    assert not [m for m in sys.modules if m.partition(".")[0] in ("torch", "transformers")]


class TestItems:
    """Of `DoclingDocument`s that are made here, as the PDF pipeline makes them."""

    @pytest.fixture
    def made(self) -> Any:
        return pytest.importorskip("docling_core.types.doc.document").DoclingDocument(name="made")

    @staticmethod
    def on_page(*pages: int, at: tuple[int, ...] = (0,)) -> list[Any]:
        doc = pytest.importorskip("docling_core.types.doc.document")
        box = doc.BoundingBox(l=0, t=0, r=1, b=1)
        return [doc.ProvenanceItem(page_no=p, bbox=box, charspan=(a, a + 1)) for p, a in zip(pages, at, strict=True)]

    def add(self, made: Any, label: str, text: str, *pages: int, at: tuple[int, ...] = (0,), **more: Any) -> Any:
        doc = pytest.importorskip("docling_core.types.doc.document")
        item = made.add_text(label=doc.DocItemLabel(label), text=text, **more)
        item.prov = self.on_page(*pages, at=at) if pages else []
        return item

    @staticmethod
    def blocks(made: Any, **limits: int) -> tuple[Block, ...]:
        return blocks_of(made, name="made", limits=ReadingLimits(**limits)).blocks

    def test_running_heads_and_page_numbers_are_told_from_the_text(self, made: Any) -> None:
        doc = pytest.importorskip("docling_core.types.doc.document")
        furniture = {"content_layer": doc.ContentLayer.FURNITURE}
        self.add(made, "page_header", "The Harbour", 3, **furniture)
        self.add(made, "text", "It rained.", 3)
        self.add(made, "footnote", "1 It did.", 3, **furniture)
        self.add(made, "page_footer", "– 12 –", 3, **furniture)
        blocks = self.blocks(made)
        assert [b.kind for b in blocks] == ["running_head", "paragraph", "footnote", "page_number"]
        assert {b.place for b in blocks} == {PlaceRef(page=3)}
        document = assemble(RawText(blocks, "application/pdf"), name="made")
        assert [p.cause for p in document.left_out] == ["running_head", "page_number"]
        assert "".join(document.text[s.start : s.end] for s in document.readable()) == "It rained.\n\n1 It did.\n\n"

    def test_a_paragraph_over_two_pages_has_both(self, made: Any) -> None:
        self.add(made, "text", "It rained on the harbour.", 3, 4, at=(0, 10))
        (block,) = self.blocks(made)
        assert (block.place, block.breaks) == (PlaceRef(page=3), ((10, PlaceRef(page=4)),))
        document = assemble(RawText((block,), "application/pdf"), name="made")
        page = {document.text[p.span.start : p.span.end].strip(): p.page for p in document.places}
        assert page == {"It rained": 3, "on the harbour.": 4}

    def test_the_break_of_a_list_item_is_counted_behind_its_mark(self, made: Any) -> None:
        group = made.add_list_group()
        item = made.add_list_item("boats and ropes", enumerated=True, marker="12.", parent=group)
        item.prov = self.on_page(1, 2, at=(0, 6))
        (block,) = self.blocks(made)
        assert block.text[block.breaks[0][0] :] == "and ropes"
        assert block.text == "12. boats and ropes"

    def test_lists_have_depth_and_marks(self, made: Any) -> None:
        outer = made.add_list_group()
        first = made.add_list_item("boats", parent=outer)
        inner = made.add_list_group(parent=first)
        made.add_list_item("a skiff", enumerated=True, marker="1.", parent=inner)
        made.add_list_item("ropes", parent=outer)
        blocks = self.blocks(made)
        assert [(b.text, b.level, b.tight) for b in blocks] == [
            ("- boats", 1, False), ("1. a skiff", 2, True), ("- ropes", 1, True)
        ]  # fmt: skip

    def test_headings_keep_their_levels_below_the_title(self, made: Any) -> None:
        made.add_title("The Harbour")
        made.add_heading("Chapter I", level=1)
        made.add_heading("Rain", level=2)
        assert [(b.kind, b.level) for b in self.blocks(made)] == [("title", None), ("heading", 2), ("heading", 3)]
        made.add_title("Part Two")
        assert [(b.kind, b.level) for b in self.blocks(made)][::3] == [("heading", 1), ("heading", 1)]

    def test_a_cell_over_several_columns_is_read_once(self, made: Any) -> None:
        doc = pytest.importorskip("docling_core.types.doc.document")
        cells = [
            doc.TableCell(
                text=text, start_row_offset_idx=row, end_row_offset_idx=row + 1, start_col_offset_idx=left,
                end_col_offset_idx=right, col_span=right - left,
            )
            for text, row, left, right in [("Boats", 0, 0, 2), ("Orrow", 1, 0, 1), ("3\nmen", 1, 1, 2)]
        ]  # fmt: skip
        caption = self.add(made, "caption", "Table 1: Crews", 5)
        data = doc.TableData(table_cells=cells, num_rows=2, num_cols=2)
        made.add_table(data=data, caption=caption, prov=self.on_page(5)[0])
        blocks = self.blocks(made)
        rows = [(b.text, b.tight) for b in blocks if b.kind == "table"]
        assert rows == [("Boats", False), ("Orrow | 3 men", True)]
        assert {b.place for b in blocks} == {PlaceRef(page=5)}
        assert sum("Table 1" in b.text for b in blocks) == 1

    def test_the_pieces_of_a_line_are_one_paragraph(self, made: Any) -> None:
        line = made.add_inline_group()
        for piece in ("It", "rained", ", and (", "mostly", ") poured."):
            self.add(made, "text", piece, parent=line)
        assert [b.text for b in self.blocks(made)] == ["It rained, and (mostly) poured."]

    def test_pictures_and_comments_are_counted_and_not_read(self, made: Any) -> None:
        doc = pytest.importorskip("docling_core.types.doc.document")
        made.add_picture()
        self.add(made, "text", "Is this so?", content_layer=doc.ContentLayer.NOTES)
        found = blocks_of(made, name="made", limits=DEFAULT_LIMITS)
        assert (found.blocks, found.skipped) == ((), {"picture": 1, "comment": 1})

    def test_a_list_that_is_nested_too_deep_is_refused(self, made: Any) -> None:
        parent = None
        for n in range(8):
            parent = made.add_list_item(f"item {n}", parent=made.add_list_group(parent=parent))
        assert len(self.blocks(made)) == 8
        with pytest.raises(DocumentTooLarge, match="made is nested deeper than 5 levels"):
            self.blocks(made, max_depth=5)


@pytest.mark.slow
class TestConverter:
    """With docling itself, on formats that need none of its models."""

    @pytest.fixture(autouse=True)
    def _docling(self) -> None:
        pytest.importorskip("docling.document_converter", exc_type=ImportError)

    @pytest.mark.parametrize("read", [read_document, read_document_isolated])
    def test_a_page_is_read_whole(self, read: Any) -> None:
        document = read(PAGE, name="page", reader="docling")
        end_workers()
        assert document.text == (
            "A foreword by nobody.\n\nThe Harbour\n\nChapter I\n\nIt rained, and rained.\n\n1. boats\n2. ropes\n\n"
            "Chapter II\n\nBoat | Crew\nOrrow | 3\n"
        )
        assert [s.title for s in document.sections][-2:] == ["Chapter I", "Chapter II"]
        assert (document.media_type, document.left_out) == ("text/html", ())

    def test_memory_is_bounded(self) -> None:
        with pytest.raises(DocumentTooLarge, match="more than 300 MB of memory"):
            read_document_isolated(PAGE, name="a", reader="docling", limits=ReadingLimits(max_memory_bytes=300_000_000))
        end_workers()

    def test_markdown_without_an_extension_is_read(self) -> None:
        assert "It rained." in read_document(b"# The Harbour\n\nIt rained.\n", name="stdin", reader="docling").text

    def test_what_docling_cannot_read_is_a_document_error(self) -> None:
        broken = BytesIO()
        with zipfile.ZipFile(broken, "w") as archive:
            archive.writestr("word/document.xml", "<w:document>")
            archive.writestr("[Content_Types].xml", "<Types/>")
        for data, name in ((broken.getvalue(), "a.docx"), (b"\x00\x01\x02", "a.bin"), (b"%PDF-1.7\nno", "a.pdf")):
            with pytest.raises(DocumentError, match=rf"^{name} "):
                read_document(data, name=name, reader="docling")

    def test_a_pdf_of_too_many_pages_is_refused(self) -> None:
        two = pdf_file([Page(prose(["It rained."]))] * 2)
        with pytest.raises(DocumentTooLarge, match="2 pages where at most 1 are read"):
            read_document(two, name="a.pdf", reader="docling", limits=ReadingLimits(max_pages=1))
