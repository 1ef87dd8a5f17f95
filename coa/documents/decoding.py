"""Bytes into text: which encoding they are in, on what evidence."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from charset_normalizer import from_bytes

from coa.documents.languages import guess_language
from coa.errors import DocumentError

__all__ = ["Decoded", "decode"]

_BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"^Character set encoding:\s*([\w.:-]+(?: [\w.-]+)?)", re.MULTILINE | re.IGNORECASE)
_DECLARED_WITHIN = 4096
_BINARY_CONTROLS = bytes(b for b in range(32) if b not in b"\t\n\x0b\x0c\r\x1a\x1b")
_C1_BYTES = bytes(range(0x80, 0xA0))
# How much non-ASCII text is enough to tell an encoding, in bytes.
_SAMPLE = 64_000
_WESTERN_LETTERS = frozenset(
    "äöüßÄÖÜéèêëàâáãåæçñíìîïóòôõøœúùûýÿÉÈÊËÀÂÁÃÅÆÇÑÍÌÎÏÓÒÔÕØŒÚÙÛ«»‹›“”„‘’‚–—…·•°§¿¡ªº©®†‡™£€\xa0½¼¾²³¹"
)
# Text in one of these, read as another of them, differs in the letters above 127 only.
_SINGLE_BYTE_WESTERN = ("cp1252", "mac_roman", "cp850", "cp437")


class Decoded(NamedTuple):
    """Text, the encoding it came from, and what was uncertain or lost, one sentence each."""

    text: str
    encoding: str
    warnings: tuple[str, ...] = ()


def decode(data: bytes, encoding: str | None = None) -> Decoded:
    """The text of `data`.

    Tried in this order: the caller's `encoding`; a byte order mark; strict UTF-8; UTF-8 that was cut off or is
    damaged here and there; the encoding that a Project Gutenberg header declares; Windows-1252 where that
    gives Western words; what charset-normalizer finds. Raises DocumentError where none of them fits, or where
    the bytes are no text.
    """
    if encoding is not None:
        return _decode_as(data, encoding)
    for bom, name in _BOMS:
        if data.startswith(bom):
            return _marked(data, name)
    data = data.removeprefix(codecs.BOM_UTF8)
    if wide := _utf16_without_mark(data):
        return Decoded(data.decode(wide), wide, (f"Read as {wide}: every other byte is zero.",))
    if _is_binary(data):
        raise DocumentError(
            "The input holds control bytes as only binary data do.",
            hint="Give a text file; other kinds have to be converted to text first.",
        )
    for attempt in (_utf8, _declared, _western, _guessed):
        if decoded := attempt(data):
            return decoded
    raise DocumentError(
        "The input is in no encoding that coa can tell.",
        hint="Name its encoding, for example cp1251 or shift_jis, or save it as UTF-8.",
    )


def _decode_as(data: bytes, encoding: str) -> Decoded:
    try:
        name = codecs.lookup(encoding).name
        if not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError(encoding)
    except (LookupError, ValueError) as exc:
        raise DocumentError(
            f"There is no text encoding named {encoding!r}.", hint="Use a name such as utf-8, cp1252 or gb18030."
        ) from exc
    # A mark is no part of the text, also where the caller named the encoding.
    name = "utf-8-sig" if name == "utf-8" else name
    try:
        return Decoded(data.decode(name), name.removesuffix("-sig"))
    except UnicodeError as exc:
        at = getattr(exc, "start", None)
        place = "" if at is None else f" at byte {at}"
        raise DocumentError(
            f"The input is not valid {encoding}{place}.",
            hint="Leave the encoding out to have it detected, or name another one.",
        ) from exc


def _marked(data: bytes, encoding: str) -> Decoded:
    """Text behind a byte order mark; a few broken characters are let pass."""
    try:
        return Decoded(data.decode(encoding), encoding)
    except UnicodeDecodeError:
        text = data.decode(encoding, errors="replace")
    n_bad = text.count("\ufffd")
    if n_bad * 200 > len(text) + 200:
        raise DocumentError(
            f"The input begins with the mark of {encoding}, but is not in it.",
            hint="Save it as UTF-8, or name its encoding.",
        )
    return Decoded(text, encoding, (f"Damaged {encoding}: {n_bad} places were replaced by U+FFFD.",))


def _utf16_without_mark(data: bytes) -> str | None:
    """UTF-16's byte order where nearly all bytes in even or in odd places are zero: Western text in UTF-16."""
    sample = data[:4096]
    if len(sample) < 4 or len(data) % 2:
        return None
    even, odd = sample[0::2].count(0) / len(sample[0::2]), sample[1::2].count(0) / len(sample[1::2])
    for name, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros > 0.6 and others < 0.05:
            try:
                data.decode(name)
            except UnicodeDecodeError:
                continue
            return name
    return None


def _is_binary(data: bytes) -> bool:
    """True where controls that no text holds are more than one byte in 200."""
    n_controls = len(data) - len(data.translate(None, _BINARY_CONTROLS))
    return n_controls * 200 > len(data)


def _utf8(data: bytes) -> Decoded | None:
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError as exc:
        if exc.end == len(data) and len(data) - exc.start < 4 and exc.reason == "unexpected end of data":
            n_lost = len(data) - exc.start
            return Decoded(
                data[: exc.start].decode("utf-8"),
                "utf-8",
                (f"The input was cut off inside its last character; {n_lost} bytes were dropped.",),
            )
    text = data.decode("utf-8", errors="replace")
    n_bad = text.count("\ufffd")
    n_good = len(text) - len(text.encode("ascii", errors="ignore")) - n_bad
    if n_good >= 20 * n_bad:
        return Decoded(text, "utf-8", (f"Damaged UTF-8: {n_bad} places were replaced by U+FFFD.",))
    return None


def _declared(data: bytes) -> Decoded | None:
    match = _DECLARED.search(data[:_DECLARED_WITHIN])
    if match is None:
        return None
    name = match.group(1).decode("ascii", errors="replace").strip().replace("ISO Latin-1", "latin-1")
    try:
        codec = codecs.lookup(name.replace(" ", "-")).name
    except LookupError:
        return None
    if codec in ("iso8859-1", "ascii") and data.translate(None, _C1_BYTES) != data:
        codec = "cp1252"  # the bytes that differ are controls in Latin-1, and quotes and dashes here
    try:
        return Decoded(data.decode(codec), codec)
    except UnicodeDecodeError:
        return None


def _sample(data: bytes) -> bytes:
    """The lines of `data` that are not plain ASCII, up to enough of them."""
    lines: list[bytes] = []
    size = 0
    for line in data.splitlines(keepends=True):
        if not line.isascii():
            lines.append(line[:_SAMPLE])
            size += len(line)
            if size > _SAMPLE:
                break
    return b"".join(lines)


def _western(data: bytes) -> Decoded | None:
    sample = _sample(data)
    for name in _SINGLE_BYTE_WESTERN:
        try:
            text = sample.decode(name)
        except UnicodeDecodeError:
            continue
        letters = [c for c in text if c > "\x7f"]
        fitting = sum(1 for c in letters if c in _WESTERN_LETTERS)
        if fitting >= 0.97 * len(letters) and guess_language(text):
            try:
                return Decoded(data.decode(name), name, (f"The encoding was guessed to be {name}.",))
            except UnicodeDecodeError:
                continue
    return None


def _guessed(data: bytes) -> Decoded | None:
    best = from_bytes(_sample(data)).best()
    if best is None:
        return None
    try:
        text = data.decode(best.encoding)
    except UnicodeDecodeError:
        return None
    return Decoded(text, best.encoding, (f"The encoding was guessed to be {best.encoding}.",))
