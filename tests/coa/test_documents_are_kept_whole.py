"""What a run stores of a document is all of it."""

from pathlib import Path

from coa.runs import RunStore
from coa.types import Document, LeftOut, Place, Section, Span


def test_a_stored_document_comes_back_with_places(tmp_path: Path) -> None:
    text = "CHAPTER I\n\nAda went home.\n\n12"
    document = Document(
        text=text,
        sha256="0" * 64,
        name="book.pdf",
        media_type="application/pdf",
        sections=(Section("CHAPTER I", Span(0, 27)),),
        left_out=(LeftOut(Span(27, 29), "page_number"),),
        places=(Place(Span(0, 29), page=12, page_label="xii", item="a.xhtml", fragment="c1", paragraph=3),),
        warnings=("odd",),
    )
    store = RunStore(tmp_path)
    store.save_document(document)
    assert store.document(document.sha256) == document
