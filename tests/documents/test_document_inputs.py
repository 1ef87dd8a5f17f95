"""What read_document accepts and refuses."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from coa.documents import read_document
from coa.documents.signatures import kind_of
from coa.errors import DocumentEmpty, DocumentError, DocumentTooLarge


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"application/epub+zip" if name == "mimetype" else b"x")
    return buffer.getvalue()


BINARIES = {
    "PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "XLSX": _zip("[Content_Types].xml", "xl/workbook.xml"),
    "OpenDocument": _zip("mimetypeapplication/vnd.oasis.opendocument.text"),
    "ELF": b"\x7fELF\x02\x01\x01" + bytes(64),
    "gzip": gzip.compress(b"text"),
    "RTF": b"{\\rtf1\\ansi Hello}",
    "FictionBook": b'<?xml version="1.0"?>\n<FictionBook><body/></FictionBook>',
    "control bytes": bytes(range(256)) * 20,
}


@pytest.mark.parametrize("kind", BINARIES)
def test_other_kinds_are_named_and_refused(kind: str) -> None:
    with pytest.raises(DocumentError, match=kind) as caught:
        read_document(BINARIES[kind], name="thing")
    assert "thing" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "pdf"),
        (b"junk in front\n%PDF-1.4\n1 0 obj\n%%EOF\n", "pdf"),
        (b"A text that speaks of %PDF-1.4 and nothing more.", None),
        (_zip("a.txt"), "zip"),
        (b"PK\x05\x06" + bytes(18), "zip"),
        (_zip("mimetype", "META-INF/container.xml"), "epub"),
        (_zip("[Content_Types].xml", "word/document.xml"), "docx"),
        (b"\n<!-- saved -->\n<!DOCTYPE html>\n<html><body>Hi</body></html>", "html"),
        ("\ufeff<html><p>Hi</p></html>".encode("utf-16-le"), "html"),
        ("<html><p>Hi</p></html>".encode("utf-16-le"), "html"),
        (b"Plain words, <b>bold</b> ones too.", None),
    ],
)
def test_the_kind_is_told_by_content(data: bytes, kind: str | None) -> None:
    assert kind_of(data) == kind


@pytest.mark.parametrize("kind", ["epub", "docx", "zip", "pdf"])
def test_files_that_only_begin_like_their_kind_are_document_errors(kind: str) -> None:
    begins = {"epub": b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/epub+zip", "pdf": b"%PDF-1.7\n"}
    data = begins.get(kind, b"PK\x03\x04" + bytes(30) + (b"word/document" if kind == "docx" else b""))
    with pytest.raises(DocumentError, match="thing") as caught:
        read_document(data + bytes(100), name="thing")
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_html_in_utf16_is_read() -> None:
    assert read_document("<html><p>Hello there</p></html>".encode("utf-16")).text == "Hello there\n"


@pytest.mark.parametrize(
    "text", ["RIFF raff and other tales.", "BZhang wrote this.", "ID3 tags are old.", "GGUF is a format."]
)
def test_text_that_begins_like_a_signature_is_text(text: str) -> None:
    assert read_document(text.encode()).text == text


def test_a_missing_file_an_empty_folder_and_a_strange_path_each_say_so(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "no.txt", "There is no file"),
        (tmp_path, "holds no file of text"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(DocumentError, match=words) as caught:
            read_document(path)
        assert isinstance(caught.value, DocumentError)
        assert caught.value.hint
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("text")
    path.chmod(0)
    with pytest.raises(DocumentError, match="may not be read"):
        read_document(path)


@pytest.mark.parametrize("data", [b"", b" \n\t\r\n ", b"\xef\xbb\xbf", "\ufeff\u200b \u3000".encode()])
def test_nothing_to_read_is_document_empty(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "void.txt"
    path.write_bytes(data)
    with pytest.raises(DocumentEmpty, match=r"void\.txt"):
        read_document(path)


def test_the_limit_is_checked_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(10**12)  # sparse: reading it would take all memory
    with pytest.raises(DocumentTooLarge, match=r"1,000,000\.0 MB"):
        read_document(path)


def test_the_limit_holds_for_bytes_streams_and_devices() -> None:
    with pytest.raises(DocumentTooLarge):
        read_document(b"abcde", max_bytes=4)
    with pytest.raises(DocumentTooLarge):
        read_document(io.BytesIO(b"abcde"), max_bytes=4)
    with pytest.raises(DocumentTooLarge):
        read_document("/dev/zero", max_bytes=1000)
    assert read_document(b"abcd", max_bytes=4).text == "abcd"


def test_a_text_stream_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="binary stream"):
        read_document(cast("BinaryIO", io.StringIO("text")))


def test_a_str_is_a_path_and_names_the_document(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"One. Two.\r\n")
    document = read_document(str(path))
    assert (document.name, document.text) == ("book.txt", "One. Two.\n")
    assert document.source_sha256 == hashlib.sha256(b"One. Two.\r\n").hexdigest()
    assert document.sha256 == hashlib.sha256(b"One. Two.\n").hexdigest()
    assert document.warnings == ()


def test_what_was_changed_is_warned_of() -> None:
    document = read_document(b"A\0 walk. " + "A cafe\u0301 in\ufeff the\u200b rain. ".encode() * 60)
    assert document.text == "A walk. " + "A café in the rain. " * 60
    words = " ".join(document.warnings)
    assert "1 NUL" in words
    assert "120 zero-width" in words
    assert "NFC" in words


def test_a_stream_that_fails_is_a_document_error() -> None:
    class Broken(io.BytesIO):
        name = "/mnt/usb/book.txt"

        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(DocumentError, match=r"^book\.txt cannot be read: input/output error\."):
        read_document(Broken())


def test_a_path_with_a_line_break_is_shown_on_one_line() -> None:
    with pytest.raises(DocumentError) as caught:
        read_document("no\nsuch\x1b[31mfile")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
