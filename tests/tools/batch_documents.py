"""A folder of documents for batches, cut from real books into several formats, some of them broken.

python tests/tools/batch_documents.py FOLDER [--good 480] [--broken 20] [--words 500] [--data DIR]
"""

from __future__ import annotations

import argparse
import html
import io
import os
import random
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import docx

from coa.testing.pdf_files import Page, pdf_file, prose

__all__ = ["DATA", "Made", "make_documents"]

DATA = Path(os.environ.get("COA_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
_BOOKS = ("books/docs", "fairytaleqa/docs", "squality/docs", "govreport/docs")
_LINE = 90
_LINES_OF_PAGE = 50


class Made:
    """What was made, by file name."""

    def __init__(self) -> None:
        self.good: list[str] = []
        self.broken: list[str] = []


def make_documents(
    folder: Path,
    *,
    n_good: int,
    n_broken: int,
    words: int = 500,
    data: Path = DATA,
    formats: Sequence[str] = (),
) -> Made:
    """Writes the documents; each good one has a text of its own, of about `words` words. The same each time.

    `formats` are endings of file names; empty: all that there are, in turn.
    Raises: FileNotFoundError where the collection is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(8)
    texts = _texts(data, n_good + n_broken, words)
    made = Made()
    wanted = [(ending, write) for ending, write in _FORMATS if not formats or ending in formats]
    for n in range(n_good):
        ending, write = wanted[n % len(wanted)]
        name = f"{n:04}.{ending}"
        (folder / name).write_bytes(write(texts[n]))
        made.good.append(name)
    for n in range(n_broken):
        ending, wreck = _BROKEN[n % len(_BROKEN)]
        name = f"broken-{n:03}.{ending}"
        (folder / name).write_bytes(wreck(texts[n_good + n], rng))
        made.broken.append(name)
    return made


def _texts(data: Path, n: int, words: int) -> list[list[str]]:
    """Paragraphs of `n` stretches of the collection's books."""
    files = [path for kind in _BOOKS for path in sorted((data / kind).glob("*.txt"))]
    if not files:
        raise FileNotFoundError(f"no books in {data}")
    found: list[list[str]] = []
    for path in files:
        paragraphs: list[str] = []
        n_words = 0
        for block in path.read_text(encoding="utf-8", errors="replace").split("\n\n"):
            text = " ".join(block.split())
            if text and "Gutenberg" not in text:  # a stretch of the licence alone would be left out, and empty
                paragraphs.append(text)
                n_words += len(text.split())
            if n_words >= words:
                found.append(paragraphs)
                paragraphs, n_words = [], 0
            if len(found) == n:
                return found
    # The collection is used up: the same stretches again, told apart by their first line.
    return [[f"Copy {i // len(found)}, stretch {i}.", *found[i % len(found)]] for i in range(n)]


def _text(paragraphs: Sequence[str]) -> bytes:
    return "\n\n".join(paragraphs).encode()


def _utf16(paragraphs: Sequence[str]) -> bytes:
    return "\n\n".join(paragraphs).encode("utf-16")


def _markdown(paragraphs: Sequence[str]) -> bytes:
    return ("# A stretch\n\n" + "\n\n".join(paragraphs)).encode()


def _html(paragraphs: Sequence[str]) -> bytes:
    body = "".join(f"<p>{html.escape(paragraph)}</p>\n" for paragraph in paragraphs)
    head = "<!doctype html><html><head><title>A stretch</title></head>"
    return f"{head}<body><h1>A stretch</h1>{body}</body></html>".encode()


def _docx(paragraphs: Sequence[str]) -> bytes:
    document = docx.Document()
    document.add_heading("A stretch", 1)
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def _pdf(paragraphs: Sequence[str]) -> bytes:
    lines: list[str] = []
    for paragraph in paragraphs:
        line = ""
        for word in paragraph.encode("latin-1", "replace").decode("latin-1").split():
            if len(line) + len(word) >= _LINE:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
        lines += [line, ""]
    pages = [lines[at : at + _LINES_OF_PAGE] for at in range(0, len(lines), _LINES_OF_PAGE)]
    return pdf_file([Page(prose(page)) for page in pages])


def _epub(paragraphs: Sequence[str]) -> bytes:
    body = "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs)
    head = '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>A</title></head>'
    chapter = f"{head}<body><h1>A stretch</h1>{body}</body></html>"
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/><manifest>'
        '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="a"/></spine></package>'
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
        '<rootfile full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("c.opf", package)
        archive.writestr("a.xhtml", chapter)
    return out.getvalue()


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _wrecked_zip(paragraphs: Sequence[str], rng: random.Random) -> bytes:
    """A DOCX whose main part is no XML."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_docx(paragraphs))) as good, zipfile.ZipFile(out, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, b"<w:document" if name == "word/document.xml" else good.read(name))
    return out.getvalue()


def _bomb(paragraphs: Sequence[str], rng: random.Random) -> bytes:
    """A DOCX that unpacks to gigabytes."""
    out = io.BytesIO()
    good = zipfile.ZipFile(io.BytesIO(_docx(paragraphs)))
    with good, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bad:
        for name in good.namelist():
            if name == "word/document.xml":
                with bad.open(name, "w", force_zip64=True) as part:
                    for _ in range(600):
                        part.write(b" " * (1 << 20))
            else:
                bad.writestr(name, good.read(name))
    return out.getvalue()


Writer = Callable[[Sequence[str]], bytes]
_FORMATS: list[tuple[str, Writer]] = [
    ("txt", _text),
    ("html", _html),
    ("pdf", _pdf),
    ("docx", _docx),
    ("epub", _epub),
    ("md", _markdown),
    ("u16.txt", _utf16),
]
_BROKEN: list[tuple[str, Callable[[Sequence[str], random.Random], bytes]]] = [
    ("txt", lambda text, rng: b""),
    ("pdf", lambda text, rng: _cut(_pdf(text))),
    ("docx", lambda text, rng: _cut(_docx(text))),
    ("epub", lambda text, rng: _cut(_epub(text))),
    ("pdf", lambda text, rng: b"%PDF-1.7\n" + rng.randbytes(4000)),
    ("docx", _wrecked_zip),
    ("bin", lambda text, rng: rng.randbytes(5000)),
    ("txt", lambda text, rng: b" \n\t\n" * rng.randrange(50, 100)),
    ("png", lambda text, rng: b"\x89PNG\r\n\x1a\n" + rng.randbytes(2000)),
    ("docx", _bomb),
    ("pdf", lambda text, rng: pdf_file([Page(prose(["Nobody can read this."]))], password=True)),
    ("pdf", lambda text, rng: pdf_file([Page(picture=True)])),
    ("html", lambda text, rng: b"<html><head><script>var a = 1</script></head><body></body></html>"),
    ("docx", lambda text, rng: _zip({"word/styles.xml": b"<styles/>"})),
    ("epub", lambda text, rng: _zip({"mimetype": b"application/epub+zip", "a.xhtml": b"<html/>"})),
    ("zip", lambda text, rng: _zip({"program.exe": b"MZ" + rng.randbytes(2000)})),
    ("gz", lambda text, rng: b"\x1f\x8b\x08\x00" + rng.randbytes(2000)),
    ("doc", lambda text, rng: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + rng.randbytes(4000)),
    ("mp3", lambda text, rng: b"ID3\x03\x00" + rng.randbytes(4000)),
    ("md", lambda text, rng: b"\x00\x00\x00\x00" * rng.randrange(100, 200)),
]


def _zip(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--good", type=int, default=480)
    parser.add_argument("--broken", type=int, default=20)
    parser.add_argument("--words", type=int, default=500)
    parser.add_argument("--data", type=Path, default=DATA)
    args = parser.parse_args(arguments)
    made = make_documents(args.folder, n_good=args.good, n_broken=args.broken, words=args.words, data=args.data)
    print(f"{len(made.good)} good documents and {len(made.broken)} broken ones in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
