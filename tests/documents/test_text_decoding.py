"""Encodings: named, marked, declared, detected."""

from __future__ import annotations

import pytest

from coa.documents import read_document
from coa.documents.decoding import decode
from coa.errors import DocumentError

GERMAN = "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte, fand er sich in seinem Bett. »Wie schön!« "
FRENCH = "Il n'était que trop vrai que les travaux du chemin de fer s'arrêtaient à ce point, et que l'été… finissait. "
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. "
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
CHINESE = "却说美猴王荣归故里，自剿了混世魔王，夺了一口大刀，逐日操演武艺。"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_western_text_is_read_in_any_encoding(encoding: str) -> None:
    assert decode((GERMAN * 5).encode(encoding)).text == GERMAN * 5


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "latin-1"),
        (FRENCH, "cp1252"),
        (FRENCH, "mac_roman"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (CHINESE, "gb18030"),
        (CHINESE, "utf-16-le"),
    ],
)
def test_an_encoding_without_a_mark_is_found_by_its_letters(text: str, encoding: str) -> None:
    if (text, encoding) == (CHINESE, "utf-16-le"):
        with pytest.raises(DocumentError):  # nothing tells it from noise: better refused than guessed
            decode((text * 20).encode(encoding))
        return
    decoded = decode((text * 20).encode(encoding))
    assert decoded.text == text * 20
    assert any("guessed" in w for w in decoded.warnings)


def test_a_declared_encoding_is_believed() -> None:
    head = "Title: Żółć\n\nCharacter set encoding: ISO-8859-2\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\n"
    decoded = decode((head + "Zażółć gęślą jaźń.").encode("iso8859-2"))
    assert decoded.encoding == "iso8859-2"
    assert decoded.text.endswith("Zażółć gęślą jaźń.")


def test_latin_1_with_curly_quotes_is_windows_1252() -> None:
    data = "Character set encoding: ISO-8859-1\n\n“Träume” – so war’s.".encode("cp1252")
    assert decode(data).text.endswith("“Träume” – so war’s.")


def test_a_wrong_declaration_does_not_win_over_valid_utf8() -> None:
    assert "Träume" in decode(b"Character set encoding: ISO-8859-1\n\n" + "Träume".encode()).text


def test_damaged_utf8_stays_utf8() -> None:
    data = (GERMAN * 50).encode() + b"\xff" + (GERMAN * 50).encode()
    decoded = decode(data)
    assert decoded.text == GERMAN * 50 + "\ufffd" + GERMAN * 50
    assert "1 places" in decoded.warnings[0]


def test_utf8_cut_off_in_its_last_character_loses_only_that() -> None:
    decoded = decode("Träume é".encode()[:-1])
    assert decoded.text == "Träume "
    assert decoded.warnings


def test_a_named_encoding_is_used_or_refused() -> None:
    assert decode(RUSSIAN.encode("cp1251"), "cp1251").text == RUSSIAN
    assert decode(b"\xef\xbb\xbfx", "utf-8").text == "x"
    for name in ("utf-9", "base64", "a\0b"):
        with pytest.raises(DocumentError, match="no text encoding"):
            decode(b"text", name)
    with pytest.raises(DocumentError, match="not valid utf-8 at byte 2"):
        decode(b"ab\xff", "utf-8")


def test_errors_of_decoding_name_the_document() -> None:
    with pytest.raises(DocumentError, match=r"^book\.txt: "):
        read_document(b"ab\xff", name="book.txt", encoding="utf-8")


def test_marked_text_with_a_broken_character_is_read_with_a_warning() -> None:
    broken = GERMAN.encode("utf-16-le") * 20 + b"\x00\xd8" + "x".encode("utf-16-le")
    decoded = decode(b"\xff\xfe" + broken)
    assert decoded.text.startswith(GERMAN * 20)
    assert "Damaged utf-16" in decoded.warnings[0]


def test_a_mark_in_front_of_something_else_is_an_error() -> None:
    with pytest.raises(DocumentError, match="begins with the mark of utf-16"):
        decode(b"\xff\xfe" + b"\x00\xd8a\x00" * 300)


@pytest.mark.parametrize("declared", ["no-such-thing", "US-ASCII", "UTF-8"])
def test_a_declaration_that_does_not_hold_is_passed_over(declared: str) -> None:
    text = f"Character set encoding: {declared}\n\n" + GERMAN * 5
    assert decode(text.encode("latin-1")).text == text


def test_only_a_sample_of_a_long_text_is_looked_at_and_all_is_decoded() -> None:
    text = (FRENCH + "\n") * 3000 + "fin"
    assert decode(text.encode("cp1252")).text == text
