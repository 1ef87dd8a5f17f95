"""What a format reader hands over: blocks of text in reading order, and what the file says about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from coa.documents.limits import ReadingLimits
from coa.types import SectionKind

__all__ = ["Block", "BlockKind", "FormatReader", "LeftOutCause", "OutlineEntry", "PlaceRef", "RawText"]

BlockKind = Literal[
    "paragraph",
    "heading",
    "title",
    "list_item",
    "table",
    "footnote",
    "preformatted",
    "running_head",
    "page_number",
]
LeftOutCause = Literal["boilerplate", "licence", "running_head", "page_number", "markup"]


@dataclass(frozen=True, slots=True)
class PlaceRef:
    """Where a block stands in the source file; the fields are those of `coa.types.Place`."""

    page: int | None = None
    page_label: str | None = None
    item: str | None = None
    fragment: str | None = None
    paragraph: int | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of text that the source sets off from the next one.

    The text need not be canonical yet. Blocks without anything but white space are dropped by the assembler, and
    count nonetheless where an `OutlineEntry` names a block by its index.
    """

    text: str
    kind: BlockKind = "paragraph"
    level: int | None = None
    """Of a heading, 1 for the outermost; of a list item, its depth from 1."""
    place: PlaceRef | None = None
    """Where the block begins. None: where the block before it does."""
    number: int | None = None
    """Of a heading, the chapter's own number where the source states it."""
    breaks: tuple[tuple[int, PlaceRef], ...] = ()
    """Where the block runs on in another place (the next page): code points into `text`, rising."""
    left_out: LeftOutCause | None = None
    """Why the block is kept but not read; running heads and page numbers need not say so again."""
    detail: str = ""
    """To a person, what is left out: "Project Gutenberg header"."""
    tight: bool = False
    """True where only a line break, no blank line, parts the block from the one before: rows, short list items."""


@dataclass(frozen=True, slots=True)
class OutlineEntry:
    """An entry of the source's own table of contents: a section that opens at a block."""

    title: str
    level: int
    """1 for the outermost."""
    block: int
    """Index into `RawText.blocks`."""
    number: int | None = None
    kind: SectionKind | None = None
    """None: to be told from the title and the level."""


@dataclass(frozen=True, slots=True)
class RawText:
    """The text of a file with what the file itself says of its structure."""

    blocks: tuple[Block, ...]
    """In reading order."""
    media_type: str
    title: str | None = None
    language: str | None = None
    """ISO 639-1, as the file declares it; None: to be guessed from the text."""
    encoding: str = "utf-8"
    """What the text was decoded from."""
    outline: tuple[OutlineEntry, ...] = ()
    """In order of their blocks. Empty: sections come from the headings among the blocks, or from the text."""
    method: str = ""
    """How `outline` was found: "outline" (PDF), "nav" or "ncx" (EPUB)."""
    warnings: tuple[str, ...] = ()
    """What a reader should know, a sentence each: parts that are missing, encrypted, deleted or damaged."""
    left_out: tuple[str, ...] = ()
    """What was in the file and is in no block, a phrase each: "12 pictures", "2 scripts"."""


class FormatReader(Protocol):
    """Reads one kind of file; what entry points of the group `coa.readers` have to name.

    Raises DocumentError, DocumentEmpty or DocumentTooLarge and nothing else, whatever the bytes are; messages
    begin with `name`.
    """

    def __call__(self, data: bytes, *, name: str, limits: ReadingLimits) -> RawText: ...
