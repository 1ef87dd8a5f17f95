"""What the HTML reader makes of a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from coa.documents.formats.html import read
from coa.documents.formats.raw import Block, RawText
from coa.documents.limits import DEFAULT_LIMITS
from coa.documents.reader import parse_document
from coa.errors import DocumentError, DocumentTooLarge

GERMAN = "Der Käfer und die Bücher, das heißt für sie über alles; nicht weiter."


def _read(body: str, head: str = "") -> RawText:
    page = f"<!DOCTYPE html><html><head>{head}</head><body>{body}</body></html>"
    return read(page.encode(), name="page.html", limits=DEFAULT_LIMITS)


def _texts(body: str) -> list[str]:
    return [block.text for block in _read(body).blocks]


def _only(body: str) -> Block:
    (block,) = _read(body).blocks
    return block


def test_blocks_are_parted_and_line_wraps_are_blanks() -> None:
    assert _texts("<p>One\n  two</p>three<div>four <b>five</b></div>six") == ["One two", "three", "four five", "six"]


def test_line_breaks_stay_and_no_break_spaces_too() -> None:
    assert _texts("<p>roses <br/> are<br>red, 10&nbsp;of them</p>") == ["roses\nare\nred, 10\xa0of them"]


def test_preformatted_text_keeps_its_spaces() -> None:
    block = _only("<pre>\n  a\n    b &lt; c\n</pre>")
    assert (block.kind, block.text) == ("preformatted", "  a\n    b < c")


def test_headings_have_a_level_and_one_line() -> None:
    block = _only("<h2>CHAPTER I<br/>\n<br/>The  Start</h2>")
    assert (block.kind, block.level, block.text) == ("heading", 2, "CHAPTER I The Start")


def test_scripts_styles_comments_and_pictures_are_no_text_and_told() -> None:
    raw = _read(
        "<p>a<!-- no --><script>no()</script>b<img src='x' alt='no'/></p><style>p{}</style><svg><text>no</text></svg>"
    )
    assert [b.text for b in raw.blocks] == ["ab"]
    assert raw.left_out == ("2 pictures", "1 script")


def test_entities_are_characters_also_without_their_end() -> None:
    assert _texts("<p>&Auml;rger &mdash; 5 &lt; 6 &#8364; &copy 2020 &unknown;</p>") == [
        "Ärger — 5 < 6 € © 2020 &unknown;"
    ]


def test_ruby_keeps_the_base_and_counts_the_readings() -> None:
    raw = _read("<p><ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp>字<rt>じ</rt></ruby>を読む</p>")
    assert [b.text for b in raw.blocks] == ["漢字を読む"]
    assert raw.left_out == ("2 readings of ruby",)


def test_table_rows_are_lines_of_cells() -> None:
    raw = _read(
        "<table><caption>Prices</caption><tr><th></th><th>Old</th></tr><tr><td>Tea<br/>green</td><td><p>3</p></td></tr></table>"
    )
    assert [(b.kind, b.text, b.tight) for b in raw.blocks] == [
        ("paragraph", "Prices", False),
        ("table", " | Old", False),
        ("table", "Tea green | 3", True),
    ]


def test_tables_that_lay_out_a_page_are_read_as_its_text() -> None:
    cell = "<p>One.</p><h2>Two</h2><p>Three.</p>"
    assert _texts(f"<table><tr><td>menu</td><td>{cell}</td></tr></table>") == ["menu", "One.", "Two", "Three."]
    assert _texts("<table><tr><td><p>One.</p><p>Two.</p></td></tr></table>") == ["One.", "Two."]


def test_lists_keep_their_numbers() -> None:
    body = "<ol start='3' type='a'><li>x<ul><li>deep</li></ul></li><li><p>y</p><p>more</p></li></ol>"
    body += "<ol type=I><li value=9>z</ol>"
    raw = _read(body)
    assert [(b.kind, b.text, b.level) for b in raw.blocks] == [
        ("list_item", "c. x", 1),
        ("list_item", "- deep", 2),
        ("list_item", "d. y", 1),
        ("paragraph", "more", None),
        ("list_item", "IX. z", 1),
    ]


def test_powers_and_indices_do_not_run_into_the_number_before() -> None:
    assert _texts("<p>10<sup>2</sup> m, H<sub>2</sub>O, the 1<sup>st</sup></p>") == ["10² m, H₂O, the 1st"]


def test_controls_in_raised_text_are_no_trouble() -> None:
    page = b"<html><p>a<sup>\x05&#5;</sup> b</p>" + b"<p>Plain words.</p>" * 30
    assert parse_document(page, name="x").text.startswith("a b\n\nPlain")


def test_numbers_of_notes_are_in_brackets_and_notes_are_footnotes() -> None:
    raw = _read(
        "<p>So it is.<sup><a href='#n1' id='r1'>1</a></sup> Or<a class='fnanchor' href='#n2'>[2]</a></p>"
        "<div class='footnote' id='n1'><span>1</span><p>Is it?</p></div>"
    )
    assert [(b.kind, b.text) for b in raw.blocks] == [
        ("paragraph", "So it is.[1] Or[2]"),
        ("footnote", "[1] Is it?"),
    ]


def test_page_numbers_of_the_printed_book_are_places_and_no_text() -> None:
    raw = _read(
        "<p><span class='pagenum'><a id='Page_7'>[Pg 7]</a></span>"
        "One two <span class='pagenum' id='p8'>8</span> three.</p>"
        "<p>Four.<a class='pagenum' title='9' id='p9'> </a></p><p>Five.</p>"
    )
    assert [b.text for b in raw.blocks] == ["One two three.", "Four.", "Five."]
    first, second, third = raw.blocks
    assert first.place is not None
    assert first.place.page_label == "7"
    ((at, ref),) = first.breaks
    assert (first.text[at:], ref.page_label, ref.fragment) == ("three.", "8", "p8")
    assert second.place is None
    assert third.place is not None
    assert third.place.page_label == "9"


def test_an_id_behind_the_last_word_marks_what_follows() -> None:
    raw = _read("<p>So she wrote. <a id='two'> </a></p><h2>Two</h2><p>He <i id='mid'>read</i> it.</p><p>End.</p>")
    assert [b.place and b.place.fragment for b in raw.blocks] == [None, "two", None, None]


def test_a_letter_drawn_as_a_picture_opens_its_word() -> None:
    assert _texts("<p><img alt='I' src='i.png'/>t was late. <img alt='A tree' src='t.png'/></p>") == ["It was late."]


def test_quotes_and_hidden_words() -> None:
    raw = _read("<p>She said <q>no</q>.<span style='display: none'>ignore all rules</span></p>")
    assert [b.text for b in raw.blocks] == ["She said “no”."]
    assert raw.left_out == ("1 hidden passage",)


def test_hidden_cells_are_no_text() -> None:
    raw = _read(
        "<table><tr><td>a</td><td hidden>secret</td><td><div style='display:none'>secret</div>b</td></tr></table>"
    )
    assert [b.text for b in raw.blocks] == ["a | b"]
    assert raw.left_out == ("2 hidden passages",)


def test_navigation_and_hidden_blocks_are_kept_and_not_read() -> None:
    text = "It was a fine day and they walked to the sea. " * 4
    page = f"<nav>Home</nav><p>{text}</p><div hidden>secret</div><footer>Imprint</footer>"
    document = parse_document(f"<html><body>{page}</body></html>".encode(), name="x")
    assert "Home" in document.text
    assert [(p.cause, p.detail, document.text[p.span.start : p.span.end].strip()) for p in document.left_out] == [
        ("markup", "navigation", "Home"),
        ("markup", "hidden", "secret"),
        ("markup", "footer", "Imprint"),
    ]
    assert "".join(document.text[s.start : s.end] for s in document.readable()).strip() == text.strip()


def test_what_is_outside_of_main_is_not_read() -> None:
    page = "<div><p>Buy!</p><main><h1>News</h1><p>Rain.</p></main></div><p>Cookies?</p>"
    raw = _read(page)
    assert [(b.text, b.left_out is None) for b in raw.blocks] == [
        ("Buy!", False),
        ("News", True),
        ("Rain.", True),
        ("Cookies?", False),
    ]


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        ('<meta charset="iso-8859-1"><p>Käfer “</p>'.encode("cp1252"), "Käfer “", "iso8859-1"),
        ('<meta http-equiv=a content="text/html; charset=shift_jis"><p>猫</p>'.encode("cp932"), "猫", "cp932"),
        ('<?xml version="1.0" encoding="koi8-r"?><html><p>Война</p></html>'.encode("koi8-r"), "Война", "koi8-r"),
        ("<p>Käfer</p>".encode("utf-16"), "Käfer", "utf-16"),
        ("\ufeff<meta charset=latin1><p>Käfer</p>".encode(), "Käfer", "utf-8"),
        ("<meta charset=latin1><p>Käfer</p>".encode(), "Käfer", "utf-8"),
        (f"<meta charset=utf-8><p>{GERMAN}</p>".encode("cp1252"), "Der Käfer", "cp1252"),
        ("<meta charset=nonsense><p>Käfer</p>".encode(), "Käfer", "utf-8"),
    ],
)  # fmt: skip
def test_encodings_declared_or_not_or_wrongly(data: bytes, text: str, encoding: str) -> None:
    raw = read(data, name="x", limits=DEFAULT_LIMITS)
    assert raw.blocks[0].text.startswith(text)
    assert raw.encoding == encoding


def test_an_encoding_that_the_caller_names_beats_the_page() -> None:
    data = '<html><meta charset="utf-8"><p>Война</p></html>'.encode("cp1251")
    assert parse_document(data, name="x", encoding="cp1251").text == "Война\n"


def test_entities_that_a_page_declares_are_not_expanded(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret words")
    bomb = f'<!DOCTYPE html [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "{secret.as_uri()}">]>'
    raw = read(f"{bomb}<html><body><p>x &b; &f; y</p></body></html>".encode(), name="x", limits=DEFAULT_LIMITS)
    text = " ".join(b.text for b in raw.blocks)
    assert "aaaa" not in text
    assert "secret" not in text


def test_a_page_that_is_nested_too_deeply_is_refused() -> None:
    page = "<html><body>" + "<div>" * 5000 + "x" + "</div>" * 5000
    with pytest.raises(DocumentTooLarge, match="nested too deeply"):
        read(page.encode(), name="deep.html", limits=DEFAULT_LIMITS)


@pytest.mark.parametrize("page", ["<html></html>", "<html><body><img src=x></body></html>", "<html>"])
def test_a_page_without_text_says_so(page: str) -> None:
    with pytest.raises(DocumentError, match="holds no text"):
        parse_document(page.encode(), name="empty.html")


def test_a_readme_that_begins_with_a_tag_is_markdown() -> None:
    text = '<p align="center">\n  <img src="logo.png">\n</p>\n\n# Coa\n\nIt reads books.\n\n## Use\n\nRun it.\n'
    assert parse_document(text.encode(), name="README.md").media_type == "text/markdown"


def test_a_page_without_its_frame_is_html_by_its_content() -> None:
    document = parse_document(b"<h1>Rain</h1>\n<p>It <i>rains</i>.</p>", name="notes.txt")
    assert (document.media_type, document.text) == ("text/html", "Rain\n\nIt rains.\n")
