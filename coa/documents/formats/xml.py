"""XML from strangers: no entities, no external references, no huge trees."""

from __future__ import annotations

import re
from html.entities import html5

from coa.documents.formats.tags import local_name
from coa.documents.formats.trees import Element, etree

__all__ = ["attribute", "child_text", "elements", "parse_xml", "without_entities"]

_XML_ENTITIES = frozenset({"amp", "lt", "gt", "quot", "apos"})
_ENTITY = re.compile(r"&([A-Za-z][\w.-]{0,63});")


def parse_xml(data: bytes, *, encoding: str | None = None, recover: bool = False) -> Element | None:
    """The root of `data`; None where it is not well formed.

    With `recover` damage is passed over as far as possible. Entities that the document declares are not resolved,
    and trees deeper than 256 or with text nodes over 10 MB are not well formed to it.
    """
    parser = etree.XMLParser(
        encoding=encoding,
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        recover=recover,
    )
    try:
        root = etree.fromstring(data, parser)
        if recover and root is not None:
            # A lone surrogate passes a parser that recovers, and would raise wherever the text is touched.
            etree.tostring(root, encoding="unicode")
    except (etree.XMLSyntaxError, ValueError, LookupError):
        return None
    return root


def without_entities(text: str) -> str:
    """`text` with the named entities of HTML as the characters they stand for, and all others as plain text."""
    if "&" not in text:
        return text
    return _ENTITY.sub(_resolved, text)


def _resolved(match: re.Match[str]) -> str:
    name = match[1]
    if name in _XML_ENTITIES:
        return match[0]
    known = html5.get(f"{name};")
    if known is None:
        return f"&amp;{name};"
    return known.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def elements(root: Element, name: str) -> list[Element]:
    """The elements under `root` called `name` in whatever namespace, in document order."""
    return [e for e in root.iter() if local_name(e) == name]


def child_text(element: Element, name: str) -> str:
    """The text of the first element called `name` under `element`, on one line; "" where there is none."""
    found = next((e for e in element.iter() if local_name(e) == name), None)
    return "" if found is None else " ".join("".join(found.itertext()).split())


def attribute(element: Element, name: str) -> str:
    """The attribute called `name` in whatever namespace; "" where there is none."""
    value = element.get(name)
    if value is None:
        value = next((v for k, v in element.attrib.items() if str(k).rpartition("}")[2] == name), "")
    return str(value)
