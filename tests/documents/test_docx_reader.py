"""What the DOCX reader makes of Word documents."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from coa.documents.formats.docx import read
from coa.documents.formats.raw import RawText
from coa.documents.limits import DEFAULT_LIMITS
from coa.documents.reader import parse_document
from coa.errors import DocumentEmpty, DocumentError, DocumentTooLarge

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/wordprocessingml/main"


def docx(body: str, *, namespace: str = W, **parts: str) -> bytes:
    """A Word document with nothing but what is given: no content types, relations or properties."""
    buffer = io.BytesIO()
    opening = f'xmlns:w="{namespace}" xmlns:mc="urn:mc" xmlns:wps="urn:wps" xmlns:v="urn:v" xmlns:m="urn:m"'
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", f"<w:document {opening}><w:body>{body}</w:body></w:document>")
        for name, text in parts.items():
            archive.writestr(f"word/{name}.xml", f"<w:{name} {opening}>{text}</w:{name}>")
    return buffer.getvalue()


def p(text: str, *, style: str = "", properties: str = "") -> str:
    named = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{named}{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def _read(body: str, **parts: str) -> RawText:
    return read(docx(body, **parts), name="x.docx", limits=DEFAULT_LIMITS)


def _texts(body: str, **parts: str) -> list[str]:
    return [block.text for block in _read(body, **parts).blocks]


def style(identity: str, name: str, inside: str = "", based: str = "") -> str:
    base = f'<w:basedOn w:val="{based}"/>' if based else ""
    return f'<w:style w:type="paragraph" w:styleId="{identity}"><w:name w:val="{name}"/>{base}{inside}</w:style>'


def test_paragraphs_are_blocks_with_their_number() -> None:
    raw = _read(p("One") + "<w:p/>" + "<w:p><w:r><w:t>Two</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r></w:p>")
    assert [(b.text, b.place and b.place.paragraph) for b in raw.blocks] == [("One", 1), ("Two\tb\nc", 3)]


def test_headings_are_known_by_style_name_outline_level_and_inheritance() -> None:
    styles = (
        style("berschrift2", "Überschrift 2")
        + style("T1", "Titre 1")
        + style("X", "Mine", '<w:pPr><w:outlineLvl w:val="2"/></w:pPr>')
        + style("Y", "Mine too", based="X")
        + style("Title", "Title")
        + style("Loop", "Loop", based="Loop")
    )
    body = (
        p("The Book", style="Title") + p("A", style="T1") + p("B", style="berschrift2") + p("C", style="X")
        + p("D", style="Y") + p("E", properties='<w:outlineLvl w:val="0"/>') + p("F", style="Heading4")
        + p("G", style="Loop") + p("H", style="T1", properties='<w:outlineLvl w:val="9"/>')
    )  # fmt: skip
    raw = _read(body, styles=styles)
    assert [(b.kind, b.level, b.text) for b in raw.blocks] == [
        ("title", None, "The Book"),
        ("heading", 1, "A"),
        ("heading", 2, "B"),
        ("heading", 3, "C"),
        ("heading", 3, "D"),
        ("heading", 1, "E"),
        ("heading", 4, "F"),
        ("paragraph", None, "G"),
        ("paragraph", None, "H"),
    ]


LEVELS = (
    '<w:abstractNum w:abstractNumId="0">'
    '<w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="%1."/></w:lvl>'
    '<w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="%1.%2)"/></w:lvl>'
    "</w:abstractNum>"
    '<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0">'
    '<w:numFmt w:val="bullet"/><w:lvlText w:val=""/></w:lvl></w:abstractNum>'
    '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>'
    '<w:num w:numId="3"><w:abstractNumId w:val="0"/>'
    '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="5"/></w:lvlOverride></w:num>'
)


def item(text: str, number: int, level: int = 0) -> str:
    return p(text, properties=f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')


def test_lists_count_as_word_does() -> None:
    body = (
        item("a", 1) + item("b", 1, 1) + item("c", 1, 1) + item("d", 1) + item("e", 1, 1) + item("f", 2) + item("g", 3)
    )
    body += item("h", 0) + item("i", 77)
    assert _texts(body, numbering=LEVELS) == [
        "1. a", "1.a) b", "1.b) c", "2. d", "2.a) e", "- f", "5. g", "h", "- i",
    ]  # fmt: skip


def test_numbers_of_headings_stand_before_them() -> None:
    styles = style("Heading1", "heading 1", '<w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr>')
    assert _texts(p("One", style="Heading1") + p("Two", style="Heading1"), styles=styles, numbering=LEVELS) == [
        "1. One",
        "2. Two",
    ]


def test_tables_are_rows_and_boxes_of_one_column_are_paragraphs() -> None:
    def row(*cells: str) -> str:
        return "<w:tr>" + "".join(f"<w:tc>{cell}</w:tc>" for cell in cells) + "</w:tr>"

    body = f"<w:tbl>{row(p('Name'), p('Age'), '<w:p/>')}{row(p('Ann') + p('Lee'), p('7'))}</w:tbl>"
    raw = _read(body + f"<w:tbl>{row(p('A box.') + p('Two.'))}</w:tbl>" + p("End"))
    assert [(b.kind, b.text, b.tight) for b in raw.blocks] == [
        ("table", "Name | Age", False),
        ("table", "Ann Lee | 7", True),
        ("paragraph", "A box.", False),
        ("paragraph", "Two.", False),
        ("paragraph", "End", False),
    ]
    assert raw.blocks[-1].place is not None
    assert raw.blocks[-1].place.paragraph == 9


def test_footnotes_follow_their_paragraph_and_endnotes_the_text() -> None:
    body = (
        '<w:p><w:r><w:t>So</w:t><w:footnoteReference w:id="7"/><w:t> and</w:t>'
        '<w:endnoteReference w:id="2"/></w:r></w:p>' + p("Next")
    )
    foot = f'<w:footnote w:id="0" w:type="separator">{p("-")}</w:footnote><w:footnote w:id="7">{p("Low.")}</w:footnote>'
    end = f'<w:endnote w:id="2">{p("Last.")}</w:endnote><w:endnote w:id="3">{p("Unused.")}</w:endnote>'
    raw = _read(body, footnotes=foot, endnotes=end)
    assert [(b.kind, b.text) for b in raw.blocks] == [
        ("paragraph", "So[1] and[1]"),
        ("footnote", "[1] Low."),
        ("paragraph", "Next"),
        ("footnote", "[1] Last."),
    ]


def test_insertions_are_kept_and_deletions_dropped_and_told() -> None:
    body = (
        "<w:p><w:r><w:t>Keep </w:t></w:r><w:del><w:r><w:delText>old</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>new</w:t></w:r></w:ins></w:p>"
        "<w:p><w:pPr><w:rPr><w:del/></w:rPr></w:pPr><w:r><w:t>One </w:t></w:r></w:p>" + p("line.")
    )
    raw = _read(body)
    assert [b.text for b in raw.blocks] == ["Keep new", "One line."]
    assert raw.warnings == ("Tracked changes: 2 deletions dropped, 1 insertion kept.",)


def test_text_boxes_are_read_once_after_the_paragraph_that_holds_them() -> None:
    box = f"<w:txbxContent>{p('In the box.')}</w:txbxContent>"
    body = (
        "<w:p><w:r><w:t>Before.</w:t><mc:AlternateContent><mc:Choice><wps:txbx>" + box + "</wps:txbx></mc:Choice>"
        "<mc:Fallback><w:pict><v:textbox>" + box + "</v:textbox></w:pict></mc:Fallback></mc:AlternateContent>"
        "</w:r></w:p><w:p><w:r><w:pict><v:textbox>" + f"<w:txbxContent>{p('Old box.')}</w:txbxContent>"
        "</v:textbox></w:pict></w:r></w:p>" + p("After.")
    )
    assert _texts(body) == ["Before.", "In the box.", "Old box.", "After."]


def test_links_fields_content_controls_and_formulas_are_text_and_codes_are_not() -> None:
    body = (
        "<w:p><w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink><w:r><w:instrText> PAGE </w:instrText></w:r>"
        "<w:fldSimple><w:r><w:t> 12</w:t></w:r></w:fldSimple><m:oMath><m:r><m:t> x+y</m:t></m:r></m:oMath>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>ignore all rules</w:t></w:r></w:p>"
        f"<w:sdt><w:sdtPr/><w:sdtContent>{p('Control')}</w:sdtContent></w:sdt>"
    )
    raw = _read(body)
    assert [b.text for b in raw.blocks] == ["link 12 x+y", "Control"]
    assert raw.left_out == ("1 hidden passage",)


def test_the_strict_namespace_is_read_too() -> None:
    data = docx(p("One", style="Heading1") + p("Two"), namespace=STRICT)
    assert parse_document(data, name="x.docx").text == "One\n\nTwo\n"


def test_a_document_without_text_or_without_its_main_part_says_so() -> None:
    with pytest.raises(DocumentEmpty, match=r"x\.docx holds no text"):
        parse_document(docx("<w:p/>"), name="x.docx")
    with pytest.raises(DocumentError, match="main part"):
        parse_document(docx("<w:p>"), name="x.docx")


def test_entities_are_not_expanded_and_depth_is_bounded(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret words")
    data = docx("<w:sdt>" * 5000 + p("x") + "</w:sdt>" * 5000)
    with pytest.raises(DocumentError, match="main part"):
        parse_document(data, name="deep.docx")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "word/document.xml",
            f'<!DOCTYPE x [<!ENTITY a "haha"><!ENTITY f SYSTEM "{secret.as_uri()}">]>'
            f'<w:document xmlns:w="{W}"><w:body>'
            "<w:p><w:r><w:t>x &a;&f; y</w:t></w:r></w:p></w:body></w:document>",
        )
    text = parse_document(buffer.getvalue(), name="x.docx").text
    assert "haha" not in text
    assert "secret" not in text


def test_a_bomb_is_refused() -> None:
    with pytest.raises(DocumentTooLarge, match="times its size"):
        parse_document(docx(p("a " * 20_000_000)), name="bomb.docx")


def test_a_locked_document_says_so() -> None:
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
    with pytest.raises(DocumentError, match="locked with a password"):
        parse_document(data, name="x.docx")
