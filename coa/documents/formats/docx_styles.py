"""What paragraph styles and numberings of a Word document mean for its text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from coa.documents.formats.tags import list_marker, local_name
from coa.documents.formats.trees import Element
from coa.documents.formats.xml import attribute

__all__ = ["Numbering", "ParagraphStyle", "Styles", "child", "value"]

# Word names its built-in styles in English inside the file; other programs and old files do so in their language.
_HEADING = re.compile(
    r"(?:heading|überschrift|berschrift|titre|encabezado|título|ttulo|titulo|titolo|kop|rubrik|overskrift|otsikko"
    r"|nagłówek|nagwek|nadpis|címsor|başlık|заголовок|επικεφαλίδα|标题|標題|見出し|제목)\s?_?(?P<level>[1-9])",
    re.IGNORECASE,
)
_TITLE = frozenset({"title", "titel", "título", "titolo", "tytuł", "rubrik", "заголовок документа", "标题", "表題"})
_BODY_LEVEL = 9
_DEEPEST_STYLE = 20
_FORMATS = {
    "lowerLetter": "a", "upperLetter": "A", "lowerRoman": "i", "upperRoman": "I",
}  # fmt: skip
_PLACE = re.compile(r"%([1-9])")


def child(element: Element | None, *path: str) -> Element | None:
    """The element that `path`, names without namespaces, leads to; None where there is none."""
    for name in path:
        if element is None:
            return None
        element = next((c for c in element if local_name(c) == name.lower()), None)
    return element


def value(element: Element | None, *path: str) -> str:
    """The w:val of the element that `path` leads to; "" where there is none."""
    found = child(element, *path)
    return "" if found is None else attribute(found, "val")


class ParagraphStyle(NamedTuple):
    """A style with what it takes over from those that it is based on."""

    level: int | None = None
    """Of a heading, from 1."""
    is_title: bool = False
    number: tuple[str, int] | None = None
    """Id and level of the numbering."""


class Styles:
    """The paragraph styles of a document, by their ids."""

    def __init__(self, root: Element | None) -> None:
        self._elements: dict[str, Element] = {}
        self._found: dict[str, ParagraphStyle] = {}
        for style in root if root is not None else ():
            if local_name(style) == "style" and attribute(style, "type") in ("paragraph", ""):
                self._elements[attribute(style, "styleId")] = style

    def of(self, identity: str) -> ParagraphStyle:
        """The style `identity`; one that means nothing where it is not defined."""
        if identity not in self._found:
            self._found[identity] = self._read(identity)
        return self._found[identity]

    def _read(self, identity: str) -> ParagraphStyle:
        level: int | None = None
        number: tuple[str, int] | None = None
        own = True
        is_title = False
        for style_id, style in self._chain(identity):
            name = value(style, "name") if style is not None else ""
            outline = value(style, "pPr", "outlineLvl")
            match = _HEADING.fullmatch(name.strip()) or _HEADING.fullmatch(style_id)
            if level is None and outline.isdecimal():
                level = int(outline) + 1
            elif level is None and match:
                level = int(match["level"])
            is_title = is_title or (own and name.strip().lower() in _TITLE)
            if number is None:
                number = numbering_of(child(style, "pPr"))
            own = False
        if level is not None and level > _BODY_LEVEL:
            level = None
        return ParagraphStyle(level, is_title and level is None, number)

    def _chain(self, identity: str) -> Iterator[tuple[str, Element | None]]:
        for _ in range(_DEEPEST_STYLE):
            style = self._elements.get(identity)
            yield identity, style
            identity = value(style, "basedOn")
            if not identity:
                return


def numbering_of(properties: Element | None) -> tuple[str, int] | None:
    """Id and level of the numbering that paragraph properties name; None where they name none."""
    holder = child(properties, "numPr")
    identity = value(holder, "numId")
    if not identity:
        return None
    level = value(holder, "ilvl")
    return identity, int(level) if level.isdecimal() and len(level) == 1 else 0


@dataclass(slots=True)
class _Level:
    start: int = 1
    format: str = "decimal"
    text: str = ""


@dataclass(slots=True)
class _List:
    """One numbering's levels, and how far its paragraphs have counted."""

    levels: dict[int, _Level] = field(default_factory=dict)
    counters: dict[int, int] = field(default_factory=dict)


class Numbering:
    """Counts the numbered paragraphs of a document as Word does."""

    def __init__(self, root: Element | None) -> None:
        abstract: dict[str, _List] = {}
        self._lists: dict[str, _List] = {}
        self._restarts: dict[str, dict[int, int]] = {}
        for element in root if root is not None else ():
            name = local_name(element)
            if name == "abstractnum":
                levels = dict(_level(lvl) for lvl in element if local_name(lvl) == "lvl")
                abstract[attribute(element, "abstractNumId")] = _List(levels)
            elif name == "num":
                base = abstract.get(value(element, "abstractNumId"))
                if base is not None:
                    self._add(attribute(element, "numId"), element, base)

    def _add(self, identity: str, element: Element, base: _List) -> None:
        restarts: dict[int, int] = {}
        levels = dict(base.levels)
        for override in element:
            if local_name(override) != "lvloverride":
                continue
            at = attribute(override, "ilvl")
            start = value(override, "startOverride")
            if at.isdecimal() and start.isdecimal():
                restarts[int(at)] = int(start)
            if (own := child(override, "lvl")) is not None:
                levels |= dict([_level(own)])
        # Lists of one abstract numbering go on counting where the other left off.
        self._lists[identity] = base if levels == base.levels else _List(levels, base.counters)
        self._restarts[identity] = restarts

    def label(self, identity: str, level: int) -> str:
        """What stands before the next paragraph of that list and level: "3.", "1.2", "-"; "" where nothing does."""
        found = self._lists.get(identity)
        if found is None or (rule := found.levels.get(level)) is None:
            return "-" if identity != "0" and found is None else ""
        counters = found.counters
        restarts = self._restarts[identity]
        if level in restarts:
            counters[level] = restarts.pop(level)
        else:
            counters[level] = counters[level] + 1 if level in counters else rule.start
        for deeper in [k for k in counters if k > level]:
            del counters[deeper]
        if rule.format == "bullet":
            return "-"
        if rule.format == "none" and not rule.text:
            return ""

        def counted(match: re.Match[str]) -> str:
            at = int(match[1]) - 1
            other = found.levels.get(at, _Level())
            return _formatted(counters.get(at, other.start), other.format)

        return _PLACE.sub(counted, rule.text).strip()


def _level(element: Element) -> tuple[int, _Level]:
    at = attribute(element, "ilvl")
    start = value(element, "start")
    return (
        int(at) if at.isdecimal() else 0,
        _Level(
            start=int(start) if start.isdecimal() else 1,
            format=value(element, "numFmt") or "decimal",
            text=value(element, "lvlText"),
        ),
    )


def _formatted(number: int, style: str) -> str:
    if style == "none":
        return ""
    if style == "decimalZero":
        return f"{number:02}"
    return list_marker(_FORMATS.get(style, "1"), number).removesuffix(".")
