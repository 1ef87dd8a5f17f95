"""An outline as text, Markdown and JSON values."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from coa.agents.outline import Outline, OutlineNode
from coa.types import Document, Place

__all__ = ["OUTLINE_SCHEMA_VERSION", "opening", "outline_to_json", "outline_to_markdown", "outline_to_text"]

OUTLINE_SCHEMA_VERSION = 1
"""Of the JSON; additive changes leave it as it is."""

_OPENING_CHARS = 70
_LOOKED_AT = 400
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&-])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def outline_to_text(outline: Outline, document: Document) -> str:
    """An indented list: number, title, sentences, and how the text begins there."""
    lines = [_heading(outline), ""]
    for node in outline.walk():
        indent = "  " * node.number.count(".")
        n = f"{node.n_sentences} sentence{'s' if node.n_sentences != 1 else ''}"
        where = _where(node, document)
        lines.append(f"{indent}{node.number} {_plain(node.title)} ({n}{', ' + where if where else ''})")
        if node.spans and node.kind != "chapter":
            lines.append(f"{indent}{' ' * len(node.number)} “{opening(document, node)}”")
    return "\n".join(lines) + "\n"


def outline_to_markdown(outline: Outline, document: Document) -> str:
    """Chapters as headings, aspects as a nested list, each linked to its place in the source file.

    Plain text is linked by character offsets (RFC 5147), PDF by page, archives by the file inside.
    """
    lines = [f"# {_escaped(_heading(outline))}", ""]
    for node in outline.walk():
        depth = node.number.count(".")
        link = f"[{_escaped(node.title)}]({_target(outline, node, document)})"
        chapters = _depth_of_chapters(outline, node)
        if node.kind == "chapter":
            lines += ["", f"{'#' * min(6, depth + 2)} {node.number} {link}", ""]
        else:
            said = f": {_escaped(opening(document, node))}" if node.spans else ""
            lines.append(f"{'    ' * (depth - chapters)}- **{node.number}** {link}{said}")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def outline_to_json(outline: Outline, document: Document) -> dict[str, Any]:
    """JSON values: the tree with offsets into the canonical text (code points, half-open)."""
    return {
        "schema_version": OUTLINE_SCHEMA_VERSION,
        "document": outline.document,
        "document_sha256": outline.document_sha256,
        "title": outline.title,
        "n_sentences": outline.n_sentences,
        "plain_chunks": list(outline.plain),
        "nodes": [_node_to_json(n, document) for n in outline.nodes],
    }


def opening(document: Document, node: OutlineNode) -> str:
    """How the text begins at the node, on one line, shortened at a word; a heading that is all it begins with goes."""
    text = _plain(document.text[node.span.start : min(node.span.end, node.span.start + _LOOKED_AT)])
    section = document.section_at(node.span.start)
    heading = _plain(section.title) if section is not None else ""
    text = text.lstrip("# ").removeprefix(heading).strip() or text
    if len(text) <= _OPENING_CHARS:
        return text
    cut = text[:_OPENING_CHARS]
    return (cut.rsplit(" ", 1)[0] if " " in cut else cut) + " …"


def _node_to_json(node: OutlineNode, document: Document) -> dict[str, Any]:
    place = document.place_at(node.span.start)
    values: dict[str, Any] = {
        "id": node.id,
        "number": node.number,
        "kind": node.kind,
        "title": node.title,
        "origin": node.origin,
        "start": node.span.start,
        "end": node.span.end,
        "spans": [[s.start, s.end] for s in node.spans],
        "n_sentences": node.n_sentences,
        "page": place.page if place is not None else None,
    }
    if node.statements:
        values["statements"] = [{"text": s.text, "start": s.span.start, "end": s.span.end} for s in node.statements]
    return {**values, "nodes": [_node_to_json(n, document) for n in node.nodes]}


def _heading(outline: Outline) -> str:
    name = _plain(outline.title or outline.document)
    return f"Outline of {name}: {outline.n_sentences} sentences"


def _where(node: OutlineNode, document: Document) -> str:
    place = document.place_at(node.span.start)
    if place is None:
        return ""
    page = place.page_label or place.page
    return f"page {page}" if page is not None else place.item or ""


def _target(outline: Outline, node: OutlineNode, document: Document) -> str:
    place = document.place_at(node.span.start)
    name = quote(outline.document)
    if place is not None:
        return f"{name}#{_fragment(place)}"
    if outline.media_type.startswith("text/") and outline.media_type != "text/html":
        return f"{name}#char={node.span.start},{node.span.end}"
    return name


def _fragment(place: Place) -> str:
    if place.page is not None:
        return f"page={place.page}"
    if place.item is not None:
        return quote(place.item) + (f"#{quote(place.fragment)}" if place.fragment else "")
    return f"paragraph={place.paragraph}"


def _depth_of_chapters(outline: Outline, node: OutlineNode) -> int:
    """How many of the nodes above are chapters."""
    depth = 0
    nodes = outline.nodes
    for part in node.number.split(".")[:-1]:
        above = nodes[int(part) - 1]
        depth += above.kind == "chapter"
        nodes = above.nodes
    return depth


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", _plain(text))


def _plain(text: str) -> str:
    """`text` on one line, without what a terminal would act on."""
    return _CONTROL.sub("", " ".join(text.split()))
