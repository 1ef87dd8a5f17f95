"""Folders and archives of chapter files as one book."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from coa.documents import read_document
from coa.documents.formats.natural import natural_key
from coa.documents.limits import ReadingLimits
from coa.errors import DocumentEmpty, DocumentError, DocumentTooLarge
from coa.types import Document

PROSE = "It was a long day and the sea was calm, so they sailed on to the north. " * 20


def archive(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, text in files.items():
            writer.writestr(name, text)
    return buffer.getvalue()


def folder(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return root


def chapters(document: Document) -> list[tuple[int | None, str]]:
    return [(c.number, c.title) for c in document.chapters()]


def test_names_are_in_the_order_people_count_in() -> None:
    names = ["b/1.txt", "ch10.txt", "ch2.txt", "Ch1.txt", "ch2b.txt", "a/9.txt", "a/10.txt", "ch02.txt"]
    assert sorted(names, key=natural_key) == [
        "a/9.txt", "a/10.txt", "b/1.txt", "Ch1.txt", "ch02.txt", "ch2.txt", "ch2b.txt", "ch10.txt",
    ]  # fmt: skip


FILES: dict[str, str | bytes] = {
    "book/10-end.txt": f"Chapter 10\n\n{PROSE}\n",
    "book/2-storm.md": f"# 2. Storm\n\n{PROSE}\n\n## Wind\n\n{PROSE}\n",
    "book/1-start.html": f"<html><body><h1>1. Start</h1><p>{PROSE}</p></body></html>",
    "book/3-letter.txt": PROSE,
    "book/style.css": "p { color: red }",
    "book/cover.png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "book/.hidden.txt": "secret",
    "__MACOSX/book/._1-start.html": "junk",
}


def test_files_are_chapters_each_read_by_its_own_reader(tmp_path: Path) -> None:
    zipped = read_document(archive(FILES), name="book.zip")
    assert zipped.media_type == "application/zip"
    assert zipped.chapter_method == "files"
    assert chapters(zipped) == [(1, "1. Start"), (2, "2. Storm"), (3, "3 letter"), (10, "Chapter 10")]
    assert [s.title for s in zipped.sections if s.level == 2] == ["Wind"]
    for word in ("color", "secret", "junk", "<p>"):
        assert word not in zipped.text
    (left_out,) = zipped.left_out
    assert left_out.detail.startswith("4 files of other kinds: ")
    assert read_document(folder(tmp_path / "x", FILES)).text == zipped.text


def test_places_name_the_file() -> None:
    document = read_document(archive(FILES), name="book.zip")
    assert [p.item for p in document.places] == [
        "book/1-start.html", "book/2-storm.md", "book/3-letter.txt", "book/10-end.txt",
    ]  # fmt: skip
    assert document.places[0].span.start == 0
    assert document.places[-1].span.end == len(document.text)


def test_an_archive_of_one_book_is_that_book() -> None:
    text = "".join(f"CHAPTER {n}\n\n{PROSE}\n\n" for n in range(1, 6))
    document = read_document(archive({"book.txt": text}), name="book.zip")
    assert [c.number for c in document.chapters()] == [1, 2, 3, 4, 5]
    assert document.media_type == "text/plain"
    assert {p.item for p in document.places} == {"book.txt"}


def test_a_damaged_file_is_told_and_the_others_are_read() -> None:
    document = read_document(archive({"1.txt": PROSE, "2.epub": b"PK\x03\x04mimetypeapplication/epub+zip"}))
    assert document.text.strip() == PROSE.strip()
    assert any("2.epub" in warning and "damaged" in warning for warning in document.warnings)


def test_traversal_names_reach_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("before")
    document = read_document(archive({"../victim.txt": "after", f"{victim}": "after", "ch1.txt": PROSE}))
    assert victim.read_text() == "before"
    assert "before" not in document.text
    assert list(tmp_path.iterdir()) == [victim]


def test_links_and_pipes_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("secret words")
    book = folder(tmp_path / "book", {"1.txt": PROSE})
    (book / "2.txt").symlink_to(outside)
    (book / "loop").symlink_to(book)
    os.mkfifo(book / "3.txt")
    assert read_document(book).text.strip() == PROSE.strip()


@pytest.mark.parametrize("files", [{}, {"a.png": b"\x89PNG\r\n\x1a\n"}, {"x.css": "p{}"}, {"a.txt": " \n"}])
def test_nothing_to_read_says_so(files: dict[str, str | bytes], tmp_path: Path) -> None:
    with pytest.raises(DocumentEmpty, match="holds no"):
        read_document(archive(files), name="x.zip")
    book = tmp_path / "book"
    book.mkdir()
    with pytest.raises(DocumentEmpty, match="book holds no"):
        read_document(folder(book, files))


def test_archives_inside_are_not_opened() -> None:
    inner = archive({"a.txt": "inner words"})
    document = read_document(archive({"1.txt": PROSE, "2.zip": inner}))
    assert "inner" not in document.text
    assert [p.detail for p in document.left_out] == ["1 file of other kinds: 2.zip"]


def test_limits_hold_over_all_files(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{n}.txt": PROSE for n in range(5)}
    small = ReadingLimits(max_unpacked_bytes=4000)
    few = ReadingLimits(max_archive_entries=4)
    book = folder(tmp_path, files)
    for limits, words in ((small, "over"), (few, "entries|files")):
        with pytest.raises(DocumentTooLarge, match=words):
            read_document(archive(files), name="x.zip", limits=limits)
        with pytest.raises(DocumentTooLarge, match=words):
            read_document(book, limits=limits)
    with pytest.raises(DocumentTooLarge, match="times its size"):
        read_document(archive({"1.txt": "a" * 30_000_000}), name="bomb.zip")


def test_an_entry_that_lies_about_its_size_is_counted_as_it_unpacks() -> None:
    data = bytearray(archive({"1.txt": "a" * 3_000_000}))
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = (10).to_bytes(4, "little")
    with pytest.raises(DocumentError):
        read_document(bytes(data), name="liar.zip", limits=ReadingLimits(max_unpacked_bytes=2_000_000))


def test_an_entry_with_a_password_is_told() -> None:
    data = bytearray(archive({"1.txt": PROSE, "2.txt": PROSE}))
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    document = read_document(bytes(data), name="x.zip")
    assert any("1.txt" in warning and "password" in warning for warning in document.warnings)
